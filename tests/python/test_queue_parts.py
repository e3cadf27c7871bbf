"""Queues whose inner parts a class or a program uses, and bounded queues whose writers and readers are killed."""

from __future__ import annotations

import importlib
import os
import queue as standard_queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS

WAIT = 20


@pytest.fixture
def queues(mp_package: str) -> ModuleType:
    return importlib.import_module(f"{mp_package}.queues")


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Starts processes that end with the test."""
    started: list[Any] = []

    def go(ctx: Any, target: Callable[..., Any], *args: Any) -> Any:
        started.append(ctx.Process(target=target, args=args))
        started[-1].start()
        return started[-1]

    yield go
    for process in started:
        process.kill()
        process.join()


def put_each(queue: Any, items: Any) -> None:
    for item in items:
        queue.put(item)


def put_forever(queue: Any, item: Any) -> None:
    while True:
        queue.put(item)


def get_forever(queue: Any) -> None:
    while True:
        queue.get()


# -- classes that use the parts


def make_classes(package: str) -> dict[str, type]:
    """Subclasses like those of libraries, each with another use of the parts."""
    queues = importlib.import_module(f"{package}.queues")
    util = importlib.import_module(f"{package}.util")

    class OwnFeeder(queues.Queue):  # type: ignore[name-defined,misc]
        """Like loky's: it has its own state, thread and feeder."""

        def __getstate__(self) -> Any:
            own = self._reader, self._writer, self._rlock, self._wlock, self._sem, self._opid
            return self._ignore_epipe, self._maxsize, *own, "reducers"

        def __setstate__(self, state: Any) -> None:
            self._ignore_epipe, self._maxsize, self._reader, self._writer, self._rlock = state[:5]
            self._wlock, self._sem, self._opid, self.reducers = state[5:]
            self._reset()

        def _start_thread(self) -> None:
            self._buffer.clear()
            close = self._writer.close
            what = self._buffer, self._notempty, self._send_bytes, self._wlock, close, self._sem
            self._thread = threading.Thread(target=OwnFeeder._feed, args=what, daemon=True)
            self._thread.start()
            if not self._joincancelled:
                import weakref

                ref = weakref.ref(self._thread)
                self._jointhread = util.Finalize(self._thread, OwnFeeder._finalize_join, [ref], exitpriority=-5)
            what = self._buffer, self._notempty
            self._close = util.Finalize(self, OwnFeeder._finalize_close, what, exitpriority=10)

        @staticmethod
        def _feed(buffer: Any, notempty: Any, send_bytes: Any, wlock: Any, close: Any, sem: Any) -> None:
            while True:
                with notempty:
                    while not buffer:
                        notempty.wait()
                    item = buffer.popleft()
                if item is queues._sentinel:
                    close()
                    return
                with wlock:
                    send_bytes(queues._ForkingPickler.dumps(("fed", item)))

        def get(self, *args: Any, **kwds: Any) -> Any:
            return super().get(*args, **kwds)[1]

    class OwnPut(queues.Queue):  # type: ignore[name-defined,misc]
        """Public methods made of the parts."""

        def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
            if not self._sem.acquire(block, timeout):
                raise standard_queue.Full
            with self._notempty:
                if self._thread is None:
                    self._start_thread()
                self._buffer.append(obj)
                self._notempty.notify()

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if not self._rlock.acquire(block, timeout):
                raise standard_queue.Empty
            try:
                if not self._poll(timeout):
                    raise standard_queue.Empty
                pickle = self._recv_bytes()
                self._sem.release()
            finally:
                self._rlock.release()
            return queues._ForkingPickler.loads(pickle)

    class Counting(queues.Queue):  # type: ignore[name-defined,misc]
        """Counts by itself, and keeps the whole state of its base."""

        def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
            super().__init__(maxsize, ctx=ctx)
            self.size = ctx.Value("i", 0)

        def __getstate__(self) -> Any:
            return {"base": super().__getstate__(), "size": self.size}

        def __setstate__(self, state: Any) -> None:
            super().__setstate__(state["base"])
            self.size = state["size"]

        def put(self, *args: Any, **kwds: Any) -> None:
            super().put(*args, **kwds)
            with self.size.get_lock():
                self.size.value += 1

        def get(self, *args: Any, **kwds: Any) -> Any:
            item = super().get(*args, **kwds)
            with self.size.get_lock():
                self.size.value -= 1
            return item

        def qsize(self) -> int:
            return int(self.size.value)

    class Wrapped(queues.Queue):  # type: ignore[name-defined,misc]
        """Wraps the ends with its own objects."""

        def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
            super().__init__(maxsize, ctx=ctx)
            self._reader, self._writer = Wrapper(self._reader), Wrapper(self._writer)

    class Joined(queues.JoinableQueue):  # type: ignore[name-defined,misc]
        """A join with a time limit."""

        def join_within(self, timeout: float) -> bool:
            with self._cond:
                if not self._unfinished_tasks._semlock._is_zero():
                    self._cond.wait(timeout)
            return bool(self._unfinished_tasks._semlock._is_zero())

    made = {c.__name__: c for c in (OwnFeeder, OwnPut, Counting, Wrapped, Joined)}
    for name, made_class in made.items():  # so that unpickling finds them
        made_class.__qualname__ = made_class.__name__ = f"{name}_{package}"
        made_class.__module__ = __name__
        globals()[made_class.__name__] = made_class
    return made


class Wrapper:
    def __init__(self, end: Any) -> None:
        self.end = end

    def __getattr__(self, name: str) -> Any:
        if "end" not in vars(self):
            raise AttributeError(name)
        return getattr(self.end, name)


CLASSES = make_classes(os.environ.get("MP_PACKAGE", "maniple"))
NAMES = list(CLASSES)


@pytest.fixture(params=NAMES)
def make(request: pytest.FixtureRequest, mp_package: str) -> Callable[..., Any]:
    if not CLASSES[request.param].__name__.endswith(mp_package):
        pytest.skip("its classes are those of $MP_PACKAGE")
    return CLASSES[request.param]


@pytest.mark.parametrize("method", METHODS)
def test_a_subclass_that_uses_the_parts_carries_items_both_ways(
    mp: ModuleType, make: Callable[..., Any], start: Callable[..., Any], method: str
) -> None:
    ctx = mp.get_context(method)
    queue = make(3, ctx=ctx)
    items = [1, "two", (3,), b"x" * 100_000, None] * 5
    child = start(ctx, put_each, queue, items)
    assert [queue.get(timeout=WAIT) for _ in items] == items
    child.join()
    assert child.exitcode == 0
    queue.put("here")
    assert queue.get(timeout=WAIT) == "here"
    with pytest.raises(standard_queue.Empty):
        queue.get(timeout=0.01)
    for _ in range(3):
        queue.put(0)
    with pytest.raises(standard_queue.Full):
        queue.put(0, timeout=0.01)
    assert queue.full() and queue.qsize() == 3
    for _ in range(3):
        queue.get(timeout=WAIT)
    queue.close()
    queue.join_thread()


def test_overrides_of_a_subclass_are_called(mp: ModuleType, queues: ModuleType) -> None:
    ctx = mp.get_context("fork")
    called: list[str] = []

    def noting(name: str) -> Any:
        def method(self: Any, *args: Any, **kwds: Any) -> Any:
            called.append(name)
            return getattr(super(Noting, self), name)(*args, **kwds)

        return method

    class Noting(queues.Queue):  # type: ignore[name-defined,misc]
        _reset, _start_thread = noting("_reset"), noting("_start_thread")

        @staticmethod
        def _feed(*args: Any) -> None:
            called.append("_feed")
            queues.Queue._feed(*args)

        def _on_queue_feeder_error(self, e: Exception, obj: Any) -> None:
            called.append(f"error {obj}")

    queue = Noting(ctx=ctx)
    for name in "_rlock _wlock _sem _opid _notempty _buffer _thread _jointhread _joincancelled _close".split():
        getattr(queue, name)
    queue.put(unpicklable := Unpicklable())
    queue.put("fine")
    assert queue.get(timeout=WAIT) == "fine"
    assert called[:2] == ["_reset", "_start_thread"]
    assert f"error {unpicklable}" in called
    assert queue._opid == os.getpid() and queue._thread.is_alive()
    queue.close()
    queue.join_thread()


class Unpicklable:
    def __reduce__(self) -> Any:
        raise ValueError("not this one")


def test_a_class_makes_the_parts_itself(mp: ModuleType, queues: ModuleType, mp_package: str) -> None:
    ctx = mp.get_context("fork")
    connection = importlib.import_module(f"{mp_package}.connection")

    class FromScratch(queues.Queue):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            self._maxsize, self._ignore_epipe, self._opid = 5, False, os.getpid()
            self._reader, self._writer = connection.Pipe(duplex=False)
            self._rlock, self._wlock, self._sem = ctx.Lock(), ctx.Lock(), ctx.BoundedSemaphore(5)
            self._reset()

    queue = FromScratch()
    for number in range(5):
        queue.put(number)
    with pytest.raises(standard_queue.Full):
        queue.put_nowait(5)
    assert [queue.get(timeout=WAIT) for _ in range(5)] == [*range(5)]
    queue.close()
    queue.join_thread()


def test_a_program_puts_a_feeder_into_the_class(
    mp: ModuleType, queues: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, fed = queues.Queue._feed, []

    def feed(*args: Any) -> None:
        fed.append(threading.current_thread().name)
        original(*args)

    monkeypatch.setattr(queues.Queue, "_feed", staticmethod(feed))
    queue = mp.get_context("fork").Queue()
    queue.put(1)
    assert queue.get(timeout=WAIT) == 1
    assert fed == ["QueueFeederThread"]
    queue.close()
    queue.join_thread()


def test_tasks_are_done_and_joined_through_the_parts(mp: ModuleType, mp_package: str) -> None:
    if not CLASSES["Joined"].__name__.endswith(mp_package):
        pytest.skip("its classes are those of $MP_PACKAGE")
    queue = CLASSES["Joined"](ctx=mp.get_context("fork"))
    queue.put(1)
    assert not queue.join_within(0.05)
    queue.get(timeout=WAIT)
    queue.task_done()
    assert queue.join_within(WAIT)
    queue.join()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()
    queue.close()
    queue.join_thread()


@pytest.mark.parametrize("method", METHODS)
def test_a_simple_queue_with_its_own_locks_and_pickler(
    mp: ModuleType, mp_package: str, start: Callable[..., Any], method: str
) -> None:
    if not hasattr(SimpleWithState, "base") or not SimpleWithState.base.startswith(mp_package):
        pytest.skip("its classes are those of $MP_PACKAGE")
    ctx = mp.get_context(method)
    queue = SimpleWithState(ctx=ctx)
    start(ctx, put_each, queue, ["a", "b"])
    assert [queue.get(), queue.get()] == ["a", "b"]
    with queue._rlock, queue._wlock:
        assert queue.empty()
    queue.close()


def make_simple(package: str) -> type:
    base = importlib.import_module(f"{package}.queues").SimpleQueue

    def __getstate__(self: Any) -> Any:
        return self._reader, self._writer, self._rlock, self._wlock, "more"

    def __setstate__(self: Any, state: Any) -> None:
        self._reader, self._writer, self._rlock, self._wlock, self.more = state
        self._poll = self._reader.poll

    def put(self: Any, obj: Any) -> None:
        import pickle

        with self._wlock:
            self._writer.send_bytes(pickle.dumps(obj))

    names = {"__getstate__": __getstate__, "__setstate__": __setstate__, "put": put}
    return type("SimpleWithState", (base,), {**names, "base": base.__module__, "__module__": __name__})


SimpleWithState: Any = make_simple(os.environ.get("MP_PACKAGE", "maniple"))


# -- the views of an ordinary queue


def test_the_parts_of_an_ordinary_queue_have_correct_values(mp: ModuleType) -> None:
    queue = mp.get_context("fork").Queue(2)
    queue.put("a")
    time.sleep(0.2)  # the standard package's feeder needs a moment
    assert queue._maxsize == 2 and queue._opid == os.getpid() and not queue._closed
    assert queue._sem._semlock._get_value() == 1 and not queue._sem._semlock._is_zero()
    assert len(queue._buffer) == 0 and queue._poll(WAIT)
    with queue._notempty:
        queue._buffer.clear()
    assert queue._ignore_epipe is False and queue._joincancelled is False
    queue._recv_bytes()
    queue.cancel_join_thread()
    assert queue._joincancelled is True
    queue.close()

    joinable = mp.get_context("fork").JoinableQueue()
    joinable.put(1)
    assert joinable._unfinished_tasks._semlock._get_value() == 1
    joinable.get(timeout=WAIT)
    joinable.task_done()
    assert joinable._unfinished_tasks._semlock._is_zero()
    joinable.close()


def test_missing_parts_of_an_ordinary_queue_raise_an_explanation(mp: ModuleType, mp_package: str) -> None:
    if mp_package == "multiprocessing":
        pytest.skip("it has them")
    queue, simple = mp.get_context("fork").Queue(1), mp.get_context("fork").SimpleQueue()
    for one in (queue, simple):
        for name in ("_rlock", "_wlock"):
            assert not hasattr(one, name)
            with pytest.raises(AttributeError, match=f"uses {name}, .* gets a queue that has it"):
                getattr(one, name)
        with pytest.raises(AttributeError, match="no attribute '_nonsense'"):
            one._nonsense  # noqa: B018
        one.close()
    told = type("Told", (type(simple),), {"_uses_parts": True})(ctx=mp.get_context("fork"))
    with told._rlock, told._wlock:
        assert told.empty()
    told.close()
    with pytest.raises(RuntimeError, match="call put"):
        queue._buffer.append(1)
    with pytest.raises(RuntimeError, match="no semaphore"):
        queue._sem.acquire()


def test_a_closed_queue_returns_its_size(mp: ModuleType) -> None:
    queue = mp.get_context("fork").Queue(2)
    queue.put(1)
    queue.put(2)
    queue.close()
    queue.join_thread()
    assert queue.qsize() == 2 and queue.full()


# -- bounds and deaths


class Slow:
    def __init__(self, gate: Any) -> None:
        self.gate = gate

    def __reduce__(self) -> Any:
        self.gate.set()
        time.sleep(60)
        return int, ()


def put_slowly(queue: Any, gate: Any) -> None:
    queue.put(Slow(gate))
    time.sleep(60)


@pytest.mark.better_than_standard("a place is lost with each writer that is killed at the wrong moment")
@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_a_writer_killed_while_it_pickles_takes_no_place(mp: ModuleType, start: Callable[..., Any], kind: str) -> None:
    ctx = mp.get_context("fork")
    queue, gate = getattr(ctx, kind)(1), ctx.Event()
    writer = start(ctx, put_slowly, queue, gate)
    assert gate.wait(WAIT)
    assert not queue.full() and queue.qsize() == 0
    writer.kill()
    writer.join()
    queue.put("mine", timeout=WAIT)
    assert queue.full()
    assert queue.get(timeout=WAIT) == "mine"
    if kind == "JoinableQueue":
        queue.task_done()
        queue.join()
    queue.close()


@pytest.mark.better_than_standard("a place is lost with each writer that is killed at the wrong moment")
@pytest.mark.parametrize("watching", [False, True], ids=["plain", "watching"])
def test_a_bounded_queue_keeps_its_places_after_kills(
    mp: ModuleType, queues: ModuleType, start: Callable[..., Any], watching: bool
) -> None:
    ctx = mp.get_context("fork")

    class Watching(queues.Queue):  # type: ignore[name-defined,misc]
        def _on_queue_feeder_error(self, e: Exception, obj: Any) -> None:
            raise e

    places = 4
    queue = Watching(places, ctx=ctx) if watching else ctx.JoinableQueue(places)
    for _ in range(25):
        pair = start(ctx, put_forever, queue, b"x" * 200), start(ctx, get_forever, queue)
        time.sleep(random.random() * 0.01)
        for process in random.sample(pair, 2):
            os.kill(process.pid, signal.SIGKILL)
        for process in pair:
            process.join()
    left = 0
    while not queue.empty():
        queue.get(timeout=WAIT)
        left += 1
    assert left <= places
    for number in range(places):
        queue.put(number, timeout=WAIT)
    with pytest.raises(standard_queue.Full):
        queue.put_nowait(places)
    assert [queue.get(timeout=WAIT) for _ in range(places)] == [*range(places)]
    queue.close()


def test_a_waiting_writer_gets_a_place_and_can_be_interrupted(mp: ModuleType) -> None:
    queue = mp.get_context("fork").Queue(1)
    queue.put(1)
    waiting = threading.Thread(target=queue.put, args=(2,))
    waiting.start()
    time.sleep(0.05)
    assert queue.get(timeout=WAIT) == 1
    waiting.join(WAIT)
    assert not waiting.is_alive()

    class Late(Exception):
        pass

    def handler(*args: Any) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Late):
            queue.put(3)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert queue.get(timeout=WAIT) == 2
    queue.close()
    queue.join_thread()
