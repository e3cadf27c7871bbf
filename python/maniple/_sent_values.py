"""The values of `__main__` that go by value to the workers of one pool.

Each has a number, so that a worker tells a newer value from the one that it has.  A large one is written into shared memory once,
and only its place goes along with every call that needs it; the segment lives as long as the pool.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from struct import pack

from . import resource_tracker, util
from ._arrivals import Place, hold, registry
from ._maniple import interrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SentValues", "Sized"]

#: A value whose pickle has at least so many bytes is written down once.
LARGE = 64 * 1024
#: A list or text with fewer items is not large, unless its items are.
_MANY = 1000


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
        self.place: Place | None = None


class SentValues:
    """What has gone to the workers of one pool, by name."""

    def __init__(self, is_idle: Callable[[], bool]) -> None:
        # Whether no call of the pool is under way.
        self._is_idle = is_idle
        self._sent: dict[str, _Sent] = {}
        #: the names of the segments, the oldest first
        self._segments: list[str] = []
        self._replaced: list[str] = []
        #: threads, each with the name whose value it is looking at
        self._under_way: set[tuple[int, str]] = set()
        self._free = util.Finalize(self, _remove, (self._segments,), exitpriority=0)

    def look_up(self, name: str, value: Any, pickled: Callable[[Any, Sized], None]) -> tuple[Any, Any]:
        """The key of this value, and what goes in its stead: the place of its pickle, or the value itself.

        `pickled` pickles into a `Sized`, or raises.
        """
        sent = self._sent.get(name)
        if sent is None or sent.held() is not value:
            sent = _Sent(value)
            if _may_be_large(value):
                sent.place = self._write_down(name, value, pickled)
            before, self._sent[name] = self._sent.get(name), sent
            if before is not None and before.place is not None:
                self._replace(before.place.segment)
        return sent.key, value if sent.place is None else sent.place

    def _replace(self, segment: str) -> None:
        # Calls under way may still need it, and so may one that another thread makes just now: it goes at the next time.
        if self._is_idle():
            while self._replaced:
                with suppress(ValueError, IndexError):  # another thread does the same
                    earlier = self._replaced.pop()
                    self._segments.remove(earlier)
                    _remove([earlier])
        self._replaced.append(segment)

    def end(self) -> None:
        """Remove all: the pool has ended."""
        self._sent.clear()
        self._free()

    def _write_down(self, name: str, value: Any, pickled: Callable[[Any, Sized], None]) -> Place | None:
        with self._looking_at(name) as first:
            if not first:  # the value refers to itself through a function that is pickled with it
                return None
            stream = Sized()
            try:
                pickled(value, stream)
            except (
                Exception
            ) as refusal:  # it cannot be pickled, or goes to one process only: the pickle of the call will tell
                if interrupts(refusal):
                    raise
                return None
            if stream.size() < LARGE:
                return None
            try:
                place = _write(stream)
            except OSError:  # there is no room for a segment
                return None
            self._segments.append(place.segment)
            return place

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


def _write(stream: Sized) -> Place:
    """Write a pickle into a segment of its own."""
    from .shared_memory import new_segment

    sizes = [stream.tell(), *(view.nbytes for view in stream.buffers)]
    fd, segment = new_segment()
    try:
        for part in (pack(f"<{len(sizes)}Q", *sizes), stream.getbuffer(), *stream.buffers):
            rest = memoryview(part).cast("B")
            while rest:  # by writing, which reports that there is no room; a mapping would kill the process
                rest = rest[os.write(fd, rest) :]
    except BaseException:
        _remove([segment])
        raise
    finally:
        os.close(fd)
    return Place(segment, len(sizes), [view.readonly for view in stream.buffers])


def _remove(segments: list[str]) -> None:
    """Remove the segments."""
    from ._maniple import shm_unlink

    while segments:
        segment = segments.pop()
        with suppress(OSError):
            shm_unlink(segment)
        resource_tracker.unregister(segment, "shared_memory")
