"""Cancelling calls of pools of threads: what has not begun does not begin, and what runs ends as it would."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from pools import eventually

pytestmark = pytest.mark.better_than_standard("cannot cancel calls")


class Gate:
    """A function whose calls wait until the gate is opened; it records the calls."""

    def __init__(self) -> None:
        self.opened, self.begun = threading.Event(), []

    def __call__(self, item: int = 0) -> int:
        self.begun.append(item)
        assert self.opened.wait(60)
        return item


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


@pytest.fixture
def pool(mp_package: str, gate: Gate) -> Iterator[Any]:
    import importlib

    with importlib.import_module(f"{mp_package}.pool").ThreadPool(2) as made:
        yield made
        gate.opened.set()
        made.close()
        made.join()


def occupy(pool: Any, gate: Gate) -> list[Any]:
    """Have both threads wait at the gate."""
    before = len(gate.begun)
    calls = [pool.apply_async(gate, (-1,)) for _ in range(2)]
    eventually(lambda: len(gate.begun) == before + 2)
    return calls


def test_a_call_that_has_not_begun_is_cancelled(mp: ModuleType, pool: Any, gate: Gate) -> None:
    running = occupy(pool, gate)
    told: list[BaseException] = []
    waiting = pool.apply_async(gate, (7,), error_callback=told.append)
    assert not waiting.cancelled() and not waiting.running() and running[0].running()
    assert waiting.cancel() is True
    assert waiting.cancelled() and waiting.ready() and not waiting.successful()
    with pytest.raises(mp.CancelledError, match="Gate"):
        waiting.get()
    assert [type(error) for error in told] == [mp.CancelledError]
    assert waiting.cancel() is False and running[0].cancel() is False
    gate.opened.set()
    assert [call.get() for call in running] == [-1, -1]
    assert not running[0].cancelled()
    assert 7 not in gate.begun
    assert pool.stats().tasks_cancelled == 1 and pool.stats().tasks_completed == 2


def test_a_map_is_cancelled_before_it_begins(mp: ModuleType, pool: Any, gate: Gate) -> None:
    occupy(pool, gate)
    waiting = pool.map_async(gate, range(9), 2)
    assert waiting.cancel() is True
    with pytest.raises(mp.CancelledError):
        waiting.get(30)
    assert waiting.cancelled()
    gate.opened.set()
    assert pool.map(abs, [-1, -2]) == [1, 2]
    assert gate.begun == [-1, -1]


def test_a_map_is_cancelled_while_it_runs(mp: ModuleType, pool: Any, gate: Gate) -> None:
    call = pool.map_async(gate, range(9), 1)
    eventually(lambda: len(gate.begun) == 2)
    assert call.cancel() is True and call.cancel() is False
    assert not call.ready() and not call.cancelled()  # as long as tasks run
    gate.opened.set()
    with pytest.raises(mp.CancelledError):
        call.get(30)
    assert call.cancelled() and sorted(gate.begun) == [0, 1]
    stats = pool.stats()
    assert (stats.tasks_completed, stats.tasks_cancelled, stats.tasks_failed) == (2, 7, 0)


def test_a_map_whose_tasks_all_run_is_not_cancelled(pool: Any, gate: Gate) -> None:
    call = pool.map_async(gate, range(2), 1)
    eventually(lambda: len(gate.begun) == 2)
    assert call.cancel() is False
    gate.opened.set()
    assert call.get() == [0, 1] and not call.cancelled()


def test_calls_of_a_terminated_pool_are_not_cancelled(pool: Any, gate: Gate) -> None:
    occupy(pool, gate)
    told: list[object] = []
    calls = [
        pool.apply_async(gate, (1,), error_callback=told.append),
        pool.map_async(gate, range(9)),
        pool.imap(gate, [1]),
    ]
    gate.opened.set()
    pool.terminate()
    assert [call.cancel() for call in calls] == [False, False, False]
    with pytest.raises(ValueError, match="Pool not running"):
        calls[1].get(30)


def numbers(count: int | None) -> Iterator[int]:
    number = 0
    while count is None or number < count:
        yield number
        number += 1


@pytest.mark.parametrize("how", ["list", "generator", "endless"])
@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_an_iterator_gives_what_ran_and_then_raises(
    mp: ModuleType, pool: Any, gate: Gate, call: str, chunksize: int, how: str
) -> None:
    items: Any = {"list": range(30), "generator": numbers(30), "endless": numbers(None)}[how]
    results = getattr(pool, call)(gate, items, chunksize)
    eventually(lambda: len(gate.begun) == 2)
    assert results.cancel() is True
    gate.opened.set()
    got, cancelled = [], 0
    while True:
        try:
            got.append(results.next(30))
        except mp.CancelledError:
            cancelled += 1
        except StopIteration:
            break
    assert sorted(got) == sorted(gate.begun) and len(got) == 2 * chunksize
    assert cancelled >= 1
    assert results.cancel() is False


@pytest.mark.parametrize("how", ["list", "generator", "endless"])
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_an_iterator_that_has_not_begun_ends_at_once(
    mp: ModuleType, pool: Any, gate: Gate, call: str, how: str
) -> None:
    occupy(pool, gate)
    items: Any = {"list": range(30), "generator": numbers(30), "endless": numbers(None)}[how]
    results = getattr(pool, call)(gate, items)
    assert results.cancel() is True
    with pytest.raises(mp.CancelledError):
        results.next(30)
    with pytest.raises(StopIteration):
        results.next(30)
    gate.opened.set()
    assert pool.map(abs, [-1]) == [1] and gate.begun == [-1, -1]


def test_all_calls_are_cancelled(mp: ModuleType, pool: Any, gate: Gate) -> None:
    running = occupy(pool, gate)
    waiting = [pool.apply_async(gate, (1,)), pool.map_async(gate, range(5)), pool.starmap_async(gate, [(1,), (2,)])]
    results = pool.imap(gate, numbers(None))
    pool.cancel_all()
    for call in waiting:
        with pytest.raises(mp.CancelledError):
            call.get(30)
    with pytest.raises(mp.CancelledError):
        next(results)
    gate.opened.set()
    assert [call.get() for call in running] == [-1, -1]
    assert gate.begun == [-1, -1]


def test_a_thread_cannot_be_ended(pool: Any, gate: Gate) -> None:
    (call, _), results = occupy(pool, gate), pool.imap(gate, range(3))
    for cancel in (call.cancel, results.cancel, pool.cancel_all):
        with pytest.raises(ValueError, match="a thread cannot be ended"):
            cancel(kill=True)
    gate.opened.set()
    assert list(results) == [0, 1, 2]


def test_a_task_that_is_cancelled_cancels_what_it_awaits(pool: Any, gate: Gate) -> None:
    occupy(pool, gate)

    async def program() -> None:
        call = pool.apply_async(gate, (5,))

        async def wait() -> None:
            await call

        one, other = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0.05)
        one.cancel()
        await asyncio.wait([one])
        assert not call.ready()  # the other task awaits it
        other.cancel()
        await asyncio.wait([other])
        assert call.cancelled()

    asyncio.run(program())
    gate.opened.set()
    assert 5 not in gate.begun


class Late(Exception):
    """The exception of the handler."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("are_busy", [False, True])
@pytest.mark.parametrize("kind", ["apply", "map", "imap", "generator"])
def test_a_handler_that_interrupts_cancel_leaves_no_call_without_an_end(
    mp: ModuleType, pool: Any, kind: str, are_busy: bool
) -> None:
    def late(*_: object) -> None:
        raise Late

    told: list[object] = []
    tell: dict[str, Any] = {"callback": told.append, "error_callback": told.append}
    before = signal.signal(signal.SIGALRM, late)
    try:
        for turn in range(150):
            gate = Gate()
            if are_busy:
                occupy(pool, gate)
            if kind == "apply":
                call = pool.apply_async(time.sleep, (0.0002,), **(tell if turn % 2 else {}))
            elif kind == "map":
                call = pool.map_async(abs, range(50), 1, **(tell if turn % 2 else {}))
            else:
                call = pool.imap(abs, range(50) if kind == "imap" else numbers(50))
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.00001 + 0.000002 * (turn % 40))
                    call.cancel()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Late:
                pass
            gate.opened.set()
            if kind in ("apply", "map"):
                try:
                    call.get(30)
                except mp.CancelledError:
                    pass
                assert len(told) == turn % 2
                told.clear()
            else:
                while True:
                    try:
                        call.next(30)
                    except mp.CancelledError:
                        pass
                    except StopIteration:
                        break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pool.map(abs, [-1, -2]) == [1, 2]


@pytest.mark.parametrize("kind", ["apply", "map", "imap", "generator"])
def test_threads_cancel_while_tasks_begin(mp: ModuleType, pool: Any, kind: str) -> None:
    ran: list[int] = []
    for turn in range(300):
        ran.clear()
        if kind == "apply":
            call = pool.apply_async(ran.append, (0,))
        elif kind == "map":
            call = pool.map_async(ran.append, range(20), 1)
        else:
            call = pool.imap(ran.append, range(20) if kind == "imap" else numbers(20))
        canceller = threading.Thread(target=call.cancel)
        canceller.start()
        got = 0
        if kind in ("apply", "map"):
            try:
                value = call.get(30)
                got = 1 if kind == "apply" else len(value)
                assert len(ran) == got and not call.cancelled(), turn
            except mp.CancelledError:
                assert call.cancelled() and len(ran) < (1 if kind == "apply" else 20), turn
        else:
            while True:
                try:
                    call.next(30)
                    got += 1
                except mp.CancelledError:
                    pass
                except StopIteration:
                    break
            assert got <= len(ran) <= 20
        canceller.join()
