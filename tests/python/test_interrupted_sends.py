"""Sends through a pipe that a signal handler interrupts: the receiver gets only whole messages."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest


class Struck(Exception):
    pass


@pytest.fixture
def struck_soon() -> Iterator[Any]:
    def strike(*_: Any) -> None:
        raise Struck

    before = signal.signal(signal.SIGUSR1, strike)
    main = threading.main_thread().ident
    assert main is not None
    try:
        yield lambda seconds: threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGUSR1)).start()
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.better_than_standard("the receiver gets a mixture of both messages")
@pytest.mark.parametrize("duplex", [True, False], ids=["two-way", "one-way"])
@pytest.mark.parametrize("raw", [True, False], ids=["bytes", "objects"])
@pytest.mark.parametrize("again", [0, 2])
def test_the_rest_of_a_message_goes_before_the_next(
    mp: ModuleType, duplex: bool, raw: bool, again: int, struck_soon: Any
) -> None:
    receiver, sender = mp.Pipe(duplex)
    send = sender.send_bytes if raw else sender.send
    got: list[bytes] = []

    def receive() -> None:
        try:
            while True:
                got.append(receiver.recv_bytes() if raw else receiver.recv())
        except EOFError:
            pass

    # Bytes, which are sent within their frame: the pipe has no room for it.
    first = b"a" * 700_000
    struck_soon(0.2)
    with pytest.raises(Struck):
        send(first)
    for _ in range(again):  # a later message that is interrupted before its first byte is not sent
        struck_soon(0.2)
        with pytest.raises(Struck):
            send(b"never")
    thread = threading.Thread(target=receive)
    thread.start()
    for letter in (b"b", b"c"):
        send(letter * 400_000)
    sender.close()
    thread.join()
    receiver.close()
    assert [(message[:1], len(message)) for message in got] == [(b"a", 700_000), (b"b", 400_000), (b"c", 400_000)]
    assert all(message == message[:1] * len(message) for message in got)


@pytest.mark.better_than_standard("it cannot tell the end of a message from that of the connection")
def test_a_receiver_reports_a_message_without_its_rest(mp: ModuleType, struck_soon: Any) -> None:
    receiver, sender = mp.Pipe()
    struck_soon(0.2)
    with pytest.raises(Struck):
        sender.send_bytes(b"a" * 700_000)
    sender.close()
    with pytest.raises(OSError, match="end of file"):
        receiver.recv_bytes()
    receiver.close()


# The interpreter reports an exception of a handler in a finalizer or a weak reference's callback, and continues.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_sends_arrive_once_and_in_order(mp: ModuleType) -> None:
    receiver, sender = mp.Pipe()
    got: list[int] = []

    def receive() -> None:
        try:
            while True:
                message = receiver.recv()
                assert message == [message[0]] * len(message)
                got.append(message[0])
                if message[0] % 50 == 0:
                    time.sleep(0.01)
        except EOFError:
            pass

    class Waiting:
        armed = False

    def strike(*_: Any) -> None:
        if Waiting.armed:
            Waiting.armed = False
            raise Struck

    thread = threading.Thread(target=receive)
    before = signal.signal(signal.SIGALRM, strike)
    thread.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
        for number in range(300):
            try:
                Waiting.armed = True
                sender.send([number] * 5000)
                Waiting.armed = False
            except Struck:
                pass
            finally:
                Waiting.armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sender.send([1000])
        sender.close()
        thread.join()
        receiver.close()
    assert got == sorted(set(got)) and got[-1] == 1000
