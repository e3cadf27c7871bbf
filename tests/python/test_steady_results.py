"""A signal handler that raises several thousand times a second: a pool returns each result once, and continues."""

from __future__ import annotations

import importlib
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from pools import end_pool, identity, make_pool

# The interpreter reports an exception of a handler in a finalizer or a weak reference's callback, and continues.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Again(Exception):
    """The exception of the handler."""


class Alarms:
    """Raises `Again` every 0.4 ms, while it is armed."""

    def __init__(self) -> None:
        self.armed, self.raised = False, 0

    def __call__(self, *_: object) -> None:
        if self.armed:
            self.armed = False
            self.raised += 1
            raise Again


@contextmanager
def alarms() -> Iterator[Alarms]:
    made = Alarms()
    before = signal.signal(signal.SIGALRM, made)
    signal.setitimer(signal.ITIMER_REAL, 0.0004, 0.0004)
    try:
        yield made
    finally:
        made.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


KINDS = pytest.mark.parametrize("kind", ["fork", "thread", "queues"])
WAYS = pytest.mark.parametrize("way", ["imap", "imap_unordered"])
CHUNKS = pytest.mark.parametrize("chunksize", [1, 7])


@contextmanager
def pool_of(mp: ModuleType, kind: str) -> Iterator[Any]:
    if kind == "queues":
        module = importlib.import_module(f"{mp.__name__}.pool")
        # The class overrides an inner method of the standard pool, so its pool is a pool of queues.
        made = type("Pool", (module.Pool,), {"_setup_queues": lambda pool: super(type(pool), pool)._setup_queues()})
        pool = made(2, context=mp.get_context("fork"))
    else:
        pool = make_pool(mp, kind, 2)
    try:
        yield pool
    finally:
        end_pool(pool)


def until(end: float) -> None:
    assert time.monotonic() < end, "the results do not come"


@KINDS
@WAYS
@CHUNKS
def test_a_loop_over_results_loses_none(mp: ModuleType, kind: str, way: str, chunksize: int) -> None:
    count = 6000 * chunksize
    with pool_of(mp, kind) as pool:
        results = iter(getattr(pool, way)(identity, map(int, range(count)), chunksize))
        seen: list[int] = []
        end = time.monotonic() + 60
        with alarms() as alarm:
            while True:
                try:
                    alarm.armed = True
                    for result in results:
                        alarm.armed = False
                        seen.append(result)
                        alarm.armed = True
                    alarm.armed = False
                    break
                except Again:
                    until(end)
        assert alarm.raised
        assert (seen if way == "imap" else sorted(seen)) == list(range(count))


@KINDS
@WAYS
@CHUNKS
def test_next_loses_no_more_than_the_interpreter_does(mp: ModuleType, kind: str, way: str, chunksize: int) -> None:
    """The interpreter may run a handler between the end of a call and the assignment of its result."""
    count = 6000 * chunksize
    with pool_of(mp, kind) as pool:
        results = getattr(pool, way)(identity, map(int, range(count)), chunksize)
        seen: list[int] = []
        end = time.monotonic() + 60
        with alarms() as alarm:
            while True:
                try:
                    alarm.armed = True
                    result = next(results)
                    alarm.armed = False
                except Again:
                    until(end)
                    continue
                except StopIteration:
                    alarm.armed = False
                    break
                seen.append(result)
        assert len(set(seen)) == len(seen) and set(seen) <= set(range(count))
        assert count - len(seen) <= 3 + alarm.raised / 5
        assert way != "imap" or seen == sorted(seen)


@KINDS
@pytest.mark.parametrize("called", [False, True], ids=["", "with a callback"])
def test_the_next_get_returns_an_interrupted_result(mp: ModuleType, kind: str, called: bool) -> None:
    heard: list[Any] = []
    with pool_of(mp, kind) as pool, alarms() as alarm:
        end = time.monotonic() + 60
        for number in range(150):
            result = pool.map_async(identity, range(number, number + 9), 2, callback=heard.append if called else None)
            while True:
                try:
                    alarm.armed = True
                    got = result.get(20)
                    alarm.armed = False
                    break
                except Again:
                    until(end)
            assert got == list(range(number, number + 9))
        assert alarm.raised
    assert len(heard) == (150 if called else 0)


def fail(number: int) -> int:
    raise ValueError(number)


@pytest.mark.parametrize("kind", ["fork", "thread"])
@CHUNKS
def test_failed_items_leave_room_for_later_items(mp: ModuleType, kind: str, chunksize: int) -> None:
    with pool_of(mp, kind) as pool:
        results = pool.imap(fail, map(int, range(3000)), chunksize, buffersize=20)
        failures = 0
        done = threading.Event()

        def take() -> None:
            nonlocal failures
            while True:
                try:
                    next(results)
                except ValueError:
                    failures += 1
                except StopIteration:
                    break
            done.set()

        threading.Thread(target=take, daemon=True).start()
        assert done.wait(60), f"no more after {failures} failures"
        assert failures == -(-3000 // chunksize)
