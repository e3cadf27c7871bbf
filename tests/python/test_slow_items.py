"""Items that take long to pickle: their call alone waits for them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS, identity, sleep, square

NewPool = Callable[..., Any]

every_method = pytest.mark.parametrize("kind", METHODS, indirect=True)
quick = pytest.mark.parametrize("kind", ["fork"], indirect=True)

PATIENCE = 20.0

# How a call gets its items. With `map` the thread of the call pickles them, or any thread that waits; with `map_async` no thread waits.
CALLS: dict[str, Callable[[Any, list[Any]], list[Any]]] = {
    "map": lambda pool, items: pool.map(identity, items, chunksize=1),  # type: ignore[no-any-return]
    "map_async": lambda pool, items: wait_apart(pool.map_async(identity, items, chunksize=1)),
}


def wait_apart(result: Any) -> list[Any]:
    """Return the value of a result without waiting for it as a thread that drives the pool would."""
    ended = threading.Event()
    while not result._ticket.ready():
        ended.wait(0.01)
    return result.get()  # type: ignore[no-any-return]


class Gate:
    """An item whose pickling ends when another thread opens the gate, or after `PATIENCE`."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()
        self.passed: list[bool] = []

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        self.begun.set()
        self.passed.append(self.open.wait(PATIENCE))
        return int, (5,)


def beside(gate: Gate, act: Callable[[], None]) -> tuple[threading.Thread, list[BaseException]]:
    """Run `act` in a thread while the gate is being pickled, then open the gate. Return the thread and its errors."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            assert gate.begun.wait(PATIENCE)
            act()
            gate.open.set()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, errors


@every_method
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("others", [0, 1, 50])
def test_a_slow_item_delays_no_other_call(new_pool: NewPool, mp: ModuleType, call: str, others: int) -> None:
    pool = new_pool(2)
    gate = Gate()

    def act() -> None:
        assert pool.apply(square, (3,)) == 9
        assert pool.map(square, range(2000)) == [number * number for number in range(2000)]
        with pytest.raises(mp.TaskTimeoutError):
            pool.apply(sleep, (60,), task_timeout=0.2)
        with pytest.raises(mp.WorkerLostError):
            pool.apply(os._exit, (3,))
        assert list(pool.imap(square, range(10))) == [number * number for number in range(10)]

    thread, errors = beside(gate, act)
    assert CALLS[call](pool, [*range(others), gate]) == [*range(others), 5]
    thread.join()
    assert not errors and gate.passed == [True]


@quick
def test_calls_for_which_no_thread_waits_pass_a_slow_item(new_pool: NewPool) -> None:
    pool = new_pool(2)
    gate, ended = Gate(), threading.Event()

    def act() -> None:
        pool.map_async(square, range(2000), callback=lambda _: ended.set())
        assert ended.wait(PATIENCE)

    thread, errors = beside(gate, act)
    assert pool.map(identity, [gate]) == [5]
    thread.join()
    assert not errors and gate.passed == [True]


@quick
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_code_that_pickles_may_wait_for_the_pool(new_pool: NewPool, call: str, pause: float) -> None:
    pool = new_pool(2)
    stop = threading.Event()

    class Calls:
        def __reduce__(self) -> tuple[type[int], tuple[int]]:
            stop.wait(pause)
            return int, (pool.apply(square, (3,)) + pool.map(square, [4])[0],)

    def call_on() -> None:
        while not stop.is_set():
            assert pool.apply(identity, (1,)) == 1

    other = threading.Thread(target=call_on)
    other.start()
    try:
        for _ in range(5):
            assert CALLS[call](pool, [Calls(), 7, Calls()]) == [25, 7, 25]
    finally:
        stop.set()
        other.join()


@quick
@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_without_a_further_thread_items_are_pickled_nevertheless(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    pool = new_pool(2)
    refused: list[str] = []

    def refuse(thread: threading.Thread) -> None:
        refused.append(thread.name)
        raise error("can't start new thread")

    monkeypatch.setattr("maniple._impl.pool.workers.start_assured", refuse)
    for _ in range(3):
        assert wait_apart(pool.map_async(square, range(3000))) == [number * number for number in range(3000)]
    assert set(refused) == {"maniple-pool-filler"}


@quick
def test_the_thread_that_pickles_ends_with_the_pool(new_pool: NewPool) -> None:
    before = set(threading.enumerate())
    with new_pool(2) as pool:
        assert wait_apart(pool.map_async(square, range(3000))) == [number * number for number in range(3000)]
        pool.close()
        pool.join()
    assert {thread.name for thread in threading.enumerate() if thread not in before} == set()


@quick
def test_terminate_does_not_wait_for_a_slow_item(new_pool: NewPool) -> None:
    gates = [Gate(), Gate()]
    pool = new_pool(2)
    results = [pool.map_async(identity, [gate]) for gate in gates]
    assert gates[0].begun.wait(PATIENCE)
    pool.terminate()
    pool.join()
    for result in results:
        with pytest.raises(Exception, match="terminated"):
            result.get(timeout=PATIENCE)
    gates[0].open.set()
    assert gates[1].passed == []
