"""A program that knows nothing of maniple: pools, executors and processes, in the start method named on the command line."""

import logging
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from multiprocessing.pool import ThreadPool


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and other.x == self.x


def packages(_=None):
    """The top-level names of all modules that a program can get hold of, and what classes of theirs say."""
    import concurrent.futures.process as executors
    import multiprocessing.connection as connection
    import multiprocessing.queues

    modules = [multiprocessing, multiprocessing.queues, connection, executors.mp, sys.modules["multiprocessing"]]
    classes = shared_memory.SharedMemory, ThreadPool, type(multiprocessing.get_context())
    modules += [sys.modules[cls.__module__] for cls in classes]
    return sorted({module.__name__.partition(".")[0] for module in modules}), sorted(
        {cls.__module__ for cls in classes}
    )


def twice(point):
    return Point(2 * point.x)


def child(queue):
    def grandchild():
        queue.put(("grandchild", packages()))

    queue.put((multiprocessing.current_process().name, packages()))
    if multiprocessing.get_start_method() == "fork":
        deeper = multiprocessing.Process(target=grandchild)
        deeper.start()
        deeper.join()
    record = logging.LogRecord("some", logging.INFO, __file__, 1, "text", (), None)
    queue.put((record.processName == multiprocessing.current_process().name, __name__))


if __name__ == "__main__":
    method = sys.argv[1]
    multiprocessing.set_start_method(method)
    print("here", packages())
    with multiprocessing.Pool(2) as pool:
        print("pool", pool.map(packages, range(1)), pool.map(twice, [Point(1)]) == [Point(2)])
    with ProcessPoolExecutor(1) as executor:
        print("executor", executor.submit(packages).result(), executor.submit(twice, Point(2)).result() == Point(4))
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=child, args=(queue,))
    process.start()
    for _ in range(3 if method == "fork" else 2):
        print("process", *queue.get())
    process.join()
    print("exit code", process.exitcode)
    sys.exit(7)
