"""Calls without a waiting thread continue and report their end: a waiter that gives up loses no notification."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS, pid, sleep, square

NewPool = Callable[..., Any]
processes_only = pytest.mark.parametrize("kind", METHODS, indirect=True)

PATIENCE = 20.0


def test_callback_after_a_waiter_gave_up(mp: ModuleType, new_pool: NewPool) -> None:
    """Another thread waits for another result meanwhile, and ends before the call does."""
    pool = new_pool(2)
    pool.map(sleep, [0, 0])
    for _ in range(3):
        told = threading.Event()
        first = pool.apply_async(sleep, (0.2,))
        second = pool.apply_async(sleep, (0.4,), callback=lambda _, told=told: told.set())
        waiter = threading.Thread(target=first.get)
        waiter.start()
        while not first.ready():
            with pytest.raises(mp.TimeoutError):
                second.get(0.02)
        waiter.join()
        assert told.wait(PATIENCE), "the callback never came"


def test_many_waiters_give_up(mp: ModuleType, new_pool: NewPool) -> None:
    pool = new_pool(2)
    told: list[float] = []
    done = threading.Event()

    def tell(value: float) -> None:
        told.append(value)
        if len(told) == 40:
            done.set()

    results = [pool.apply_async(sleep, (0.01,), callback=tell) for _ in range(40)]

    def wait_a_little(result: Any) -> None:
        for patience in (0.001, 0.003, 0.01, 0.002):
            try:
                result.get(patience)
            except mp.TimeoutError:
                pass

    waiters = [threading.Thread(target=wait_a_little, args=(result,)) for result in results[::4]]
    for waiter in waiters:
        waiter.start()
    for waiter in waiters:
        waiter.join()
    assert done.wait(PATIENCE), f"{len(told)} of 40 callbacks came"


@processes_only
@pytest.mark.better_than_standard("a task that a stopped worker has taken is not taken back")
@pytest.mark.parametrize("how", ["get", "callback"])
def test_a_task_for_a_stopped_worker(new_pool: NewPool, how: str) -> None:
    """Another worker runs the tasks that the stopped worker has not begun, also its first task; the stopped worker
    works again when it continues."""
    pool = new_pool(2)
    workers = set()
    while len(workers) < 2:
        workers |= set(pool.map(_slow_pid, range(4), 1))
    for victim in workers:
        os.kill(victim, signal.SIGSTOP)
        try:
            told = threading.Event()
            results = [pool.apply_async(square, (n,)) for n in range(3)]
            results.append(pool.apply_async(square, (3,), callback=lambda _, told=told: told.set()))
            if how == "get":
                assert [result.get(PATIENCE) for result in results] == [0, 1, 4, 9]
            else:
                assert told.wait(PATIENCE)
        finally:
            os.kill(victim, signal.SIGCONT)
        seen: set[int] = set()
        end = time.monotonic() + PATIENCE
        while victim not in seen:
            assert time.monotonic() < end, "a worker that goes on gets no tasks"
            seen |= set(pool.map(_slow_pid, range(4), 1))


def _slow_pid(_: object) -> int:
    time.sleep(0.01)
    return pid()
