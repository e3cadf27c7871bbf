"""Waits for descriptors with ``poll``."""

from __future__ import annotations

import select
import sys
import time
from math import ceil

from ..start.descriptors import patiently

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["READABLE", "has_room", "new_poller", "wait_for_events"]

#: the event of a descriptor that can be read, or whose other end is closed
READABLE: int = getattr(select, "POLLIN", 1)
_ROOM: int = getattr(select, "POLLOUT", 4)

#: milliseconds; poll() takes a C int
_LONGEST_POLL = 0x7FFFFFFF


class HandlePoller:
    """What `select.poll` is on other systems, for the handles of Windows: connections, sockets, processes, events."""

    def __init__(self) -> None:
        self._handles: list[int] = []

    def register(self, handle: int, events: int) -> None:
        """Wait for the handle to become readable. The system does not tell by an object whether a pipe has room."""
        if events == READABLE:
            self._handles.append(handle)

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        """Return the readable handles."""
        from ..._maniple import wait_for_handles

        handles = self._handles
        found = wait_for_handles(handles, None if milliseconds is None else milliseconds / 1000)
        return [(handles[position], READABLE) for position in found]


def new_poller() -> Any:
    """Return a `select.poll` object, or a substitute if gevent has removed it."""
    if sys.platform == "win32":
        return HandlePoller()
    if hasattr(select, "poll"):
        return select.poll()
    from ..compat.greenlets import SelectPoller

    return SelectPoller()


#: seconds: a thousand years
_LONGEST_WAIT = 3e10


def wait_for_events(poller: Any, timeout: float | None) -> list[tuple[int, int]]:
    """Return the events of `poller` within `timeout` seconds. None means no limit; a negative number does not wait."""
    if timeout is not None and timeout > _LONGEST_WAIT:
        timeout = None  # also infinity
    milliseconds = None if timeout is None else ceil(timeout * 1000) if timeout > 0 else 0
    if milliseconds is None or milliseconds <= _LONGEST_POLL:
        events: list[tuple[int, int]] = patiently(poller.poll, milliseconds)
        return events
    started = time.monotonic()
    while not (events := patiently(poller.poll, min(milliseconds, _LONGEST_POLL))) and milliseconds > 0:
        milliseconds = ceil((started + timeout - time.monotonic()) * 1000)  # type: ignore[operator]  # None has returned
    return events


def has_room(fd: int) -> bool:
    """Return whether a pipe or a socket can be written to, or its other end is closed."""
    poller = new_poller()
    poller.register(fd, _ROOM)
    return bool(wait_for_events(poller, 0))
