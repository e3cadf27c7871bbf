"""The two ends of a queue, which programs use like connections, and the pickling of a queue's memory."""

from __future__ import annotations

import copyreg
import sys

from ... import context, reduction
from ..._maniple import Log, taken_pickle
from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["End", "EndSlot", "closing_wakes"]


def _pass_log(log: Log) -> tuple[Any, ...]:
    return _receive_log, tuple(map(reduction.DupFd, log.descriptors()))


def _receive_log(memory: Any, event: Any) -> Log:
    return Log.adopt(memory.detach(), event.detach())


# Not with `reduction.register`: libraries with their own pickler use only the table of `copyreg`.
copyreg.pickle(Log, _pass_log)


def closing_wakes(log: Log) -> Callable[[], None]:
    """Return what wakes the tasks of event loops that wait for an object, after the queue is closed in this process."""
    doors = sys.modules.get(f"{PACKAGE}._impl.aio.doors")
    if doors is None:
        return lambda: None
    try:
        _, event = log.descriptors()
    except OSError:
        return lambda: None  # it is closed already
    return lambda: doors.descriptor_closed(event)


class End:
    """One end of a queue, with the methods of a connection: for objects and bytes, `poll`, and a descriptor to wait on."""

    def __init__(self, log: Log, readable: bool) -> None:
        self._log, self.readable, self.writable, self.closed = log, readable, not readable, False
        log.enter()

    def __reduce__(self) -> tuple[Any, ...]:
        return End, (self._open(), self.readable)

    def _open(self, to_read: bool | None = None) -> Log:
        if self.closed:
            raise OSError("handle is closed")
        if to_read not in (None, self.readable):
            raise OSError("connection is write-only" if to_read else "connection is read-only")
        return self._log

    def send(self, obj: Any) -> None:
        """Put an object into the queue."""
        problem = self._open(False).put(obj)
        if problem:
            raise problem

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Put an object into the queue, given as its pickle."""
        if offset or size is not None:
            buf = memoryview(buf).cast("B")[offset : None if size is None else offset + size]
        self._open(False).put_pickle(buf)

    def recv(self) -> Any:
        """Remove the first object and return it; wait while the queue is empty."""
        return self._open(True)[True, None]

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Remove the first object and return its pickle; wait while the queue is empty."""
        # A subscription, because the interpreter runs signal handlers after a call of native code.
        pickle: bytes = taken_pickle[self._open(True)]
        return pickle

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Return whether the queue has an object; wait for it at most `timeout` seconds (None: no limit)."""
        return self._open(True).poll(timeout)

    def fileno(self) -> int:
        """Return a descriptor that is readable while the queue has an object."""
        return self._open().watch()

    @property
    def _is_kept(self) -> bool:
        return self.readable and self._log._is_kept

    def close(self) -> None:
        """Release this end in this process. Closing the last end closes the descriptors."""
        if not self.closed:
            self.closed = True
            self._log.leave()

    def __enter__(self) -> End:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


class EndSlot:
    """An attribute of a queue for one of its ends: an `End`, or an object with which a program has replaced it."""

    def __set_name__(self, owner: type, name: str) -> None:
        # Stored under another name with `setattr`: an access to the queue's `__dict__` would slow down all later attribute accesses.
        self._name, self._kept_as = name, f"{name}_end"

    def __get__(self, queue: Any, owner: type) -> Any:
        if queue is None:
            return self
        try:
            return getattr(queue, self._kept_as)
        except AttributeError:
            raise AttributeError(f"{type(queue).__name__!r} object has no attribute {self._name!r}") from None

    def __set__(self, queue: Any, end: Any) -> None:
        setattr(queue, self._kept_as, end)
        if not queue._fed and not isinstance(end, End):
            # From now on the items go through this object.
            method = "fork" if queue._by_fork_only else "spawn"
            queue._take_up_parts(context._default_context.get_context(method))
