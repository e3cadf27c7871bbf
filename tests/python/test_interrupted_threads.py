"""A signal handler interrupts callers of a pool of threads at any moment: its lock is free, its calls end, its results
are right."""

from __future__ import annotations

import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest


class Broken(Exception):
    pass


def square(number: int) -> int:
    return number * number


class Alarm:
    """Raises `Broken` in the call that it interrupts, at most once."""

    def __init__(self, seed: object) -> None:
        self.rng, self.armed, self.seen = random.Random(repr(seed)), False, 0

    def handle(self, *_: Any) -> None:
        if self.armed:
            self.armed = False
            self.seen += 1
            raise Broken

    def breaks(self, call: Callable[[], Any], within: float) -> tuple[bool, Any]:
        """Return whether the call returned, and its result."""
        try:
            try:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, self.rng.random() * within + 1e-6)
                result = call()
                self.armed = False
            finally:
                self.armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Broken:
            return False, None
        return True, result


@pytest.fixture
def alarm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alarm]:
    # Some handlers run in finalizers; pytest's own hook for those is Python code, in which handlers run too.
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: print(raised.exc_value))
    alarm = Alarm(request.node.name)
    before = signal.signal(signal.SIGALRM, alarm.handle)
    yield alarm
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def calls(pool: Any) -> list[tuple[Callable[[], Any], Any]]:
    return [
        (lambda: pool.map(square, range(20)), [number * number for number in range(20)]),
        (lambda: list(pool.imap(square, range(20), 3)), [number * number for number in range(20)]),
        (lambda: sorted(pool.imap_unordered(square, map(int, range(9)))), [number * number for number in range(9)]),
        (lambda: pool.apply(square, (7,)), 49),
        (lambda: pool.map_async(square, range(5), 2).get(), [0, 1, 4, 9, 16]),
    ]


@pytest.mark.better_than_standard("the lock of its queues stays held")
@pytest.mark.timeout(100)
def test_interrupted_calls_leave_the_pool_in_order(pool_module: ModuleType, alarm: Alarm) -> None:
    for _ in range(12):
        pool = pool_module.ThreadPool(2)
        for _ in range(30):
            for call, wanted in calls(pool):
                done, found = alarm.breaks(call, 0.0006)
                assert not done or found == wanted
            # Another thread uses the pool: the lock is free.
            found = []
            thread = threading.Thread(
                target=lambda pool=pool, found=found: found.append(pool.map(square, [1, 2, 3])), daemon=True
            )
            thread.start()
            thread.join(30)
            assert found == [[1, 4, 9]]
        pool.close()
        pool.join()
    assert alarm.seen > 50


@pytest.mark.better_than_standard("an end that was broken off cannot be repeated")
@pytest.mark.timeout(100)
@pytest.mark.parametrize("ends", [("close", "join"), ("terminate", "join"), ("close", "terminate", "join")])
def test_the_end_of_a_pool_can_be_repeated(pool_module: ModuleType, alarm: Alarm, ends: tuple[str, ...]) -> None:
    for _ in range(150):
        pool = pool_module.ThreadPool(2)
        result = pool.map_async(square, range(10), 1)
        for end in ends:
            while not alarm.breaks(getattr(pool, end), 0.0003)[0]:
                pass
        assert not any(thread.is_alive() for thread in pool._pool)
        if "terminate" not in ends:
            assert result.get(30) == [number * number for number in range(10)]
    assert alarm.seen > 20


@pytest.mark.better_than_standard("the exception of the handler is a KeyError, or no thread can be started any more")
@pytest.mark.timeout(100)
def test_an_interrupted_pool_constructor_leaves_no_thread(pool_module: ModuleType, alarm: Alarm) -> None:
    before = threading.active_count()
    for _ in range(300):
        done, pool = alarm.breaks(lambda: pool_module.ThreadPool(2), 0.0006)
        if done:
            assert pool.apply(square, (3,)) == 9
            pool.terminate()
            pool.join()
        del pool
    while threading.active_count() > before:  # the threads of interrupted pools end by themselves
        threading.Event().wait(0.01)
    assert alarm.seen > 20
