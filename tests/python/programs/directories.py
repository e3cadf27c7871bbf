"""Whether children are where their parent is, which takes its own directory away; the first argument names the start method."""

import os
import sys

import maniple as multiprocessing


def place():
    """Return the known facts about the current directory, and whether files of another directory are found in it."""
    try:
        name = os.getcwd()
    except OSError as error:
        name = error.errno
    try:
        return name, os.path.exists("mark"), os.listdir()
    except OSError as error:
        return name, os.path.exists("mark"), type(error)


def tell(queue):
    queue.put(place())


if __name__ == "__main__":
    method, state, *before = sys.argv[1:]
    context = multiprocessing.get_context(method)
    here = os.getcwd()
    if not before:  # the fork server is started in another directory, where there is a file
        os.chdir("..")
        with open("mark", "w"), context.Pool(1) as pool:
            pool.apply(place)
        os.chdir(here)
    if state == "removed":
        os.rmdir(here)
    else:
        os.chmod(here, 0)
    queue = context.SimpleQueue()
    for _ in range(2):
        process = context.Process(target=tell, args=(queue,))
        process.start()
        print(queue.get() == place())
        process.join()
    with context.Pool(2) as pool:
        print(*(there == place() for there in pool.map(lambda item: place(), range(1))))
    print(multiprocessing.active_children() == [])
    if state == "locked":
        os.chdir("/")
        os.chmod(here, 0o700)
