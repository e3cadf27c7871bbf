"""`Hold`: a lock held by a block of Python code, which an exception of a signal handler does not leave locked."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

_maniple = pytest.importorskip("maniple._maniple")
Hold = _maniple.Hold

LOCKS = [threading.Lock, threading.RLock, threading.Condition]

# The interpreter reports an exception of a handler in a finalizer or a weak reference's callback, and continues.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Struck(Exception):
    pass


@pytest.fixture
def strikes() -> Iterator[Callable[[float], None]]:
    """A function that makes a handler raise `Struck` in so many seconds."""

    def strike(*_: Any) -> None:
        raise Struck

    before = signal.signal(signal.SIGVTALRM, strike)
    try:
        yield lambda seconds: signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def free(lock: Any) -> bool:
    """Return whether another thread can acquire the lock."""
    found: list[bool] = []

    def look() -> None:
        if lock.acquire(blocking=False):
            lock.release()
            found.append(True)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return bool(found)


@pytest.mark.parametrize("kind", LOCKS)
@pytest.mark.parametrize("limit", [(), (0,), (5.0,)], ids=["without limit", "at once", "within a limit"])
def test_a_handlers_exception_leaves_no_lock_held(kind: Any, limit: tuple[float, ...], strikes: Any) -> None:
    lock, struck = kind(), 0
    for _ in range(50):
        try:
            strikes(0.0002)
            while True:
                with Hold(lock, *limit):
                    pass
        except Struck:
            struck += 1
        assert free(lock)
    assert struck == 50


@pytest.mark.parametrize("kind", LOCKS)
def test_the_block_holds_the_lock(kind: Any) -> None:
    lock = kind()
    with Hold(lock) as taken:
        assert taken is True and not free(lock)
    assert free(lock)
    with pytest.raises(ZeroDivisionError), Hold(lock):
        raise ZeroDivisionError
    assert free(lock)


def test_a_hold_releases_only_an_acquired_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    with Hold(lock, 0) as taken:
        assert taken is False
    started = time.monotonic()
    with Hold(lock, 0.1) as taken:
        assert taken is False and time.monotonic() - started >= 0.1
    assert lock.locked()


def test_a_dropped_hold_releases_its_lock() -> None:
    lock = threading.Lock()
    hold = Hold(lock)
    assert hold.__enter__() and lock.locked()
    with pytest.raises(RuntimeError, match="one block at a time"):
        hold.__enter__()
    del hold
    assert not lock.locked()
    Hold(lock)
    assert not lock.locked()


def _ends(call: Callable[[], object]) -> bool:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    return not thread.is_alive()


def test_a_handler_sets_an_event_while_its_thread_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from maniple._impl.sync.bells import Bells, SteadyEvent

    event, new = SteadyEvent(), Bells.new

    def interrupted(self: Bells) -> Any:
        bell = new(self)
        event.set()
        return bell

    monkeypatch.setattr(Bells, "new", interrupted)
    assert _ends(event.wait)


def test_a_handler_passes_a_connection_on_while_its_thread_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from maniple import resource_sharer

    sharer = resource_sharer._ResourceSharer()
    serve, answers = sharer._serve_from_now_on, []

    def offer() -> None:
        answers.append(sharer.register(lambda *_: None, lambda: None))

    def interrupted() -> None:
        monkeypatch.setattr(sharer, "_serve_from_now_on", serve)
        offer()
        serve()

    monkeypatch.setattr(sharer, "_serve_from_now_on", interrupted)
    assert _ends(offer)
    assert len({number for _, number in answers}) == 2
    sharer.stop(5)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="the interpreter runs handlers between __enter__ and the block")
@pytest.mark.better_than_standard("its methods of conditions are functions of Python, in which a handler may raise")
@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_a_handlers_exception_leaves_no_shared_lock_held(mp: ModuleType, kind: str, strikes: Any) -> None:
    lock = getattr(mp, kind)()
    found: list[bool] = []

    def look() -> None:
        if lock.acquire(False):
            lock.release()
            found.append(True)

    for _ in range(50):
        with pytest.raises(Struck):
            strikes(0.0002)
            while True:
                with lock:
                    pass
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert len(found) == 50
