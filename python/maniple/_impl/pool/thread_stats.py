"""What a pool of threads counts.

Calls keep their own accounts (`Job.account`). When a job leaves the table of open jobs, which happens under the hub's lock, its account is
added to `Ended`. So the counters of tasks cost nothing for each task, and are exact.

Each thread has a `Row`, which it alone writes: how many tasks it has run, for how long, and how long they took. A thread that runs the
tasks of a `map`, or of an `imap` over a list, one after the other writes it once for several short tasks.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from time import perf_counter_ns as now

from .no_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .stats import PoolStats
    from .thread_hub import ThreadHub
    from .thread_jobs import Job

__all__ = ["Account", "Ended", "Row", "name_of_function", "next_batch", "now", "stats_of_threads"]

# tasks received, completed, failed, cancelled, running; items of ended tasks
Account = tuple[int, int, int, int, int, int]

#: A thread counts its tasks after so many nanoseconds of a call, and after so many tasks.
SPAN, MOST = 1_000_000, 256
BUCKETS = 64
SLOWEST = 5


class Ended:
    """The accounts of the jobs that have ended."""

    def __init__(self) -> None:
        self.counts = [0] * 6
        #: the number of tries after the first ones, and of exceptions that were returned as results, also of open jobs
        self.retried = self.returned = 0

    def add(self, job: Job, is_lost: bool) -> None:
        """Add the account of a job that leaves the table of open jobs. The caller holds the hub's lock."""
        received, completed, failed, cancelled, _, items = job.account()
        rest = received - completed - failed - cancelled
        counts = self.counts
        lost = rest if is_lost else 0
        # One step: a reader without the lock finds the old list or the new one.
        self.counts = [
            counts[0] + received,
            counts[1] + completed,
            counts[2] + failed,
            counts[3] + cancelled + rest - lost,
            counts[4] + lost,
            counts[5] + items,
        ]


class Durations:
    """Durations (ns), counted by their length in bits: one bucket for each power of two."""

    __slots__ = ("buckets", "count", "greatest", "total")

    def __init__(self) -> None:
        self.buckets = [0] * BUCKETS
        self.count = self.total = self.greatest = 0

    def add(self, nanos: int, count: int = 1) -> None:
        self.buckets[min(nanos.bit_length(), BUCKETS - 1)] += count
        self.count += count
        self.total += nanos * count
        self.greatest = max(self.greatest, nanos)

    def add_all(self, durations: list[int]) -> None:
        if durations:
            for bits, count in Counter(map(int.bit_length, durations)).items():
                self.buckets[min(bits, BUCKETS - 1)] += count
            self.count += len(durations)
            self.total += sum(durations)
            self.greatest = max(self.greatest, max(durations))

    def merge(self, other: Durations) -> None:
        self.buckets = [one + two for one, two in zip(self.buckets, other.buckets, strict=True)]
        self.count += other.count
        self.total += other.total
        self.greatest = max(self.greatest, other.greatest)

    def percentile(self, part: float) -> float:
        """Return the duration (s) that `part` of all durations do not exceed."""
        wanted, below = part * self.count, 0
        for bits, inside in enumerate(self.buckets):
            if inside and below + inside >= wanted:
                low, high = 1 << bits >> 1, min(1 << bits, self.greatest)
                return (low + max(0, high - low) * (wanted - below) / inside) / 1e9
            below += inside
        return self.greatest / 1e9


class Row:
    """The counters of a thread.

    The thread appends the durations of its tasks to lists, which it counts from time to time. A lack of memory costs counts, and nothing
    else.
    """

    __slots__ = (
        "failed",
        "job",
        "least_slow",
        "made",
        "new_runs",
        "new_waits",
        "ready",
        "runs",
        "since",
        "slowest",
        "waits",
    )

    def __init__(self, made: int) -> None:
        #: when its thread was made, and when its initializer had returned
        self.made, self.ready = made, 0
        #: the job of what it runs (None: it runs nothing), and when it began that
        self.job: Job | None = None
        self.since = 0
        #: how long tasks waited and ran, and what was not counted yet; how many of them failed
        self.waits, self.runs = Durations(), Durations()
        self.new_waits: list[int] = []
        self.new_runs: list[int] = []
        self.failed = 0
        #: the slowest tasks, and how long a task has to run to be one of them
        self.slowest: list[tuple[int, str]] = []
        self.least_slow = -1

    def end(self, started: int, job: Job, is_fine: bool, added: int = 0) -> None:
        """Record the end of a task that began at `started` and was added at `added` (0: not known)."""
        try:
            took = now() - started
            self.job = None
            self.new_runs.append(took)
            if added:
                self.new_waits.append(started - added)
            self.note(took, job, is_fine)
        except NO_MEMORY:
            self.job = None

    def note(self, took: int, job: Job, is_fine: bool) -> None:
        """Record more of a task of `job` whose duration is the last one of `new_runs`."""
        if not is_fine:
            self.failed += 1
        if took > self.least_slow:
            self._note_slow(took, job.func)
        if len(self.new_runs) >= MOST:
            self._count()

    def end_several(self, started: int, job: Job, completed: int, failed: int, added: int = 0) -> int:
        """Record the end of tasks that ran one after the other, as `end` does; return the time (ns) that they took together."""
        try:
            took = now() - started
            self.job = None
            if count := completed + failed:
                self.failed += failed
                each = took // count
                self.runs.add(each, count)
                if added:
                    self.waits.add(started - added, count)
                if each > self.least_slow:
                    self._note_slow(each, job.func)
            return took
        except NO_MEMORY:
            self.job = None
            return SPAN

    def _note_slow(self, took: int, func: Any) -> None:
        self.slowest = sorted([*self.slowest, (took, name_of_function(func))], reverse=True)[:SLOWEST]
        if len(self.slowest) == SLOWEST:
            self.least_slow = self.slowest[-1][0]

    def _count(self) -> None:
        # A reader never counts a duration twice, and may miss these for a moment.
        runs, self.new_runs = self.new_runs, []
        self.runs.add_all(runs)
        waits, self.new_waits = self.new_waits, []
        self.waits.add_all(waits)


def next_batch(batch: int, took: int) -> int:
    """Return how many tasks a thread counts together, after `batch` tasks that took `took` nanoseconds."""
    if took < SPAN // 2:
        return min(2 * batch, MOST)
    return max(1, batch // 2) if took > SPAN else batch


def name_of_function(func: Any) -> str:
    """Return the name of the function that a task calls."""
    if isinstance(func, partial):
        func = func.args[0] if func.args and func.func.__module__ == f"{__package__}.thread_jobs" else func.func
    name = getattr(func, "__qualname__", None)
    return name if isinstance(name, str) else type(func).__qualname__


def stats_of_threads(hub: ThreadHub) -> PoolStats:
    """Return the counters of a pool of threads."""
    import os

    from ..._maniple import Hold
    from .stats import Latency, PoolStats, SlowTask, WorkerStats

    with Hold(hub.lock):
        received, completed, failed, cancelled, lost, items = hub.ended.counts
        running = 0
        for job in list(hub.jobs.values()):
            one = job.account()
            received, completed, failed, cancelled = (
                received + one[0],
                completed + one[1],
                failed + one[2],
                cancelled + one[3],
            )
            running, items = running + one[4], items + one[5]
        retried, returned = hub.ended.retried, min(hub.ended.returned, completed)
        completed, failed = completed - returned, failed + returned
        waiting = received - completed - failed - cancelled - lost - running
        workers = hub.workers
        rows, ended = list(workers.rows), set(workers.ended)
        threads = list(workers.processes)
    moment = now()
    waits, runs = Durations(), Durations()
    slowest: list[tuple[int, str]] = []
    found = []
    for number, row in enumerate(rows):
        own = Durations()
        own.add_all(row.new_runs.copy())
        own.merge(row.runs)
        runs.merge(own)
        waits.add_all(row.new_waits.copy())
        waits.merge(row.waits)
        slowest += row.slowest
        present_job, since = row.job, row.since
        has_ended = number < len(threads) and threads[number] in ended
        state = "ended" if has_ended else "starting" if not row.ready else "idle" if present_job is None else "busy"
        present = max(0, moment - since) if state == "busy" else 0
        working = own.total + present
        func = None if present_job is None else present_job.func
        found.append(
            WorkerStats(
                number=number,
                pid=0 if has_ended else os.getpid(),
                state=state,
                task="" if func is None or state != "busy" else name_of_function(func),
                task_time=present / 1e9,
                tasks_completed=max(0, own.count - row.failed),
                tasks_failed=row.failed,
                created=1,
                init_time=((row.ready or moment) - row.made) / 1e9,
                waiting_time=max(0, moment - row.ready - working) / 1e9 if row.ready else 0.0,
                working_time=working / 1e9,
            )
        )
    states = [worker.state for worker in found]
    workers.most_busy = busy = max(workers.most_busy, states.count("busy"))
    return PoolStats(
        tasks_received=received,
        tasks_launched=completed + failed + running + retried,
        tasks_completed=completed,
        tasks_failed=failed,
        tasks_retried=retried,
        tasks_lost=lost,
        tasks_cancelled=cancelled,
        tasks_waiting=max(0, waiting),
        tasks_running=running,
        items_done=items,
        workers_alive=len(states) - states.count("ended"),
        workers_busy=states.count("busy"),
        workers_idle=states.count("idle"),
        workers_starting=states.count("starting"),
        workers_created=len(rows),
        max_workers_busy_concurrently=busy,
        waiting=_latency(Latency, waits),
        running=_latency(Latency, runs),
        working_time=sum(worker.working_time for worker in found),
        waiting_time=sum(worker.waiting_time for worker in found),
        slowest=tuple(SlowTask(nanos / 1e9, name) for nanos, name in sorted(slowest, reverse=True)[:SLOWEST]),
        workers=tuple(found),
    )


def _latency(kind: Any, of: Durations) -> Any:
    parts = (of.percentile(part) for part in (0.5, 0.9, 0.99))
    return kind(of.count, of.total / 1e9, *parts, of.greatest / 1e9)
