"""Makes and ends pools in the tests' own process; functions for their workers."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import psutil

METHODS = ("fork", "spawn", "forkserver")
POOL_KINDS = (*METHODS, "thread")


def make_pool(mp: ModuleType, kind: str, processes: int | None, **options: Any) -> Any:
    if kind == "thread":
        return importlib.import_module(f"{mp.__name__}.pool").ThreadPool(processes, **options)
    return mp.get_context(kind).Pool(processes, **options)


def end_pool(pool: Any, patience: float = 20.0) -> None:
    """Terminate and join; if that hangs, end its processes and fail, so that the run continues."""

    def end() -> None:
        pool.terminate()
        pool.join()

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(patience)
    if ending.is_alive():
        for worker in psutil.Process().children(recursive=True):
            worker.kill()
        raise AssertionError(f"terminate() and join() took more than {patience:g} s")


@contextmanager
def interrupted(after: float = 0.2) -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the first thread, as Ctrl-C does, in so many seconds."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(after, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def in_thread(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Start a thread that makes a call; the list receives its result or exception."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def identity(value: object) -> object:
    return value


def square(number: int) -> int:
    return number * number


def add(one: int, two: int, more: int = 0) -> int:
    return one + two + more


def fail(error: BaseException) -> None:
    raise error


def fail_at(job: tuple[int, int]) -> int:
    item, bad = job
    if item == bad:
        raise ValueError(f"item {item}")
    return item


def pid(_: object = None) -> int:
    return os.getpid()


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def touch_numbered(folder: str, number: int) -> None:
    open(os.path.join(folder, str(number)), "x").close()


def nested_death(_: object = None) -> None:
    """Run a separate pool, whose worker dies."""
    mp = importlib.import_module("maniple")
    with mp.Pool(1) as pool:
        pool.apply(os._exit, (7,))


def wait_for_file(path: str, patience: float = 20.0) -> bool:
    """Wait until `path` exists: so a test holds a worker as long as it needs."""
    deadline = time.monotonic() + patience
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def eventually(condition: Callable[[], Any]) -> None:
    """Wait for a condition. The test's time-out ends an endless wait."""
    while not condition():
        time.sleep(0.01)


_stored: object = None


def store(value: object) -> None:
    """An initializer."""
    global _stored
    _stored = value


def stored(_: object = None) -> object:
    return _stored
