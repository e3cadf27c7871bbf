"""A library starts a plain interpreter of its own, as loky does, and hands it the ends of a queue in a pickle."""

import io
import multiprocessing
import pickle
import subprocess
import sys
from multiprocessing import context, reduction


class Descriptor:
    def __init__(self, fd):
        self.fd = fd

    def detach(self):
        return self.fd


class Starter:
    """Replaces the library's Popen while the pickle is made."""

    DupFd = Descriptor

    def __init__(self):
        self.fds = []

    def duplicate_for_child(self, fd):
        self.fds.append(fd)
        return fd


def hand_over(reader, writer):
    starter, pickled = Starter(), io.BytesIO()
    context.set_spawning_popen(starter)
    try:
        reduction.dump((reader, writer), pickled)
    finally:
        context.set_spawning_popen(None)
    line = [sys.executable, __file__, "child"]
    subprocess.run(line, input=pickled.getvalue(), pass_fds=starter.fds, check=True, timeout=60)


def be_the_child():
    assert multiprocessing.__spec__.name == multiprocessing.__name__ == "multiprocessing"
    reader, writer = pickle.load(sys.stdin.buffer)
    writer.send(reader.recv() * 2)


def main():
    tasks, results = multiprocessing.SimpleQueue(), multiprocessing.SimpleQueue()
    tasks.put(21)
    hand_over(tasks._reader, results._writer)
    print("queue", results.get())
    there, here = multiprocessing.Pipe()
    here.send(22)
    hand_over(there, there)
    print("pipe", here.recv())


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        be_the_child()
    else:
        main()
