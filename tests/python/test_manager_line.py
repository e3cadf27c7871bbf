"""The line between proxy and server: messages arrive as after a pickle, and a broken line is detected."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
from pools import interrupted

_maniple = pytest.importorskip("maniple._maniple")


class Both:
    """A line, its standard end, and the values that the line left to pickle."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.dumped: list[Any] = []
        self.loaded: list[bytes] = []
        self.line = _maniple.Line(ours.detach(), self._dumps, self._loads)

    def _dumps(self, message: Any) -> bytes:
        self.dumped.append(message)
        return pickle.dumps(message)

    def _loads(self, message: bytes) -> Any:
        self.loaded.append(message)
        return pickle.loads(message)

    def sent(self) -> Any:
        """Return the message that the peer received."""
        (size,) = struct.unpack("!i", self._exactly(4))
        return pickle.loads(self._exactly(size))

    def _exactly(self, size: int) -> bytes:
        got = self.peer.recv(size, socket.MSG_WAITALL)
        assert len(got) == size
        return got

    def say(self, message: bytes) -> None:
        self.peer.sendall(struct.pack("!i", len(message)) + message)


@pytest.fixture
def both() -> Iterator[Both]:
    made = Both()
    yield made
    made.line.close()
    made.peer.close()


INTS = [sign * (2**bits + near) for bits in (0, 7, 8, 15, 16, 31, 32, 62) for near in (-1, 0, 1) for sign in (1, -1)]
PLAIN = [
    None,
    True,
    False,
    *INTS,
    2**63 - 1,
    -(2**63),
    0.0,
    -0.5,
    float("inf"),
    "",
    "text",
    "é\0€😀",
    "x" * 255,
    "x" * 256,
    "x" * 10_000,
    b"",
    b"\0\xff",
    b"b" * 256,
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, 4),
    ((), ((),), (1, ("a", (b"c", (None,))))),
    [],
    [1],
    [1, "two", 3.0, (4,)],
    {},
    {"a": 1},
    {1: "a", (2, 3): None, b"k": 0.5},
]
OTHER = [
    2**63,
    -(2**64),
    10**100,
    "\udc80",
    "x" * 100_000,
    b"b" * 100_000,
    [[]],
    {"a": []},
    ([], []),
    [{}],
    {1, 2},
    frozenset((1, 2)),
    1j,
    bytearray(b"abc"),
    OrderedDict(a=1),
    range(3),
    ((((((((1,),),),),),),),),
]


@pytest.mark.parametrize("value", PLAIN + OTHER, ids=lambda value: f"{type(value).__name__}-{value!r:.20}")
def test_a_value_arrives_as_by_pickle(both: Both, value: Any) -> None:
    both.line.send(("#RETURN", value))
    kind, got = both.sent()
    assert (kind, got) == ("#RETURN", value) and type(got) is type(value)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        both.say(pickle.dumps(("#RETURN", value), protocol))
        kind, got = both.line.recv()
        assert (kind, got) == ("#RETURN", value) and type(got) is type(value)


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__}-{value!r:.20}")
def test_plain_values_need_no_pickler(both: Both, value: Any) -> None:
    both.line.send(("#RETURN", value))
    both.sent()
    for protocol in (4, 5):
        both.say(pickle.dumps(("#RETURN", value), protocol))
        both.line.recv()
    assert not both.dumped and not both.loaded


@pytest.mark.parametrize("kind", [int, float, str, bytes, tuple, list, dict])
def test_a_subclass_stays_one(both: Both, kind: type) -> None:
    both.line.send(("#RETURN", SUBCLASSES[kind]()))
    assert type(both.sent()[1]) is SUBCLASSES[kind]


SUBCLASSES: dict[type, type] = {}
for _kind in (int, float, str, bytes, tuple, list, dict):
    _name = f"My{_kind.__name__.title()}"
    SUBCLASSES[_kind] = globals()[_name] = type(_name, (_kind,), {"__module__": __name__})


def test_one_list_in_two_places_stays_one(both: Both) -> None:
    shared: list[int] = [1]
    recursive: list[Any] = []
    recursive.append(recursive)
    both.line.send((shared, shared))
    first, second = both.sent()
    assert first is second == [1]
    both.line.send((recursive,))
    (got,) = both.sent()
    assert got[0] is got
    both.say(pickle.dumps((shared, shared)))
    first, second = both.line.recv()
    assert first is second == [1]
    both.say(pickle.dumps(recursive))
    got = both.line.recv()
    assert got[0] is got


@pytest.mark.parametrize("kwds", [{}, {"a": 1}, {"a": [1]}, {"a": {}, "b": {}}])
@pytest.mark.parametrize("args", [(), (1,), ([1],), ({"k": 1}, 2), ([1], [2])])
def test_a_request_arrives_as_by_pickle(both: Both, args: tuple, kwds: dict) -> None:
    both.say(pickle.dumps(("#RETURN", 7)))
    assert both.line.call("f00", "__setitem__", args, kwds) == ("#RETURN", 7)
    assert both.sent() == ("f00", "__setitem__", args, kwds)


def test_damaged_pickles_raise_pickles_errors(both: Both) -> None:
    whole = pickle.dumps(("#RETURN", {"a": (1, 2, 3, 4), "b": [5, 6.0, b"7"]}))
    for end in range(len(whole)):
        for damaged in (whole[:end], whole[:end] + b"\xff" + whole[end + 1 :], whole[:end] + b"u" + whole[end + 1 :]):
            both.say(damaged)
            try:
                wanted = pickle.loads(damaged)
            except Exception as error:
                with pytest.raises(type(error)):
                    both.line.recv()
            else:
                assert both.line.recv() == wanted
    both.say(whole)
    assert both.line.recv() == pickle.loads(whole)


def test_an_unpicklable_message_leaves_the_line_open(both: Both) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        both.line.send((lambda: None,))
    assert both.line.ready
    both.line.send((1,))
    assert both.sent() == (1,)


@pytest.mark.parametrize("rest", [b"", b"\0", b"\0\0\0\x09abc", b"\xff\xff\xff\xff\0\0"])
def test_a_closed_peer_breaks_the_line(both: Both, rest: bytes) -> None:
    both.peer.sendall(rest)
    both.peer.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError if rest else EOFError):
        both.line.recv()
    assert both.line.closed and not both.line.ready
    with pytest.raises(OSError, match="closed"):
        both.line.send((1,))


def test_sending_without_a_receiver_is_a_broken_pipe(both: Both) -> None:
    both.peer.close()
    with pytest.raises(BrokenPipeError):
        both.line.send((1,))


def test_an_interrupted_call_breaks_the_line(both: Both) -> None:
    with interrupted(), pytest.raises(KeyboardInterrupt):
        both.line.call("f00", "wait", (), {})
    assert both.line.closed


def test_a_returning_signal_handler_breaks_nothing(both: Both) -> None:
    seen: list[bool] = []

    def answer(*_: Any) -> None:
        seen.append(both.line.ready)
        both.say(pickle.dumps(("#RETURN", 1)))

    before = signal.signal(signal.SIGUSR1, answer)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert both.line.call("f00", "wait", (), {}) == ("#RETURN", 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [False] and both.line.ready


def test_closing_releases_the_descriptor(both: Both) -> None:
    number = both.line.fileno()
    os.fstat(number)
    both.line.close()
    both.line.close()
    with pytest.raises(OSError):
        os.fstat(number)
    with pytest.raises(OSError):
        both.line.fileno()
