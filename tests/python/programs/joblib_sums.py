"""joblib as in its documentation, with the backend that uses multiprocessing."""

import os
import sys
import tempfile

import numpy as np
from joblib import Parallel, delayed
from joblib._parallel_backends import MultiprocessingBackend
from joblib.pool import MemmappingPool


def total(block):
    return float(block.sum())


def root(value):
    return value**0.5


def fill(block, place):
    block[place] = place + 1


if __name__ == "__main__":
    assert MemmappingPool.__mro__[2].map.__module__.startswith(sys.argv[1]), MemmappingPool.__mro__
    assert MultiprocessingBackend.supports_timeout
    with Parallel(n_jobs=2, backend="multiprocessing") as parallel:
        print(parallel(delayed(root)(number**2) for number in range(20)))
        # Over a megabyte: joblib maps it from a file.
        print(parallel(delayed(total)(np.full(200_000, number)) for number in range(4)))
    with tempfile.TemporaryDirectory() as folder:
        # Workers write into the caller's own file.
        shared = np.memmap(os.path.join(folder, "numbers"), dtype=float, shape=5, mode="w+")
        Parallel(n_jobs=2, backend="multiprocessing")(delayed(fill)(shared, place) for place in range(5))
        print(shared.tolist())
    try:
        Parallel(n_jobs=2, backend="multiprocessing")(delayed(root)(text) for text in ["a"])
    except TypeError as error:
        print("TypeError", str(error)[:20])
