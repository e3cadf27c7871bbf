"""The results whose callbacks the pool calls when their calls end, by the job's number.

A call may end, and a thread of the pool may process its end, before the calling thread has entered the result here. The two threads
use no lock: a signal handler may interrupt either of them, and may wait for the pool's threads.
"""

from __future__ import annotations

from weakref import WeakMethod

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Base = dict[int, Any]
else:
    Base = dict

__all__ = ["PendingCallbacks"]


class PendingCallbacks(Base):
    """The results by job number.

    `enter` calls the method `late` if the result's call has ended already; `late` then fetches the result with `one_entered_late`. The owner
    sets `over` when all calls have ended and the keeper no longer runs.
    """

    #: whether `one_entered_late` has to be called again after a moment
    is_due_again = False

    def __init__(self, late: Callable[[], object]) -> None:
        # A weak reference avoids a cycle: only the cycle collector, which a program may disable, would close the pool's descriptors.
        self._late, self.over = WeakMethod(late), False
        self._early: set[int] = set()

    def enter(self, job: int, result: Any) -> None:
        """Register `result` for the end of `job`."""
        self[job] = result
        # `ended`, and the code that sets `over`, use the opposite order: at least one thread sees the other's step.
        if job in self._early or self.over:
            if (tell := self._late()) is not None:
                tell()

    def ended(self, job: int) -> Any:
        """Record that `job` has ended; return its result, or None if it has not been entered yet."""
        self._early.add(job)
        result = self.pop(job, None)
        if result is not None:
            self._early.discard(job)
        return result

    def one_entered_late(self) -> Any:
        """Return a result that was entered after `ended` had not found it, or None. No step needs memory once the result is removed."""
        if self._early or self.over:
            for job in tuple(self if self.over else self._early):
                result = self.pop(job, None)
                if result is not None:
                    self._early.discard(job)
                    return result
        return None
