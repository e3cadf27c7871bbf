"""joblib over arrays that it turns into memory maps, with both of its backends: one memory, right values."""

import os
import tempfile

import joblib
import numpy as np


def total(array, row):
    return float(array[row].sum())


def fill(out, row):
    out[row] = row


def main():
    big = np.arange(2_000_000, dtype=float).reshape(20, -1)
    wanted = [float(row.sum()) for row in big]
    for backend in ("loky", "multiprocessing", "threading"):
        for limit in (None, 1000, "1M"):
            work = joblib.Parallel(n_jobs=2, backend=backend, max_nbytes=limit)
            got = work(joblib.delayed(total)(big, row) for row in range(20))
            assert got == wanted, (backend, limit)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "values.mmap")
            joblib.dump(np.arange(1.0, 6.0), path)
            values = joblib.load(path, mmap_mode="r")
            got = joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(total)(values, n) for n in range(5))
            assert got == [1, 2, 3, 4, 5], (backend, got)
            out = np.memmap(os.path.join(folder, "out.mmap"), shape=20, mode="w+", dtype=float)
            joblib.Parallel(n_jobs=2, backend=backend)(joblib.delayed(fill)(out, row) for row in range(20))
            assert out.tolist() == list(range(20)), (backend, out)


if __name__ == "__main__":
    main()
