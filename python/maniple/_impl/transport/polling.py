"""Waits for descriptors with ``poll``."""

from __future__ import annotations

import select
import time
from math import ceil

from ..start.descriptors import patiently

__all__ = ["has_room", "new_poller", "wait_for_events"]

#: milliseconds; poll() takes a C int
_LONGEST_POLL = 0x7FFFFFFF


def new_poller() -> select.poll:
    """Return a `select.poll` object, or a substitute if gevent has removed it."""
    if hasattr(select, "poll"):
        return select.poll()
    from ..compat.greenlets import SelectPoller

    return SelectPoller()  # type: ignore[return-value]  # it has the methods that this package calls


#: seconds: a thousand years
_LONGEST_WAIT = 3e10


def wait_for_events(poller: select.poll, timeout: float | None) -> list[tuple[int, int]]:
    """Return the events of `poller` within `timeout` seconds. None means no limit; a negative number does not wait."""
    if timeout is not None and timeout > _LONGEST_WAIT:
        timeout = None  # also infinity
    milliseconds = None if timeout is None else ceil(timeout * 1000) if timeout > 0 else 0
    if milliseconds is None or milliseconds <= _LONGEST_POLL:
        return patiently(poller.poll, milliseconds)
    started = time.monotonic()
    while not (events := patiently(poller.poll, min(milliseconds, _LONGEST_POLL))) and milliseconds > 0:
        milliseconds = ceil((started + timeout - time.monotonic()) * 1000)  # type: ignore[operator]  # None has returned
    return events


def has_room(fd: int) -> bool:
    """Return whether a pipe or a socket can be written to, or its other end is closed."""
    poller = new_poller()
    poller.register(fd, select.POLLOUT)
    return bool(wait_for_events(poller, 0))
