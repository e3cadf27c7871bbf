"""A signal handler that raises repeatedly, before a value is unpickled: the value still arrives, once and in order."""

from __future__ import annotations

import _thread
import importlib
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from pools import end_pool, make_pool


class Again(Exception):
    """The exception of the handler."""


def raise_again(*_: object) -> None:
    raise Again


class Slow:
    """A value that is slow to unpickle, in its own process and in the test's."""

    def __init__(self, number: int, seconds: float = 0.5) -> None:
        self.number, self.seconds = number, seconds

    def __reduce__(self) -> Any:
        return slowly, (self.number, self.seconds)


def slowly(number: int, seconds: float) -> int:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return number


class SlowError(Exception):
    def __reduce__(self) -> Any:
        return slow_error, ()


def slow_error() -> Exception:
    slowly(0, 0.5)
    return ValueError("the task's own")


def slow(number: int) -> Slow:
    return Slow(number)


def fail(_: int) -> None:
    raise SlowError


@contextmanager
def every(seconds: float) -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, raise_again)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def insist(get: Callable[[], Any]) -> Any:
    """Return the final result of `get`, while a handler raises every 50 ms."""
    interrupted = 0
    # Whether an exception of the handler would be caught.
    caught: list[bool] = []
    done: list[Any] = []
    until = time.monotonic() + 30

    def raise_once(*_: object) -> None:
        if caught:
            caught.clear()
            raise Again

    before = signal.signal(signal.SIGALRM, raise_once)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        while not done and time.monotonic() < until:
            try:
                caught.append(True)
                done.append(get())
                caught.clear()
            except Again:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert done, f"interrupted {interrupted} times"
    assert interrupted
    return done[0]


def interrupted(get: Callable[[], object], send: Callable[[], None]) -> threading.Thread:
    """Call `get`, which a signal of the thread that runs `send` interrupts; return the thread."""
    before = signal.signal(signal.SIGUSR1, raise_again)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Again):
            get()
    finally:
        signal.signal(signal.SIGUSR1, before)
    return sender


@contextmanager
def pool_of(mp: ModuleType) -> Iterator[Any]:
    pool = make_pool(mp, "fork", 2)
    try:
        yield pool
    finally:
        end_pool(pool)


def test_a_result_arrives(mp: ModuleType) -> None:
    with pool_of(mp) as pool:
        result = pool.apply_async(slow, (7,))
        assert insist(result.get) == 7
        assert result.get() == 7


def test_successful_reports_the_outcome(mp: ModuleType) -> None:
    with pool_of(mp) as pool:
        result = pool.apply_async(slow, (7,))
        result.wait()
        assert insist(result.successful) is True


def test_the_results_of_a_map_arrive(mp: ModuleType) -> None:
    with pool_of(mp) as pool:
        assert insist(pool.map_async(slow, range(3), 1).get) == [0, 1, 2]


def test_a_tasks_exception_arrives(mp: ModuleType) -> None:
    def get() -> str:
        try:
            result.get()
        except ValueError as error:
            return str(error)
        return "nothing"

    with pool_of(mp) as pool:
        result = pool.apply_async(fail, (7,))
        assert insist(get) == "the task's own"


@pytest.mark.parametrize("way", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunksize", [1, 2])
def test_a_loop_over_results_gets_each_once(mp: ModuleType, way: str, chunksize: int) -> None:
    with pool_of(mp) as pool:
        results = getattr(pool, way)(slow, range(4), chunksize)
        seen = [insist(results.__next__), next(results), insist(results.__next__), *results]
        assert (seen if way == "imap" else sorted(seen)) == [0, 1, 2, 3]


def test_a_loop_over_results_gets_the_exception(mp: ModuleType) -> None:
    def get() -> str:
        try:
            next(results)
        except ValueError as error:
            return str(error)
        return "nothing"

    with pool_of(mp) as pool:
        results = pool.imap(fail, range(2))
        assert [insist(get), insist(get)] == ["the task's own"] * 2
        assert next(results, None) is None


def ways(mp: ModuleType, kind: str) -> tuple[Callable[[Any], None], Callable[[], Any], Callable[[], bool], list[Any]]:
    """Return functions that put, get, and check for a message, and the objects to close."""
    if kind == "pipe":
        reader, writer = mp.Pipe(False)
        return writer.send, reader.recv, reader.poll, [reader, writer]
    if kind == "duplex":
        reader, writer = mp.Pipe()
        return writer.send, reader.recv, reader.poll, [reader, writer]
    queue = {"queue": mp.Queue, "simple": mp.SimpleQueue, "joinable": mp.JoinableQueue}[kind]()
    return queue.put, queue.get, lambda: not queue.empty(), [queue]


KINDS = pytest.mark.parametrize("kind", ["queue", "simple", "joinable", "pipe", "duplex"])
pytestmark = [
    pytest.mark.better_than_standard("the value is lost"),
    # The interpreter reports an exception of a handler in a finalizer or a weak reference's callback, and continues.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@KINDS
def test_an_item_arrives_once_and_in_order(mp: ModuleType, kind: str) -> None:
    put, get, there, used = ways(mp, kind)
    for number in range(3):
        put(Slow(number))
    assert insist(get) == 0
    assert there()
    assert insist(get) == 1
    assert get() == 2
    assert not there()
    for one in used:
        one.close()


@KINDS
@pytest.mark.parametrize("made", [lambda: [complex(n) for n in range(500_000)], lambda: list(range(3_000_000))])
def test_a_value_that_only_the_interpreter_unpickles_arrives(mp: ModuleType, kind: str, made: Any) -> None:
    """No handler runs before the value has arrived, and no handler may keep it from the caller."""
    put, get, _, used = ways(mp, kind)
    value = made()
    sender = threading.Thread(target=put, args=(value,))
    sender.start()
    with pytest.raises(Again), every(0.02):
        get()
        raise AssertionError("it was there before the time was up")
    assert get() == value
    sender.join()
    for one in used:
        one.close()


@KINDS
def test_an_interrupted_receive_loses_nothing(mp: ModuleType, kind: str) -> None:
    put, get, there, used = ways(mp, kind)
    put(Slow(5))
    with pytest.raises(Again), every(0.1):
        get()
    assert there()
    if kind in ("queue", "joinable"):
        assert used[0].qsize() == 1
    if kind != "simple":
        reader = used[0] if kind in ("pipe", "duplex") else used[0]._reader
        assert connection_of(mp).wait([reader], 0) == [reader]
        assert pickle.loads(reader.recv_bytes()) == 5
    else:
        assert get() == 5
    assert not there()
    for one in used:
        one.close()


def connection_of(mp: ModuleType) -> Any:
    return importlib.import_module(f"{mp.__name__}.connection")


@KINDS
def test_a_forked_child_does_not_receive_an_interrupted_message(mp: ModuleType, kind: str) -> None:
    put, get, there, used = ways(mp, kind)
    put(Slow(5))
    with pytest.raises(Again), every(0.1):
        get()
    told, tell = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(tell, b"there" if there() else b"nothing")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(told, 100) == b"nothing"
    os.close(told)
    os.close(tell)
    assert get() == 5
    for one in used:
        one.close()


def test_large_buffers_arrive(mp: ModuleType) -> None:
    put, get, _, used = ways(mp, "queue")
    value = [pickle.PickleBuffer(bytearray(b"x" * 3_000_000)), Slow(1)]
    put(value)
    found, number = insist(get)
    assert (bytes(found), number) == (b"x" * 3_000_000, 1)
    used[0].close()


@pytest.mark.parametrize("duplex", [False, True])
@pytest.mark.parametrize("how", ["recv", "recv_bytes", "recv_bytes_into"])
def test_a_message_interrupted_in_its_content_arrives(mp: ModuleType, duplex: bool, how: str) -> None:
    reader, writer = mp.Pipe(duplex)
    content = os.urandom(600_000)
    sent = len(content).to_bytes(4, "big") + content
    if how == "recv":
        pickled = pickle.dumps(content)
        sent = len(pickled).to_bytes(4, "big") + pickled
    room = bytearray(1_000_000)

    get = getattr(reader, how) if how != "recv_bytes_into" else lambda: reader.recv_bytes_into(room)

    def send() -> None:
        for place in range(0, len(sent), 30_000):
            rest = sent[place : place + 30_000]
            while rest:
                rest = rest[os.write(writer.fileno(), rest) :]
            time.sleep(0.02)

    sender = threading.Thread(target=send)
    sender.start()
    received = insist(get)
    assert (bytes(room[:received]) if how == "recv_bytes_into" else received) == content
    sender.join()
    writer.send(None) if how == "recv" else writer.send_bytes(b"next")
    assert (reader.recv() is None) if how == "recv" else (reader.recv_bytes() == b"next")
    reader.close()
    writer.close()


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("how", ["recv", "recv_bytes", "recv_bytes_into"])
def test_a_message_that_arrives_together_with_a_signal_is_kept(mp: ModuleType, how: str, size: int) -> None:
    reader, writer = mp.Pipe(duplex=False)
    content, room = bytes(size), bytearray(b"x" * size)
    sent = pickle.dumps(content) if how == "recv" else content
    get = getattr(reader, how) if how != "recv_bytes_into" else lambda: reader.recv_bytes_into(room)

    def send() -> None:
        os.write(writer.fileno(), len(sent).to_bytes(4, "big") + sent[:5])
        time.sleep(0.2)
        # The reader waits in the kernel. No real signal wakes it, so it runs the handler once it has the message.
        _thread.interrupt_main(signal.SIGUSR1)
        rest = sent[5:]
        while rest:
            rest = rest[os.write(writer.fileno(), rest) :]

    sender = interrupted(get, send)
    # The rest of a message that was interrupted in its middle may still be on its way.
    assert reader.poll(10)
    received = get()
    assert (bytes(room[:received]) if how == "recv_bytes_into" else received) == content
    sender.join()
    reader.close()
    writer.close()


@pytest.mark.parametrize("how", ["recv", "recv_bytes", "recv_bytes_into"])
def test_a_message_with_a_block_that_arrives_together_with_a_signal_is_kept(mp: ModuleType, how: str) -> None:
    reader, writer = mp.Pipe(duplex=False)
    content, room = np.arange(200_000), bytearray(2_000_000)

    def get() -> Any:
        if how == "recv":
            return reader.recv()
        return reader.recv_bytes() if how == "recv_bytes" else reader.recv_bytes_into(room)

    def send() -> None:
        time.sleep(0.2)
        _thread.interrupt_main(signal.SIGUSR1)
        writer.send(content)

    sender = interrupted(get, send)
    assert reader.poll(10)
    received = get()
    if how != "recv":
        received = pickle.loads(received if how == "recv_bytes" else room[:received])
    assert np.array_equal(received, content)
    sender.join()
    reader.close()
    writer.close()


@pytest.mark.parametrize("duplex", [False, True])
@pytest.mark.parametrize("length", [b"\0\0\0\5", b"\xff" * 4 + b"\0" * 7 + b"\5"])
@pytest.mark.parametrize("cut", [1, 3])
def test_a_message_interrupted_in_its_length_arrives(mp: ModuleType, duplex: bool, length: bytes, cut: int) -> None:
    reader, writer = mp.Pipe(duplex)
    pieces = length[:-cut], length[-cut:], b"hello"

    def send() -> None:
        for piece in pieces:
            os.write(writer.fileno(), piece)
            time.sleep(0.12)

    sender = threading.Thread(target=send)
    sender.start()
    assert insist(reader.recv_bytes) == b"hello"
    sender.join()
    writer.send_bytes(b"next")
    assert reader.recv_bytes() == b"next"
    reader.close()
    writer.close()


def numbers(put: Callable[[int], None]) -> None:
    for number in range(10**9):
        put(number)


@pytest.mark.parametrize("what", ["queue", "pipe", "one-way pipe"])
def test_a_signal_during_a_wait_loses_few_messages(mp: ModuleType, what: str) -> None:
    ctx = mp.get_context("fork")
    queue = ctx.Queue(10)
    near, far = ctx.Pipe(what == "pipe")
    get, put = (queue.get, queue.put) if what == "queue" else (near.recv, far.send)
    sender = ctx.Process(target=numbers, args=(put,), daemon=True)
    asks, interrupts, lost, last = False, 0, 0, -1

    def interrupt(*_: object) -> None:
        nonlocal asks, interrupts
        if asks:
            asks = False
            interrupts += 1
            raise Again

    before = signal.signal(signal.SIGALRM, interrupt)
    sender.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0003)
        end = time.monotonic() + 20
        while interrupts < 500 and time.monotonic() < end:
            try:
                asks = True
                got = get()
                asks = False
            except Again:
                asks = False
                continue
            assert got > last, "a message came twice, or too late"
            lost, last = lost + got - last - 1, got
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sender.kill()
        sender.join()
    # The interpreter may run a handler between a call's end and the assignment of its result: the program's task.
    assert interrupts >= 100
    assert lost < interrupts / 4
