"""A pool that works by queues: what a class gets that overrides how items travel or how workers are made.

The engine has neither queues nor handler threads, so a class that overrides `_setup_queues` or `_handle_results` would override
nothing there. Such a class (and a program that replaces these functions in the module, `worker` for example) gets the standard
package's arrangement instead::

    caller ─▶ _taskqueue ─▶ _handle_tasks ─▶ _inqueue ─▶ worker ─▶ _outqueue ─▶ _handle_results ─▶ _cache[job]._set
                                   _handle_workers: joins and replaces workers

All of these are called with the standard package's arguments and can be overridden. What keeps this from hanging stands beside it,
in `_queue_watch.py`; it is reached through `_cache`, which every part is given.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue

from . import get_context, util
from ._payload import cancelled
from ._pool_names import _helper_reraises_exception
from ._results import tell
from .connection import wait
from .context import BaseContext
from .process import BaseProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["STANDARD", "QueueParts", "ThreadQueueParts", "overrides_inner_parts", "start"]

# Tasks that are in the queue or run, besides one for each worker: where the queue has no bound, this is the bound.
AHEAD = 64
# How long a terminated worker has before it is killed, and a handler thread to notice that all is over, in seconds.
GRACE = 2.0


class QueueParts:
    """The standard pool's inner methods, by their names and with their arguments."""

    _hub: Any = None

    # ---- queues ----

    def _setup_queues(self: Any) -> None:
        self._inqueue = self._ctx.SimpleQueue()
        self._outqueue = self._ctx.SimpleQueue()
        self._quick_put, self._quick_get = self._inqueue._writer.send, self._outqueue._reader.recv

    def _get_sentinels(self: Any) -> list[Any]:
        """What `_handle_workers` waits for besides its workers."""
        return [self._change_notifier._reader]

    @staticmethod
    def _get_tasks(func: Any, it: Iterable[Any], size: int) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """The items in chunks, each with the function: what `mapstar` and `starmapstar` take."""
        items = iter(it)
        while chunk := tuple(itertools.islice(items, size)):
            yield func, chunk

    def _guarded_task_generation(self, result_job: Any, func: Any, iterable: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
        """A job's tasks. If the iterable raises, the last is one that raises the same."""
        places = itertools.count()
        try:
            for item in iterable:
                yield result_job, next(places), func, (item,), {}
        except Exception as error:
            yield result_job, next(places), _helper_reraises_exception, (error,), {}

    # ---- workers ----

    @staticmethod
    def _get_worker_sentinels(workers: Iterable[Any]) -> list[Any]:
        return [process.sentinel for process in workers if hasattr(process, "sentinel")]

    @staticmethod
    def _join_exited_workers(pool: list[Any]) -> bool:
        """Take workers that have ended out of the list. Whether there were any."""
        ended = [process for process in pool if process.exitcode is not None]
        for process in ended:
            process.join()
            pool.remove(process)
        return bool(ended)

    def _repopulate_pool(self: Any) -> None:
        """Start workers until there are as many as there should be."""
        if self._hub is not None:
            return self._workers.repopulate(self._processes)
        self._repopulate_pool_static(
            self._ctx,
            self.Process,
            self._processes,
            self._pool,
            self._inqueue,
            self._outqueue,
            self._initializer,
            self._initargs,
            self._maxtasksperchild,
            self._wrap_exception,
        )

    @staticmethod
    def _repopulate_pool_static(
        ctx: Any,
        Process: Any,
        processes: int,
        pool: list[Any],
        inqueue: Any,
        outqueue: Any,
        initializer: Any,
        initargs: Any,
        maxtasksperchild: int | None,
        wrap_exception: bool,
    ) -> None:
        # By the name that programs know, so that one that they put in its place is what runs.
        run = sys.modules[f"{__package__}.pool"].worker
        args = inqueue, outqueue, initializer, initargs, maxtasksperchild, wrap_exception
        while len(pool) < processes:
            process = Process(ctx, target=run, args=args)
            process.name = process.name.replace("Process", "PoolWorker")
            process.daemon = True
            process.start()
            pool.append(process)
            util.debug("added worker")

    @classmethod
    def _maintain_pool(
        cls,
        ctx: Any,
        Process: Any,
        processes: int,
        pool: list[Any],
        inqueue: Any,
        outqueue: Any,
        initializer: Any,
        initargs: Any,
        maxtasksperchild: int | None,
        wrap_exception: bool,
    ) -> None:
        """Replace workers that have ended."""
        if fitting(cls, "_join_exited_workers", 1)(pool) or len(pool) < processes:
            cls._repopulate_pool_static(
                ctx,
                Process,
                processes,
                pool,
                inqueue,
                outqueue,
                initializer,
                initargs,
                maxtasksperchild,
                wrap_exception,
            )

    @staticmethod
    def _wait_for_updates(sentinels: list[Any], change_notifier: Any, timeout: float | None = None) -> None:
        wait(sentinels, timeout)
        while not change_notifier.empty():
            change_notifier.get()

    # ---- handler threads ----

    @classmethod
    def _handle_workers(
        cls,
        cache: Any,
        taskqueue: Any,
        ctx: Any,
        Process: Any,
        processes: int,
        pool: list[Any],
        inqueue: Any,
        outqueue: Any,
        initializer: Any,
        initargs: Any,
        maxtasksperchild: int | None,
        wrap_exception: bool,
        sentinels: list[Any],
        change_notifier: Any,
    ) -> None:
        me: Any = threading.current_thread()
        watch = getattr(cache, "watch", None)
        maintain = fitting(cls, "_maintain_pool", 10)
        join_exited = fitting(cls, "_join_exited_workers", 1)
        sentinels_of = fitting(cls, "_get_worker_sentinels", 1)
        wait_for_updates = fitting(cls, "_wait_for_updates", 2)
        while me._state == "RUN" or (cache and me._state != "TERMINATE"):
            timeout: tuple[float, ...] = ()
            if watch is not None:
                watch.look(pool)
            if watch is not None and watch.broken is not None:
                # No worker gets ready: no more are started.
                join_exited(pool)
            else:
                try:
                    maintain(
                        ctx,
                        Process,
                        processes,
                        pool,
                        inqueue,
                        outqueue,
                        initializer,
                        initargs,
                        maxtasksperchild,
                        wrap_exception,
                    )
                except Exception as error:
                    if watch is None:
                        raise
                    watch.failed_start(error)
                    timeout = (0.2,)
            if watch is not None:
                # Once more: a worker that died in between may have been taken out of the list.
                watch.look(pool)
                timeout = timeout or ((0.02,) if watch.pending else ())
            wait_for_updates([*sentinels_of(pool), *sentinels], change_notifier, *timeout)
        taskqueue.put(None)
        util.debug("worker handler exiting")

    @staticmethod
    def _handle_tasks(taskqueue: Any, put: Callable[[Any], Any], outqueue: Any, pool: list[Any], cache: Any) -> None:
        me: Any = threading.current_thread()
        while me._state == "RUN" and (entry := taskqueue.get()) is not None:
            tasks, set_length = entry
            job, places = None, 0
            try:
                for task in tasks:
                    if me._state != "RUN":
                        break
                    job, place = task[:2]
                    places = place + 1
                    try:
                        put(task)
                    except Exception as error:
                        _note(cache, job, place, error)
            except Exception as error:
                # Tasks of a program's own making; the pool's are guarded.
                tell(error)
                if job is not None:
                    _note(cache, job, places, error)
                    places += 1
            if set_length and me._state == "RUN":
                set_length(places)
            del entry, tasks, set_length
            task = None
        try:
            # The handler of outcomes ends when there are none to come, workers when they find their end of work.
            outqueue.put(None)
            for _ in list(pool):
                put(None)
        except OSError as error:
            util.debug("no end of work could be sent: %s", error)
        util.debug("task handler exiting")

    @staticmethod
    def _handle_results(outqueue: Any, get: Callable[[], Any], cache: Any) -> None:
        me: Any = threading.current_thread()
        closing = False
        while me._state != "TERMINATE" and (cache or not closing):
            try:
                outcome = get()
            except (EOFError, OSError):
                return util.debug("result handler got EOFError/OSError -- exiting")
            if outcome is None:
                closing = True
                continue
            try:
                job, place, value = outcome
                cache[job]._set(place, value)
            except KeyError:
                pass  # its job was given up
            except Exception as error:
                tell(error)
            outcome = value = None
        util.debug("result handler exiting")

    # ---- the end ----

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        """Take out of the queue what keeps the task handler from going on; nobody else does any more."""
        reader = getattr(inqueue, "_reader", None)
        limit = time.monotonic() + GRACE
        while reader is not None and task_handler.is_alive() and time.monotonic() < limit:
            if reader.poll(0.05):
                reader.recv_bytes()

    @classmethod
    def _terminate_pool(
        cls,
        taskqueue: Any,
        inqueue: Any,
        outqueue: Any,
        pool: list[Any],
        change_notifier: Any,
        worker_handler: Any,
        task_handler: Any,
        result_handler: Any,
        cache: Any,
    ) -> None:
        util.debug("finalizing pool")
        for handler in (worker_handler, task_handler, result_handler):
            handler._state = "TERMINATE"
        watch = getattr(cache, "watch", None)
        if watch is not None:
            watch.end(cancelled())
        change_notifier.put(None)
        taskqueue.put(None)
        # Before it ends it might start workers in place of those that are ended here.
        _join(worker_handler, None)
        _end_processes(pool)
        limit = time.monotonic() + GRACE
        helper = threading.Thread(target=_quietly, args=(cls._help_stuff_finish, inqueue, task_handler, len(pool)), daemon=True)
        helper.start()
        _join(task_handler, limit)
        wake = threading.Thread(target=_quietly, args=(outqueue.put, None), daemon=True)
        wake.start()
        for thread in (result_handler, helper, wake):
            _join(thread, limit)
        util.debug("joining pool workers")
        for process in pool:
            if process.is_alive() and hasattr(process, "terminate"):
                process.join()


class ThreadQueueParts(QueueParts):
    """The same for a pool of threads."""

    def _setup_queues(self: Any) -> None:
        self._inqueue, self._outqueue = SimpleQueue(), SimpleQueue()
        self._quick_put, self._quick_get = self._inqueue.put, self._outqueue.get

    @staticmethod
    def _get_worker_sentinels(workers: Iterable[Any]) -> list[Any]:
        return []

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        try:
            while True:
                inqueue.get(block=False)
        except Empty:
            for _ in range(size):
                inqueue.put(None)


def _note(cache: Any, job: Any, place: Any, error: BaseException) -> None:
    """The task ends with `error`."""
    try:
        cache[job]._set(place, (False, error))
    except KeyError:
        pass


def _join(thread: Any, limit: float | None) -> None:
    if thread is not threading.current_thread():
        thread.join(None if limit is None else max(0.0, limit - time.monotonic()))


def _quietly(run: Callable[..., Any], *args: Any) -> None:
    try:
        run(*args)
    except Exception as error:
        util.debug("a pool's queue refused: %s", error)


def _end_processes(pool: list[Any]) -> None:
    processes = [process for process in pool if hasattr(process, "terminate")]
    for process in processes:
        if process.exitcode is None:
            process.terminate()
    limit = time.monotonic() + GRACE
    for process in processes:
        if process.exitcode is None:
            process.join(max(0.0, limit - time.monotonic()))
        if process.exitcode is None:
            process.kill()


#: the classes whose methods these are, as they were made, with what they had then
STANDARD: dict[type, dict[str, Any]] = {}

INNER = (
    "_check_running",
    "_get_sentinels",
    "_get_tasks",
    "_get_worker_sentinels",
    "_guarded_task_generation",
    "_handle_results",
    "_handle_tasks",
    "_handle_workers",
    "_help_stuff_finish",
    "_join_exited_workers",
    "_maintain_pool",
    "_repopulate_pool",
    "_repopulate_pool_static",
    "_setup_queues",
    "_terminate_pool",
    "_wait_for_updates",
    "_wrap_exception",
)


def definition(cls: type, name: str) -> tuple[type, Any]:
    """The class among the bases of `cls` that defines `name`, and what it defines."""
    return next((base, vars(base)[name]) for base in cls.__mro__ if name in vars(base))


def is_standard(cls: type, name: str) -> bool:
    """Whether `cls` has what the pool's classes had from the beginning."""
    owner, found = definition(cls, name)
    return owner in STANDARD and STANDARD[owner].get(name) is found


def overrides_inner_parts(pool: Any) -> bool:
    """Whether the class of `pool`, or its context, has its own way for items to travel or for workers to be made."""
    cls = type(pool)
    if not all(name not in pool.__dict__ and is_standard(cls, name) for name in INNER):
        return True
    # The context's queue is what the standard package's pool works by.
    queue = getattr(pool._ctx, "SimpleQueue", None)
    own = queue is not None and getattr(queue, "__func__", queue) is not BaseContext.SimpleQueue
    return own and not isinstance(pool, ThreadQueueParts)


def fitting(cls: type, name: str, arguments: int) -> Any:
    """What `cls` has by a name that the standard package calls on `Pool` itself; `QueueParts` has it where that cannot be called so."""
    owner, found = definition(cls, name)
    if isinstance(found, staticmethod | classmethod) or owner in STANDARD:
        override = getattr(cls, name)
        if _takes(override, arguments):
            return override
    return getattr(QueueParts, name)


def _takes(function: Any, arguments: int) -> bool:
    import inspect

    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:
        pass  # native code, which has none
    return True


CALLED_ON_POOL = {
    "_get_worker_sentinels": 1,
    "_join_exited_workers": 1,
    "_maintain_pool": 10,
    "_wait_for_updates": 2,
    "_handle_workers": 14,
    "_handle_tasks": 5,
    "_handle_results": 3,
}


def _warn_of_misfits(cls: type) -> None:
    for name, arguments in CALLED_ON_POOL.items():
        standard, chosen = getattr(QueueParts, name), fitting(cls, name, arguments)
        if getattr(chosen, "__func__", chosen) is getattr(standard, "__func__", standard) and any(
            name in vars(base) for base in cls.__mro__ if not base.__module__.startswith(f"{__package__}.")
        ):
            warnings.warn(
                f"{cls.__qualname__}.{name} is not called: since Python 3.8 it is a static method of {arguments} arguments",
                RuntimeWarning,
                stacklevel=4,
            )


def start(pool: Any, initializer: Any, initargs: Iterable[Any], maxtasksperchild: int | None, own_outcomes: bool) -> None:
    """Set `pool` up, as its class says, and start its workers and handlers. `own_outcomes`: its handles are not all ours."""
    cls = type(pool)
    _warn_of_misfits(cls)
    from ._board import Board, InitArgs
    from ._queue_watch import JobTable, Watch

    threads = isinstance(pool, ThreadQueueParts)
    pool._pool = []
    pool._setup_queues()
    pool._taskqueue = SimpleQueue()
    pool._change_notifier = pool._ctx.SimpleQueue()
    pool._cache = cache = JobTable(pool._change_notifier)
    # Objects of ours travel only into processes of ours.
    ours = not threads and _is_our_process(getattr(pool._ctx, "Process", None))
    board = Board(get_context(pool._ctx.get_start_method()), 4 * pool._processes + AHEAD) if ours else None
    handles_outcomes = fitting(cls, "_handle_results", 3)
    plain = handles_outcomes is QueueParts._handle_results and not own_outcomes
    cache.watch = watch = Watch(pool._processes, board, AHEAD + pool._processes if plain else None)
    watch.cache, watch.put = cache, pool._quick_put
    watch.inqueue, watch.outqueue = pool._inqueue, pool._outqueue
    pool._maxtasksperchild, pool._initializer = maxtasksperchild, initializer
    pool._initargs = InitArgs.of(initargs, board)
    try:
        pool._repopulate_pool()
    except BaseException:
        _end_processes(pool._pool)
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
    thread: Any = threading.Thread(target=run, args=args, daemon=True)
    thread._state = "RUN"
    thread.start()
    return thread
