"""What a pool of queues counts. Its messages are those of its class, so the watch counts what passes it, and there are no times.

A worker's counters come from the worker table, where there is one: the outcomes that it has sent count as completed.
"""

from __future__ import annotations

import os

from .queue_pool_worker_table import RUNNING, STARTING
from .stats import PoolStats, WorkerStats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .queue_pool_watch import Watch

__all__ = ["stats_of_queues"]


def stats_of_queues(pool: Any) -> PoolStats:
    """Return the counters of a pool of queues."""
    watch: Watch | None = getattr(pool._cache, "watch", None)
    if watch is None:
        raise ValueError(f"{type(pool).__name__} replaces the parts of Pool that count: it has no statistics")
    if watch.owner != os.getpid():
        raise RuntimeError(
            f"this pool belongs to process {watch.owner}; a forked child cannot use it; make another pool in the child"
        )
    processes = [process for process in list(pool._pool) if not _has_ended(process)]
    states = {} if watch.table is None else {process.pid: watch.table.read(process.pid) for process in processes}
    with watch.changed:
        counts, sent = watch.counts, dict(watch.sent)
        received, completed, failed = counts.received, counts.completed, counts.failed
        lost, cancelled, items = counts.lost, counts.cancelled, counts.items
        running = {
            state.task for state in states.values() if state is not None and state.phase == RUNNING
        } & sent.keys()
        counts.most_busy = busiest = max(counts.most_busy, len(running))
    found = []
    for number, process in enumerate(processes):
        pid = getattr(process, "pid", None)
        state = states.get(pid)
        phase = "idle" if state is None else {RUNNING: "busy", STARTING: "starting"}.get(state.phase, "idle")
        task = sent[state.task].name if state is not None and phase == "busy" and state.task in sent else ""
        done = 0 if state is None else state.outcomes
        pid = pid if isinstance(pid, int) else os.getpid()  # a thread
        found.append(WorkerStats(number=number, pid=pid, state=phase, task=task, tasks_completed=done, created=1))
    phases = [worker.state for worker in found]
    return PoolStats(
        tasks_received=received,
        tasks_launched=received - len(sent) - cancelled + len(running),
        tasks_completed=completed,
        tasks_failed=failed,
        tasks_lost=lost,
        tasks_cancelled=cancelled,
        tasks_waiting=len(sent) - len(running),
        tasks_running=len(running),
        items_done=items,
        workers_alive=len(found),
        workers_busy=phases.count("busy"),
        workers_idle=phases.count("idle"),
        workers_starting=phases.count("starting"),
        workers_created=max(counts.created, len(found)),
        max_workers_busy_concurrently=busiest,
        workers=tuple(found),
    )


def _has_ended(process: Any) -> bool:
    try:
        return not process.is_alive()
    except (AssertionError, AttributeError, ValueError):
        return True
