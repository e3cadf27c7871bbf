"""The pending starts of a pool's workers, and their retries.

After a shortage (of descriptors, memory or processes) the start is retried after a growing pause, and the hub does not count it as a
failure: the pool continues with the workers that it has, and starts the others when there are enough resources.  If a pool has no
worker, its calls fail after some seconds; later calls succeed once there is a worker again.  The same holds for a worker whose exit
code reports a shortage before it was ready.  For workers that end for another reason before they are ready, the hub requests
replacements after pauses of its own.
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

# Seconds before a start is retried: the first and the longest pause.
_SHORTEST, _LONGEST = 0.01, 1.0
# Seconds after which the calls of a pool without a worker fail.
_PATIENCE = 10.0


class Starts:
    """The pending starts of one pool. The caller of `make` holds the pool's lock."""

    def __init__(self) -> None:
        self.count = 0
        self._again = self._pause = 0.0
        # The number of workers that had become ready at the last progress, and the time of that.
        self._greeted, self._since = -1, 0.0

    def pause(self) -> float:
        """Return the seconds until the next start."""
        return max(0.0, self._again - monotonic()) if self.count else 3600.0

    def is_due(self) -> bool:
        """Whether a start is due now."""
        return self.count > 0 and self._again <= monotonic()

    def _note_progress(self, hub: Any) -> None:
        if (greeted := hub.greeted()) != self._greeted:
            self._greeted, self._since, self._pause = greeted, monotonic(), 0.0

    def _postpone(self) -> None:
        self._pause = min(_LONGEST, 2 * self._pause) if self._pause else _SHORTEST
        self._again = monotonic() + self._pause

    def make(self, workers: Any) -> None:
        """Start the workers that are due; stop at a shortage."""
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
        """Count a worker that was started, or whose failure the hub has counted; the hub gives up after some failures."""
        self.count -= 1
        self._again = 0.0  # `_pause` stays: the worker may report a shortage before it is ready

    def lacked(self, workers: Any, said: str) -> None:
        """Schedule a replacement for a worker that ended by a shortage before it was ready. `said`: its last lines on standard error."""
        self.count += 1
        self._note_progress(workers.hub)  # `make` did not start the first workers of a pool
        # Workers that are starting are no reason for hope: they meet the same shortage.
        why = "workers lack descriptors, memory or processes before they are ready"
        self._go_without(
            workers, f"{why}; the last of them wrote to its standard error:\n{said}" if said else why, False
        )

    def _go_without(self, workers: Any, why: str, hopeful: bool) -> None:
        """Postpone the next start. After `_PATIENCE` seconds without progress the pool's calls fail, unless `hopeful`."""
        self._postpone()
        if not hopeful and monotonic() - self._since > _PATIENCE:
            workers.hub.give_up_jobs(why)
