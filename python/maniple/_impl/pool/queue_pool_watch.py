"""The watch of a pool of queues: it tracks the tasks under way, and ends the tasks whose outcome cannot come, so that no call hangs.

The pool's class defines the queues, and the watch adds nothing to their messages. It tracks the tasks that were sent (`send`), the
outcomes that came back (`JobTable.first`), and each worker's state in the worker table. A task can fail in three ways:

* its worker dies. The table says which task it ran;
* its arguments cannot be unpickled, or its worker dies while it takes them. Then no entry names the task;
* its outcome cannot be unpickled here. The table says which outcomes the workers have sent; the one that did not arrive is it.

To determine that an outcome did *not* arrive, the watch sends a *mark* through the queue of outcomes: an outcome for a job that does
not exist, which every handler of outcomes passes to `cache[job]`, and so to the watch. When the mark arrives, everything that was
sent before it has arrived. If no entry names the task, the workers are *renewed*: the watch sends one end of work (None) for each
worker, behind all tasks in the queue. When every waiting worker has changed its state or ended, all earlier tasks have been taken;
the tasks that no worker runs and that have no outcome are lost.

Workers with an entry are not renewed: the queue is emptied, and the tasks that no worker had begun are sent again
(`queue_pool_reset.py`).
"""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Callable, Iterable

from ... import util
from ..._maniple import Hold, Hub
from ..start.shortage import is_shortage
from .payload import ResultDecodeError, WorkerLostError, lost, unreadable
from .queue_pool_records import GRACE, Counts, Death, JobTable, Mark, Renewal, UnderWay
from .queue_pool_reset import may_have_unnamed_task, recover
from .queue_pool_worker_table import DONE, LEFT, RUNNING, STARTING, UNREADABLE, WAITING, WorkerState, WorkerTable
from .results import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Task = tuple[Any, Any]

__all__ = ["Watch"]

# Seconds that the handler of outcomes may wait for the rest of an outcome before the queue counts as damaged.
PATIENCE = 30.0
# Seconds before a failed start of workers is retried: the first and the longest pause.
_FIRST_PAUSE, _LONGEST_PAUSE = Hub.START_PAUSES
# The exit code of a worker that a shortage ended before it was ready.
_LACKING = getattr(os, "EX_TEMPFAIL", None)


class Watch:
    """The watch of one pool. The thread that keeps the workers calls `look`; any thread calls the other methods."""

    def __init__(self, processes: int, table: WorkerTable | None, limit: int | None) -> None:
        self.table = table
        self.limit = limit
        self.processes = processes
        self.changed = threading.Condition()
        # Held while an item is put into the queue of tasks: the standard package's `_quick_put` supports one thread.
        self.putting = threading.Lock()
        self.looking = threading.Lock()
        self.sent: dict[Task, UnderWay] = {}
        # Tasks that were ended without an outcome -> the thread that is ending the task, or 0.
        self.given_up: dict[Task, int] = {}
        self.broken: BaseException | None = None
        self.over = False
        self.known: dict[int, Any] = {}
        self.buried: set[int] = set()
        self.deaths: collections.deque[Death] = collections.deque()
        self.renewal: Renewal | None = None
        # Workers that `recover` has killed.
        self.dismissed: set[int] = set()
        self.ends_sent = self.ends_taken = 0
        self.failed_starts = 0
        self.short_pause = self.next_start = 0.0
        self.lacking = 0  # number of workers in a row that a shortage ended before they were ready
        self.marks_made = self.marks_seen = 0
        self.mark_job = -id(self)
        self.receiving_since: float | None = None
        # The task of the outcome that was received last, and whether it has a result.
        self.received: Any = None
        self.latest = 0.0
        self.put: Callable[[Any], Any] = lambda _: None
        self.inqueue: Any = None
        self.outqueue: Any = None
        # Whether the tasks are kept while they are under way, because they may have to be sent again.
        self.keeps = False
        self.recovering = False
        self.finished: set[Task] = set()
        self.cache: JobTable | None = None
        self.counts = Counts()
        self.owner = os.getpid()

    # ---- tasks ----

    def send(self, task: Any) -> None:
        """Put a task into the queue, and track it from then on."""
        if task is None:
            with Hold(self.putting):
                self.put(None)
                self.ends_sent += 1
            return
        key = tuple(task[:2])
        with self.changed:
            if self.limit is not None:
                self.changed.wait_for(lambda: len(self.sent) < (self.limit or 1) or self.over or self.broken)
            if self.over and self.broken is None:
                return
            self.counts.received += 1
            if self.broken is not None:
                self.counts.lost += 1
                raise self.broken
            self.sent[key] = way = UnderWay(task, self.keeps)
        try:
            with Hold(self.putting):
                self.put(task)
                way.put = True
        except BaseException:
            with self.changed:
                self.sent.pop(key, None)
                self.counts.failed += 1
            raise

    def arrived(self, key: Task) -> bool:
        with self.changed:
            if key in self.given_up:
                return self.given_up[key] == threading.get_ident()
            if (way := self.sent.pop(key, None)) is not None:
                self.latest = time.monotonic()
                self.counts.items += way.items
                if self.received == (key, True):
                    self.counts.completed += 1
                else:
                    self.counts.failed += 1
                if self.table is None:
                    # With a table, `_ended` resets the count.
                    self.failed_starts = 0
                self.changed.notify()
            return True

    def receive(self, get: Callable[[], Any]) -> Any:
        """Return the next outcome from the queue. An outcome that cannot be unpickled fails its task, and does not end the handler."""
        failures = 0
        while True:
            self.receiving_since = time.monotonic()
            try:
                outcome = get()
                self.received = _end_of(outcome)
                return outcome
            except Exception as error:
                failures += 1
                closed = getattr(getattr(self.outqueue, "_reader", None), "closed", False)
                if isinstance(error, EOFError | OSError) and (self.over or closed or failures > 100):
                    raise
                self._report(Death(0, None, None, error))
            finally:
                self.receiving_since = None

    def expects(self, job: Any) -> bool:
        if job == self.mark_job:
            return True
        with self.changed:
            return any(key[0] == job for key in self.sent)

    def stray(self, job: Any, place: Any) -> None:
        if job == self.mark_job:
            self.marks_seen = max(self.marks_seen, place)
            self.wake()
        else:
            self.arrived((job, place))

    # ---- workers ----

    @property
    def pending(self) -> bool:
        """Whether `look` should be called soon even without an event."""
        return bool(self.deaths)

    def keep_looking(self, workers: Iterable[Any]) -> None:
        """Call `look` at intervals, if an overridden `_handle_workers` does not call it."""
        while not self.over:
            self.look(workers)
            time.sleep(0.05 if self.deaths else 0.2)

    def look(self, workers: Iterable[Any]) -> None:
        """Find the workers that have died, and end the tasks whose outcome cannot come because of that."""
        with Hold(self.looking, 0) as taken:
            if taken:
                self._look(workers)

    def _look(self, workers: Iterable[Any]) -> None:
        listed = {process.pid: process for process in list(workers) if isinstance(getattr(process, "pid", None), int)}
        # Ended workers stay in the list until they are joined.
        self.buried &= listed.keys()
        new = {pid: process for pid, process in listed.items() if pid not in self.buried}
        self.counts.created += len(new.keys() - self.known.keys())
        self.known |= new
        for pid, process in list(self.known.items()):
            if process.exitcode is not None:
                del self.known[pid]
                self.buried.add(pid)
                self._ended(pid, process.exitcode)
        if self.keeps and not self.recovering and self.sent and any(map(may_have_unnamed_task, list(self.deaths))):
            self.recovering = True
            self.errand(recover, self)
        for death in list(self.deaths):
            if self.recovering and may_have_unnamed_task(death):
                continue
            if self._settled(death):
                try:
                    self.deaths.remove(death)
                except ValueError:
                    pass  # `recover` has removed it

    def _ended(self, pid: int, exitcode: int) -> None:
        state = self.table.last_words(pid) if self.table else None
        if state is not None:
            self.finished = {key for key in self.finished | state.sent if key in self.sent}
        # Whether the worker took an end of work; a worker without an entry may also have run its maximum number of tasks.
        left = exitcode == 0 if state is None else state.phase == LEFT
        self.ends_taken += left
        started = left if state is None else state.phase != STARTING
        if not started and exitcode == _LACKING:
            self.lacking = 0 if self._one_works() else self.lacking + 1
            self.next_start = time.monotonic() + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.lacking, 10))
        else:
            self.failed_starts = 0 if started else self.failed_starts + 1
        if self.failed_starts > Hub.failures_at_most(self.processes) and not self._one_works():
            self.give_up(lost(pid, exitcode, "", False, None, "", None, 0))
        elif state is not None and state.phase == DONE:
            pass
        elif pid in self.dismissed and (state is None or state.phase != RUNNING):
            self.dismissed.discard(pid)
        elif not left or (state is None and self.renewal is None):
            self.deaths.append(Death(pid, exitcode, state))

    def _one_works(self) -> bool:
        """Return whether a worker has become ready: then the pool does not fail, and other workers are started at intervals."""
        return any(state is not None and state.phase != STARTING for state in self.states().values())

    def may_start(self) -> bool:
        """Return whether workers should be started now."""
        if time.monotonic() < self.next_start:
            return False
        if self.failed_starts <= Hub.failures_at_most(self.processes):
            return True
        self.next_start = time.monotonic() + _LONGEST_PAUSE
        return True

    def failed_start(self, error: BaseException) -> float:
        """Handle a start that failed; return the seconds until the next attempt, which grow during a shortage."""
        util.sub_warning("could not start a worker: %s", error)
        if is_shortage(error):
            self.short_pause = min(_LONGEST_PAUSE, 2 * self.short_pause or _FIRST_PAUSE)
            return self.short_pause
        self.failed_starts += 1
        if self.failed_starts > Hub.failures_at_most(self.processes) and not self._one_works():
            self.give_up(lost(0, None, f"{type(error).__name__}: {error}", False, None, "", None, 0))
        return 0.2

    def _settled(self, death: Death) -> bool:
        """Handle a death; return whether all of its consequences are done."""
        with self.changed:
            if not self.sent:
                return True
        if death.mark is None:
            death.sent = self.all_sent()
            death.mark = self.send_mark()
        if not self.has_come(death.mark):
            return False
        state = death.state
        if state is not None and state.phase == STARTING:
            return True
        if state is not None and state.phase == RUNNING and state.task[0] >= 0:
            self.lose(state.task, death)
            return True
        return self._unsent_found(death) or self._taken_found(death)

    def _unsent_found(self, death: Death) -> bool:
        """Find the outcome that could not be unpickled: by the table it was sent before the mark, and it did not arrive."""
        if death.error is None or death.renewal is not None:
            return False
        with self.changed:
            missing = [key for key in death.sent if key in self.sent]
        if missing:
            self.lose(missing[0], death)
            return True
        if self.table is not None or time.monotonic() - death.since < GRACE:
            # The worker may not have noted yet that it sent the outcome.
            death.mark = None
        return False

    def _taken_found(self, death: Death) -> bool:
        """End the tasks that were taken and are lost, after a renewal of the workers; return whether that is done."""
        if death.mark is None:
            return False
        if death.renewal is None:
            if not self._nowhere(list(self.sent)):
                return True
            # A worker without an entry may have ended in order. As long as outcomes arrive, no renewal is needed.
            quiet = death.pid == 0 or death.state is not None or time.monotonic() - self.latest > GRACE
            if self.renewal is None and quiet:
                self.renewal = renewal = Renewal()
                self.errand(self._put_end, renewal)
                for other in self.deaths:
                    other.renewal = other.renewal or renewal
            return False
        renewal = death.renewal
        if not self._has_moved_everyone(renewal):
            return False
        if renewal.mark is None:
            renewal.mark = self.send_mark()
        if not self.has_come(renewal.mark):
            return False
        sharing = [other for other in self.deaths if other.renewal is renewal]
        for key in self._nowhere(renewal.tasks or []):
            self.lose(key, sharing.pop(0) if len(sharing) > 1 else sharing[0])
        if self.renewal is renewal:
            self.renewal = None
        return True

    def _has_moved_everyone(self, renewal: Renewal) -> bool:
        if renewal.tasks is None:
            return False
        if renewal.idle is None and self.ends_taken >= renewal.end:
            states = self.states()
            renewal.idle = {
                pid: None if state is None else state.changes
                for pid, state in states.items()
                if state is None or state.phase in (WAITING, UNREADABLE)
            }
            for _ in renewal.idle:
                self.errand(self.send, None)
        for pid, changes in list((renewal.idle or {}).items()):
            state = self.table.read(pid) if self.table and changes is not None else None
            if pid not in self.known or (state is not None and state.changes != changes):
                (renewal.idle or {}).pop(pid)
        if renewal.idle is not None and not renewal.idle:
            return True
        if time.monotonic() > renewal.again:
            # A worker that died, or a new worker, took an end of work in the place of a worker that the watch waits for.
            renewal.again = time.monotonic() + GRACE
            self.errand(self.send, None)
        return False

    def _put_end(self, renewal: Renewal) -> None:
        with Hold(self.putting):
            self.put(None)
            with self.changed:
                self.ends_sent += 1
                renewal.end, renewal.tasks = self.ends_sent, [key for key, way in self.sent.items() if way.put]

    def _nowhere(self, tasks: Iterable[Task]) -> list[Task]:
        """Return the tasks among `tasks` without an outcome that no worker runs, or ran when it died."""
        states = [*self.states().values(), *(death.state for death in self.deaths)]
        running = {state.task for state in states if state is not None and state.phase == RUNNING}
        with self.changed:
            return [key for key in tasks if key in self.sent and key not in running]

    def states(self) -> dict[int, WorkerState | None]:
        return {pid: self.table.read(pid) if self.table else None for pid in self.known}

    def all_sent(self) -> set[Task]:
        """Return the tasks for which workers have noted that they sent an outcome, if under way or among the latest."""
        return self.finished | {task for state in self.states().values() if state is not None for task in state.sent}

    # ---- ends ----

    def lose(self, key: Task, death: Death) -> None:
        with self.changed:
            known = self.sent.pop(key, None)
            if known is None:
                return
            self.counts.items += known.items
            if death.error is None and (death.state is None or death.state.phase != UNREADABLE):
                self.counts.lost += 1
            else:
                self.counts.failed += 1
            self.changed.notify()
        self._fail(key, self._error_for(key, known.name, death))

    def _error_for(self, key: Task, name: str, death: Death) -> BaseException:
        if death.error is not None:
            return unreadable(death.error)
        if death.state is not None and death.state.phase == UNREADABLE:
            return ResultDecodeError(f"the worker could not unpickle this task of {name}: {death.state.text}")
        handle = (self.cache or {}).get(key[0])
        chunksize = getattr(handle, "_chunksize", None)
        first = None if chunksize is None else key[1] * chunksize
        return lost(death.pid, death.exitcode, "", True, None, name, first, chunksize or 1)

    def _fail(self, key: Task, error: BaseException) -> None:
        handle = dict.get(self.cache or {}, key[0])
        with self.changed:
            # An outcome that arrives later is ignored.
            self.given_up[key] = threading.get_ident()
        try:
            if handle is not None:
                handle._set(key[1], (False, error))
        except Exception as failure:
            tell(failure)
        with self.changed:
            self.given_up[key] = 0

    def give_up(self, error: WorkerLostError) -> None:
        """Fail all tasks under way, and all later ones, with `error`, since no more outcomes can come."""
        with self.changed:
            self.broken = error
            tasks, self.sent = list(self.sent), {}
            self.counts.lost += len(tasks)
            self.changed.notify_all()
        for key in tasks:
            self._fail(key, error)

    def end(self, error: BaseException) -> None:
        """End the jobs that have not ended with `error`, because the pool is terminated."""
        with self.changed:
            self.over = True
            self.counts.cancelled += len(self.sent)
            self.sent.clear()
            self.changed.notify_all()
        for handle in list((self.cache or {}).values()):
            try:
                abandon = getattr(handle, "_abandon", None)
                abandon(error) if abandon is not None else handle._set(0, (False, error))
            except Exception as failure:
                tell(failure)

    # ---- the queues ----

    def send_mark(self) -> Mark:
        self.marks_made += 1
        self.errand(self.outqueue.put, (self.mark_job, self.marks_made, (True, None)))
        return Mark(self.marks_made)

    def has_come(self, mark: Mark) -> bool:
        if self.marks_seen >= mark.number:
            return True
        # The handler of outcomes has waited for the rest of an outcome all this time: the worker died while it sent it.
        since = self.receiving_since
        if since is not None and since < mark.since and time.monotonic() - mark.since > PATIENCE:
            self.give_up(
                WorkerLostError(
                    "a worker was killed while it sent an outcome, and the queue is damaged", 0, None, "", ""
                )
            )
        return False

    def _report(self, death: Death) -> None:
        self.deaths.append(death)
        self.wake()

    def wake(self) -> None:
        if self.cache is not None:
            self.cache.notifier.put(None)

    def errand(self, run: Callable[[Any], Any], *args: Any) -> None:
        """Call ``run(*args)``, which may block, in a separate thread."""

        def go() -> None:
            try:
                run(*args)
            except Exception as error:
                util.debug("a pool's queue refused: %s", error)

        threading.Thread(target=go, name="maniple-pool-errand", daemon=True).start()


def _end_of(outcome: Any) -> Any:
    """Return the task of an outcome, and whether it has a result; None for an outcome of another form."""
    try:
        job, place, (is_fine, _) = outcome
    except (TypeError, ValueError):
        return None
    return (job, place), is_fine
