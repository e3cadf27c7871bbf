"""Calls that take something out, and signal handlers that raise at any moment of them, also right after: each item comes once."""

from __future__ import annotations

import importlib
import itertools
import pickle
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from pools import end_pool, make_pool

# The interpreter reports an exception of a handler in a finalizer or a weak reference's callback, and continues.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Late(Exception):
    """The time is up."""


def raise_late(*_: object) -> None:
    raise Late


@contextmanager
def storm() -> Iterator[Callable[[], None]]:
    """A handler that raises. The function has it called within half a millisecond."""
    before = signal.signal(signal.SIGALRM, raise_late)
    chance = random.Random(18)

    def arm() -> None:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.0004))

    try:
        yield arm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def taken(take: Callable[[], Any], count: int) -> list[Any]:
    """Call `take` until it has returned so many items, or raises EOFError or StopIteration; return them."""
    items: list[Any] = []
    nothing = object()
    with storm() as arm:
        while len(items) < count:
            cell: list[Any] = [nothing]
            try:
                try:
                    arm()
                    cell[0] = take()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Late:
                pass
            except (EOFError, StopIteration):
                break
            if cell[0] is not nothing:
                items.append(cell[0])
    return items


MESSAGES = 12_000


def send_all(end: Any, how: str) -> None:
    send = end.send if how == "recv" else lambda number: end.send_bytes(b"%d" % number)
    for number in range(MESSAGES):
        send(number)
        if number % 3 == 0:
            time.sleep(0.0001)


@pytest.mark.better_than_standard("loses messages")
@pytest.mark.parametrize("how", ["recv", "recv_bytes", "recv_bytes_into"])
@pytest.mark.parametrize("duplex", [False, True])
def test_a_connection_loses_no_message(mp: ModuleType, how: str, duplex: bool) -> None:
    here, there = mp.Pipe(duplex)
    sender = mp.Process(target=send_all, args=(there, how), daemon=True)
    sender.start()
    there.close()
    room = bytearray(20)
    takes: dict[str, Callable[[], Any]] = {
        "recv": here.recv,
        "recv_bytes": here.recv_bytes,
        "recv_bytes_into": lambda: here.recv_bytes_into(room),
    }
    # Handlers run after each call of native code, so the function that takes a message makes no other call.
    came = taken(takes[how], MESSAGES)
    assert len(came) == MESSAGES
    if how != "recv_bytes_into":
        assert [int(message) for message in came] == list(range(MESSAGES))
    sender.join()
    here.close()


@pytest.mark.better_than_standard("loses objects")
@pytest.mark.parametrize("how", ["recv", "recv_bytes"])
def test_the_end_of_a_queue_loses_no_object(mp: ModuleType, how: str) -> None:
    queue = mp.SimpleQueue()
    sender = mp.Process(target=put_all, args=(queue,), daemon=True)
    sender.start()
    came = taken(getattr(queue._reader, how), MESSAGES)
    assert [item if how == "recv" else pickle.loads(item) for item in came] == list(range(MESSAGES))
    sender.join()
    queue.close()


def put_all(queue: Any) -> None:
    for number in range(MESSAGES):
        queue.put(number)
        if number % 3 == 0:
            time.sleep(0.0001)


def soon(number: int) -> int:
    time.sleep(0.0002)
    return number


@pytest.mark.better_than_standard("loses results")
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
@pytest.mark.parametrize("kind", ["fork", "thread"])
def test_next_loses_no_result(mp: ModuleType, kind: str, call: str) -> None:
    pool = make_pool(mp, kind, 2)
    limits = itertools.cycle([None, 20])
    for _ in range(20):
        iterator = getattr(pool, call)(soon, range(400))
        assert sorted(taken(lambda: iterator.next(next(limits)), 1000)) == list(range(400))  # noqa: B023
    end_pool(pool)


@pytest.mark.better_than_standard("has no progress")
@pytest.mark.parametrize("step", ["next", "__next__"])
def test_an_iterator_whose_progress_is_shown_loses_no_result(mp: ModuleType, step: str) -> None:
    pool = make_pool(mp, "fork", 2)
    for _ in range(10):
        iterator = pool.imap_unordered(soon, range(400), progress=lambda done, total: None)
        assert sorted(taken(getattr(iterator, step), 1000)) == list(range(400))
    end_pool(pool)


@pytest.mark.better_than_standard("loses clients, which wait for an answer")
def test_accept_leaves_no_client_waiting(mp_package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = importlib.import_module(f"{mp_package}.connection")
    clients, rounds = 4, 150
    with connection.Listener(authkey=b"key", backlog=100) as listener:
        answers: list[str] = []

        def visit() -> None:
            # A signal that the system delivers to this thread would interrupt no call of the first one.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            for _ in range(rounds):
                try:
                    with connection.Client(listener.address, authkey=b"key") as client:
                        answers.append(client.recv())
                except (EOFError, OSError):
                    answers.append("told")

        threads = [threading.Thread(target=visit, daemon=True) for _ in range(clients)]
        for thread in threads:
            thread.start()
        with storm() as arm:
            accepts = False
            # A handler may run in a finalizer, which raises nothing; this has the next one called.
            monkeypatch.setattr(sys, "unraisablehook", lambda _: arm() if accepts else None)
            while len(answers) < clients * rounds:
                guest = None
                try:
                    try:
                        accepts = True
                        arm()
                        guest = listener.accept()
                    finally:
                        accepts = False
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except (Late, EOFError, OSError):
                    # The handler may run after `accept`.
                    if guest is not None:
                        guest.close()
                    # A client that meets a handler again and again is accepted in the end.
                    threading.Event().wait(0.0001)
                    continue
                with guest:
                    guest.send("hello")
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert "hello" in answers
