"""The two ends of a queue, which are used like connections, and how a queue's memory gets to other processes."""

from __future__ import annotations

import copyreg

from ... import context, reduction
from ..._maniple import Log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["End", "EndSlot"]


def _pass_log(log: Log) -> tuple[Any, ...]:
    return _receive_log, tuple(map(reduction.DupFd, log.descriptors()))


def _receive_log(memory: Any, event: Any) -> Log:
    return Log.adopt(memory.detach(), event.detach())


# Not with `reduction.register`: libraries that bring a pickler of their own know the common table alone.
copyreg.pickle(Log, _pass_log)


class End:
    """One end of a queue, with what programs use of a connection: objects and bytes, poll(), and a descriptor to wait for."""

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
        """Put an object in."""
        problem = self._open(False).put(obj)
        if problem:
            raise problem

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Put the pickle of an object in."""
        if offset or size is not None:
            buf = memoryview(buf).cast("B")[offset : None if size is None else offset + size]
        self._open(False).put_pickle(buf)

    def recv(self) -> Any:
        """Take an object out, waiting for one."""
        return self._open(True).get()

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Take the pickle of an object out, waiting for one."""
        return self._open(True).get_pickle()

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether something can be taken out, waiting for it at most `timeout` seconds; None waits for ever."""
        return self._open(True).poll(timeout)

    def fileno(self) -> int:
        """A descriptor that is readable whenever something can be taken out."""
        return self._open().watch()

    @property
    def _is_kept(self) -> bool:
        return self.readable and self._log._is_kept

    def close(self) -> None:
        """Say that this end is not used any more in this process.  The descriptors go with the last end."""
        if not self.closed:
            self.closed = True
            self._log.leave()

    def __enter__(self) -> End:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


class EndSlot:
    """An attribute of a queue that is one of its ends: ours, or an object that a program has put in its place."""

    def __set_name__(self, owner: type, name: str) -> None:
        # Not under the same name in the queue's `__dict__`: to touch that makes every later look at an attribute slower.
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
            # The items are to go by way of this object.
            method = "fork" if queue._by_fork_only else "spawn"
            queue._take_up_parts(context._default_context.get_context(method))
