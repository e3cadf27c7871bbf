"""fastcore's parallel maps, in processes and threads."""

import time

from fastcore.parallel import parallel, parallel_gen, threaded


def add(number, to=1):
    return number + to


class Slow:
    def __call__(self, batch):
        for item in batch:
            time.sleep(0.01)
            yield item * 2


@threaded(process=True)
def apart(number):
    return number * 2


def main():
    for threadpool in (False, True):
        got = parallel(add, range(50), n_workers=2, to=3, threadpool=threadpool, progress=False)
        assert list(got) == list(range(3, 53))
    assert list(parallel(add, range(50), n_workers=2, chunksize=5, progress=False)) == list(range(1, 51))
    assert sorted(parallel_gen(Slow, range(20), n_workers=2)) == [(n, 2 * n) for n in range(20)]
    process = apart(4)
    process.join()
    assert process.exitcode == 0


if __name__ == "__main__":
    main()
