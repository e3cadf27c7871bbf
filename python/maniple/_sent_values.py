"""The values of `__main__` that go by value to the workers of one pool.

Each has a number, so that a worker tells a newer value from the one that it has.  A large one is written once, into a nameless file of
shared memory, and only its place goes along with every call that needs it.  The file lives as long as the pool, or until the name has
been bound anew and no call is under way that may still read it.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import pack

from ._arrivals import Place, hold, registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SentValues", "Sized", "Uses", "is_large"]

#: A value whose pickle has at least so many bytes is written down once.
LARGE = 64 * 1024
#: A list or text with fewer items is not large, unless its items are.
_MANY = 1000

#: globals of `__main__` that a pickle took along or names: name -> what returns the value as long as it is there
Uses = dict[str, Callable[[], "Any"]]


class Sized(io.BytesIO):
    """Collects one pickle: the stream, and the buffers that stand beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers: list[Any] = []

    def take(self, buffer: Any) -> bool:
        """The `buffer_callback`: large buffers stand beside the stream."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < LARGE:
            return True
        self.buffers.append(view)
        return False

    def size(self) -> int:
        beside: int = sum(view.nbytes for view in self.buffers)
        return self.tell() + beside


class _Sent:
    """What was sent under one name."""

    def __init__(self, value: Any) -> None:
        self.held = hold(value)
        self.key = registry.new_key()
        #: None: it goes along each time
        self.file: _File | None = None
        #: what its pickle uses
        self.uses: Uses = {}


class _File:
    """A nameless file with the pickle of a value."""

    _close = staticmethod(os.close)

    def __init__(self, key: tuple[bytes, int], stream: Sized) -> None:
        self._fd = os.memfd_create("maniple-value")
        found = os.fstat(self._fd)
        self._identity = found.st_dev, found.st_ino
        sizes = [stream.tell(), *(view.nbytes for view in stream.buffers)]
        for part in (pack(f"<{len(sizes)}Q", *sizes), stream.getbuffer(), *stream.buffers):
            rest = memoryview(part).cast("B")
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        path = f"/proc/{os.getpid()}/fd/{self._fd}"
        if not os.path.exists(path):
            raise FileNotFoundError(path)
        self.place = Place(key, path, self._identity, len(sizes), [view.readonly for view in stream.buffers])

    def close(self) -> None:
        """Give the memory back."""
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            try:
                found = os.fstat(fd)
                if (
                    found.st_dev,
                    found.st_ino,
                ) == self._identity:  # else the program has closed it, and has another file there
                    self._close(fd)
            except OSError:
                pass

    __del__ = close


class SentValues:
    """What has gone to the workers of one pool, by name."""

    def __init__(self, is_idle: Callable[[], bool]) -> None:
        # Whether no call of the pool is under way but this thread's.
        self._is_idle = is_idle
        self._sent: dict[str, _Sent] = {}
        self._replaced: list[_File] = []
        #: those that have a file, by the number of their value
        self._written: dict[int, _Sent] = {}
        #: threads, each with the name whose value it is looking at
        self._under_way: set[tuple[int, str]] = set()

    def look_up(self, name: str, value: Any, pickled: Callable[[Any, Sized], Uses]) -> tuple[Any, Any, Uses]:
        """The key of this value; what goes in its stead, the place of its pickle or the value itself; and what the former uses.

        `pickled` pickles into a `Sized` and returns what that uses, or raises.
        """
        sent = self._sent.get(name)
        if sent is None or sent.held() is not value:
            sent = self._written.get(id(value))  # under another name
            if sent is None or sent.held() is not value:
                sent = _Sent(value)
                if _may_be_large(value):
                    self._write_down(name, value, sent, pickled)
            before, self._sent[name] = self._sent.get(name), sent
            if before is not None and before not in self._sent.values():
                self._replace(before)
        return sent.key, value if sent.file is None else sent.file.place, sent.uses

    def _replace(self, sent: _Sent) -> None:
        if sent.file is not None:
            self._replaced.append(sent.file)
            for number in [number for number, written in self._written.items() if written is sent]:
                del self._written[number]
        if self._is_idle():
            self._replaced.clear()

    def has_places(self) -> bool:
        """Whether any value has been written down."""
        return bool(self._written)

    def place_of(self, value: Any) -> Place | None:
        """Where this value has been written down; None: nowhere, or it is being written."""
        sent = self._written.get(id(value))
        return None if sent is None or sent.file is None or sent.held() is not value else sent.file.place

    def end(self) -> None:
        """Forget all: the pool has ended."""
        self._written.clear()
        self._sent.clear()
        self._replaced.clear()

    def _write_down(self, name: str, value: Any, sent: _Sent, pickled: Callable[[Any, Sized], Uses]) -> None:
        with self._looking_at(name) as first:
            if not first:  # the value refers to itself through a function that is pickled with it
                return
            stream = Sized()
            try:
                uses = pickled(value, stream)
            except Exception:  # it cannot be pickled, or goes to one process only: the pickle of the call will tell
                return
            if stream.size() < LARGE:
                return
            try:
                sent.file = _File(sent.key, stream)
            except (OSError, AttributeError):  # there is no room, no descriptor, or no such file on this system
                return
            sent.uses = uses
            self._written[id(value)] = sent

    @contextmanager
    def _looking_at(self, name: str) -> Iterator[bool]:
        mark = threading.get_ident(), name
        first = mark not in self._under_way
        self._under_way.add(mark)
        try:
            yield first
        finally:
            if first:
                self._under_way.discard(mark)


def is_large(value: Any) -> bool:
    """Whether it is plain that the value is large, whatever stands in it."""
    if isinstance(value, str | bytes | bytearray):
        return len(value) >= LARGE
    if type(value) in (tuple, list, dict, set, frozenset):
        return len(value) >= _MANY
    size = getattr(value, "nbytes", 0)
    return isinstance(size, int) and size >= LARGE


def _may_be_large(value: Any) -> bool:
    """Whether it is worth while to pickle the value only to see how large it is."""
    if type(value) in (tuple, list, dict, set, frozenset):
        items = value.values() if type(value) is dict else value
        return len(value) >= _MANY or not all(_is_small(item) for item in items)
    return not _is_small(value)


def _is_small(value: Any) -> bool:
    if isinstance(value, str | bytes | bytearray):
        return len(value) < _MANY
    return value is None or isinstance(value, int | float | complex)
