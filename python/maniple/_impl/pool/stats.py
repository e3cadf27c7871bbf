"""What `Pool.stats` returns: the counters of a pool at one moment, as a table, a dict, or text for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Latency", "PoolStats", "SlowTask", "WorkerStats", "stats_of"]


def _ratio(working: float, waiting: float) -> float:
    return working / (working + waiting) if working > 0 else 0.0


@dataclass(frozen=True)
class Latency:
    """The distribution of durations, in seconds. The percentiles are estimates from 64 logarithmic buckets."""

    #: the number of durations, and their sum (estimates if there are many durations below 16 µs)
    count: int = 0
    total: float = 0.0
    #: the durations that 50, 90 and 99 of 100 do not exceed
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    #: the longest duration
    max: float = 0.0


@dataclass(frozen=True)
class SlowTask:
    """One of the slowest tasks of a pool. Its arguments are not kept."""

    #: how long it ran, in seconds
    duration: float
    #: the name of its function; "" if that is not known
    function: str


@dataclass(frozen=True)
class WorkerStats:
    """The counters of a worker. A worker that takes the place of another has its number, and continues its counts."""

    #: its number in the pool, from 0 on
    number: int
    #: its process; 0 if it has none yet, or has ended. Of a thread: this process
    pid: int = 0
    #: "starting", "spare", "idle", "busy" or "ended"
    state: str = "ended"
    #: the name of the function that it runs, and how long it has run it (seconds)
    task: str = ""
    task_time: float = 0.0
    #: tasks that it has ended with a result, and with an exception (each try counts)
    tasks_completed: int = 0
    tasks_failed: int = 0
    #: tasks that ended because it died, and at their time limit (each try counts)
    tasks_lost: int = 0
    tasks_timed_out: int = 0
    #: the number of processes (or threads) that were started under its number
    created: int = 0
    #: seconds from the start of its process until that ran this package's code, and from then until its initializer had returned
    start_up_time: float = 0.0
    init_time: float = 0.0
    #: seconds that it was ready without a task, and seconds in tasks
    waiting_time: float = 0.0
    working_time: float = 0.0
    #: its resident memory in bytes; 0 if that is not known
    memory: int = 0

    @property
    def working_ratio(self) -> float:
        """The part of its time, 0 to 1, that the worker has spent in tasks since it was ready."""
        return _ratio(self.working_time, self.waiting_time)


@dataclass(frozen=True)
class PoolStats:
    """The counters of a pool at one moment. Times are in seconds, memory in bytes.

    A task is one call, or a chunk of the items of a call such as `map` (an item, with ``chunksize=1``). At every moment
    `tasks_received` is the sum of `tasks_completed`, `tasks_failed`, `tasks_lost`, `tasks_timed_out`, `tasks_cancelled`,
    `tasks_waiting` and `tasks_running`.

    ``print(stats)`` prints a table.
    """

    #: tasks that calls have submitted
    tasks_received: int = 0
    #: times that a worker has begun a task; a task that is tried again counts once more
    tasks_launched: int = 0
    #: tasks that ended with a result
    tasks_completed: int = 0
    #: tasks that ended with an exception, or could not be sent
    tasks_failed: int = 0
    #: tasks that ended because their worker died or used too much memory, or because no worker could be started
    tasks_lost: int = 0
    #: tasks that ended at their time limit
    tasks_timed_out: int = 0
    #: tasks that were cancelled, or dropped by `terminate`
    tasks_cancelled: int = 0
    #: times that a task failed and was tried again
    tasks_retried: int = 0
    #: tasks that wait for a worker, or for their next try
    tasks_waiting: int = 0
    #: tasks that workers run
    tasks_running: int = 0
    #: items of the tasks that have ended
    items_done: int = 0
    #: items of calls that are not in tasks yet, as far as their number is known: a long call makes its tasks as they are needed
    items_pending: int = 0
    #: workers that exist: busy, idle and starting ones
    workers_alive: int = 0
    workers_busy: int = 0
    workers_idle: int = 0
    workers_starting: int = 0
    #: workers that were started since the pool began
    workers_created: int = 0
    #: the most workers that had tasks at once
    max_workers_busy_concurrently: int = 0
    #: how long tasks waited until a worker began them, and how long they ran
    waiting: Latency = Latency()
    running: Latency = Latency()
    #: seconds that all workers were in tasks, and that they were ready without a task; those that have ended included
    working_time: float = 0.0
    waiting_time: float = 0.0
    #: the slowest tasks, slowest first, at most five
    slowest: tuple[SlowTask, ...] = ()
    #: the workers, by number
    workers: tuple[WorkerStats, ...] = ()

    @property
    def working_ratio(self) -> float:
        """The part of their time, 0 to 1, that ready workers have spent in tasks."""
        return _ratio(self.working_time, self.waiting_time)

    def as_dict(self) -> dict[str, Any]:
        """Return the counters as a dict of numbers, texts, dicts, and lists of dicts, which `json.dumps` accepts."""
        given = asdict(self)
        return {**given, "slowest": list(given["slowest"]), "workers": list(given["workers"])}

    def prometheus(self, **labels: str) -> str:
        """Return the counters in Prometheus' text format.

        Args:
            labels: labels of every sample, for example ``pool="thumbnails"``.

        Raises:
            ValueError: the name of a label has other characters than letters, digits and underscores, or is one that
                this method uses itself.
        """
        return "".join(f"{line}\n" for line in _exposition(self, labels))

    def __str__(self) -> str:
        return "\n".join(_table(self))


# ---- text for people ----


def _time(seconds: float) -> str:
    """Return a time as text: three digits and a unit."""
    if seconds <= 0:
        return "0"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (100.0, 1.0, "s")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _memory(count: int) -> str:
    """Return a number of bytes as text."""
    return f"{count / 2**30:.3g} GiB" if count >= 1000 * 2**20 else f"{count / 2**20:.3g} MiB" if count else "-"


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield the rows with columns of equal width; the second column and those of numbers are on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _table(stats: PoolStats) -> Iterator[str]:
    s = stats
    yield (
        f"tasks    {s.tasks_received} received: {s.tasks_completed} completed, {s.tasks_failed} failed, {s.tasks_lost} lost,"
        f" {s.tasks_timed_out} timed out, {s.tasks_cancelled} cancelled, {s.tasks_waiting} waiting, {s.tasks_running} running"
    )
    yield f"         {s.tasks_launched} launched, {s.tasks_retried} retried; {s.items_done} items done, {s.items_pending} items not in tasks yet"
    yield (
        f"workers  {s.workers_alive} alive: {s.workers_busy} busy, {s.workers_idle} idle, {s.workers_starting} starting;"
        f" {s.workers_created} created, at most {s.max_workers_busy_concurrently} busy at once"
    )
    yield f"         {100 * s.working_ratio:.3g} % of their time in tasks"
    for name, times in (("waiting", s.waiting), ("running", s.running)):
        mean = times.total / times.count if times.count else 0.0
        parts = (("mean", mean), ("p50", times.p50), ("p90", times.p90), ("p99", times.p99), ("max", times.max))
        yield f"{name}  " + ", ".join(f"{what} {_time(value)}" for what, value in parts)
    for place, slow in enumerate(s.slowest):
        yield f"{'slowest' if not place else '':7}  {_time(slow.duration)}  {slow.function or '?'}"
    if not s.workers:
        return
    yield ""
    rows: list[tuple[str, ...]] = [
        ("worker", "pid", "state", "done", "failed", "lost", "timed out", "start-up", "init", "waiting", "working", "memory", "task")
    ]  # fmt: skip
    for w in s.workers:
        counts = map(str, (w.tasks_completed, w.tasks_failed, w.tasks_lost, w.tasks_timed_out))
        spans = map(_time, (w.start_up_time, w.init_time, w.waiting_time, w.working_time))
        task = f"{w.task or '?'} for {_time(w.task_time)}" if w.state == "busy" else ""
        rows.append((str(w.number), str(w.pid or "-"), w.state, *counts, *spans, _memory(w.memory), task))
    yield from _columns(rows)


# ---- text for Prometheus ----

Sample = tuple[str, dict[str, str], "int | float"]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _family(name: str, kind: str, text: str, samples: Iterable[Sample], common: dict[str, str]) -> Iterator[str]:
    name = f"maniple_{name}"
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for ending, own, value in samples:
        labels = ",".join(f'{label}="{_escaped(of)}"' for label, of in {**common, **own}.items())
        yield f"{name}{ending}{{{labels}}} {value}" if labels else f"{name}{ending} {value}"


def _exposition(stats: PoolStats, labels: dict[str, str]) -> Iterator[str]:
    s = stats
    for label in labels:
        if not (label.isascii() and label.isidentifier()) or label in ("state", "quantile", "worker", "end"):
            raise ValueError(
                f"{label!r} cannot be a label of all samples: use letters, digits and underscores, and no label of the samples"
            )
    common = {label: str(value) for label, value in labels.items()}

    def one(name: str, kind: str, text: str, value: float) -> Iterator[str]:
        return _family(name, kind, text, [("", {}, value)], common)

    def by(label: str, values: dict[str, float]) -> list[Sample]:
        return [("", {label: of}, value) for of, value in values.items()]

    def each(value: Callable[[WorkerStats], float]) -> list[Sample]:
        return [("", {"worker": str(w.number)}, value(w)) for w in s.workers]

    yield from one("tasks_received_total", "counter", "Tasks that calls have submitted.", s.tasks_received)
    yield from one("tasks_launched_total", "counter", "Times that a worker has begun a task.", s.tasks_launched)
    yield from one("tasks_retried_total", "counter", "Times that a task failed and was tried again.", s.tasks_retried)
    ends: dict[str, float] = {
        "completed": s.tasks_completed,
        "failed": s.tasks_failed,
        "lost": s.tasks_lost,
        "timed_out": s.tasks_timed_out,
        "cancelled": s.tasks_cancelled,
    }
    yield from _family("tasks_ended_total", "counter", "Tasks that have ended, by how.", by("end", ends), common)
    yield from one("items_done_total", "counter", "Items of the tasks that have ended.", s.items_done)
    yield from one("items_pending", "gauge", "Items of calls that are not in tasks yet.", s.items_pending)
    open_tasks: dict[str, float] = {"waiting": s.tasks_waiting, "running": s.tasks_running}
    yield from _family("tasks", "gauge", "Tasks that have not ended.", by("state", open_tasks), common)
    states: dict[str, float] = {"busy": s.workers_busy, "idle": s.workers_idle, "starting": s.workers_starting}
    yield from _family("workers", "gauge", "Workers that exist.", by("state", states), common)
    yield from one("workers_created_total", "counter", "Workers that were started.", s.workers_created)
    yield from one(
        "workers_busy_max", "gauge", "The most workers that had tasks at once.", s.max_workers_busy_concurrently
    )
    for name, times, text in (
        ("task_waiting_seconds", s.waiting, "How long tasks waited until a worker began them."),
        ("task_running_seconds", s.running, "How long tasks ran."),
    ):
        quantiles = by("quantile", {"0.5": times.p50, "0.9": times.p90, "0.99": times.p99})
        yield from _family(
            name, "summary", text, [*quantiles, ("_sum", {}, times.total), ("_count", {}, times.count)], common
        )
    for name, kind, text, value in (
        ("worker_busy", "gauge", "Whether the worker runs a task.", lambda w: int(w.state == "busy")),
        ("worker_task_seconds", "gauge", "How long the worker has run its task.", lambda w: w.task_time),
        ("worker_completed_total", "counter", "Tasks of the worker that ended with a result.", lambda w: w.tasks_completed),
        ("worker_failed_total", "counter", "Tasks of the worker that ended with an exception.", lambda w: w.tasks_failed),
        ("worker_lost_total", "counter", "Tasks that ended with the worker.", lambda w: w.tasks_lost),
        ("worker_timed_out_total", "counter", "Tasks of the worker that ended at their limit.", lambda w: w.tasks_timed_out),
        ("worker_working_seconds_total", "counter", "The time in tasks.", lambda w: w.working_time),
        ("worker_waiting_seconds_total", "counter", "The time without a task.", lambda w: w.waiting_time),
        ("worker_memory_bytes", "gauge", "The worker's resident memory.", lambda w: w.memory),
    ):  # fmt: skip
        yield from _family(name, kind, text, each(value), common)


# ---- where the numbers come from ----


def stats_of(pool: Any) -> PoolStats:
    """Return the counters of a pool of any kind."""
    if pool._workers is None:
        from .queue_pool_stats import stats_of_queues

        return stats_of_queues(pool)
    given = pool._hub.stats()
    if isinstance(given, PoolStats):
        return given
    return PoolStats(
        **{
            **given,
            "waiting": Latency(*given["waiting"]),
            "running": Latency(*given["running"]),
            "slowest": tuple(SlowTask(*slow) for slow in given["slowest"]),
            "workers": tuple(WorkerStats(**worker) for worker in given["workers"]),
        }
    )


for _kind in (Latency, PoolStats, SlowTask, WorkerStats):
    _kind.__module__ = "maniple.pool"
del _kind
