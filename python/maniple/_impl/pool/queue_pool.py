"""The pool of queues, for classes that override how items are sent or how workers are made.

The engine has neither queues nor handler threads, so it would not call the overridden methods, such as `_setup_queues` or
`_handle_results`. The pool of such a class (and of a program that replaces these functions in the module, `worker` for example) has
the standard package's structure instead::

    caller ─▶ _taskqueue ─▶ _handle_tasks ─▶ _inqueue ─▶ worker ─▶ _outqueue ─▶ _handle_results ─▶ _cache[job]._set
                                   _handle_workers: joins and replaces workers

All of these are called with the standard package's arguments and can be overridden. The watch in `queue_pool_watch.py` keeps the pool
from hanging; every part can reach it through `_cache`.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from _queue import Empty, SimpleQueue
from collections.abc import Callable, Iterable, Iterator
from errno import EINVAL
from signal import SIG_IGN, SIGTERM, getsignal

from ... import util
from ..._maniple import Hub
from ...connection import Connection, wait
from .. import PACKAGE
from ..start.shortage import is_shortage
from .names import _helper_reraises_exception
from .payload import cancelled
from .queue_pool_choice import fitting
from .results import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["QueueParts", "ThreadQueueParts", "end_processes"]

# The time until a terminated worker is killed, and the time that a handler thread has to detect the end, in seconds.
GRACE = Hub.GRACE


class QueueParts:
    """The standard pool's inner methods, by their names and with their arguments."""

    _hub: Any = None

    # ---- queues ----

    def _setup_queues(self: Any) -> None:
        self._inqueue = self._ctx.SimpleQueue()
        self._outqueue = self._ctx.SimpleQueue()
        self._quick_put, self._quick_get = self._inqueue._writer.send, self._outqueue._reader.recv

    def _get_sentinels(self: Any) -> list[Any]:
        """Return the objects that `_handle_workers` waits for besides its workers."""
        return [self._change_notifier._reader]

    @staticmethod
    def _get_tasks(func: Any, it: Iterable[Any], size: int) -> Iterator[tuple[Any, tuple[Any, ...]]]:
        """Yield the items in chunks, each paired with the function: the arguments of `mapstar` and `starmapstar`."""
        items = iter(it)
        while chunk := tuple(itertools.islice(items, size)):
            yield func, chunk

    def _guarded_task_generation(
        self, result_job: Any, func: Any, iterable: Iterable[Any]
    ) -> Iterator[tuple[Any, ...]]:
        """Yield a job's tasks. If the iterable raises, the last task raises the same exception."""
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
        """Remove workers that have ended from the list; return whether there were any."""
        ended = [process for process in pool if process.exitcode is not None]
        for process in ended:
            process.join()
            pool.remove(process)
        return bool(ended)

    def _repopulate_pool(self: Any) -> None:
        """Start workers until the pool has its number of workers."""
        if self._hub is not None:
            self._workers.repopulate(self._processes)
            return
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
        # Looked up in the public module, where a program may have replaced it.
        run = sys.modules[f"{PACKAGE}.pool"].worker
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
                # No worker becomes ready, so no more workers are started.
                join_exited(pool)
            elif watch is not None and not watch.may_start():
                join_exited(pool)
                timeout = (0.1,)
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
                    timeout = (watch.failed_start(error),)
                else:
                    if watch is not None:
                        watch.short_pause = 0.0
            if watch is not None:
                # Again, because a worker that died in between may have been removed from the list.
                watch.look(pool)
                timeout = timeout or ((0.02,) if watch.pending else ())
            try:
                wait_for_updates([*sentinels_of(pool), *sentinels], change_notifier, *timeout)
            except OSError as error:
                if not is_shortage(error) and error.errno != EINVAL:
                    raise
                # There is no free descriptor, or the limit was lowered below the open ones.
                time.sleep(Hub.AGAIN)
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
                # Only tasks that the program makes raise here; `_guarded_task_generation` guards the pool's.
                tell(error)
                if job is not None:
                    _note(cache, job, places, error)
                    places += 1
            if set_length and me._state == "RUN":
                set_length(places)
            del entry, tasks, set_length
            task = None
        try:
            # None ends the handler of outcomes after the last outcome, and the workers.
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
                util.debug("result handler got EOFError/OSError -- exiting")
                return
            if outcome is None:
                closing = True
                continue
            try:
                job, place, value = outcome
                cache[job]._set(place, value)
            except KeyError:
                pass  # the job has ended already
            except Exception as error:
                tell(error)
            outcome = value = None
        util.debug("result handler exiting")

    # ---- the end ----

    @staticmethod
    def _help_stuff_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        """Empty the queue, so that the task handler can continue; no worker reads from it any more."""
        reader = getattr(inqueue, "_reader", None)
        limit = time.monotonic() + GRACE
        # Read bytes from a pipe, which may begin in the middle of a message: its first bytes are then not a length.
        is_pipe = isinstance(reader, Connection)
        while reader is not None and task_handler.is_alive() and time.monotonic() < limit:
            if reader.poll(0.05):
                if is_pipe:
                    os.read(reader.fileno(), 1 << 20)
                else:
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
            if watch.table is not None:
                watch.table.terminate()
            watch.end(cancelled())
        change_notifier.put(None)
        taskqueue.put(None)
        # Join it first: it might replace the workers that are ended below.
        _join(worker_handler, None)
        end_processes(pool)
        limit = time.monotonic() + GRACE
        helper = threading.Thread(
            target=_quietly, args=(cls._help_stuff_finish, inqueue, task_handler, len(pool)), daemon=True
        )
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
    """The inner methods for a pool of threads."""

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
    """End a task with `error`."""
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


def end_processes(pool: list[Any]) -> None:
    processes = [process for process in pool if hasattr(process, "terminate")]
    for process in processes:
        if process.exitcode is None:
            process.terminate()
    # If this process ignores SIGTERM, so do the workers.
    limit = time.monotonic() + (GRACE if getsignal(SIGTERM) != SIG_IGN else Hub.NOTICE)
    # The process objects of a program's context may have only the methods that the standard pool calls.
    for process in [process for process in processes if hasattr(process, "kill")]:
        if process.exitcode is None:
            process.join(max(0.0, limit - time.monotonic()))
        if process.exitcode is None:
            process.kill()
