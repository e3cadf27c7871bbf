"""Listeners and their clients: silent clients, rude clients, and clients with a key for a listener without one."""

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
import threading
import time
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import psutil
import pytest
from conftest import nothing_left
from pools import in_thread

KEY = b"between us"


@pytest.fixture
def connection(mp: ModuleType) -> ModuleType:
    return importlib.import_module(f"{mp.__name__}.connection")


@pytest.fixture(params=["unix", "inet"])
def family(request: pytest.FixtureRequest) -> str:
    return f"AF_{request.param.upper()}"


def raw(address: Any) -> socket.socket:
    """A client that sends nothing by itself."""
    sock = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    sock.connect(address)
    return sock


@pytest.mark.better_than_standard("it waits for the silent one")
@pytest.mark.parametrize("said", [b"", b"\0\0", b"\0\0\0\x20abc"])
def test_silent_clients_delay_no_other(connection: ModuleType, family: str, said: bytes) -> None:
    with connection.Listener(family=family, authkey=KEY, backlog=128) as listener:
        silent = [raw(listener.address) for _ in range(100)]
        for sock in silent:
            sock.sendall(said)
        thread, outcome = in_thread(lambda: connection.Client(listener.address, authkey=KEY))
        with listener.accept() as conn:
            thread.join()
            outcome[0].send("hello")
            assert conn.recv() == "hello"
            outcome[0].close()
        for sock in silent:
            sock.close()


def test_a_strangers_message_fails_one_accept(connection: ModuleType, family: str) -> None:
    with connection.Listener(family=family, authkey=KEY) as listener:
        for said, error in [
            (struct.pack("!i", 4) + b"oops", connection.AuthenticationError),
            (struct.pack("!i", 20) + bytes(20), connection.AuthenticationError),
            (b"", EOFError),
            (b"\0\0", EOFError),
        ]:
            with raw(listener.address) as sock:
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
                with pytest.raises(error):
                    listener.accept()
        thread, outcome = in_thread(lambda: connection.Client(listener.address, authkey=KEY).close())
        listener.accept().close()
        thread.join()
        assert outcome == [None]


FAMILIES = ("AF_UNIX", "AF_INET")

STOCK_LISTENER = """
from multiprocessing.connection import Listener
listener = Listener(("127.0.0.1", 0))
print(listener.address[1], flush=True)
try:
    listener.accept().recv()
except EOFError:
    print("ended")
"""


@pytest.mark.better_than_standard("both wait for ever")
def test_a_key_against_no_key_is_an_error_at_both_ends(connection: ModuleType) -> None:
    line = [sys.executable, "-I", "-c", STOCK_LISTENER]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as stock, contextlib.ExitStack() as listeners:
        try:
            ours = [listeners.enter_context(connection.Listener(family=family)) for family in FAMILIES]
            serving = [in_thread(lambda listener=listener: listener.accept().recv()) for listener in ours]
            assert stock.stdout is not None
            addresses = [listener.address for listener in ours] + [("127.0.0.1", int(stock.stdout.readline()))]
            # Side by side: each takes ten seconds.
            calling = [in_thread(partial(connection.Client, address, authkey=KEY)) for address in addresses]
            for thread, outcome in calling:
                thread.join()
                assert isinstance(outcome[0], connection.AuthenticationError) and "authkey" in str(outcome[0])
            for thread, outcome in serving:
                thread.join()
                assert isinstance(outcome[0], EOFError)
            assert stock.communicate()[0] == "ended\n"
        finally:
            stock.kill()


def test_no_key_against_a_key_is_an_error_at_both_ends(connection: ModuleType, family: str) -> None:
    with connection.Listener(family=family, authkey=KEY) as listener:
        thread, outcome = in_thread(listener.accept)
        with connection.Client(listener.address) as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send("hello")
            with pytest.raises((importlib.import_module("pickle").UnpicklingError, EOFError, ConnectionError)):
                client.recv()
        thread.join()
        assert isinstance(outcome[0], connection.AuthenticationError)


def test_a_busy_listener_times_no_client_out(connection: ModuleType) -> None:
    with contextlib.ExitStack() as listeners:
        ours = [listeners.enter_context(connection.Listener(family=family, authkey=KEY)) for family in FAMILIES]
        calling = [in_thread(lambda to=to: connection.Client(to.address, authkey=KEY).recv()) for to in ours]
        time.sleep(11)
        for listener, (thread, outcome) in zip(ours, calling):
            with listener.accept() as conn:
                conn.send("at last")
                thread.join()
            assert outcome == ["at last"]


def test_a_time_limit_on_the_socket_holds_for_accept(connection: ModuleType, family: str) -> None:
    for key in (None, KEY):
        with connection.Listener(family=family, authkey=key) as listener:
            listener._listener._socket.settimeout(0.05)
            with pytest.raises(TimeoutError):
                listener.accept()
            thread, outcome = in_thread(lambda key=key: connection.Client(listener.address, authkey=key).close())
            listener._listener._socket.settimeout(20)
            listener.accept().close()
            thread.join()
            assert outcome == [None]


class OwnSocket(socket.socket):
    """A socket class with which a program, or a library such as gevent, has replaced the standard one."""

    accepts = 0

    def accept(self) -> Any:
        OwnSocket.accepts += 1
        return super().accept()


def test_a_programs_socket_class_accepts_by_its_own_method(connection: ModuleType, family: str) -> None:
    for key in (None, KEY):
        with connection.Listener(family=family, authkey=key) as listener:
            inner = listener._listener
            inner._socket = OwnSocket(fileno=inner._socket.detach())
            before = OwnSocket.accepts
            thread, outcome = in_thread(lambda key=key, to=listener: connection.Client(to.address, authkey=key).close())
            listener.accept().close()
            thread.join()
            assert outcome == [None] and OwnSocket.accepts == before + 1


@pytest.mark.better_than_standard("it waits on")
@pytest.mark.timeout(20)
def test_close_ends_accept_in_another_thread(connection: ModuleType, family: str) -> None:
    for key in (None, KEY):
        listener = connection.Listener(family=family, authkey=key)
        thread, outcome = in_thread(listener.accept)
        time.sleep(0.1)
        listener.close()
        thread.join()
        assert isinstance(outcome[0], OSError)


def test_a_signal_handlers_exception_ends_accept(connection: ModuleType, family: str) -> None:
    def handler(*_: Any) -> None:
        raise ZeroDivisionError

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for key in (None, KEY):
            with connection.Listener(family=family, authkey=key) as listener:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
                with pytest.raises(ZeroDivisionError):
                    listener.accept()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_several_threads_and_processes_accept_from_one_listener(connection: ModuleType, family: str) -> None:
    with connection.Listener(family=family, authkey=KEY, backlog=16) as listener:
        listener._listener._socket.settimeout(20)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for _ in range(4):
                    listener.accept().send("child")
                status = 0
            finally:
                os._exit(status)
        servers = [in_thread(lambda: [listener.accept().send("parent") for _ in range(4)]) for _ in range(2)]
        got = []
        silent = raw(listener.address)
        for _ in range(12):
            with connection.Client(listener.address, authkey=KEY) as client:
                got.append(client.recv())
        for thread, _ in servers:
            thread.join()
        silent.close()
        assert os.waitpid(child, 0)[1] == 0
        assert sorted(got) == ["child"] * 4 + ["parent"] * 8


def test_an_ipv6_address(connection: ModuleType) -> None:
    try:
        listener = connection.Listener(("::1", 0), "AF_INET6")
    except OSError:
        pytest.skip("no such addresses here")
    with listener, connection.Client(listener.address) as client, listener.accept() as conn:
        client.send(1)
        assert conn.recv() == 1 and listener.last_accepted[0] == "::1"


@pytest.fixture
def server(request: pytest.FixtureRequest, mp: ModuleType) -> Iterator[Any]:
    with nothing_left(request.config):
        made = mp.get_context("fork").Manager()
        yield made
        made.shutdown()
        made.join()
        del made


@pytest.mark.better_than_standard("each of them costs a thread for ever")
def test_silent_clients_of_a_manager_cost_no_threads(server: Any) -> None:
    shared = server.dict(a=1)
    assert shared["a"] == 1
    process = psutil.Process(server._process.pid)
    files, threads = process.num_fds(), process.num_threads()
    silent = [raw(server.address) for _ in range(100)]
    for sock in silent[::2]:
        with contextlib.suppress(OSError):  # the server has closed the oldest of too many clients
            sock.sendall(b"\0\0\0\x20half a")
    for _ in range(20):
        server.dict(b=2)
    assert shared["a"] == 1
    assert process.num_threads() <= threads + 2
    for sock in silent:
        sock.close()
    while process.num_fds() > files:
        time.sleep(0.01)


@pytest.mark.better_than_standard("the next one waits")
def test_a_silent_client_of_the_fork_server_delays_no_other(mp: ModuleType) -> None:
    forkserver = importlib.import_module(f"{mp.__name__}.forkserver")
    context = mp.get_context("forkserver")
    forkserver.ensure_running()
    silent = [raw(forkserver._forkserver._forkserver_address) for _ in range(30)]
    forkserver._forkserver._line_key = None  # anew
    child = context.Process(target=os.getpid)
    child.start()
    child.join()
    assert child.exitcode == 0
    for sock in silent:
        sock.close()


@pytest.mark.better_than_standard("the next one waits")
@pytest.mark.timeout(30)
def test_a_silent_client_of_the_resource_sharer_delays_no_other(mp: ModuleType, connection: ModuleType) -> None:
    reduction = importlib.import_module(f"{mp.__name__}.reduction")
    sharer = importlib.import_module(f"{mp.__name__}.resource_sharer")
    reader, writer = os.pipe()
    try:
        shared = reduction.DupFd(reader)
        address = shared._id[0]
        silent = raw(address)
        known = connection.Client(address, authkey=mp.current_process().authkey)  # says nothing more
        time.sleep(0.3)
        os.close(shared.detach())
        known.close()
        silent.close()
    finally:
        sharer.stop()
        os.close(reader)
        os.close(writer)


def offer_and_die_when_asked(package: str, told: Any) -> None:
    """Offer a descriptor; the first request for it is the end of this process."""
    sharer = importlib.import_module(f"{package}.resource_sharer")
    shared = importlib.import_module(f"{package}.reduction").DupFd(0)
    # The kernel closes each descriptor before the process counts as ended, which takes time.
    for _ in range(400):
        os.pipe()
    sharer._resource_sharer._cache[shared._id[1]] = lambda *_: os.kill(os.getpid(), signal.SIGKILL), id
    told.send(shared)
    time.sleep(60)


@pytest.mark.better_than_standard("a child that is ending is alive still when its connection is lost")
@pytest.mark.skipif(sys.platform != "linux", reason="the system must tell whose connection it was")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_descriptor_is_lost_only_after_its_owner_has_ended(mp: ModuleType, method: str) -> None:
    context = mp.get_context(method)
    for _ in range(10):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=offer_and_die_when_asked, args=(mp.__name__, theirs))
        child.start()
        shared = ours.recv()
        with pytest.raises((EOFError, ConnectionError)):
            shared.detach()
        assert not child.is_alive()
        child.join()
        ours.close()
        theirs.close()


STANDARD_DIGESTS = ["md5", "sha256", "sha384", "sha3_256", "sha3_384"]


@pytest.mark.parametrize("digest", STANDARD_DIGESTS)
@pytest.mark.parametrize("ours_delivers", [True, False])
def test_each_digest_authenticates_with_the_standard_package(
    mp: ModuleType, connection: ModuleType, digest: str, ours_delivers: bool
) -> None:
    if sys.version_info < (3, 12) and not ours_delivers and digest != "md5":
        pytest.skip("this standard package knows one digest")
    standard = importlib.import_module("multiprocessing.connection")
    here, there = mp.Pipe()
    deliver, answer = (connection, standard) if ours_delivers else (standard, connection)
    thread, outcome = in_thread(partial(answer.answer_challenge, there, KEY))
    if sys.version_info < (3, 12):
        deliver.deliver_challenge(here, KEY)
    else:
        deliver.deliver_challenge(here, KEY, digest)
    thread.join()
    assert outcome == [None]
    thread, outcome = in_thread(partial(answer.answer_challenge, there, b"another"))
    with pytest.raises((standard.AuthenticationError, connection.AuthenticationError)):
        deliver.deliver_challenge(here, KEY)
    thread.join()
    assert type(outcome[0]).__name__ == "AuthenticationError"


@pytest.mark.better_than_standard("it sends the challenge")
def test_an_unknown_digest_raises_before_a_send(mp: ModuleType, connection: ModuleType) -> None:
    here, there = mp.Pipe()
    with pytest.raises(connection.AuthenticationError, match="sha1"):
        connection.deliver_challenge(here, KEY, "sha1")
    assert not there.poll()


@pytest.mark.better_than_standard("Python 3.11 has no name for them")
def test_the_digests_are_those_of_the_standard_package(connection: ModuleType) -> None:
    assert {name.decode() for name in connection._ALLOWED_DIGESTS} == set(STANDARD_DIGESTS)
    assert (connection.CHALLENGE, connection.WELCOME, connection.FAILURE) == (
        b"#CHALLENGE#",
        b"#WELCOME#",
        b"#FAILURE#",
    )


@pytest.mark.better_than_standard("its error says nothing of a key")
def test_a_client_without_a_key_is_told_that_the_listener_asks_for_one(connection: ModuleType) -> None:
    with connection.Listener(authkey=b"key") as listener:

        def admit() -> None:
            with contextlib.suppress(EOFError, OSError, connection.AuthenticationError):
                listener.accept()

        acceptor = threading.Thread(target=admit)
        acceptor.start()
        with connection.Client(listener.address) as client, pytest.raises(pickle.UnpicklingError) as caught:
            client.recv()
        acceptor.join()
    assert "authkey" in caught.value.__notes__[0]
