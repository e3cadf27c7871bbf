"""What runs inside the workers."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

# How a process ends itself, and the exit code which its parent then sees.
WAYS_TO_DIE = {
    "sigkill": -signal.SIGKILL,
    "sigsegv": -signal.SIGSEGV,
    "null_pointer": -signal.SIGSEGV,
    "abort": -signal.SIGABRT,
    "sigterm": -signal.SIGTERM,
    "exit_3": 3,
    "exit_0": 0,
}


def die(way: str) -> None:
    if way.startswith("sig"):
        os.kill(os.getpid(), getattr(signal, way.upper()))
        time.sleep(5)
    elif way == "null_pointer":
        ctypes.string_at(0)
    elif way == "abort":
        os.abort()
    os._exit(int(way.rpartition("_")[2]))


def note(log: str, text: object) -> None:
    """Add one line to `log`; O_APPEND keeps lines of several processes whole."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


def step(job: tuple[str, int, str]) -> int:
    """Note that the item runs, then do what its third part says; the result is ten times the item."""
    log, item, act = job
    note(log, item)
    if act:
        die(act)
    return item * 10


def step3(log: str, item: int, act: str) -> int:
    return step((log, item, act))


def identity(value: object) -> object:
    return value


def worker_pid(_: object = None) -> int:
    return os.getpid()


def announce(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()


def announce_and_sleep(folder: str) -> None:
    """Leave a file named after this process in `folder`, then stay busy for a minute."""
    announce(folder)
    time.sleep(60)


def announce_and_spin(folder: str) -> None:
    announce(folder)
    while True:
        pass


def announce_and_hold_the_interpreter(folder: str) -> None:
    """Stay in one C loop that never lets another thread of this process run."""
    announce(folder)
    sum(range(10**13))


def announce_and_ignore_sigterm(folder: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    announce_and_sleep(folder)


def meet(folder: str, expected: int, patience: float = 10.0) -> int:
    """Wait until `expected` processes are in this function at once; returns the pid, or 0."""
    announce(folder)
    deadline = time.monotonic() + patience
    while len(os.listdir(folder)) < expected:
        if time.monotonic() > deadline:
            return 0
        time.sleep(0.005)
    return os.getpid()


def print_and_die(lines: list[str], way: str) -> None:
    """Half of the lines through Python's stderr, half past it, then the end."""
    for number, line in enumerate(lines):
        if number % 2:
            sys.stderr.flush()
            os.write(2, f"{line}\n".encode())
        else:
            print(line, file=sys.stderr)
    sys.stderr.flush()
    if way:
        die(way)


def close_every_descriptor(_: object = None) -> None:
    os.closerange(3, 4096)


def raise_it(error: BaseException) -> None:
    raise error


def call(function) -> object:
    return function()


def fill(job: tuple[str, str, int, int]) -> bytes:
    """A result of `size` bytes, each the item's number."""
    log, folder, item, size = job
    announce(folder)
    note(log, item)
    return bytes([item]) * size
