"""Which of a pool's workers are still to be started, and when.

Where something is short (descriptors, memory, processes) the start is tried again after a pause that grows, and the hub does not count it
as a failure: the pool goes on with the workers that it has, and is whole again when there is enough.  Calls of a pool without any worker
end with an error after some seconds; later calls have their answer once there is a worker again.  The same holds where a worker says, by
its exit code, that it lacked something before it was ready.  Of workers that end for another reason before they are ready the hub asks for
others, after pauses of its own.
"""

from __future__ import annotations

from time import monotonic

from ... import util
from ..._maniple import interrupts
from .shortage import advice, is_shortage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Starts"]

# Seconds before a start is tried again: at first, and at last.
_SHORTEST, _LONGEST = 0.01, 1.0
# Seconds that the calls of a pool without a worker wait for what is short.
_PATIENCE = 10.0


class Starts:
    """The starts that are due in one pool. Its lock is held where they are made."""

    def __init__(self) -> None:
        self.count = 0
        self._again = self._pause = 0.0
        # How many workers had become ready when the first was started that has not, and when that was.
        self._greeted, self._since = -1, 0.0

    def pause(self) -> float:
        """For how many seconds there is nothing to do."""
        return max(0.0, self._again - monotonic()) if self.count else 3600.0

    def is_due(self) -> bool:
        """Whether one is to be made now."""
        return self.count > 0 and self._again <= monotonic()

    def _note_progress(self, hub: Any) -> None:
        if (greeted := hub.greeted()) != self._greeted:
            self._greeted, self._since, self._pause = greeted, monotonic(), 0.0

    def _postpone(self) -> None:
        self._pause = min(_LONGEST, 2 * self._pause) if self._pause else _SHORTEST
        self._again = monotonic() + self._pause

    def make(self, workers: Any) -> None:
        """Start what is due, as far as that is possible now."""
        hub = workers.hub
        while self.count:
            needed = hub.needs_workers()
            self._note_progress(hub)
            try:
                key, process = workers.start_one(not needed)
            except Exception as problem:
                if interrupts(problem):
                    raise
                if lacks := needed and is_shortage(problem):
                    self._go_without(workers, f"{problem} ({advice(problem)})", workers.has_processes())
                else:
                    self._have_made_one()
                util.sub_warning("could not start a worker: %s", problem)
                if lacks:
                    return
            else:
                self._have_made_one()
                workers.adopt(key, process)

    def _have_made_one(self) -> None:
        """One is started, or counted as failed by the hub, which gives up after some."""
        self.count -= 1
        self._again = 0.0  # the pause stays: what was started may lack something before it is ready

    def lacked(self, workers: Any, said: str) -> None:
        """A worker has ended that lacked something before it was ready: another is due. `said`: the last lines of its standard error."""
        self.count += 1
        self._note_progress(workers.hub)  # those that a pool begins with were not started here
        # Others that are starting are as short of it.
        why = "workers lack something before they are ready"
        self._go_without(
            workers, f"{why}; the last of them wrote to its standard error:\n{said}" if said else why, False
        )

    def _go_without(self, workers: Any, why: str, hopeful: bool) -> None:
        """Start the next later; calls that have waited for long while no worker is ready end, unless there is hope in those that start."""
        self._postpone()
        if not hopeful and monotonic() - self._since > _PATIENCE:
            workers.hub.give_up_jobs(why)
