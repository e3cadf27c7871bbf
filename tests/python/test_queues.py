"""Queues: order, bounds, waits, and processes that die during a put or a get."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import queue as standard_queue
import random
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from footprint import Footprint, leaks_since

METHODS = ("fork", "spawn", "forkserver")
KINDS = ("Queue", "JoinableQueue", "SimpleQueue")
LARGE = np.ones(1 << 17)  # 1 MB


@pytest.fixture(params=METHODS)
def ctx(request: pytest.FixtureRequest, mp: ModuleType) -> Any:
    return mp.get_context(request.param)


@pytest.fixture(params=KINDS)
def queue_kind(request: pytest.FixtureRequest) -> str:
    return request.param


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


def put_range(queue: Any, writer: int, count: int) -> None:
    for number in range(count):
        queue.put((writer, number))


def put_forever(queue: Any, item: Any) -> None:
    while True:
        queue.put(item)


def get_forever(queue: Any) -> None:
    while True:
        queue.get()


def pass_on(source: Any, sink: Any) -> None:
    while True:
        sink.put((os.getpid(), source.get()))


def test_many_writers_and_readers_lose_nothing_and_keep_each_writers_order(
    ctx: Any, start: Callable[..., Any], queue_kind: str
) -> None:
    source, sink = getattr(ctx, queue_kind)(), getattr(ctx, queue_kind)()
    writers, count = 3, 500
    for _ in range(2):
        start(pass_on, source, sink)
    for writer in range(writers):
        start(put_range, source, writer, count)
    got: dict[tuple[int, int], list[int]] = {}
    for _ in range(writers * count):
        reader, (writer, number) = sink.get()
        got.setdefault((reader, writer), []).append(number)
    assert all(numbers == sorted(numbers) for numbers in got.values())
    assert sorted((w, n) for (_, w), numbers in got.items() for n in numbers) == [
        (w, n) for w in range(writers) for n in range(count)
    ]


@pytest.mark.better_than_standard("a process waits at its exit until somebody has taken what it put")
@pytest.mark.parametrize("item", [7, "x" * 5_000_000, LARGE], ids=["small", "text", "array"])
def test_a_process_can_be_joined_before_its_item_is_taken(
    ctx: Any, start: Callable[..., Any], queue_kind: str, item: Any
) -> None:
    queue = getattr(ctx, queue_kind)()
    writer = start(put_many, queue, item, 20)
    writer.join()
    assert writer.exitcode == 0
    for _ in range(20):
        got = queue.get()
        assert np.array_equal(got, item)


def put_many(queue: Any, item: Any, count: int) -> None:
    for _ in range(count):
        queue.put(item)


@pytest.mark.better_than_standard("a writer or reader that is killed leaves the pipe damaged or its lock taken")
@pytest.mark.parametrize("item", [(1, "two"), LARGE], ids=["small", "large"])
def test_killed_writers_and_readers_harm_no_other_process(mp: ModuleType, queue_kind: str, item: Any) -> None:
    ctx = mp.get_context("fork")
    before = Footprint.take()
    queue = getattr(ctx, queue_kind)()
    for _ in range(15):
        pair = [ctx.Process(target=put_forever, args=(queue, item)), ctx.Process(target=get_forever, args=(queue,))]
        for process in pair:
            process.start()
        time.sleep(random.random() * 0.02)
        random.shuffle(pair)
        for process in pair:
            os.kill(process.pid, signal.SIGKILL)
            time.sleep(random.random() * 0.005)
        for process in pair:
            process.join()
        while not queue.empty():
            assert np.array_equal(queue.get(), item) if item is LARGE else queue.get() == item
        queue.put("still")
        assert queue.get() == "still"
    queue.close()
    del queue, pair, process
    assert not leaks_since(before)


@pytest.mark.better_than_standard("a reader that is killed while it waits keeps the lock")
def test_a_reader_killed_while_it_waits_does_not_stop_the_others(
    start: Callable[..., Any], ctx: Any, queue_kind: str
) -> None:
    source, sink = getattr(ctx, queue_kind)(), getattr(ctx, queue_kind)()
    readers = [start(pass_on, source, sink) for _ in range(3)]
    for number in range(3):  # all are up
        source.put(number)
        sink.get()
    for victim in readers[:2]:
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        for number in range(5):
            source.put(number)
            assert sink.get()[1] == number


def test_a_bounded_queue_is_full_at_its_bound(mp: ModuleType) -> None:
    queue = mp.get_context("fork").Queue(2)
    queue.put(1)
    assert not queue.full()
    queue.put(2)
    assert queue.full()
    assert queue.qsize() == 2
    with pytest.raises(standard_queue.Full):
        queue.put_nowait(3)
    with pytest.raises(standard_queue.Full):
        queue.put(3, timeout=0.01)
    assert queue.get() == 1
    queue.put(3)
    assert [queue.get(timeout=5), queue.get(timeout=5)] == [2, 3]
    with pytest.raises(standard_queue.Empty):
        queue.get_nowait()
    with pytest.raises(standard_queue.Empty):
        queue.get(timeout=0.01)
    queue.close()


def test_an_unpicklable_item_is_reported_and_takes_no_place(
    mp: ModuleType, mp_package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ctx = mp.get_context("fork")
    queue = ctx.Queue(1)
    queue.put(lambda: 0)
    queue.put(1, timeout=5)
    assert queue.get(timeout=5) == 1
    assert "pickle" in capsys.readouterr().err
    queue.close()
    queue.join_thread()

    reported: list[Any] = []

    class Watching(importlib.import_module(f"{mp_package}.queues").Queue):
        @staticmethod
        def _on_queue_feeder_error(e: Exception, obj: Any) -> None:
            reported.append((threading.current_thread().name, obj))

    watching = Watching(1, ctx=ctx)
    unpicklable = lambda: 0  # noqa: E731
    watching.put(unpicklable)
    watching.put(2, timeout=5)
    assert watching.get(timeout=5) == 2
    assert reported == [("QueueFeederThread", unpicklable)]
    watching.close()
    watching.join_thread()


class Undecodable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_an_item_that_fails_to_unpickle_frees_its_place(mp: ModuleType) -> None:
    queue = mp.get_context("fork").Queue(1)
    queue.put(Undecodable())
    with pytest.raises(ValueError, match="no number"):
        queue.get(timeout=5)
    queue.put(1, timeout=5)
    assert queue.get(timeout=5) == 1
    queue.close()


def test_wait_accepts_a_queues_reader(mp: ModuleType, mp_package: str, start: Callable[..., Any], ctx: Any) -> None:
    wait = importlib.import_module(f"{mp_package}.connection").wait
    source, sink = ctx.Queue(), ctx.Queue()
    start(pass_on, source, sink)
    a, b = ctx.Pipe()
    for number in range(50):
        assert wait([sink._reader, a], 0) == []
        source.put(number)
        assert wait([sink._reader, a], 30) == [sink._reader]
        assert select.select([sink._reader], [], [], 0)[0] == [sink._reader]
        assert sink.get_nowait()[1] == number
    source.put("a")
    source.put("b")
    assert wait([sink._reader], 30)
    assert sink.get()[1] == "a"
    assert wait([sink._reader], 30)
    assert pickle.loads(sink._reader.recv_bytes())[1] == "b"
    assert wait([sink._reader], 0) == []
    a.close()
    b.close()


def test_large_arrays_arrive_writable(mp: ModuleType, queue_kind: str) -> None:
    queue = getattr(mp.get_context("fork"), queue_kind)()
    for factor in range(1, 40):
        filler = threading.Thread(target=queue.put, args=([LARGE * factor, "x", factor],))
        filler.start()
        array, _, got = queue.get()
        filler.join()
        assert got == factor
        assert (array == factor).all()
        array += 1
    queue.close()


def test_join_waits_for_every_item_to_be_reported_done(start: Callable[..., Any], ctx: Any) -> None:
    queue = ctx.JoinableQueue()
    start(finish, queue)
    for number in range(100):
        queue.put(number)
    queue.join()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


def finish(queue: Any) -> None:
    while True:
        queue.get()
        queue.task_done()


def test_closing_leaves_no_descriptor(mp: ModuleType, queue_kind: str) -> None:
    ctx = mp.get_context("fork")
    getattr(ctx, queue_kind)().close()  # the objects that stay after the first queue
    before = Footprint.take()
    queues = [getattr(ctx, queue_kind)() for _ in range(10)]
    for queue in queues:
        queue.put(1)
        queue.get()
        queue.close()
    with contextlib.suppress(ValueError, OSError):
        queue.put(1)
    queues.clear()
    del queue
    assert not leaks_since(before)


def test_a_put_during_a_fork_does_not_stop_the_child(mp: ModuleType) -> None:
    ctx = mp.get_context("fork")
    queue, ended = ctx.Queue(), threading.Event()

    def busy() -> None:
        while not ended.is_set():
            queue.put(LARGE)
            queue.get()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(20):
            child = ctx.Process(target=put_many, args=(queue, LARGE, 1))
            child.start()
            child.join()
            assert child.exitcode == 0
            assert queue.get(timeout=30) is not None
    finally:
        ended.set()
        queue.put(0)
        thread.join()
        queue.cancel_join_thread()
        queue.close()


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_empty_works_on_a_closed_unused_queue(mp: ModuleType, kind: str) -> None:
    queue = getattr(mp, kind)()
    queue.close()
    queue.join_thread()
    assert queue.empty()
    queue = getattr(mp, kind)()
    queue.put("item")
    queue.close()
    queue.join_thread()
    with pytest.raises(OSError, match="is closed"):
        queue.empty()


@pytest.mark.parametrize("maxsize", ["a", 1.5, None])
@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
@pytest.mark.better_than_standard("the error does not name the argument")
def test_a_maxsize_that_is_no_int(mp: ModuleType, kind: str, maxsize: Any) -> None:
    with pytest.raises(TypeError, match=f"maxsize must be an int, not {maxsize!r} of type {type(maxsize).__name__}"):
        getattr(mp, kind)(maxsize)
    queue = getattr(mp, kind)(np.int64(1))
    queue.put(1)
    assert queue.full()
    queue.get()
