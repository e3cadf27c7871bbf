"""One thread uses an object, and another closes it: the number of the closed descriptor may belong to another object at once."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from pools import in_thread

LIMIT = 20


class Paused:
    """An object whose pickling waits."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def __reduce__(self) -> Any:
        self.begun.set()
        assert self.goes_on.wait(LIMIT)
        return str, ("for the first connection",)


def test_a_message_is_not_sent_after_its_connection_is_closed(mp: ModuleType) -> None:
    here, there = mp.Pipe()
    item = Paused()
    thread, outcome = in_thread(lambda: here.send(item))
    assert item.begun.wait(LIMIT)
    here.close()
    others = [mp.Pipe() for _ in range(4)]
    item.goes_on.set()
    thread.join(LIMIT)
    assert isinstance(outcome[0], (OSError, TypeError))
    assert not any(end.poll(0) for pair in others for end in pair)
    for end in (there, *(end for pair in others for end in pair)):
        end.close()


@pytest.mark.better_than_standard("the rest goes into another connection")
@pytest.mark.parametrize("duplex", [True, False])
def test_the_rest_of_a_message_goes_into_no_other_connection(mp: ModuleType, duplex: bool) -> None:
    receiver, sender = mp.Pipe(duplex)
    thread, _ = in_thread(lambda: sender.send_bytes(bytes(4_000_000)))
    while not receiver.poll(LIMIT):
        pass
    time.sleep(0.2)  # the sender waits for room
    sender.close()
    others = [mp.Pipe(duplex) for _ in range(4)]
    drained, _ = in_thread(lambda: [receiver.recv_bytes() for _ in range(2)])
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert not any(one.poll(0) for one, _ in others)
    for end in (receiver, *(end for pair in others for end in pair)):
        end.close()
    drained.join(LIMIT)


@pytest.mark.better_than_standard("it takes the bytes of another connection")
def test_the_rest_of_a_message_comes_from_no_other_connection(mp: ModuleType) -> None:
    here, there = mp.Pipe()
    thread, outcome = in_thread(here.recv_bytes)
    os.write(there.fileno(), struct.pack("!i", 100_000) + bytes(1000))
    time.sleep(0.2)  # the receiver waits for the rest
    here.close()
    others = [mp.Pipe() for _ in range(4)]
    for one, other in others:
        one.send("own")
        other.send("own")
    there.close()
    thread.join(LIMIT)
    assert isinstance(outcome[0], (EOFError, OSError))
    assert [end.recv() for pair in others for end in pair] == ["own"] * 8
    for end in (end for pair in others for end in pair):
        end.close()


def test_a_handler_may_close_the_connection_that_its_thread_waits_for(mp: ModuleType) -> None:
    here, there = mp.Pipe()
    before = signal.signal(signal.SIGALRM, lambda *_: here.close())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises((OSError, TypeError)):
            here.recv()
    finally:
        signal.signal(signal.SIGALRM, before)
    there.close()
    assert here.closed


def test_a_closed_connection_leaves_no_descriptor_in_a_forked_child(mp: ModuleType) -> None:
    here, there = mp.Pipe()
    thread, _ = in_thread(here.recv)
    time.sleep(0.2)
    number = here.fileno()
    pid = os.fork()
    if pid == 0:
        try:
            here.close()
            os.fstat(number)
        except OSError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    there.send(None)
    thread.join(LIMIT)
    here.close()
    there.close()


# -- event loops


async def closed_meanwhile(wait: Any, close: Callable[[], None]) -> Any:
    task = asyncio.ensure_future(wait)
    await asyncio.sleep(0.1)
    thread, _ = in_thread(close)
    time.sleep(0.2)  # the loop sees nothing before all is over
    thread.join(LIMIT)
    return await asyncio.wait_for(task, LIMIT)


@pytest.mark.better_than_standard("it has no such methods")
@pytest.mark.parametrize("kind", ["Pipe", "Queue", "SimpleQueue"])
def test_a_task_learns_that_what_it_waits_for_is_closed(mp: ModuleType, kind: str) -> None:
    made = getattr(mp, kind)()
    if kind == "Pipe":
        here, there = made
        wait, close = here.recv_async(), here.close
    else:
        wait, close = made.get_async(), made.close
    with pytest.raises((OSError, ValueError), match="closed"):
        asyncio.run(closed_meanwhile(wait, close))
    if kind == "Pipe":
        there.close()


@pytest.mark.better_than_standard("it has no such method")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_task_waits_for_a_process_that_another_thread_closes(mp: ModuleType, method: str) -> None:
    process = mp.get_context(method).Process(target=time.sleep, args=(0.3,))
    process.start()

    def close() -> None:
        process.join()
        process.close()

    asyncio.run(closed_meanwhile(process.join_async(), close))


# -- processes


@pytest.fixture
def switching() -> Any:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """Make the calls in threads at the same time, and return their results or exceptions."""
    barrier = threading.Barrier(len(calls))

    def later(call: Callable[[], Any]) -> Callable[[], Any]:
        def both() -> Any:
            barrier.wait(LIMIT)
            return call()

        return both

    begun = [in_thread(later(call)) for call in calls]
    for thread, _ in begun:
        thread.join(LIMIT)
    return [outcome[0] for _, outcome in begun]


@pytest.mark.better_than_standard("some of them raise an error of another object")
def test_several_threads_close_a_process(mp: ModuleType, switching: Any) -> None:
    for _ in range(60):
        process = mp.get_context("fork").Process(target=os._exit, args=(0,))
        process.start()
        process.join()
        assert at_once([process.close] * 3) == [None] * 3


FIRST_STARTS = """
import os, sys, threading, {package} as mp
sys.setswitchinterval(1e-6)
def main():
    processes = [mp.get_context("fork").Process(target=os._exit, args=(0,)) for _ in range(8)]
    threads = [threading.Thread(target=process.start) for process in processes]
    before = len(os.listdir("/proc/self/fd"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        process.join()
        process.close()
    print(len(os.listdir("/proc/self/fd")) - before)
main()
"""


def test_the_first_starts_of_several_threads_share_a_lifeline(mp_package: str) -> None:
    import subprocess

    for _ in range(5):
        program = [sys.executable, "-c", FIRST_STARTS.format(package=mp_package)]
        # A lifeline: two ends and a spare one.
        assert int(subprocess.run(program, capture_output=True, text=True, timeout=LIMIT, check=True).stdout) <= 3


# -- listeners and servers


@pytest.mark.better_than_standard("close ends no accept in another thread")
@pytest.mark.parametrize("key", [None, b"key"])
def test_close_ends_accept_in_each_of_several_threads(mp_package: str, key: bytes | None) -> None:
    import importlib

    connection = importlib.import_module(f"{mp_package}.connection")
    for _ in range(30):
        listener = connection.Listener(None, "AF_UNIX", 64, authkey=key)

        def serve(listener: Any = listener) -> None:
            while True:
                with listener.accept() as client:
                    client.send(client.recv())

        def ask(listener: Any = listener) -> None:
            for number in range(10):
                with connection.Client(listener.address, authkey=key) as client:
                    client.send(number)
                    assert client.recv() == number

        servers = [in_thread(serve) for _ in range(3)]
        for thread, outcome in [in_thread(ask) for _ in range(3)]:
            thread.join(LIMIT)
            assert outcome == [None]
        listener.close()
        for thread, outcome in servers:
            thread.join(LIMIT)
            assert isinstance(outcome[0], OSError)


def test_a_server_says_nothing_of_a_client_that_leaves(mp: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    with mp.get_context("fork").Manager() as manager:
        for _ in range(5):
            mp.connection.Client(manager.address, authkey=mp.current_process().authkey).close()
        assert manager.list([1])[0] == 1
    assert capfd.readouterr().err == ""


# -- queues


@pytest.mark.better_than_standard("the thread waits for ever")
@pytest.mark.parametrize("by", ["thread", "handler"])
@pytest.mark.parametrize("call", ["get", "put", "simple get", "join get"])
def test_a_thread_that_waits_for_a_queue_learns_that_it_is_closed(mp: ModuleType, call: str, by: str) -> None:
    kind = {"simple get": mp.SimpleQueue, "join get": mp.JoinableQueue}.get(call, mp.Queue)
    queue = kind(1) if call == "put" else kind()
    if call == "put":
        queue.put(1)
    wait = (lambda: queue.put(2)) if call == "put" else queue.get
    if by == "thread":
        thread, outcome = in_thread(wait)
        time.sleep(0.2)
        queue.close()
        thread.join(LIMIT)
        error = outcome[0]
    else:
        before = signal.signal(signal.SIGALRM, lambda *_: queue.close())
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises((OSError, ValueError)) as raised:
                wait()
            error = raised.value
        finally:
            signal.signal(signal.SIGALRM, before)
    assert isinstance(error, (OSError, ValueError)) and "closed" in str(error)
