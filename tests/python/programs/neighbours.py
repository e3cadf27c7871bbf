"""The standard package's queue and lock, given to a child of maniple's."""

import multiprocessing
import sys

import maniple


def work(queue, lock):
    with lock:
        queue.put("x" * 300_000)  # more than a pipe holds: flushed by the queue's own thread, at the child's end
    queue.put(maniple.current_process().name)


if __name__ == "__main__":
    theirs, ours = multiprocessing.get_context(sys.argv[1]), maniple.get_context(sys.argv[1])
    queue, lock = theirs.Queue(), theirs.Lock()
    queue.put("started here")  # so that the queue's thread runs when the child is forked
    assert queue.get() == "started here"
    process = ours.Process(target=work, args=(queue, lock), name="child of ours")
    process.start()
    print(len(queue.get()), queue.get())
    process.join()
    print(process.exitcode)
