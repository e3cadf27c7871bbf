"""A message that a signal handler keeps from its receiver: a single-use message is unpickled once, and all waiting
threads see it."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from pools import end_pool, make_pool


class Late(Exception):
    """The time is up."""


def raise_late(*_: object) -> None:
    raise Late


@contextmanager
def handler(seconds: float = 0.1) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, raise_late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


unpickled: list[int] = []


def slowly(number: int) -> int:
    unpickled.append(number)
    end = time.monotonic() + 0.4
    while time.monotonic() < end:
        pass
    return number


class Slow:
    """Is slow to unpickle."""

    def __init__(self, number: int = 7) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return slowly, (self.number,)


WAYS = pytest.mark.parametrize("way", ["queue", "simple", "pipe", "one-way pipe"])


def ends(ctx: Any, way: str) -> tuple[Callable[[], Any], Callable[[Any], None], Any]:
    if way in ("queue", "simple"):
        used = ctx.Queue() if way == "queue" else ctx.SimpleQueue()
        return used.get, used.put, used
    near, far = ctx.Pipe(way == "pipe")
    return near.recv, far.send, (near, far)


@contextmanager
def sending(ctx: Any, send: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run a process that sends, and that lives until the block ends."""
    done = ctx.Event()
    process = ctx.Process(target=send, args=(*arguments, done), daemon=True)
    process.start()
    try:
        yield
    finally:
        done.set()
        process.join(20)
        process.kill()


def send_connection(ctx: Any, put: Callable[[Any], None], done: Any) -> None:
    near, far = ctx.Pipe()
    put([near, Slow()])
    far.send("hello")
    done.wait(30)


def send_socket(ctx: Any, put: Callable[[Any], None], done: Any) -> None:
    near, far = socket.socketpair()
    put([near, Slow()])
    far.sendall(b"hello")
    done.wait(30)


def send_proxy(ctx: Any, put: Callable[[Any], None], manager: Any, done: Any) -> None:
    items = manager.list([1, 2])
    put([items, Slow()])
    del items
    done.wait(30)


@WAYS
def test_a_connection_in_a_kept_message_arrives(mp: ModuleType, way: str) -> None:
    ctx = mp.get_context("fork")
    get, put, _ = ends(ctx, way)
    with sending(ctx, send_connection, ctx, put):
        with pytest.raises(Late), handler():
            get()
        near, number = get()
        assert (near.recv(), number) == ("hello", 7)
        put("next")
        assert get() == "next"


@WAYS
def test_a_socket_in_a_kept_message_arrives(mp: ModuleType, way: str) -> None:
    ctx = mp.get_context("fork")
    get, put, _ = ends(ctx, way)
    with sending(ctx, send_socket, ctx, put):
        with pytest.raises(Late), handler():
            get()
        near, number = get()
        assert (near.recv(9), number) == (b"hello", 7)
        near.close()


@WAYS
def test_a_proxy_in_a_kept_message_keeps_its_object(mp: ModuleType, way: str) -> None:
    ctx = mp.get_context("fork")
    get, put, _ = ends(ctx, way)
    with ctx.Manager() as manager, sending(ctx, send_proxy, ctx, put, manager):
        with pytest.raises(Late), handler():
            get()
        time.sleep(0.2)
        items, number = get()
        assert (list(items), number) == ([1, 2], 7)
        del items


def test_a_descriptor_is_unpickled_once(mp: ModuleType) -> None:
    ctx = mp.get_context("fork")
    get, put, _ = ends(ctx, "queue")
    with sending(ctx, send_connection, ctx, put):
        unpickled.clear()
        got = None
        for _ in range(100):
            try:
                with handler(0.03):
                    got = get()
                    break
            except Late:
                pass
        assert got is not None and got[0].recv() == "hello"
        assert unpickled == [7]


def read_nested(pickled: bytes) -> Any:
    return pickle.loads(pickled)


class Nested:
    """Return a separate pickle, as libraries with their own pickler make it."""

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled

    def __reduce__(self) -> Any:
        return read_nested, (self.pickled,)


def send_pickle(package: str, far: Any, protocol: int, nested: bool, done: Any) -> None:
    near, offered = importlib.import_module(package).Pipe()
    offered.send("hello")
    pickler = importlib.import_module(f"{package}.reduction").ForkingPickler
    stream = io.BytesIO()
    pickler(stream, protocol).dump([near, Slow()])
    pickled = stream.getvalue()
    far.send_bytes(pickle.dumps(Nested(pickled), protocol) if nested else pickled)
    done.wait(30)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_connection_in_a_pickle_of_any_kind_arrives(mp: ModuleType, protocol: int, nested: bool) -> None:
    ctx = mp.get_context("fork")
    here, far = ctx.Pipe()
    with sending(ctx, send_pickle, mp.__name__, far, protocol, nested):
        assert here.poll(20)
        with pytest.raises(Late), handler():
            here.recv()
        near, number = here.recv()
        assert (near.recv(), number) == ("hello", 7)


offered: Any = None


def offer(_: int) -> Any:
    global offered
    near, offered = importlib.import_module(package).Pipe()
    offered.send("hello")
    return [near, Slow()]


package = ""


@pytest.mark.parametrize("how", ["apply_async", "map_async", "imap"])
def test_a_connection_in_a_result_arrives(mp: ModuleType, how: str) -> None:
    global package
    package = mp.__name__
    pool = make_pool(mp, "fork", 1)
    try:
        if how == "imap":
            results = pool.imap(offer, [1])
            get = lambda: next(results)  # noqa: E731
        elif how == "map_async":
            mapped = pool.map_async(offer, [1])
            mapped.wait(20)
            get = lambda: mapped.get(20)[0]  # noqa: E731
        else:
            applied = pool.apply_async(offer, (1,))
            applied.wait(20)
            get = lambda: applied.get(20)  # noqa: E731
        with pytest.raises(Late), handler():
            get()
        near, number = get()
        assert (near.recv(), number) == ("hello", 7)
    finally:
        end_pool(pool)


tickets: list[int] = []


def once(number: int) -> int:
    if number in tickets:
        raise EOFError("it was taken already")
    tickets.append(number)
    return slowly(number)


class Once:
    def __reduce__(self) -> Any:
        return once, (1,)


def test_another_single_use_message_is_reported_as_lost(mp: ModuleType) -> None:
    """The error is not the end of the connection."""
    near, far = mp.Pipe()
    tickets.clear()
    far.send(Once())
    far.send("next")
    with pytest.raises(Late), handler():
        near.recv()
    with pytest.raises(Exception, match="the message is lost") as error:
        near.recv()
    assert not isinstance(error.value, EOFError | OSError)
    assert near.recv() == "next"
    near.close()
    far.close()


# -- waiting threads


@contextmanager
def waiting(wait: Callable[[], Any]) -> Iterator[list[Any]]:
    """Yield a list that receives the result of another thread, which is already waiting."""
    came: list[Any] = []

    def run() -> None:
        try:
            came.append(wait())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.1)
    yield came
    thread.join(10)
    assert not thread.is_alive(), "it does not return"


def interrupt(get: Callable[[], Any]) -> None:
    with pytest.raises(Late), handler():
        get()


@pytest.mark.parametrize("way", ["queue", "simple"])
def test_a_thread_that_waits_in_get_receives_a_kept_message(mp: ModuleType, way: str) -> None:
    get, put, used = ends(mp.get_context("fork"), way)
    put(Slow())
    late = threading.Event()
    # The thread begins to wait when the message is taken, before it is kept.
    with waiting(lambda: (late.wait(10), get())[1]) as came:
        threading.Timer(0.15, late.set).start()
        with pytest.raises(Late), handler(0.3):
            get()
    assert came == [7]
    assert used.empty()
    used.close()


@pytest.mark.parametrize("way", ["queue", "pipe", "one-way pipe"])
@pytest.mark.parametrize("how", ["wait", "poll"])
def test_a_thread_that_waits_for_several_objects_sees_a_kept_message(mp: ModuleType, way: str, how: str) -> None:
    get, put, used = ends(mp.get_context("fork"), way)
    reader = used._reader if way == "queue" else used[0]
    wait = importlib.import_module(f"{mp.__name__}.connection").wait
    put(Slow())
    late = threading.Event()

    def wait_later() -> Any:
        late.wait(10)
        return wait([reader]) if how == "wait" else reader.poll(None)

    with waiting(wait_later) as came:
        threading.Timer(0.15, late.set).start()
        with pytest.raises(Late), handler(0.3):
            get()
    assert came == ([[reader]] if how == "wait" else [True])
    assert get() == 7
    if how == "wait":
        assert wait([reader], 0) == []


def test_a_selector_sees_a_kept_message_of_a_queue(mp: ModuleType) -> None:
    made = mp.Queue()
    with selectors.DefaultSelector() as selector:
        selector.register(made._reader, selectors.EVENT_READ)
        made.put(Slow())
        interrupt(made.get)
        assert selector.select(5)
        assert made.get() == 7
        assert not selector.select(0)
        made.put(1)
        assert selector.select(5) and made.get() == 1 and not selector.select(0)
    made.close()


def test_a_queue_bound_counts_kept_messages(mp: ModuleType) -> None:
    made = mp.Queue(1)
    made.put(Slow())
    interrupt(made.get)
    assert made.full() and made.qsize() == 1 and not made.empty()
    with pytest.raises(queue.Full):
        made.put_nowait(1)
    with pytest.raises(queue.Full):
        made.put(1, timeout=0.1)
    with waiting(lambda: made.put(2, timeout=8)) as came:
        assert made.get() == 7
    assert came == [None]
    assert made.get() == 2 and made.empty() and not made.full()
    made.close()


def test_a_forked_child_has_the_whole_bound(mp: ModuleType) -> None:
    made = mp.Queue(1)
    made.put(Slow())
    interrupt(made.get)
    if (pid := os.fork()) == 0:
        code = 1
        try:
            if not made.full() and made.empty():
                made.put("of the child", timeout=5)
                code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert made.get() == 7 and made.get(timeout=5) == "of the child"
    made.close()
