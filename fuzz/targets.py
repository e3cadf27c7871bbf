"""What the fuzzer feeds in Python: one function for each parser of another process's bytes, each with what it is compared with.

A function takes any bytes, and returns; what it raises is a fault.  `drive.py` runs one under libFuzzer, `replay.py` with the corpus.
"""

from __future__ import annotations

import _pickle
import gc
import io
import os
import pickle
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection as StandardConnection
from typing import Any

from maniple import connection, resource_tracker
from maniple._impl.start import fork_server as serving
from maniple._maniple import decode_payload

__all__ = ["TARGETS", "TRACED"]


class Refused(Exception):
    """What is not for the native reader goes to `pickle`, which would run what it says."""


def _refuse(*_args: object, **_kwds: object) -> Any:
    raise Refused


class _Standard(pickle.Unpickler):
    """The standard reader, which finds nothing by name."""

    find_class = persistent_load = _refuse

    @classmethod
    def read(cls, data: bytes) -> Any:
        return cls(io.BytesIO(data)).load()


# The native module keeps what it finds here when it is first used.
_pickle.loads = pickle.loads = _refuse  # type: ignore[assignment]


def shape(value: Any) -> list[Any]:
    """What a value is, with the identity of its lists and dicts; two values are alike if their shapes are equal."""
    seen: dict[int, int] = {}
    parts: list[Any] = []
    todo = [value]
    while todo:
        one = todo.pop()
        kind = type(one)
        if kind in (list, dict, tuple):
            if kind is not tuple:
                number = seen.setdefault(id(one), len(seen))
                parts.append((kind, number))
                if number != len(seen) - 1:
                    continue
                # So that the next new object gets another number.
                seen[-len(seen) - 1] = 0
            parts.append((kind.__name__, len(one)))
            todo += [part for pair in one.items() for part in pair] if kind is dict else one
        elif kind is float:
            parts.append(struct.pack("d", one))
        else:
            parts.append((kind, one))
    return parts


def _message(data: bytes) -> bytes:
    return struct.pack("!i", len(data)) + data


def _pair() -> tuple[socket.socket, connection.Connection]:
    here, there = socket.socketpair()
    return here, connection.Connection(there.detach())


def native_pickle(data: bytes) -> None:
    """The native reader and writer of pickles, against the standard ones."""
    data = data[:4096]
    here, conn = _pair()
    with here, conn:
        here.sendall(_message(data))
        try:
            value = conn.recv()
        except Refused:
            # Not a word of it may have been believed: that is `pickle`'s affair.
            return
        expected = _Standard.read(data)
        told = shape(value)
        assert told == shape(expected), f"{value!r} is read instead of {expected!r}"
        with suppress(pickle.PicklingError, RecursionError, ValueError):
            conn.send(value)
            head = here.recv(4, socket.MSG_WAITALL)
            (size,) = struct.unpack("!i", head)
            again = _Standard.read(here.recv(size, socket.MSG_WAITALL))
            assert shape(again) == told, f"{value!r} is written as {again!r}"


def payload(data: bytes) -> None:
    """A payload as a pool's process reads it."""
    with suppress(RuntimeError, Refused, TypeError, UnicodeDecodeError):
        decode_payload(data[1:], bool(data[:1] > b"\x7f"))


def messages(data: bytes) -> None:
    """A connection's stream, with descriptors at its beginning, against the standard package's reader."""
    count, data = (data[0] % 4, data[1:4096]) if data else (0, b"")
    here, conn = _pair()
    peer, stock = socket.socketpair()
    standard = StandardConnection(stock.detach())
    with here, conn, peer, standard, open(os.devnull) as file:
        for end in (here, peer):
            if data and count and end is here:
                socket.send_fds(end, [data], [file.fileno()] * count)
            elif data:
                end.sendall(data)
            end.shutdown(socket.SHUT_WR)
        while True:
            told = []
            for end in (conn, standard):
                try:
                    told.append(end.recv_bytes(1 << 20))
                except EOFError:
                    told.append(None)
                except OSError:
                    told.append(OSError)
            # The standard package takes a negative length for an empty message, and an end just before a body for one between messages.
            if told == [OSError, b""] or (told == [OSError, None] and not _is_whole(data)):
                return
            assert told[0] == told[1], f"{told[0]!r} is received instead of {told[1]!r}"
            if not isinstance(told[0], bytes):
                return


def _is_whole(stream: bytes) -> bool:
    """Whether a stream ends with a message."""
    while stream:
        (size,), head = struct.unpack("!i", stream[:4].ljust(4, b"\0")), 4
        if size == -1:
            (size,), head = struct.unpack("!Q", stream[4:12].ljust(8, b"\0")), 12
        if len(stream) < head + size:
            return False
        stream = stream[head + size :]
    return True


def objects(data: bytes) -> None:
    """Receives objects, beside which large buffers may arrive."""
    count, data = (data[0] % 4, data[1:4096]) if data else (0, b"")
    here, there = socket.socketpair()
    conn = connection._connection_over(there)
    conn._parcels = True
    with here, conn:
        files = [os.memfd_create("hostile") for _ in range(count)]
        for place, file in enumerate(files):
            os.ftruncate(file, 8192 if place < 2 else 100)
        try:
            message = _message(b"maniple parcel 1" + data if count else data)
            socket.send_fds(here, [message], files)
        finally:
            for file in files:
                os.close(file)
        here.shutdown(socket.SHUT_WR)
        with suppress(Refused, OSError, EOFError):
            conn.recv()


class _Selector:
    """Takes the place of a selector: one line at a time is served here."""

    def register(self, source: Any, events: int, action: Callable[[], None]) -> None:
        self.action: Any = action

    def modify(self, source: Any, events: int, action: Callable[[], None]) -> None:
        self.action = action

    def unregister(self, source: Any) -> None:
        self.action = None


class _Server(serving.Server):
    """A fork server that forks nothing."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener, -1, b"the key", {})
        self._selector = _Selector()
        self.asked = 0

    def _fork(self, data_r: int, status_w: int, *fds: int) -> None:
        assert all(os.fstat(fd) for fd in (data_r, status_w, *fds))
        self.asked += 1
        os.close(data_r), os.close(status_w)
        for fd in fds:
            os.close(fd)


def _lowest_free() -> int:
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    return free


def fork_server(data: bytes) -> None:
    """A client of the fork server: without the key, or with the key and malformed requests."""
    free = _lowest_free()
    _serve(data)
    if _lowest_free() != free:
        gc.collect()
        assert _lowest_free() == free, "a descriptor is left open"


def _serve(data: bytes) -> None:
    way, data = (data[0], data[1:4096]) if data else (0, b"")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind("")
        listener.listen()
        server = _Server(listener)
        try:
            client.connect(listener.getsockname())
            if way % 2 == 0:
                if data:
                    client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                server._accept()
                for _ in range(len(data) + 2):
                    if not server._guests:
                        break
                    server._selector.action()
                assert not server._lines and not server._guests, "a client without the key is served"
                return
            line, _ = listener.accept()
            server._lines.add(line)
            with line:
                while data and server._lines:
                    count, size, rest = data[0] % 16, data[:2][-1] % 8 + 1, data[2:]
                    socket.send_fds(client, [rest[:size] or b"?"], [listener.fileno()] * count)
                    data = rest[size:]
                    server._serve(line)
                client.shutdown(socket.SHUT_WR)
                while server._lines:
                    server._serve(line)
        finally:
            for fd in (server._wake_r, server._wake_w):
                os.close(fd)


def tracker(data: bytes) -> None:
    """Messages to the resource tracker, and that what we write is what it reads."""
    listed: dict[str, set[str]] = {rtype: set() for rtype in resource_tracker._CLEANUP_FUNCS}
    for line in io.BytesIO(data):
        with suppress(ValueError, RuntimeError):
            resource_tracker._note(line, listed)
            command, rtype, name = resource_tracker._decode_message(line)
            assert rtype in listed and command in ("REGISTER", "UNREGISTER", "PROBE")
            if command == "REGISTER":
                assert name in listed[rtype]
    name = data[1:].decode("utf-8", "surrogateescape")
    for simple in (False, True):
        try:
            line = resource_tracker._encode("REGISTER", name, "shared_memory", simple)
        except ValueError as problem:
            assert "too long" in str(problem)
            continue
        assert len(line) <= 512 and line.count(b"\n") == 1 and line.endswith(b"\n")
        assert resource_tracker._decode_message(line) == ("REGISTER", "shared_memory", name), line


TARGETS: dict[str, Callable[[bytes], None]] = {
    "native_pickle": native_pickle,
    "payload": payload,
    "messages": messages,
    "objects": objects,
    "fork_server": fork_server,
    "tracker": tracker,
}
#: the files whose lines are counted, where it is Python that parses
TRACED: dict[str, list[Any]] = {"fork_server": [serving], "tracker": [resource_tracker]}
