"""Sets up a pool of queues: its queues, workers and handler threads, and the watch that keeps it from hanging."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue

from ... import get_context, util
from ...process import BaseProcess
from .queue_pool import QueueParts, ThreadQueueParts, end_processes
from .queue_pool_board import Board, InitArgs
from .queue_pool_choice import fitting, is_standard, warn_of_misfits
from .queue_pool_records import JobTable
from .queue_pool_reset import can_be_emptied
from .queue_pool_watch import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["start"]

# The number of tasks in the queue, besides one for each worker that runs: the bound for queues without a bound.
AHEAD = 64


def start(
    pool: Any, initializer: Any, initargs: Iterable[Any], maxtasksperchild: int | None, own_outcomes: bool
) -> None:
    """Set up `pool` with the methods of its class, and start its workers and handlers. `own_outcomes`: the program has replaced handles."""
    cls = type(pool)
    warn_of_misfits(cls)
    threads = isinstance(pool, ThreadQueueParts)
    pool._pool = []
    pool._setup_queues()
    pool._taskqueue = SimpleQueue()
    pool._change_notifier = pool._ctx.SimpleQueue()
    pool._cache = cache = JobTable(pool._change_notifier)
    # Objects of this package can be sent only to processes of this package.
    ours = not threads and _is_our_process(getattr(pool._ctx, "Process", None))
    board = Board(get_context(pool._ctx.get_start_method()), 4 * pool._processes + AHEAD) if ours else None
    handles_outcomes = fitting(cls, "_handle_results", 3)
    plain = handles_outcomes is QueueParts._handle_results and not own_outcomes
    cache.watch = watch = Watch(pool._processes, board, AHEAD + pool._processes if plain else None)
    watch.cache, watch.put = cache, pool._quick_put
    watch.inqueue, watch.outqueue = pool._inqueue, pool._outqueue
    watch.keeps = board is not None and can_be_emptied(pool._inqueue)
    pool._maxtasksperchild, pool._initializer = maxtasksperchild, initializer
    pool._initargs = InitArgs.of(initargs, board)
    try:
        pool._repopulate_pool()
    except BaseException:
        end_processes(pool._pool)
        for process in pool._pool:
            process.join()
        raise
    sentinels = pool._get_sentinels()
    get = pool._quick_get
    pool._worker_handler = _handler(
        fitting(cls, "_handle_workers", 14),
        cache,
        pool._taskqueue,
        pool._ctx,
        pool.Process,
        pool._processes,
        pool._pool,
        pool._inqueue,
        pool._outqueue,
        initializer,
        pool._initargs,
        maxtasksperchild,
        pool._wrap_exception,
        sentinels,
        pool._change_notifier,
    )
    pool._task_handler = _handler(
        fitting(cls, "_handle_tasks", 5), pool._taskqueue, watch.send, pool._outqueue, pool._pool, cache
    )
    pool._result_handler = _handler(handles_outcomes, pool._outqueue, lambda: watch.receive(get), cache)
    if not is_standard(cls, "_handle_workers"):
        threading.Thread(target=watch.keep_looking, args=(pool._pool,), name="maniple-pool-watch", daemon=True).start()
    pool._terminate = util.Finalize(
        pool,
        pool._terminate_pool,
        args=(
            pool._taskqueue,
            pool._inqueue,
            pool._outqueue,
            pool._pool,
            pool._change_notifier,
            pool._worker_handler,
            pool._task_handler,
            pool._result_handler,
            cache,
        ),
        exitpriority=15,
    )


def _is_our_process(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseProcess)


def _handler(run: Callable[..., Any], *args: Any) -> threading.Thread:
    thread = threading.Thread(target=run, args=args, daemon=True)
    vars(thread)["_state"] = "RUN"
    thread.start()
    return thread
