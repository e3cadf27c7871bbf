"""README's example and a bit more, as a program to be frozen; the environment says which package, start method and variant."""

import importlib
import os
import time

# Each process that runs this file leaves a line.
with open(os.environ["FROZEN_COUNT"], "a") as count:
    count.write("start\n")

if os.environ["FROZEN_PACKAGE"] == "alias":
    from maniple._impl.run import alias as _alias

    _alias.install()
    import multiprocessing
else:
    multiprocessing = importlib.import_module(os.environ["FROZEN_PACKAGE"])

from multiprocessing import shared_memory  # noqa: E402  # the standard package's, so that it is in the build


def f(x):
    return x * x


def put(queue, item):
    queue.put(item)


if __name__ == "__main__":
    if os.environ["FROZEN_VARIANT"] != "without":
        multiprocessing.freeze_support()
    multiprocessing.set_start_method(os.environ["FROZEN_METHOD"])
    with multiprocessing.Pool(2) as pool:
        print(pool.map(f, [1, 2, 3]))
        pool.close()
        pool.join()
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=put, args=(queue, "item"))
    process.start()
    print(queue.get(timeout=20))
    process.join()
    with multiprocessing.Manager() as manager:
        print(manager.list([1, 2]))
    memory = importlib.import_module(f"{multiprocessing.Process.__module__.partition('.')[0]}.shared_memory")
    block = memory.SharedMemory(create=True, size=10)
    block.close()
    block.unlink()
    print(shared_memory.__name__ != "", process.exitcode)
    time.sleep(1)  # the resource tracker was started last, and is to be counted
