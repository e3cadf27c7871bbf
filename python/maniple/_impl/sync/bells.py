"""What wakes threads that wait until something has changed, and stays in order whatever a signal's handler raises meanwhile.

`threading.Condition` does not: it lets go of its lock and takes it again in Python code, and a handler that raises between its steps
leaves the lock held, or has it released twice.
"""

from __future__ import annotations

from collections import deque
from threading import TIMEOUT_MAX, Event, Lock
from time import monotonic

__all__ = ["Bells", "SteadyEvent"]


class Bells:
    """The bells of threads that wait, each a lock that is released to wake its thread.

    `new` and `ring` are called with a common lock held, `wait` without it.
    """

    def __init__(self) -> None:
        self._bells: deque[Lock] = deque()

    def __len__(self) -> int:
        return len(self._bells)

    def new(self) -> Lock:
        """Return a bell to wait for, after a look that found nothing."""
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
        """Wake all who wait."""
        bells = self._bells
        while bells:
            try:
                bells[0].release()
            except RuntimeError:
                pass  # a handler broke this off here
            bells.popleft()


class SteadyEvent(Event):
    """A `threading.Event` that is set by one thread, and waited for by others in which a handler may raise."""

    def __init__(self) -> None:
        super().__init__()
        self._mutex = Lock()
        self._bells = Bells()

    def set(self) -> None:
        """Set the event, and wake all who wait."""
        super().set()
        with self._mutex:
            self._bells.ring()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, at most `timeout` seconds; return True if it is."""
        limit = None if timeout is None else monotonic() + timeout
        while not self.is_set():
            left = None if limit is None else limit - monotonic()
            if left is not None and left <= 0:
                return self.is_set()
            with self._mutex:
                # One that is set after this look rings it.
                if self.is_set():
                    break
                bell = self._bells.new()
            self._bells.wait(bell, left)
        return True
