"""Waits of threads that stay consistent if a signal handler raises.

A wait of `threading.Condition` does not: it releases its lock and acquires it again in Python code, and an exception of
a handler between these steps leaves the lock held, or makes it be released twice.
"""

from __future__ import annotations

from collections import deque
from threading import TIMEOUT_MAX, Event, Lock, RLock
from time import monotonic

from ..._maniple import Hold

__all__ = ["Bells", "SteadyEvent"]


class Bells:
    """The bells of waiting threads. A bell is a lock that is released to wake its thread.

    `new` and `ring` are called with a common lock held, `wait` without it.
    """

    def __init__(self) -> None:
        self._bells: deque[Lock] = deque()

    def __len__(self) -> int:
        return len(self._bells)

    def new(self) -> Lock:
        """Return a bell to wait for. Call it after a check that found nothing."""
        bell = Lock()
        bell.acquire()
        self._bells.append(bell)
        return bell

    def wait(self, bell: Lock, timeout: float | None) -> None:
        """Wait until the bell is rung, at most `timeout` seconds."""
        if not bell.acquire(True, -1 if timeout is None else min(timeout, TIMEOUT_MAX)):
            try:
                self._bells.remove(bell)
            except ValueError:
                pass  # it was rung meanwhile

    def ring(self) -> None:
        """Wake all waiting threads."""
        bells = self._bells
        while bells:
            try:
                bells[0].release()
            except RuntimeError:
                pass  # an exception of a handler interrupted an earlier call here
            bells.popleft()


class SteadyEvent(Event):
    """A `threading.Event` that a thread sets for others in which a handler may raise."""

    def __init__(self) -> None:
        super().__init__()
        # A signal handler may set the event while the thread that it interrupts waits for it.
        self._mutex = RLock()
        self._bells = Bells()

    def set(self) -> None:
        """Set the event, and wake all waiting threads."""
        super().set()
        with Hold(self._mutex):
            self._bells.ring()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, at most `timeout` seconds; return True if it is."""
        limit = None if timeout is None else monotonic() + timeout
        while not self.is_set():
            left = None if limit is None else limit - monotonic()
            if left is not None and left <= 0:
                return self.is_set()
            with Hold(self._mutex):
                bell = self._bells.new()
                # A `set` after this check rings the bell.
                if self.is_set():
                    self._bells.ring()
                    break
            self._bells.wait(bell, left)
        return True
