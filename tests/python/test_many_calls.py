"""Many calls at once: the pool works them off, whether a thread waits for them or not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from pools import METHODS, square

NewPool = Callable[..., Any]

every_method = pytest.mark.parametrize("kind", METHODS, indirect=True)

SQUARES = [number * number for number in range(10)]
PATIENCE = 60.0


class Count:
    """Counts ended calls, and says when all have ended."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.all_ended = threading.Event()
        self.wrong: list[object] = []

    def __call__(self, value: object) -> None:
        if value != SQUARES:
            self.wrong.append(value)
        self.left -= 1
        if self.left == 0:
            self.all_ended.set()


@every_method
@pytest.mark.parametrize("calls", [300, 3000])
def test_many_calls_of_several_tasks_for_which_no_thread_waits(new_pool: NewPool, calls: int) -> None:
    pool = new_pool(2)
    for _ in range(3):
        count = Count(calls)
        for _ in range(calls):
            pool.map_async(square, range(10), chunksize=3, callback=count)
        assert count.all_ended.wait(PATIENCE)
        assert count.wrong == []


@every_method
def test_many_calls_of_several_tasks_that_are_awaited_in_turn(new_pool: NewPool) -> None:
    pool = new_pool(2)
    results = [pool.map_async(square, range(10), chunksize=1) for _ in range(2000)]
    assert all(result.get(PATIENCE) == SQUARES for result in results)


@every_method
def test_many_streams_at_once(new_pool: NewPool) -> None:
    pool = new_pool(2)
    streams = [pool.imap(square, range(10)) for _ in range(100)]
    assert [list(stream) for stream in streams] == [SQUARES] * 100
