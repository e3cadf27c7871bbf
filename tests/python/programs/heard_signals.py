"""Workers of a pool that is terminated end by their own handler for SIGTERM, and in order."""

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing import util


def on_term(number, frame):
    sys.exit(7)


def arrange(line):
    signal.signal(signal.SIGTERM, on_term)
    util.Finalize(None, os.write, args=(line.fileno(), b"e"), exitpriority=-1)


def main(method):
    ctx = multiprocessing.get_context(method)
    for pause in (0, 0, 0, 0.002, 0.05, 0.2):
        here, there = ctx.Pipe()
        pool = ctx.Pool(1, arrange, (there,))
        there.close()
        pool.map(abs, range(4))
        time.sleep(pause)
        workers = list(pool._pool)
        pool.terminate()
        pool.join()
        assert [worker.exitcode for worker in workers] == [7], (pause, [worker.exitcode for worker in workers])
        assert os.read(here.fileno(), 10) == b"e"


if __name__ == "__main__":
    main(sys.argv[1])
