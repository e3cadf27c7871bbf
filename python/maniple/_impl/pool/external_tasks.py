"""Tasks in the standard package's form, `(job, place, func, args, kwds)`, on a pool of the engine.

Programs that extend the pool make such tasks (`istarmap` is the best known example): they put them into `_taskqueue`
together with a function that is called with their number, and expect a call `cache[job]._set(place, (succeeded,
outcome))` for each outcome.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ..sync.thread_start import ThreadStart
from .results import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .pending_callbacks import PendingCallbacks

__all__ = ["ExternalTasks"]

# The number of these tasks under way, besides some for each worker. The others stay in the program's generator.
AHEAD = 32


class Sent:
    """A task under way; the pool's keeper calls `_complete` when it has ended."""

    __slots__ = ("_job", "_place", "_tasks", "ticket")

    def __init__(self, tasks: ExternalTasks, job: Any, place: Any) -> None:
        self._tasks, self._job, self._place = tasks, job, place
        self.ticket: Any = None

    def _complete(self) -> None:
        outcome: tuple[bool, Any]
        try:
            outcome = True, self.ticket.get()
        except BaseException as error:
            outcome = False, error
        self._tasks.left()
        self._tasks.deliver(self._job, self._place, outcome)


class ExternalTasks:
    """The tasks of one pool that the program makes. `handles` has the handles of the program's jobs, by number."""

    def __init__(self, hub: Any, results: PendingCallbacks) -> None:
        self.hub, self.results = hub, results
        self.handles: dict[Any, Any] = {}
        self.changed = threading.Condition()
        self.under_way = 0
        # The number of generators that have not been read to their end; the hub is closed after them.
        self.open = 0
        self.waiting = 0
        self.closing = False
        self.over = False

    def put(self, entry: Any, processes: int) -> None:
        """Accept a job: an iterable of tasks, and None or a function that is called with their number."""
        if entry is None:
            raise ValueError("the end of work cannot be put into this pool's task queue; call close()")
        tasks, set_length = entry
        if isinstance(tasks, list | tuple):
            return self._read(tasks, set_length, None)
        with self.changed:
            self.open += 1
            self.waiting += 1
        thread = threading.Thread(
            target=self._feed, args=(tasks, set_length, AHEAD + 4 * processes), name="maniple-pool-feeder", daemon=True
        )
        start = ThreadStart(thread)
        try:
            start()
        except BaseException:
            if start.cancel():
                with self.changed:
                    self.waiting -= 1
                self._close_after()
            raise

    def _feed(self, tasks: Iterable[Any], set_length: Callable[[int], object] | None, most: int) -> None:
        with self.changed:
            self.waiting -= 1
        try:
            self._read(tasks, set_length, most)
        finally:
            self._close_after()

    def _close_after(self) -> None:
        """Count a generator that has been read to its end; close the hub after the last if the pool is closed."""
        with self.changed:
            self.open -= 1
            close = self.closing and not self.open
        if close:
            self.hub.close()

    def _read(self, tasks: Iterable[Any], set_length: Callable[[int], object] | None, most: int | None) -> None:
        job, places = None, 0
        try:
            for task in tasks:
                job, place = task[:2]
                places = place + 1
                with self.changed:
                    self.changed.wait_for(lambda: most is None or self.under_way < most or self.over)
                    if self.over:
                        return
                self.send(task)
        except Exception as error:
            tell(error)
            if job is not None:
                self.deliver(job, places, (False, error))
                places += 1
        if set_length:
            set_length(places)

    def send(self, task: Any) -> None:
        """Send a task. If it cannot be sent, its outcome is the exception."""
        job, place, func, args, kwds = task
        sent = Sent(self, job, place)
        with self.changed:
            self.under_way += 1
        try:
            sent.ticket = self.hub.call(func, args, kwds, True)
            self.results.enter(sent.ticket.job, sent)
        except Exception as error:
            self.left()
            self.deliver(job, place, (False, error))

    def left(self) -> None:
        with self.changed:
            self.under_way -= 1
            self.changed.notify_all()

    def deliver(self, job: Any, place: Any, outcome: tuple[bool, Any]) -> None:
        handle = self.handles.get(job)
        if handle is not None:
            handle._set(place, outcome)

    def close(self) -> None:
        """Accept no more jobs, and close the hub when the present ones have been read."""
        with self.changed:
            self.closing = True
            close = not self.open
        if close:
            self.hub.close()

    def end(self, error: BaseException) -> None:
        """End the jobs that have not ended with `error`, because the pool is terminated."""
        with self.changed:
            self.over = True
            self.changed.notify_all()
        for handle in list(self.handles.values()):
            abandon = getattr(handle, "_abandon", None)
            if abandon is not None:
                abandon(error)
