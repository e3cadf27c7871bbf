"""Calls to a manager that a signal handler interrupts, or whose client dies: the server holds, counts or removes
nothing for them."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from conftest import nothing_left
from pools import eventually, in_thread, interrupted

pytestmark = [
    pytest.mark.better_than_standard("the answers of calls that were broken off are taken for those of the next ones"),
    pytest.mark.timeout(60),
]


class Broken(Exception):
    pass


@pytest.fixture
def manager(mp: ModuleType, request: pytest.FixtureRequest) -> Iterator[Any]:
    with nothing_left(request.config):
        made = mp.get_context("fork").Manager()
        yield made
        made.shutdown()
        made.join()  # drops the process
        del made


@contextlib.contextmanager
def alarms() -> Iterator[None]:
    """`Broken` whenever the timer runs out."""

    def handler(*_: Any) -> None:
        raise Broken

    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wait_in(condition: Any, begun: threading.Event | None = None) -> Any:
    with condition:
        if begun is not None:
            begun.set()
        return condition.wait()


def notify(condition: Any, times: int = 1) -> None:
    with condition:
        condition.notify(times)


def test_a_wait_for_a_condition_raises_the_handlers_exception(manager: Any) -> None:
    condition = manager.Condition()
    with interrupted(), pytest.raises(KeyboardInterrupt):
        wait_in(condition)
    assert not condition.locked()
    with condition:
        assert condition.wait(0.01) is False


def test_a_wait_for_a_condition_restores_a_twice_acquired_lock(manager: Any) -> None:
    condition = manager.Condition()
    with condition:
        with interrupted(), pytest.raises(KeyboardInterrupt), condition:
            condition.wait()
        assert condition.wait(0.01) is False  # it is still owned
    assert not condition.locked()


def test_a_notification_skips_an_interrupted_wait(manager: Any) -> None:
    condition, begun = manager.Condition(), threading.Event()
    with interrupted(), pytest.raises(KeyboardInterrupt):
        wait_in(condition)
    thread, outcome = in_thread(lambda: wait_in(condition, begun))
    begun.wait()
    notify(condition)  # acquires the lock, so the other thread waits
    thread.join()
    assert outcome == [True]


def test_an_interrupted_wait_ends_when_the_condition_is_released(mp: ModuleType, manager: Any) -> None:
    condition, held, free = manager.Condition(), threading.Event(), threading.Event()

    def hold() -> None:
        with condition:
            held.set()
            free.wait()

    with alarms():
        with pytest.raises(Broken), condition:
            holder, _ = in_thread(hold)
            threading.Timer(0.5, free.set).start()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            condition.wait()
    holder.join()
    assert not condition.locked()


@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupted_party_does_not_count(manager: Any, times: int) -> None:
    barrier = manager.Barrier(2)
    for _ in range(times):
        with interrupted(), pytest.raises(KeyboardInterrupt):
            barrier.wait()
        eventually(lambda: barrier.n_waiting == 0)
    thread, outcome = in_thread(barrier.wait)
    assert {barrier.wait()} | (thread.join() or {*outcome}) == {0, 1}
    assert not barrier.broken


def test_an_interrupted_call_keeps_the_threads_lock(manager: Any) -> None:
    lock, event = manager.RLock(), manager.Event()
    with interrupted(), pytest.raises(KeyboardInterrupt), lock:
        event.wait()
    assert not lock.locked()


def test_an_unwithdrawable_call_keeps_the_lock_to_its_end(manager: Any) -> None:
    lock, done = manager.RLock(), manager.list()
    barrier = manager.Barrier(2)
    thread, _ = in_thread(lambda: (time.sleep(0.6), barrier.wait()))
    pool = manager.Pool(1)
    with interrupted(), pytest.raises(KeyboardInterrupt), lock:
        pool.apply(time.sleep, (0.5,))
    assert not lock.locked() and not done
    barrier.wait()
    thread.join()
    pool.terminate()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_an_interrupted_wait_does_not_acquire_the_lock(manager: Any, kind: str) -> None:
    lock = getattr(manager, kind)()
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            free.wait()

    thread, _ = in_thread(hold)
    held.wait()
    with interrupted(), pytest.raises(KeyboardInterrupt):
        lock.acquire()
    free.set()
    thread.join()
    thread, outcome = in_thread(lambda: lock.acquire() and lock.release())
    thread.join()
    assert outcome == [None]


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_an_interrupted_acquisition_leaves_the_lock_free(
    mp: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # Some handlers run in finalizers; pytest's own hook for those is Python code, in which handlers run too.
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: print(raised.exc_value))
    # A connection that was interrupted between two steps may leave a descriptor, so this test does not use
    # `nothing_left`.
    manager = mp.get_context("fork").Manager()
    lock, rng, seen = getattr(manager, kind)(), random.Random(kind), 0
    lock.acquire()
    lock.release()
    with alarms():
        for _ in range(300):
            acquired = False
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.random() * 0.0006 + 1e-6)
                acquired = lock.acquire()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Broken:
                seen += 1
            if acquired:
                lock.release()
            # Another thread acquires it, so no dead call holds it.
            thread, outcome = in_thread(lambda: lock.acquire(timeout=10) and lock.release())
            thread.join()
            assert outcome == [None]
    assert seen > 20
    manager.shutdown()


@pytest.mark.parametrize("first", ["withdrawn", "undeliverable"])
def test_a_call_is_undone_once(first: str) -> None:
    # The order to withdraw a call may arrive late, when the line is closed and its answer could not be sent.
    pytest.importorskip("maniple")
    from maniple._impl.manager.wait_queue import Held
    from maniple._impl.manager.withdrawals import ServedLine

    class Shared:
        obj = threading.Lock()

    shared: Any = Shared()
    line = ServedLine(1, None, Held())
    line.begins()
    assert line.call(shared, "acquire", (), {}, lambda: False) is True
    undo = {
        "withdrawn": lambda: line.withdraw(line.calls),
        "undeliverable": lambda: line.take_back(shared, "acquire", True),
    }
    undo.pop(first)()
    assert shared.obj.acquire(blocking=False)  # another client does
    (again,) = undo.values()
    again()
    assert shared.obj.locked()


def test_an_interrupted_get_removes_nothing(manager: Any) -> None:
    items = manager.Queue()
    with interrupted(), pytest.raises(KeyboardInterrupt):
        items.get()
    items.put("kept")
    assert items.get(timeout=10) == "kept"
    items.task_done()
    with interrupted(), pytest.raises(KeyboardInterrupt):
        items.put(1)
        items.join()
    assert items.get(timeout=10) == 1
    with pytest.raises(queue.Empty):
        items.get_nowait()


def test_a_call_succeeds_after_an_interruption_under_a_lock(manager: Any) -> None:
    lock, event, shared = manager.RLock(), manager.Event(), manager.dict(a=1)
    with lock:
        for number in range(3):
            with interrupted(0.05), pytest.raises(KeyboardInterrupt):
                event.wait()
            shared["a"] = number
            assert shared["a"] == number
    assert not lock.locked()


def die(call: Callable[[], Any]) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    call()


def killed(mp: ModuleType, call: Callable[[], Any]) -> None:
    child = mp.get_context("fork").Process(target=die, args=(call,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    child.close()


def test_a_killed_party_does_not_count(mp: ModuleType, manager: Any) -> None:
    barrier = manager.Barrier(2)
    killed(mp, barrier.wait)
    eventually(lambda: barrier.n_waiting == 0)
    assert not barrier.broken


def test_a_notification_skips_a_killed_client(mp: ModuleType, manager: Any) -> None:
    condition, begun = manager.Condition(), threading.Event()
    killed(mp, lambda: wait_in(condition))
    eventually(lambda: "0)>" in str(condition))
    thread, outcome = in_thread(lambda: wait_in(condition, begun))
    begun.wait()
    notify(condition)
    thread.join()
    assert outcome == [True]
