"""A pool whose class makes the queues, as joblib's does; nothing is to be warned of."""

import multiprocessing
import warnings
from multiprocessing.pool import Pool


class OwnQueues(Pool):
    def _setup_queues(self):
        self._inqueue, self._outqueue = self._ctx.SimpleQueue(), self._ctx.SimpleQueue()
        self._quick_put, self._quick_get = self._inqueue._writer.send, self._outqueue._reader.recv


def main():
    warnings.simplefilter("error")
    with OwnQueues(2, context=multiprocessing.get_context("fork")) as pool:
        print(pool.map(abs, [-1, 2, -3]))


if __name__ == "__main__":
    main()
