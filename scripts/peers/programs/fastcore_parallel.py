"""fastcore's parallel maps, in processes and threads."""

import time

from fastcore.parallel import parallel, startproc, threaded


def add(number, to=1):
    return number + to


def fail(number):
    if number == 3:
        raise ValueError("no threes")
    return number


@threaded(process=True)
def apart(number):
    time.sleep(0.01 * number)


def main():
    wanted = list(range(1, 31))
    for method in ("fork", "spawn", "forkserver"):
        assert list(parallel(add, range(30), n_workers=2, method=method)) == wanted
        assert list(parallel(add, range(30), n_workers=2, chunksize=7, method=method, to=1)) == wanted
        # The pause is kept by a manager's lock.
        assert list(parallel(add, range(30), n_workers=2, pause=0.001, method=method)) == wanted
        got = parallel(fail, range(5), n_workers=2, return_exceptions=True, method=method)
        assert [type(item) for item in got] == [int, int, int, ValueError, int]
    assert list(parallel(add, range(30), n_workers=2, threadpool=True)) == wanted
    process = apart(4)
    process.join()
    assert process.exitcode == 0

    @startproc
    def other():
        raise SystemExit(5)

    other.join()
    assert other.exitcode == 5


if __name__ == "__main__":
    main()
