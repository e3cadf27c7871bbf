"""Queues: several items at a time, and the end of a queue that processes share."""

from __future__ import annotations

import os
import pickle
import pydoc
import queue as standard_queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.better_than_standard("its queues have no such methods")

METHODS = ("fork", "spawn", "forkserver")
KINDS = ("Queue", "JoinableQueue", "SimpleQueue")


@pytest.fixture(params=METHODS)
def ctx(request: pytest.FixtureRequest, mp: ModuleType) -> Any:
    return mp.get_context(request.param)


@pytest.fixture(params=KINDS)
def queue(request: pytest.FixtureRequest, mp: ModuleType) -> Any:
    return getattr(mp, request.param)()


@pytest.fixture(params=["Queue", "JoinableQueue"])
def bounded(request: pytest.FixtureRequest, mp: ModuleType) -> Callable[[int], Any]:
    return getattr(mp, request.param)


@pytest.fixture
def start(ctx: Any) -> Iterator[Callable[..., Any]]:
    """Starts processes that end with the test."""
    started: list[Any] = []

    def go(target: Callable[..., Any], *args: Any) -> Any:
        started.append(ctx.Process(target=target, args=args))
        started[-1].start()
        return started[-1]

    yield go
    for process in started:
        process.kill()
        process.join()


class Late(Exception):
    """The time is up."""


@contextmanager
def late(seconds: float) -> Iterator[None]:
    """Raise `Late` in a signal handler."""

    def raise_late(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, raise_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------- get_many


def test_get_many_returns_what_is_there(queue: Any) -> None:
    for number in range(10):
        queue.put(number)
    assert queue.get_many(3) == [0, 1, 2]
    assert queue.get_many() == [3, 4, 5, 6, 7, 8, 9]
    assert queue.empty()


def test_get_many_of_an_empty_queue(queue: Any) -> None:
    with pytest.raises(standard_queue.Empty):
        queue.get_many(block=False)
    with pytest.raises(standard_queue.Empty):
        queue.get_many(5, timeout=0.05)
    queue.put(1)
    assert queue.get_many(5, timeout=60) == [1]


def text_of(kind: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as raised:
        call()
    assert type(raised.value) is kind
    return str(raised.value)


def test_the_errors_of_a_queue_say_what_was_waited_for(mp: ModuleType, bounded: Any) -> None:
    Empty, Full, ShutDown = standard_queue.Empty, standard_queue.Full, mp.ShutDown
    queue = bounded(2)
    for call in (
        queue.get_nowait,
        lambda: queue.get(False),
        lambda: queue.get(False, 5),
        lambda: queue.get_many(3, False),
    ):
        assert text_of(Empty, call) == "the queue is empty"
    assert text_of(Empty, lambda: queue.get(timeout=0.05)) == "the queue was empty for 0.05 s"
    assert text_of(Empty, lambda: queue.get_many(timeout=0.05)) == "the queue was empty for 0.05 s"
    assert text_of(Empty, lambda: queue.get(True, -1)) == "the queue was empty for 0 s"
    queue.put_many([1, 2])
    for put in (lambda: queue.put_nowait(3), lambda: queue.put(3, False), lambda: queue.put_many([3], False)):
        assert text_of(Full, put) == "the queue (maxsize=2) is full"
    assert text_of(Full, lambda: queue.put(3, timeout=0.05)) == "the queue (maxsize=2) had no room for 0.05 s"
    assert text_of(Full, lambda: queue.put_many([3], timeout=0.05)) == "the queue (maxsize=2) had no room for 0.05 s"
    queue.shutdown()
    for put in (lambda: queue.put(3), lambda: queue.put_many([3])):
        assert text_of(ShutDown, put) == "the queue is shut down and accepts no more items"
    queue.get_many()
    assert text_of(ShutDown, queue.get) == "the queue is empty and shut down"
    queue = bounded(2)
    queue.shutdown(immediate=True)
    assert text_of(ShutDown, queue.get) == "the queue was shut down at once (immediate=True)"


def test_the_errors_of_a_queue_of_the_standard_form_say_it_as_well(mp: ModuleType) -> None:
    class Fed(mp.queues.Queue):  # type: ignore[misc,name-defined]
        _uses_parts = True

    queue = Fed(1, ctx=mp.get_context())
    assert text_of(standard_queue.Empty, lambda: queue.get(timeout=0.05)) == "the queue was empty for 0.05 s"
    assert text_of(standard_queue.Empty, queue.get_nowait) == "the queue is empty"
    queue.put(1)
    assert (
        text_of(standard_queue.Full, lambda: queue.put(2, timeout=0.05))
        == "the queue (maxsize=1) had no room for 0.05 s"
    )
    assert queue.get() == 1


def test_errors_and_help_name_the_class_that_the_program_uses(mp: ModuleType, queue: Any) -> None:
    name = "SimpleQueue" if type(queue).__name__ == "SimpleQueue" else "Queue"
    with pytest.raises(TypeError, match=rf"^{name}\.get_many\(\) got an unexpected keyword"):
        queue.get_many(items=3)
    with pytest.raises(TypeError, match=rf"^{name}\.get_async\(\) got an unexpected keyword"):
        queue.get_async(item=3)
    for method in ("get_many", "put_many", "shutdown", "get_async", "put_async", "get_many_async", "put_many_async"):
        found = getattr(getattr(mp, type(queue).__name__), method)
        assert (found.__module__, found.__qualname__) == ("maniple.queues", f"{name}.{method}")
        assert method in pydoc.plain(pydoc.render_doc(getattr(mp.queues, name)))
    if type(queue).__name__ != "JoinableQueue":
        assert "get_many" in pydoc.plain(pydoc.render_doc(getattr(mp, type(queue).__name__)))
    assert pydoc.plain(pydoc.render_doc(mp.Queue.put_many)).count("put_many(self, iterable") == 1


def test_help_of_a_pool_names_what_is_ours(mp: ModuleType) -> None:
    told = pydoc.plain(pydoc.render_doc(mp.Pool))
    for name in ("resize", "cancel_all", "stats", "join(timeout=)", "join_async", "progress", "task_timeout"):
        assert name in told
    assert mp.Pool.map is mp.pool.Pool.map and not hasattr(mp.Pool, "_workers")
    with pytest.raises(AttributeError, match="'Pool' has no attribute 'mapp'"):
        mp.Pool.mapp  # noqa: B018


@pytest.mark.parametrize(("given", "kind"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_odd_numbers_of_items_are_refused(queue: Any, given: Any, kind: type[Exception]) -> None:
    queue.put(1)
    with pytest.raises(kind, match="max_items"):
        queue.get_many(given)
    assert queue.get_many() == [1]


def test_items_of_all_kinds(queue: Any) -> None:
    items = [None, 1, "text", {"a": [1, 2]}, b"x" * 100_000, np.arange(300_000), ValueError, (1, (2, 3))]
    queue.put_many(items)
    got = queue.get_many()
    assert np.array_equal(got.pop(5), items.pop(5)) and got == items


def put_slowly(queue: Any, count: int) -> None:
    for number in range(count):
        queue.put(number)
        if number % 10 == 0:
            time.sleep(0.01)


def test_get_many_waits_for_another_process(ctx: Any, start: Any) -> None:
    queue = ctx.Queue()
    start(put_slowly, queue, 200)
    got: list[int] = []
    while len(got) < 200:
        got += queue.get_many(30)
    assert got == list(range(200))


def take_all(queue: Any, results: Any) -> None:
    got: list[Any] = []
    while not got or got[-1] is not None:
        got += queue.get_many(50 if os.getpid() % 2 else None)
    # Items behind the end are another reader's end.
    results.put([item for item in got if item is not None])
    for _ in range(got.count(None) - 1):
        queue.put(None)


def test_several_processes_put_and_get_many(ctx: Any, start: Any) -> None:
    queue, results = ctx.Queue(100), ctx.Queue()
    readers = [start(take_all, queue, results) for _ in range(2)]
    queue.put_many(range(5000))
    queue.put_many([None] * len(readers))
    got = [results.get() for _ in readers]
    assert sorted(sum(got, [])) == list(range(5000))
    assert all(part == sorted(part) for part in got)


class Bad:
    """Cannot be unpickled."""

    def __reduce__(self) -> Any:
        return int, ("bad",)


def test_an_item_that_cannot_be_unpickled_takes_none_with_it(queue: Any) -> None:
    queue.put_many([1, 2, Bad(), 3])
    with pytest.raises(ValueError, match="bad"):
        queue.get_many()
    assert queue.get_many() == [1, 2, 3]


class Slow:
    """Takes a while to unpickle."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return slowly, (self.number,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slow) and self.number == other.number

    __hash__ = object.__hash__


def slowly(number: int) -> Slow:
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    return Slow(number)


@pytest.mark.parametrize("seconds", [0.02, 0.08, 0.12, 0.22])
def test_an_interrupted_get_many_loses_no_item(queue: Any, seconds: float) -> None:
    items = [Slow(number) for number in range(6)]
    queue.put_many(items)
    with late(seconds), pytest.raises(Late):
        queue.get_many()
    got: list[Slow] = []
    while len(got) < 6:
        got += queue.get_many(2)
    assert got == items and queue.empty()


def test_frequent_interruptions_of_get_many_lose_no_item(mp: ModuleType) -> None:
    queue = mp.Queue()
    process = mp.Process(target=put_slowly, args=(queue, 2000))
    process.start()
    got: list[int] = []
    while len(got) < 2000:
        part: list[int] = []
        try:
            with late(0.0007):
                part = queue.get_many()
        except Late:
            pass
        got += part
    assert got == list(range(2000))
    process.join()


def take_forever(queue: Any) -> None:
    while True:
        queue.get_many(7)


def test_readers_that_are_killed_do_not_stop_the_queue(ctx: Any, start: Any) -> None:
    queue = ctx.Queue(50)
    for _ in range(3):
        reader = start(take_forever, queue)
        queue.put_many(range(3000))
        reader.kill()
        reader.join()
    while not queue.empty():
        queue.get_many()
    queue.put_many([1, 2])
    assert queue.get_many() == [1, 2]


# ---------------------------------------------------------------- put_many


def test_put_many_takes_any_iterable(queue: Any) -> None:
    queue.put_many(number for number in range(3))
    queue.put_many([])
    queue.put_many({"a": 1})
    assert queue.get_many() == [0, 1, 2, "a"]
    with pytest.raises(TypeError, match="iterable"):
        queue.put_many(5)


def test_put_many_into_a_full_queue_says_how_many_are_in(bounded: Any) -> None:
    queue, source = bounded(3), iter(range(10))
    with pytest.raises(standard_queue.Full) as raised:
        queue.put_many(source, block=False)
    # The iterator has given an item, which is not lost.
    assert (raised.value.items_put, raised.value.next_items) == (3, [3])  # type: ignore[attr-defined]
    with pytest.raises(standard_queue.Full) as raised:
        queue.put_many(source, timeout=0.05)
    assert (raised.value.items_put, raised.value.next_items) == (0, [4])  # type: ignore[attr-defined]
    assert queue.get_many() == [0, 1, 2] and next(source) == 5


@pytest.mark.parametrize("make", [list, iter], ids=["list", "iterator"])
@pytest.mark.parametrize("how", [{}, {"timeout": 0.05}, {"block": False}], ids=str)
def test_put_many_that_fills_the_queue_exactly_ends(bounded: Any, make: Any, how: dict[str, Any]) -> None:
    queue = bounded(3)
    queue.put_many(make([1, 2, 3]), **how)
    queue.put_many(make([]), **how)
    assert queue.get_many() == [1, 2, 3]


def test_put_many_waits_for_room(bounded: Any) -> None:
    queue, got = bounded(2), []
    reader = threading.Thread(target=lambda: got.extend(queue.get() for _ in range(100)))
    reader.start()
    queue.put_many(range(100), timeout=60)
    reader.join()
    assert got == list(range(100))


def fail_after(count: int) -> Iterator[int]:
    yield from range(count)
    raise KeyError("the iterable fails")


def test_an_error_of_the_iterable_leaves_the_items_before_it(queue: Any) -> None:
    with pytest.raises(KeyError, match="the iterable fails"):
        queue.put_many(fail_after(3))
    assert queue.get_many() == [0, 1, 2]


def test_an_item_that_cannot_be_pickled_is_dropped_as_by_put(mp: ModuleType, capfd: Any) -> None:
    queue = mp.Queue()
    queue.put_many([1, threading.Lock(), 2])
    assert queue.get_many() == [1, 2]
    said = capfd.readouterr().err
    assert "cannot pickle" in said and "test_queue_many.py" in said
    simple = mp.SimpleQueue()
    with pytest.raises((TypeError, pickle.PicklingError)):
        simple.put_many([1, threading.Lock(), 2])
    assert simple.get_many() == [1]


def test_a_subclass_hears_of_items_that_cannot_be_pickled(mp: ModuleType) -> None:
    from maniple.queues import Queue

    told = []

    class Own(Queue):  # type: ignore[type-arg]
        @staticmethod
        def _on_queue_feeder_error(e: Exception, obj: Any) -> None:
            told.append(obj)

    queue, lock = Own(ctx=mp.get_context("fork")), threading.Lock()
    queue.put_many([1, lock, 2])
    assert queue.get_many() == [1, 2]
    queue.close()
    queue.join_thread()
    assert told == [lock]


def test_put_many_counts_for_join(mp: ModuleType) -> None:
    queue = mp.JoinableQueue()
    queue.put_many(range(5))
    for _ in queue.get_many():
        queue.task_done()
    queue.join()
    with pytest.raises(ValueError, match="too many"):
        queue.task_done()


def test_methods_that_a_subclass_overrides_are_called(mp: ModuleType) -> None:
    from maniple.queues import Queue

    class Own(Queue):  # type: ignore[type-arg]
        def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
            super().put(("own", obj), block, timeout)

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            return super().get(block, timeout)[1]

    queue = Own(ctx=mp.get_context("fork"))
    queue.put_many([1, 2, 3])
    assert queue.get_many(2) == [1, 2]
    assert queue.get() == 3


def test_a_closed_queue_is_refused(mp: ModuleType) -> None:
    queue = mp.Queue()
    queue.put(1)
    queue.close()
    for call in (lambda: queue.put_many([1]), queue.get_many, queue.shutdown):
        with pytest.raises(ValueError, match="closed"):
            call()
    simple = mp.SimpleQueue()
    simple.close()
    for call in (lambda: simple.put_many([1]), simple.get_many, simple.shutdown):
        with pytest.raises(OSError, match="closed"):
            call()


# ---------------------------------------------------------------- shutdown


def test_the_exception_is_that_of_the_standard_module_where_it_has_one(mp: ModuleType) -> None:
    assert mp.ShutDown is mp.queues.ShutDown
    assert mp.ShutDown is getattr(standard_queue, "ShutDown", mp.ShutDown)
    assert mp.ShutDown.__module__ in ("queue", "maniple.queues")
    assert pickle.loads(pickle.dumps(mp.ShutDown)) is mp.ShutDown


def test_a_queue_that_is_shut_down_gives_what_it_has(mp: ModuleType, queue: Any) -> None:
    queue.put_many([1, 2, 3])
    queue.shutdown()
    with pytest.raises(mp.ShutDown):
        queue.put(4)
    with pytest.raises(mp.ShutDown) as raised:
        queue.put_many([4])
    assert (raised.value.items_put, raised.value.next_items) == (0, [])
    assert queue.get() == 1
    assert queue.get_many() == [2, 3]
    for get in (queue.get, queue.get_many):
        with pytest.raises(mp.ShutDown):
            get()
    queue.shutdown()


def test_non_blocking_calls_of_a_queue_that_is_shut_down(mp: ModuleType, bounded: Any) -> None:
    queue = bounded(1)
    queue.put(1)
    queue.shutdown()
    for call in (lambda: queue.put_nowait(2), lambda: queue.put(2, timeout=1), lambda: queue.put_many([2], False)):
        with pytest.raises(mp.ShutDown):
            call()
    assert queue.get_nowait() == 1
    for call in (queue.get_nowait, lambda: queue.get(timeout=1), lambda: queue.get_many(block=False)):
        with pytest.raises(mp.ShutDown):
            call()
    assert queue.empty() and queue.qsize() == 0 and not queue.full()


def test_an_immediate_shutdown_drops_the_items(mp: ModuleType, queue: Any) -> None:
    queue.put_many([1, 2, 3])
    queue.shutdown(immediate=True)
    for call in (queue.get, queue.get_many, lambda: queue.put(1)):
        with pytest.raises(mp.ShutDown):
            call()
    assert queue.empty()


def test_an_immediate_shutdown_after_another(mp: ModuleType, queue: Any) -> None:
    queue.put_many([1, 2])
    queue.shutdown()
    queue.shutdown(immediate=True)
    queue.shutdown()
    with pytest.raises(mp.ShutDown):
        queue.get()


def test_an_immediate_shutdown_drops_what_an_interrupted_get_has_kept(mp: ModuleType, queue: Any) -> None:
    queue.put_many([Slow(1), Slow(2)])
    with late(0.02), pytest.raises(Late):
        queue.get_many()
    queue.shutdown(immediate=True)
    with pytest.raises(mp.ShutDown):
        queue.get()
    assert queue.empty()


def test_an_immediate_shutdown_reports_the_items_done(mp: ModuleType) -> None:
    queue = mp.JoinableQueue()
    queue.put_many(range(3))
    queue.get()
    joined = threading.Event()
    threading.Thread(target=lambda: (queue.join(), joined.set())).start()
    queue.shutdown(immediate=True)
    assert not joined.wait(0.1)
    # The item that was taken is still being worked on.
    queue.task_done()
    assert joined.wait(60)


def test_join_after_a_shutdown_waits_for_the_items_that_are_left(mp: ModuleType) -> None:
    queue = mp.JoinableQueue()
    queue.put_many(range(2))
    queue.shutdown()
    for _ in range(2):
        queue.get()
        queue.task_done()
    queue.join()


def wait_in(method: str, queue: Any, ready: Any, ended: Any) -> None:
    from maniple import ShutDown

    ready.put(None)
    try:
        if method == "put":
            queue.put(1)
        elif method == "put_many":
            queue.put_many([1, 2])
        else:
            getattr(queue, method)()
    except ShutDown:
        ended.put(method)
    else:
        ended.put(f"{method} returned")


@pytest.mark.parametrize("immediate", [False, True])
def test_processes_that_wait_are_woken(ctx: Any, start: Any, immediate: bool) -> None:
    empty, full, ready, ended = ctx.Queue(), ctx.JoinableQueue(1), ctx.SimpleQueue(), ctx.Queue()
    full.put(0)
    waits = [("get", empty), ("get_many", empty), ("put", full), ("put_many", full)]
    for method, queue in waits:
        start(wait_in, method, queue, ready, ended)
    for _ in waits:
        ready.get()
    time.sleep(0.1)
    empty.shutdown(immediate)
    full.shutdown(immediate)
    assert sorted(ended.get(timeout=60) for _ in waits) == ["get", "get_many", "put", "put_many"]


def shut(queue: Any) -> None:
    queue.shutdown()


def test_another_process_shuts_the_queue_down(mp: ModuleType, ctx: Any, start: Any) -> None:
    queue = ctx.Queue()
    queue.put(1)
    start(shut, queue).join()
    assert queue.get() == 1
    with pytest.raises(mp.ShutDown):
        queue.get()
    with pytest.raises(mp.ShutDown):
        queue.put(2)


def test_a_descriptor_shows_the_shutdown(mp: ModuleType, queue: Any) -> None:
    from maniple.connection import wait

    assert not wait([queue._reader], 0)
    queue.shutdown()
    assert wait([queue._reader], 60)


def test_a_queue_of_the_standard_form_has_no_shutdown_but_the_other_calls(mp: ModuleType) -> None:
    from maniple.queues import Queue

    class Own(Queue):  # type: ignore[type-arg]
        _uses_parts = True

    queue = Own(2, ctx=mp.get_context("fork"))
    queue.put_many([1, 2])
    with pytest.raises(standard_queue.Full) as raised:
        queue.put_many([3], block=False)
    assert (raised.value.items_put, raised.value.next_items) == (0, [3])  # type: ignore[attr-defined]
    got = queue.get_many(1)
    while len(got) < 2:
        got += queue.get_many()
    assert got == [1, 2]
    with pytest.raises(NotImplementedError, match="inner parts"):
        queue.shutdown()
    queue.close()
    queue.join_thread()
