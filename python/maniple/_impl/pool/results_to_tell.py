"""The results of calls whose ends are to be told: who is called back, by the job's number.

A call may end, and a thread of the pool's learn of it, before the thread that made the call has entered its result here. No lock stands
between the two: a signal's handler may run in the middle of either, and may wait for the pool's threads.
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

__all__ = ["ResultsToTell"]


class ResultsToTell(Base):
    """`late`, a method whose object lives as long as there is something to tell, is called where a result is entered whose call has ended already, and asks for it by `entered_late`.

    `over` is set when all calls have ended, and nobody asks any more whose have.
    """

    def __init__(self, late: Callable[[], object]) -> None:
        # Not a circle: what a pool has open would be closed by the collector of circles only, which a program may have switched off.
        self._late, self.over = WeakMethod(late), False
        self._early: set[int] = set()

    def enter(self, job: int, result: Any) -> None:
        """The end of `job` is to be told to `result`."""
        self[job] = result
        # In this order, and in the other one in `ended` and where `over` is set: at least one of the two sees the other.
        if job in self._early or self.over:
            if (tell := self._late()) is not None:
                tell()

    def ended(self, job: int) -> Any:
        """`job` has ended: its result, or None where it has not been entered yet."""
        self._early.add(job)
        result = self.pop(job, None)
        if result is not None:
            self._early.discard(job)
        return result

    def entered_late(self) -> list[Any]:
        """The results that have been entered since `ended` was asked for them in vain."""
        if not self._early and not self.over:
            return []
        found = ((job, self.pop(job, None)) for job in tuple(self if self.over else self._early))
        late = [(job, result) for job, result in found if result is not None]
        self._early.difference_update(job for job, _ in late)
        return [result for _, result in late]
