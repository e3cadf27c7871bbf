"""The inner methods of the standard package's connections: one message as bytes, and single reads and writes.

A connection sends and receives natively, without these methods.  If a subclass overrides one of them, or a program replaces one in
a class, the class gets public methods that call them, as those of the standard package do.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from struct import pack, unpack

from ..start.descriptors import close_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Parts", "go_through_parts"]

#: the longest message whose length takes four bytes
_SHORT = 0x7FFFFFFF
_CLOSED = "the other end of the connection is closed"
_PARTS = "_send_bytes _recv_bytes _poll _send _recv _close _check_closed _check_readable _check_writable".split()


class Parts:
    """The methods that a subclass of a connection may override and call."""

    if TYPE_CHECKING:
        _handle: int | None
        fileno: Callable[[], int]

        @property
        def readable(self) -> bool: ...

        @property
        def writable(self) -> bool: ...

    def _check_closed(self) -> None:
        if self._handle is None:
            raise OSError("handle is closed")

    def _check_readable(self) -> None:
        if not self.readable:
            raise OSError("connection is write-only")

    def _check_writable(self) -> None:
        if not self.writable:
            raise OSError("connection is read-only")

    def _send(self, buf: Any, write: Callable[[int, Any], int] = os.write) -> None:
        """Write all of a buffer."""
        left = memoryview(buf).cast("B")
        while left:
            left = left[write(self.fileno(), left) :]

    def _recv(self, size: int, read: Callable[[int, int], bytes] = os.read) -> io.BytesIO:
        """Read `size` bytes; raise EOFError if there are none, OSError if the stream ends before the last."""
        whole = io.BytesIO()
        while (missing := size - whole.tell()) > 0:
            part = read(self.fileno(), min(missing, 1 << 20))
            if not part:
                raise OSError("got end of file during message") if whole.tell() else EOFError(_CLOSED)
            whole.write(part)
        return whole

    def _send_bytes(self, buf: Any) -> None:
        """Send one message: its length, and its bytes."""
        length = memoryview(buf).nbytes
        self._send(pack("!i", length) if length <= _SHORT else pack("!iQ", -1, length))
        self._send(buf)

    def _recv_bytes(self, maxsize: int | None = None) -> io.BytesIO | None:
        """Receive one message; return None if it is longer than `maxsize` bytes."""
        (length,) = unpack("!i", self._recv(4).getvalue())
        if length == -1:
            (length,) = unpack("!Q", self._recv(8).getvalue())
        return None if maxsize is not None and length > maxsize else self._recv(length)

    def _poll(self, timeout: float | None) -> bool:
        from ... import connection

        return bool(connection.wait([self], timeout))

    def _close(self) -> None:
        """Close the descriptor."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            close_number(handle)


# ---------------------------------------------------------------- public methods over these


def _pickler() -> Any:
    from ... import connection

    return vars(connection)["_ForkingPickler"]  # which programs replace


def _send(self: Any, obj: Any) -> None:
    """Send an object that can be pickled."""
    self._check_closed()
    self._check_writable()
    self._send_bytes(_pickler().dumps(obj))


def _send_bytes(self: Any, buf: Any, offset: int = 0, size: int | None = None) -> None:
    """Send `size` bytes of a bytes-like object from `offset` on as one message; None means all bytes up to the end."""
    self._check_closed()
    self._check_writable()
    view = memoryview(buf).cast("B")
    if offset < 0 or (size is not None and size < 0):
        raise ValueError("offset or size is negative")
    if offset > len(view) or (size is not None and offset + size > len(view)):
        raise ValueError("buffer length < offset + size")
    self._send_bytes(view[offset : None if size is None else offset + size])


def _received(self: Any, maxsize: int | None = None) -> io.BytesIO:
    self._check_closed()
    self._check_readable()
    got: io.BytesIO | None = self._recv_bytes(maxsize)
    if got is None:
        self.close()  # the rest of the message is still in the stream
        raise OSError("bad message length")
    return got


def _recv(self: Any) -> Any:
    """Receive one object."""
    return _pickler().loads(_received(self).getbuffer())


def _recv_bytes(self: Any, maxlength: int | None = None) -> bytes:
    """Receive one message of at most `maxlength` bytes."""
    if maxlength is not None and maxlength < 0:
        raise ValueError("negative maxlength")
    return _received(self, maxlength).getvalue()


def _recv_bytes_into(self: Any, buf: Any, offset: int = 0) -> int:
    """Receive one message into a writable bytes-like object, and return its length in bytes."""
    from ...context import BufferTooShort

    room = memoryview(buf).cast("B")[offset:]
    message = _received(self).getvalue()
    if len(message) > len(room):
        raise BufferTooShort(message)
    room[: len(message)] = message
    return len(message)


def _poll(self: Any, timeout: float | None = 0.0) -> bool:
    """Return whether a message can be received; wait for it at most `timeout` seconds (None: no limit)."""
    self._check_closed()
    self._check_readable()
    return bool(self._poll(timeout))


def _close(self: Any) -> None:
    """Close the connection."""
    if self._handle is not None:
        self._close()
        self._handle = None


_PUBLIC = {
    "send": _send,
    "send_bytes": _send_bytes,
    "recv": _recv,
    "recv_bytes": _recv_bytes,
    "recv_bytes_into": _recv_bytes_into,
    "poll": _poll,
    "close": _close,
}


def go_through_parts(cls: type) -> None:
    """Add the public methods that call an inner method which a class defines, except those that the class defines
    itself."""
    if vars(cls).keys().isdisjoint(_PARTS):
        return
    for name, method in _PUBLIC.items():
        if name not in vars(cls):
            setattr(cls, name, method)
