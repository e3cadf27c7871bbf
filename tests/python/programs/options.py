"""Prints what options this interpreter has, a child of the start method named on the command line, and each helper process."""

import multiprocessing
import sys
from multiprocessing import forkserver, resource_tracker
from pathlib import Path


def options():
    checks = sys.modules["_imp"].check_hash_based_pycs
    return sorted(sys._xoptions.items()), list(sys.flags), sys.warnoptions, sys.stdout.write_through, checks


def words(pid):
    """The words of a process's command line before its program."""
    line = Path(f"/proc/{pid}/cmdline").read_text("utf-8").split("\0")
    return line[1 : line.index("-c")]


def tell(queue):
    queue.put(options())


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.SimpleQueue()
    process = context.Process(target=tell, args=(queue,))
    process.start()
    print(options())
    print(queue.get())
    process.join()
    print(words(resource_tracker._resource_tracker._pid))
    if sys.argv[1] == "forkserver":
        print(words(forkserver._forkserver._forkserver_pid))
