"""Pipes: the wire format, large buffers beside it, and ends that die during a message."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection as StandardConnection
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from footprint import Footprint, leaks_since

METHODS = ("fork", "spawn", "forkserver")
LARGE = np.arange(1 << 17)  # 1 MB


@pytest.fixture(params=METHODS)
def ctx(request: pytest.FixtureRequest, mp: ModuleType) -> Any:
    return mp.get_context(request.param)


@pytest.fixture
def pipe(mp: ModuleType) -> Iterator[tuple[Any, Any]]:
    """Return both ends of a pipe that carries large buffers beside the messages."""
    a, b = mp.get_context("fork").Pipe()
    for near, far in ((a, b), (b, a)):
        near.send(0)
        far.recv()
    yield a, b
    a.close()
    b.close()


def echo(conn: Any) -> None:
    with contextlib.suppress(EOFError):
        while True:
            conn.send(conn.recv())


def double(conn: Any) -> None:
    while (array := conn.recv()) is not None:
        array *= 2
        conn.send(array)


def listen(conn: Any) -> None:
    while True:
        conn.recv()


def shout(conn: Any, item: Any) -> None:
    while True:
        conn.send(item)


SIMPLE = [
    None, True, False, 0, 255, 256, 65535, 65536, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1, -(2**63), 2**63,
    2**70, 0.0, -1.5, float("inf"), "", "a", "ü" * 200, "x" * 5000, "\ud800", b"", b"abc", bytes(300), bytes(100_000), (),
    (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((), ((((1,),),),)), [], [1], [1, [2, [3]]], {}, {"a": 1}, {1: {2: [3]}, None: (4,)},
    {(1, "x"): b"y"}, [None] * 1000, set(), {1, 2}, range(3), 1j, bytearray(b"xy"),
]  # fmt: skip


@pytest.mark.parametrize("value", SIMPLE, ids=lambda value: repr(value)[:30])
def test_an_object_arrives_equal_and_as_an_ordinary_pickle(pipe: tuple[Any, Any], value: Any) -> None:
    a, b = pipe
    a.send(value)
    got = b.recv()
    assert (got, type(got)) == (value, type(value))
    a.send(value)
    assert pickle.loads(b.recv_bytes()) == value
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        a.send_bytes(pickle.dumps(value, protocol))
        assert b.recv() == value


def test_one_object_stays_one(pipe: tuple[Any, Any]) -> None:
    a, b = pipe
    shared: list[Any] = [1]
    loop: list[Any] = []
    loop.append(loop)
    a.send((shared, shared, {"x": shared}))
    one, two, three = b.recv()
    assert one is two is three["x"]
    a.send(loop)
    got = b.recv()
    assert got[0] is got


class Special(tuple):
    __slots__ = ()


def rebuilt_special(items: tuple[Any, ...]) -> str:
    return f"rebuilt {items}"


def test_a_connection_calls_registered_reducers(mp: ModuleType, mp_package: str, pipe: tuple[Any, Any]) -> None:
    pickler = importlib.import_module(f"{mp_package}.reduction").ForkingPickler
    pickler.register(Special, lambda s: (rebuilt_special, (tuple(s),)))
    queue = mp.get_context("fork").Queue()
    a, b = pipe
    a.send((1, Special((2,))))
    assert b.recv() == (1, "rebuilt (2,)")
    a.send([LARGE[:10], Special((3,))])
    assert b.recv()[1] == "rebuilt (3,)"
    queue.put(Special((4,)))
    assert queue.get() == "rebuilt (4,)"
    queue.close()
    queue.join_thread()


def test_large_arrays_arrive_writable_and_apart_from_the_senders(pipe: tuple[Any, Any]) -> None:
    a, b = pipe
    for _ in range(40):  # more than there are blocks
        sent = LARGE.copy()
        a.send([sent, "and", sent, sent[:3]])
        first, _, second, third = b.recv()
        assert first is second
        assert np.array_equal(first, LARGE)
        assert np.array_equal(third, LARGE[:3])
        first[:] = -1
        assert np.array_equal(sent, LARGE)
    frozen = LARGE.copy()
    frozen.flags.writeable = False
    a.send(frozen)
    assert b.recv().flags.writeable  # as with the standard package before 3.14


def test_a_block_is_not_reused_while_it_has_views(pipe: tuple[Any, Any]) -> None:
    a, b = pipe
    kept = []
    for number in range(30):
        a.send(np.full(1 << 14, number))
        kept.append(b.recv())
    assert [int(array[0]) for array in kept] == list(range(30))
    assert all((array == array[0]).all() for array in kept)


@pytest.mark.better_than_standard("a large message blocks its sender until it is read")
def test_recv_bytes_returns_a_loadable_pickle_of_a_large_array(pipe: tuple[Any, Any], mp: ModuleType) -> None:
    a, b = pipe
    a.send(LARGE)
    assert np.array_equal(pickle.loads(b.recv_bytes()), LARGE)
    frozen = LARGE.copy()
    frozen.flags.writeable = False
    a.send((frozen, LARGE))
    one, two = pickle.loads(b.recv_bytes())
    assert one.flags.writeable and two.flags.writeable
    a.send(LARGE)
    room = bytearray(2 << 20)
    size = b.recv_bytes_into(room, 8)
    assert np.array_equal(pickle.loads(room[8 : 8 + size]), LARGE)
    a.send(LARGE)
    with pytest.raises(mp.BufferTooShort) as caught:
        b.recv_bytes_into(bytearray(100))
    assert np.array_equal(pickle.loads(caught.value.args[0]), LARGE)
    # bytes that look like a parcel are bytes
    a.send_bytes(b"maniple parcel 1" + bytes(16))
    assert b.recv_bytes() == b"maniple parcel 1" + bytes(16)


def test_the_format_is_plain_before_the_first_receive(mp: ModuleType) -> None:
    for duplex in (True, False):
        reader, writer = mp.get_context("fork").Pipe(duplex)
        array = np.arange(1 << 13)  # 64 KiB: more does not fit a pipe
        sender = threading.Thread(target=writer.send, args=(array,))
        sender.start()
        (size,) = struct.unpack("!i", os.read(reader.fileno(), 4))
        pickled = b""
        while len(pickled) < size:
            pickled += os.read(reader.fileno(), size - len(pickled))
        sender.join()
        assert np.array_equal(pickle.loads(pickled), array)
        reader.close()
        writer.close()


def test_a_standard_connection_exchanges_messages_with_an_end(mp: ModuleType) -> None:
    ours, theirs = mp.get_context("fork").Pipe()
    with StandardConnection(os.dup(theirs.fileno())) as standard:
        sender = threading.Thread(target=ours.send, args=(LARGE,))
        sender.start()
        assert np.array_equal(standard.recv(), LARGE)
        sender.join()
        sender = threading.Thread(target=standard.send, args=(LARGE,))
        sender.start()
        assert np.array_equal(ours.recv(), LARGE)
        sender.join()
    ours.close()
    theirs.close()


def test_a_connection_over_a_pipes_descriptor_receives_messages(pipe: tuple[Any, Any], mp_package: str) -> None:
    a, b = pipe
    connection = importlib.import_module(f"{mp_package}.connection")
    with connection.Connection(os.dup(b.fileno())) as other:
        sender = threading.Thread(target=a.send, args=(LARGE,))
        sender.start()
        assert np.array_equal(other.recv(), LARGE)
        sender.join()


def test_an_end_can_be_passed_on(ctx: Any, pipe: tuple[Any, Any]) -> None:
    here, there = ctx.Pipe()
    with Held(ctx.Process(target=echo, args=(there,))):
        a, b = pipe
        here.send(b)
        b2 = here.recv()
        for _ in range(3):
            sender = threading.Thread(target=a.send, args=(LARGE,))
            sender.start()
            assert np.array_equal(b2.recv(), LARGE)
            sender.join()
        b2.close()
    here.close()
    there.close()


class Held:
    """A process that ends with the block."""

    def __init__(self, process: Any) -> None:
        self.process = process

    def __enter__(self) -> Any:
        self.process.start()
        return self.process

    def __exit__(self, *exc_info: Any) -> None:
        self.process.kill()
        self.process.join()


def test_arrays_go_round_in_every_start_method(ctx: Any) -> None:
    here, there = ctx.Pipe()
    with Held(ctx.Process(target=double, args=(there,))):
        there.close()
        array = LARGE
        for _ in range(20):
            here.send(array)
            array = here.recv()
        assert np.array_equal(array, LARGE << 20)
        here.send(None)
    here.close()


def test_a_forked_child_sends_from_its_own_blocks(mp: ModuleType, pipe: tuple[Any, Any]) -> None:
    ctx = mp.get_context("fork")
    a, b = pipe
    a.send(LARGE)
    first = b.recv()
    del first  # its block is free now, in this process and in the child's copy
    with Held(ctx.Process(target=a.send, args=(LARGE + 1,))) as child:
        theirs = b.recv()
        a.send(LARGE + 2)
        ours = b.recv()
        child.join()
        assert np.array_equal(theirs, LARGE + 1)
        assert np.array_equal(ours, LARGE + 2)


def report_sum(conn: Any, array: np.ndarray) -> None:
    conn.recv()
    conn.send(int(array.sum()))


def test_a_fork_copies_a_received_array(mp: ModuleType, pipe: tuple[Any, Any]) -> None:
    ctx = mp.get_context("fork")
    a, b = pipe
    a.send(LARGE)
    array = b.recv()
    to_child, from_parent = ctx.Pipe()
    with Held(ctx.Process(target=report_sum, args=(from_parent, array))):
        array[:] = 0
        del array
        for _ in range(3):  # would use the block again
            a.send(LARGE * 0)
            b.recv()
        to_child.send("go")
        assert to_child.recv() == LARGE.sum()
    to_child.close()
    from_parent.close()


@pytest.mark.parametrize("item", [b"x" * (8 << 20), np.ones(1 << 20), (1, 2)], ids=["bytes", "array", "small"])
def test_a_writer_killed_in_mid_message_ends_the_readers_wait(mp: ModuleType, item: Any) -> None:
    ctx = mp.get_context("fork")
    before = Footprint.take()
    for pause in (0.0, 0.002, 0.01, 0.03):
        for duplex in (True, False):
            reader, writer = ctx.Pipe(duplex)
            with Held(ctx.Process(target=shout, args=(writer, item))) as child:
                writer.close()
                reader.recv()
                time.sleep(pause)
                os.kill(child.pid, signal.SIGKILL)
                with pytest.raises((EOFError, OSError)) as caught:
                    while True:
                        reader.recv()
                assert caught.type is EOFError or "end of file" in str(caught.value) or "reset" in str(caught.value)
            reader.close()
    del reader, writer, child, caught
    assert not leaks_since(before)


@pytest.mark.parametrize("item", [b"x" * (8 << 20), np.ones(1 << 20)], ids=["bytes", "array"])
def test_a_reader_killed_in_mid_message_ends_the_writers_wait(mp: ModuleType, item: Any) -> None:
    ctx = mp.get_context("fork")
    before = Footprint.take()
    for pause in (0.0, 0.002, 0.01, 0.03):
        for duplex in (True, False):
            reader, writer = ctx.Pipe(duplex)
            with Held(ctx.Process(target=listen, args=(reader,))) as child:
                reader.close()
                writer.send(item)
                threading.Timer(pause, os.kill, (child.pid, signal.SIGKILL)).start()
                with pytest.raises(OSError):
                    while True:
                        writer.send(item)
            writer.close()
    del reader, writer, child
    assert not leaks_since(before)


def test_a_truncated_message_is_not_the_end_of_the_stream(mp_package: str) -> None:
    connection = importlib.import_module(f"{mp_package}.connection")
    for cut in (b"\0", struct.pack("!i", 10), struct.pack("!i", 10) + b"abc", struct.pack("!i", -1) + b"12"):
        near, far = socket.socketpair()
        far.sendall(cut)
        far.close()
        with (
            connection.Connection(near.detach()) as conn,
            pytest.raises(OSError, match="got end of file during message"),
        ):
            conn.recv()
    near, far = socket.socketpair()
    far.close()
    with connection.Connection(near.detach()) as conn, pytest.raises(EOFError):
        conn.recv()


def test_a_message_of_2_gib_has_a_long_header(mp_package: str) -> None:
    connection = importlib.import_module(f"{mp_package}.connection")
    near, far = socket.socketpair()
    with connection.Connection(near.detach()) as conn:
        far.sendall(struct.pack("!iQ", -1, 5) + b"hello" + struct.pack("!iQ", -1, 1 << 31))
        assert conn.recv_bytes() == b"hello"
        with pytest.raises(OSError, match="bad message length"):
            conn.recv_bytes(100)
        assert not conn.readable
        with pytest.raises(OSError, match="write-only"):
            conn.recv()
    far.close()


def test_select_waits_for_ends(pipe: tuple[Any, Any], mp_package: str) -> None:
    wait = importlib.import_module(f"{mp_package}.connection").wait
    a, b = pipe
    assert not b.poll()
    assert wait([a, b], 0.01) == []
    a.send(LARGE[:1])
    assert select.select([a, b], [], [], 5)[0] == [b]
    assert wait([a, b], 5) == [b]
    assert b.poll()
    b.recv()
    assert not b.poll(0.01)


INTERRUPTED = """
import importlib, os, signal, sys, threading, time
mp = importlib.import_module(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)
ctx = mp.get_context("fork")
a, b = ctx.Pipe()
r, w = ctx.Pipe(False)
q, s, j = ctx.Queue(), ctx.SimpleQueue(), ctx.JoinableQueue()
j.put(1)
acts = {
    "recv": a.recv, "recv_bytes": a.recv_bytes, "poll": lambda: a.poll(None), "send": lambda: a.send_bytes(bytes(1 << 24)),
    "one-way recv": r.recv, "one-way send": lambda: w.send_bytes(bytes(1 << 24)), "get": q.get, "get 100": lambda: q.get(True, 100),
    "simple get": s.get, "join": j.join, "wait": lambda: mp.connection.wait([a, q._reader]),
}
for name, act in acts.items():
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        act()
    except KeyboardInterrupt:
        print(name)
"""


def test_every_wait_ends_with_ctrl_c(mp_package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, mp_package], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 11, done.stdout


def test_other_threads_run_while_one_waits(pipe: tuple[Any, Any]) -> None:
    a, b = pipe
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.append(b.recv()))
    reader.start()
    a.send("x")
    reader.join()
    assert got == ["x"]


@pytest.mark.parametrize("duplex", [False, True])
@pytest.mark.parametrize("size", [3, 3_000, 100_000])
def test_threads_share_an_end_and_no_message_is_torn(mp: ModuleType, duplex: bool, size: int) -> None:
    reader, writer = mp.Pipe(duplex)
    threads, each = 3, 400
    received: list[tuple[int, int, bytes]] = []
    errors: list[BaseException] = []

    def guarded(work: Any, number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    def send(number: int) -> None:
        for step in range(each):
            writer.send((number, step, bytes([number]) * (size + step % 7)))

    def receive(number: int) -> None:
        into = bytearray(2 * size + 1000)
        for step in range(each):
            if number == 0:
                message = reader.recv()
            elif number == 1 or (step % 2 and not duplex):
                message = pickle.loads(reader.recv_bytes())
            else:
                message = pickle.loads(into[: reader.recv_bytes_into(into)])
            received.append(message)

    both = [threading.Thread(target=guarded, args=(w, n), daemon=True) for w in (send, receive) for n in range(threads)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(60)
    assert not errors
    assert sorted(received) == [(n, s, bytes([n]) * (size + s % 7)) for n in range(threads) for s in range(each)]
    reader.close()
    writer.close()


@pytest.mark.parametrize("duplex", [False, True])
def test_a_forked_child_does_not_inherit_the_turn_of_a_thread_of_its_parent(mp: ModuleType, duplex: bool) -> None:
    reader, writer = mp.Pipe(duplex)
    answers, may_receive = mp.SimpleQueue(), mp.Event()

    def receive_later() -> None:
        may_receive.wait()
        answers.put(("child", reader.recv()))

    thread = threading.Thread(target=lambda: answers.put(("thread", reader.recv())), daemon=True)
    thread.start()
    time.sleep(0.2)  # the thread has its turn, and waits for a message
    child = mp.get_context("fork").Process(target=receive_later)
    child.start()
    # Processes that share an end take turns by a lock of their own: here the child waits for an event.
    writer.send("first")
    assert answers.get() == ("thread", "first")
    may_receive.set()
    writer.send("second")
    assert answers.get() == ("child", "second")
    thread.join(20)
    child.join(20)
    assert child.exitcode == 0
    reader.close()
    writer.close()


def test_a_handler_receives_from_the_connection_that_it_interrupts(mp: ModuleType) -> None:
    reader, writer = mp.Pipe(False)
    received: list[Any] = []
    before = signal.signal(signal.SIGALRM, lambda *_: (writer.send("one"), received.append(reader.recv())))
    later = threading.Timer(0.6, writer.send, ("two",))
    try:
        later.start()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        received.append(reader.recv())
    finally:
        signal.signal(signal.SIGALRM, before)
        later.join()
    assert received == ["one", "two"]
    reader.close()
    writer.close()


def test_closing_ends_the_wait_for_another_threads_turn(mp: ModuleType) -> None:
    reader, writer = mp.Pipe(False)
    failed: list[str] = []

    def receive() -> None:
        try:
            reader.recv()
        except OSError as error:
            failed.append(str(error))

    waiting = [threading.Thread(target=receive, daemon=True) for _ in range(2)]
    for thread in waiting:
        thread.start()
    time.sleep(0.2)
    reader.close()
    writer.send("for the one that has begun")
    for thread in waiting:
        thread.join(20)
    assert not any(thread.is_alive() for thread in waiting)
    assert failed[-1:] == ["handle is closed"]
    writer.close()
