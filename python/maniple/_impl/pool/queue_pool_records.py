"""The records of a pool of queues: jobs, tasks under way, deaths, marks and renewals of workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .queue_pool_watch import Watch
    from .queue_pool_worker_table import WorkerState

    Task = tuple[Any, Any]

__all__ = ["GRACE", "Counts", "Death", "JobTable", "Mark", "Renewal", "UnderWay"]

# Seconds to wait for a table entry that names the task before the workers are renewed.
GRACE = 1.0


class Stray:
    """Receives outcomes for a job that is not in the table."""

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    def _set(self, place: Any, outcome: Any) -> None:
        self._take(place)


class JobTable(dict):  # type: ignore[type-arg]
    """The handles of jobs that have not ended, by number. The table puts None into the queue `notifier` when it becomes empty."""

    def __init__(self, notifier: Any) -> None:
        super().__init__()
        self.notifier = notifier
        self.watch: Watch | None = None

    def __delitem__(self, job: Any) -> None:
        super().__delitem__(job)
        if not self:
            self.notifier.put(None)

    def __missing__(self, job: Any) -> Any:
        if self.watch is not None and self.watch.expects(job):
            return Stray(partial(self.watch.stray, job))
        raise KeyError(job)

    def first(self, job: Any, place: Any) -> bool:
        """Record an outcome of a task, and return whether it is the first."""
        return self.watch is None or self.watch.arrived((job, place))


class UnderWay:
    """A task that was sent and has no outcome."""

    __slots__ = ("items", "name", "put", "suspected", "task")

    def __init__(self, task: Any, keep: bool) -> None:
        # The task, if it may have to be sent again; it keeps its arguments alive.
        self.task = task if keep else None
        self.name, self.items = _name_of(task), _items_of(task)
        # Whether it was put into the queue; and the number of workers that died without a note while it was the first
        # there.
        self.put = False
        self.suspected = 0


class Counts:
    """What a pool of queues counts: tasks by their ends, items of ended tasks, started workers. Its holder holds the watch's lock."""

    def __init__(self) -> None:
        self.received = self.completed = self.failed = self.lost = self.cancelled = 0
        self.items = 0
        self.created = self.most_busy = 0


class Death:
    """A worker that ended unexpectedly, or an outcome that could not be unpickled."""

    def __init__(
        self, pid: int, exitcode: int | None, state: WorkerState | None, error: BaseException | None = None
    ) -> None:
        self.pid, self.exitcode, self.state, self.error = pid, exitcode, state, error
        self.since = time.monotonic()
        # The mark that has to arrive before a decision, and the outcomes that the workers had sent before it.
        self.mark: Mark | None = None
        self.sent: set[Task] = set()
        self.renewal: Renewal | None = None


class Mark:
    """An outcome for no job, sent at `since`: when it arrives, everything that was sent before it has arrived."""

    def __init__(self, number: int) -> None:
        self.number, self.since = number, time.monotonic()


class Renewal:
    """A replacement of the workers, to determine which tasks are lost.

    First one end of work is put behind the tasks in the queue. When a worker has taken it, all of the tasks have been taken. Then the
    watch waits until every waiting worker changes its state: a worker that has taken a task without writing its name writes it, the others
    take an end of work.
    """

    def __init__(self) -> None:
        # The tasks before the first end of work (None: not put yet), and the number of that end among all ends of work.
        self.tasks: list[Task] | None = None
        self.end = 0
        # The workers that waited when it was taken, and the number of changes of their entries.
        self.idle: dict[int, int | None] | None = None
        self.again = time.monotonic() + GRACE
        # The outcomes of the workers that have changed their state or ended arrive before this mark.
        self.mark: Mark | None = None


def _name_of(task: Any) -> str:
    """Return the name of the function that a task calls; for a chunk of a map, the name of the mapped function."""
    func, args = task[2], task[3]
    if getattr(func, "__name__", "") in ("mapstar", "starmapstar"):
        try:
            func = args[0][0]
        except (IndexError, TypeError):
            pass
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    return str(name)


def _items_of(task: Any) -> int:
    """Return the number of items of a task: 1, or the length of a chunk of a map."""
    func, args = task[2], task[3]
    if getattr(func, "__name__", "") in ("mapstar", "starmapstar"):
        try:
            return len(args[0][1])
        except (IndexError, TypeError):
            pass
    return 1
