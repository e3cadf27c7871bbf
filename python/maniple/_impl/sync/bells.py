"""Waits of threads that stay consistent if a signal handler raises.

A wait of `threading.Condition` does not: it releases its lock and acquires it again in Python code, and an exception of
a handler between these steps leaves the lock held, or makes it be released twice.
"""

from __future__ import annotations

from collections import deque
from threading import TIMEOUT_MAX, Event, Lock, RLock
from time import monotonic

from ..._maniple import Hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..._maniple import Mailbox

__all__ = ["Bells", "Letter", "SteadyEvent", "new_lock"]


def new_lock(kind: Callable[[], Any]) -> Any:
    """Return a new lock of a kind of `threading`. A lack of memory is a MemoryError, not a RuntimeError."""
    try:
        return kind()
    except RuntimeError:  # "can't allocate lock"
        raise MemoryError("there is no memory for a lock") from None


class Letter:
    """The bell of a task of an event loop: its release posts the number of the task's wait in the loop's mailbox."""

    __slots__ = ("mailbox", "number")

    def __init__(self, mailbox: Mailbox, number: int) -> None:
        self.mailbox, self.number = mailbox, number

    def release(self) -> None:
        """Post the number."""
        self.mailbox.post(self.number)


class Bells(deque["Lock | Letter"]):
    """The bells of waiting threads and tasks. A bell is a lock that is released to wake its thread, or a `Letter`.

    `new` and `ring` are called with a common lock held, `wait` without it.
    """

    __slots__ = ()

    def new(self) -> Lock:
        """Return a bell to wait for. Call it after a check that found nothing."""
        bell: Lock = new_lock(Lock)
        bell.acquire()
        self.append(bell)
        return bell

    def wait(self, bell: Lock, timeout: float | None) -> None:
        """Wait until the bell is rung, at most `timeout` seconds."""
        if not bell.acquire(True, -1 if timeout is None else min(timeout, TIMEOUT_MAX)):
            self.take_back(bell)

    def take_back(self, bell: Lock | Letter) -> None:
        """Remove a bell that is not needed, unless it was rung meanwhile."""
        try:
            self.remove(bell)
        except ValueError:
            pass

    def ring(self) -> None:
        """Wake all waiting threads."""
        while self:
            try:
                self[0].release()
            except RuntimeError:
                pass  # an exception of a handler interrupted an earlier call here
            self.popleft()


class SteadyEvent(Event):
    """A `threading.Event` that a thread sets for others in which a handler may raise.

    Most events are never waited for. So the first wait makes the bells and their lock.
    """

    _mutex: Any

    def __init__(self) -> None:
        # `Event.__init__` would make a condition, which this class does not use.
        self._flag = False
        self._bells: Bells | None = None

    def is_set(self) -> bool:
        """Return True if the event is set."""
        return self._flag

    def set(self) -> None:
        """Set the event, and wake all waiting threads."""
        self._flag = True
        # A thread that waits adds its bell first, and then checks the event once more.
        if self._bells:
            with Hold(self._mutex):
                self._bells.ring()

    def _bells_and_mutex(self) -> tuple[Bells, Any]:
        # A signal handler may set the event while the thread that it interrupts waits for it.
        mutex = vars(self).setdefault("_mutex", new_lock(RLock))
        if self._bells is None:
            with Hold(mutex):
                if self._bells is None:
                    self._bells = Bells()
        return self._bells, mutex

    def ring_when_set(self, bell: Letter) -> bool:
        """Have `bell` rung when the event is set; return False, without that, if it is set already."""
        bells, mutex = self._bells_and_mutex()
        with Hold(mutex):
            bells.append(bell)
            if self._flag:
                bells.remove(bell)
                return False
        return True

    def clear(self) -> None:
        """Reset the event."""
        self._flag = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, at most `timeout` seconds; return True if it is."""
        limit = None if timeout is None else monotonic() + timeout
        while not self._flag:
            left = None if limit is None else limit - monotonic()
            if left is not None and left <= 0:
                return self._flag
            bells, mutex = self._bells_and_mutex()
            with Hold(mutex):
                bell = bells.new()
                if self._flag:
                    bells.ring()
                    break
            bells.wait(bell, left)
        return True
