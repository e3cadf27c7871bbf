"""Managers: calls through proxies, and the effect of a death or an interruption at either end on waiting callers."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import psutil
import pytest
from conftest import nothing_left
from pools import eventually, in_thread, interrupted

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def manager(request: pytest.FixtureRequest, mp: ModuleType) -> Iterator[Any]:
    """A started manager whose clients and calls leave nothing in this process."""
    context = mp.get_context(request.param)
    context.Manager().shutdown()  # starts the helpers that start once
    with nothing_left(request.config):
        made = context.Manager()
        yield made
        made.shutdown()
        made.join()  # drops the process
        del made


@pytest.fixture
def forked(mp: ModuleType, request: pytest.FixtureRequest) -> Iterator[Any]:
    with nothing_left(request.config):
        made = mp.get_context("fork").Manager()
        yield made
        made.shutdown()
        made.join()  # drops the process
        del made


def descriptors(manager: Any) -> int:
    return psutil.Process(manager._process.pid).num_fds()


def descriptors_at_rest(manager: Any) -> int:
    """The number when the server has closed the connections of earlier calls: for a quarter of a second it stays the same."""
    number, since = descriptors(manager), time.monotonic()
    while time.monotonic() < since + 0.25:
        time.sleep(0.01)
        if (now := descriptors(manager)) != number:
            number, since = now, time.monotonic()
    return number


class Thing:
    """Pickled by name, and equal by content."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and other.content == self.content


def test_a_dict_holds_its_items(manager: Any) -> None:
    shared = manager.dict()
    values = [
        1,
        -(2**70),
        1.5,
        "é\udc80",
        b"\0" * 300,
        None,
        (1, (2,)),
        [1, [2]],
        {"a": {1}},
        Thing([1]),
        "x" * 200_000,
    ]
    for number, value in enumerate(values):
        shared[number] = value
        assert shared[number] == value and type(shared[number]) is type(value)
    assert shared.copy() == dict(enumerate(values))
    with pytest.raises(KeyError, match="missing"):
        shared["missing"]
    shared.update(a=1, b=[2])
    assert (shared["a"], shared["b"]) == (1, [2])
    same = [0]
    shared["pair"] = (same, same)
    first, second = shared["pair"]
    assert first is second


def test_a_container_returns_a_proxy_as_a_proxy(manager: Any) -> None:
    inner = manager.list([1])
    outer = manager.dict(inner=inner)
    outer["inner"].append(2)
    assert inner[:] == [1, 2]
    del inner, outer


def test_threads_of_a_client_call_at_the_same_time(manager: Any) -> None:
    shared, event = manager.dict(), manager.Event()
    waiting = [in_thread(event.wait) for _ in range(3)]
    counts = [in_thread(lambda n=n: [shared.update({n: i}) for i in range(200)]) for n in range(3)]
    for thread, _ in counts:
        thread.join()
    assert shared.copy() == dict.fromkeys(range(3), 199)
    event.set()
    for thread, outcome in waiting:
        thread.join()
        assert outcome == [True]
    waiting.clear()
    counts.clear()


def fill(shared: Any, key: int, count: int) -> None:
    for number in range(count):
        shared[key] = number


@pytest.mark.parametrize("method", METHODS)
def test_processes_share_a_dict(mp: ModuleType, method: str) -> None:
    context = mp.get_context(method)
    with context.Manager() as manager:
        shared = manager.dict()
        fill(shared, 9, 10)
        children = [context.Process(target=fill, args=(shared, key, 100)) for key in range(2)]
        for child in children:
            child.start()
        fill(shared, 2, 100)
        for child in children:
            child.join()
            assert child.exitcode == 0
        assert shared.copy() == {0: 99, 1: 99, 2: 99, 9: 9}


def test_killed_while_clients_wait(mp: ModuleType, manager: Any) -> None:
    lock, event, shared = manager.Lock(), manager.Event(), manager.dict()
    lock.acquire()
    entered = manager.Value("i", 0)
    waiting = [in_thread(lock.acquire), in_thread(event.wait), in_thread(lambda: event.wait(3600))]
    shared["up"] = entered.get()
    time.sleep(0.3)  # they wait by now, or find no server later: both must end
    os.kill(manager._process.pid, signal.SIGKILL)
    for thread, outcome in waiting:
        thread.join()
        assert isinstance(outcome[0], (EOFError, ConnectionError)), outcome
    for _ in range(2):
        with pytest.raises((EOFError, ConnectionError, FileNotFoundError)):
            shared["up"]
    waiting.clear()
    manager.join()


@pytest.mark.better_than_standard("waits for ever")
@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_server_is_ended(mp: ModuleType, method: str) -> None:
    manager = mp.get_context(method).Manager()
    server = manager._process
    os.kill(server.pid, signal.SIGSTOP)
    manager.shutdown()
    assert server.exitcode == -signal.SIGKILL


def wait_in(event: Any, pipe: Any) -> None:
    try:
        pipe.send("waits")
        event.wait()
    except (EOFError, ConnectionError) as error:
        pipe.send(type(error).__name__)


@pytest.mark.parametrize("method", METHODS)
def test_killed_while_another_process_waits(mp: ModuleType, method: str) -> None:
    context = mp.get_context(method)
    ours, its = context.Pipe()
    manager = context.Manager()
    event = manager.Event()
    child = context.Process(target=wait_in, args=(event, its))
    child.start()
    its.close()
    assert ours.recv() == "waits"
    time.sleep(0.3)
    manager._process.kill()
    assert ours.recv() in ("EOFError", "ConnectionResetError", "BrokenPipeError")
    child.join()
    assert child.exitcode == 0
    manager.shutdown()


def client_of(mp: ModuleType, manager: Any) -> Any:
    """A connection that a server thread serves, for any message."""
    connection = importlib.import_module(f"{mp.__name__}.connection")
    managers = importlib.import_module(f"{mp.__name__}.managers")
    conn = connection.Client(manager.address, authkey=bytes(manager._authkey))
    managers.dispatch(conn, None, "accept_connection", ("rude",))
    return conn


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\0\0\x40abc", b"\xff\xff\xff\xff\0\0\0", b"\xff\xff\xff\0"])
def test_a_client_dies_within_a_message(mp: ModuleType, forked: Any, said: bytes) -> None:
    shared = forked.dict(a=1)
    assert shared["a"] == 1
    before = descriptors_at_rest(forked)
    conn = client_of(mp, forked)
    eventually(lambda: descriptors(forked) == before + 1)
    os.write(conn.fileno(), said)
    assert shared["a"] == 1
    conn.close()
    eventually(lambda: descriptors(forked) <= before)
    assert shared["a"] == 1
    assert forked._number_of_objects() == 1


def ask_and_die(event: Any) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
    event.wait()


def test_a_client_killed_while_it_waits(mp: ModuleType, forked: Any) -> None:
    event, shared = forked.Event(), forked.dict(a=1)
    assert shared["a"] == 1
    before = descriptors_at_rest(forked)
    child = mp.get_context("fork").Process(target=ask_and_die, args=(event,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    child.close()
    event.set()  # the answer reaches no client
    eventually(lambda: descriptors(forked) <= before)
    assert shared["a"] == 1


@pytest.mark.better_than_standard("an empty message ends the thread that serves it")
def test_the_server_answers_nonsense_with_a_traceback(mp: ModuleType, forked: Any) -> None:
    conn = client_of(mp, forked)
    for nonsense in (b"", b"\x80", b"hello", pickle.dumps(1), pickle.dumps((1, 2)), pickle.dumps(("0", "x", 1, 2))):
        conn.send_bytes(nonsense)
        kind, text = conn.recv()
        assert kind == "#TRACEBACK" and "Traceback" in text
    conn.close()


def test_a_pickle_that_raises_system_exit_ends_no_server(mp: ModuleType, forked: Any) -> None:
    shared = forked.dict(a=1)
    with contextlib.suppress(EOFError, ConnectionError), contextlib.closing(client_of(mp, forked)) as conn:
        conn.send_bytes(b"cos\n_exit_is_not_there\n(I0\ntR.")
        assert conn.recv()[0] == "#TRACEBACK"
    assert shared["a"] == 1


@pytest.mark.better_than_standard("an interrupted call's answer is taken for the next one's")
def test_an_interrupted_call_does_not_affect_the_next(forked: Any) -> None:
    shared, event = forked.dict(a=1), forked.Event()
    with interrupted(), pytest.raises(KeyboardInterrupt):
        event.wait()
    event.set()
    assert shared["a"] == 1


@pytest.mark.better_than_standard("the two calls take each other's answers, or wait for ever")
@pytest.mark.timeout(20)
def test_a_signal_handler_may_call_while_a_call_waits(forked: Any) -> None:
    shared, event = forked.dict(a=1), forked.Event()

    def handler(*_: Any) -> None:
        shared["handled"] = shared["a"] + 1
        event.set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert event.wait() is True
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert shared.copy() == {"a": 1, "handled": 2}


@pytest.mark.better_than_standard("has no such lock")
def test_a_fork_during_a_call_to_a_dead_server(mp: ModuleType) -> None:
    ctx = mp.get_context("fork")
    manager = ctx.Manager()
    items = manager.list()
    manager.shutdown()
    # The state in which another thread has just received the end.
    with items._site._lock:
        process = ctx.Process(target=os.getpid)
        process.start()
        process.join(20)
        code = process.exitcode
        process.kill()
    process.join()
    assert code == 0


def test_a_network_address(mp: ModuleType) -> None:
    managers = importlib.import_module(f"{mp.__name__}.managers")
    with managers.SyncManager(address=("127.0.0.1", 0), authkey=b"key") as manager:
        shared = manager.dict()
        for size in (1, 4096, 1 << 20, 5 << 20):
            shared["bytes"] = bytes(size)
            assert len(shared["bytes"]) == size


# The standard package at the other end.

STOCK = textwrap.dedent(
    """
    import sys
    from multiprocessing import current_process
    from multiprocessing.managers import DictProxy, SyncManager

    VALUES = [1, -2**40, 2**80, 0.5, "text", b"bytes", None, True, (1, (2,)), [1, [2]], {"a": {1}}, "x" * 300, b"y" * 100_000]
    shared = {}


    class Manager(SyncManager):
        pass


    Manager.register("shared", lambda: shared, DictProxy)
    side, address = sys.argv[1], sys.argv[2]
    current_process().authkey = b"key"  # what a proxy that comes out of a container uses
    manager = Manager(address=address, authkey=b"key")
    if side == "serve":
        server = manager.get_server()
        print("up", flush=True)
        server.serve_forever()
    manager.connect()
    there = manager.shared()
    for number, value in enumerate(VALUES):
        there[number] = value
        assert there[number] == value and type(there[number]) is type(value), value
    assert there.copy() == dict(enumerate(VALUES))
    try:
        there["missing"]
    except KeyError as error:
        assert error.args == ("missing",)
    else:
        raise AssertionError
    assert sorted(iter(there.keys())) == list(range(len(VALUES)))
    names = manager.Namespace(a=1)
    there["names"] = names
    there["names"].b = 2
    assert names.b == 2
    inside = manager.list([3, 1, 2])
    there["list"] = inside
    there["list"].sort()
    assert inside[:] == [1, 2, 3]
    assert [n for n in manager.dict(a=1)] == ["a"]
    lock = manager.Lock()
    with lock:
        assert not lock.acquire(False)
    print("talked", flush=True)
    """
)


@pytest.mark.parametrize(
    ("server", "client"), [("multiprocessing", "maniple"), ("maniple", "multiprocessing"), ("maniple",) * 2]
)
def test_standard_python_at_one_end(tmp_path: Any, server: str, client: str, mp_package: str) -> None:
    address = str(tmp_path / "socket")
    programs = {}
    for name in {server, client}:
        program = tmp_path / f"{name}_side.py"
        program.write_text(STOCK.replace("multiprocessing", name if name != "maniple" else mp_package))
        programs[name] = str(program)
    serving = subprocess.Popen([sys.executable, programs[server], "serve", address], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None and serving.stdout.readline() == "up\n"
        done = subprocess.run(
            [sys.executable, programs[client], "ask", address], capture_output=True, text=True, timeout=60
        )
        assert (done.stdout, done.returncode) == ("talked\n", 0), done.stderr
    finally:
        serving.kill()
        serving.communicate()


def test_a_client_detects_the_death_of_a_standard_server(tmp_path: Any, mp: ModuleType) -> None:
    """The client's end of the wire is a plain socket, for every kind of client."""
    managers = importlib.import_module(f"{mp.__name__}.managers")
    address = str(tmp_path / "socket")
    program = tmp_path / "stock.py"
    program.write_text(STOCK)
    serving = subprocess.Popen([sys.executable, str(program), "serve", address], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None and serving.stdout.readline() == "up\n"
        manager = managers.SyncManager(address=address, authkey=b"key")
        manager.connect()
        thread, outcome = in_thread(manager.Event().wait)
        time.sleep(0.3)
    finally:
        serving.kill()
        serving.communicate()
    thread.join()
    assert isinstance(outcome[0], (EOFError, ConnectionError))


def test_half_an_answer_is_an_error(mp: ModuleType, tmp_path: Any) -> None:
    wire = importlib.import_module(f"{mp.__name__}._impl.manager.rpc") if mp.__name__ != "multiprocessing" else None
    if wire is None:
        pytest.skip("makes half an answer with our own module; another package has none")
    ours, peer = socket.socketpair()
    connection = importlib.import_module(f"{mp.__name__}.connection")
    line = wire.line_over(connection.ConnectionWrapper(connection.Connection(ours.detach()), wire._dumps, wire._loads))
    peer.sendall(struct.pack("!i", 100) + b"half")
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError, match="end of file during message"):
        line.call("0", "x", (), {})
    assert line.closed
    peer.close()


def test_a_manager_raises_the_error_of_its_servers_start(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    context = mp.get_context("spawn")

    class Process(context.Process):  # type: ignore[misc, name-defined]
        def start(self) -> None:
            raise EOFError("the fork server is gone")

    monkeypatch.setattr(context, "Process", Process)
    managers = importlib.import_module(f"{mp.__name__}.managers")
    with pytest.raises(EOFError, match="the fork server is gone"):
        managers.SyncManager(ctx=context).start()
