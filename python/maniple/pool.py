"""Pools of worker processes, and of threads.

    with Pool(4) as pool:
        squares = pool.map(square, range(1000))

The interface is the standard package's. The behaviour differs when something fails: a worker that dies fails only its own task
(`WorkerLostError`), a new worker takes its place, and the pool continues.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from . import get_context, util
from ._impl.compat import public_module
from ._impl.pool.inputs import check_function, copy_of_list, default_processes, explain_item
from ._impl.pool.limits import LARGE, refuse_impossible_size
from ._impl.pool.names import (
    ExceptionWithTraceback,
    _helper_reraises_exception,
    job_counter,
    mapstar,
    rebuild_exc,
    starmapstar,
    worker,
)
from ._impl.pool.payload import MaybeEncodingError, RemoteTraceback, ResultDecodeError, WorkerLostError, cancelled
from ._impl.pool.queue_pool import QueueParts, ThreadQueueParts
from ._impl.pool.queue_pool_choice import STANDARD, overrides_inner_parts
from ._impl.pool.results import ApplyResult as ApplyResult
from ._impl.pool.results import AsyncResult as AsyncResult
from ._impl.pool.results import ChunkedResults, Result, stay_if_program_ends
from ._impl.pool.results import IMapIterator as IMapIterator
from ._impl.pool.results import IMapUnorderedIterator as IMapUnorderedIterator
from ._impl.pool.results import MapResult as MapResult
from ._impl.pool.streams import open_stream
from ._impl.pool.threads import ThreadWorkers
from ._impl.pool.views import SETTERS, VIEWS
from ._impl.pool.worker_main import worker_main
from ._impl.pool.workers import Workers
from ._maniple import Hub
from .connection import wait
from .context import TimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, TypeVar

    Item = TypeVar("Item")

__all__ = ["MaybeEncodingError", "Pool", "RemoteTraceback", "ResultDecodeError", "ThreadPool", "WorkerLostError"]

RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"
INIT = "INIT"

# The default `buffersize` of `imap`, in items.
WINDOW = Hub.WINDOW


class Pool(QueueParts):
    """A pool of worker processes that run calls.

    Use it as a context manager: the end of the block calls `terminate`, so fetch all results inside it.

    Args:
        processes: the number of workers. None means the number of processors that this process may use, by its affinity
            and its control group (the standard package counts all processors before Python 3.13).
        initializer: a function that each worker calls once, as ``initializer(*initargs)``, before its first task.
        initargs: the arguments of `initializer`.
        maxtasksperchild: the number of tasks after which a new worker replaces a worker; None means never.
        context: the context whose start method starts the workers; None means the program's.

    Raises:
        ValueError: `processes` is less than 1, or `maxtasksperchild` is not a positive int.
        TypeError: `processes` is not an int, or `initializer` is not callable.
        OSError: the workers cannot be started. A pool of more workers than a limit allows is refused before the first start.

    All methods that return results raise:

    - the exception that the function raised, with the worker's traceback as its cause;
    - `WorkerLostError` if the worker of the task died. It names the task, the worker, its exit code and the last lines of
      its standard error. The pool starts another worker and continues. The standard package waits forever;
    - `ResultDecodeError` if the result cannot be unpickled here, `MaybeEncodingError` if the worker cannot pickle it;
    - ValueError if the pool is closed, or terminated before the call ends.

    Functions, arguments and results are pickled. Lambdas, closures and local classes are sent by value.

    Example::

        with Pool(4) as pool:
            squares = pool.map(square, range(1000))
            for result in pool.imap_unordered(slow, jobs):
                print(result)
    """

    _wrap_exception = True
    # For `__del__` of a pool whose constructor failed.
    _state = INIT
    # The workers and the hub of the engine; None in a pool of queues (`queue_pool.py`), which serves classes that override how
    # calls are run.
    _workers: Any = None
    _hub: Any = None
    # Iterating over these types runs no code of the program, so any thread may do it. Other iterables get a feeder thread.
    _tame: tuple[type, ...] = (list, tuple, range)
    # The number of descriptors of this process that each worker needs.
    _descriptors = 3
    # The least number of chunks of `imap` that may be in progress or wait, if the call has no `buffersize`.
    _tasks_ahead = 0
    # Read from the class, since the names of the module may be gone when the interpreter ends.
    _views = VIEWS

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """Return the process object of a new worker. A subclass may override it."""
        return ctx.Process(*args, **kwds)

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        # For `__del__`, if the constructor fails.
        self._state = INIT
        self._ctx = context or get_context()
        if processes is None:
            processes = default_processes()
        if not hasattr(processes, "__index__"):
            raise TypeError(f"processes must be an int or None, not {processes!r} of type {type(processes).__name__}")
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if processes > LARGE:
            refuse_impossible_size(processes, self._descriptors)
        self._processes = processes
        replaced = any(globals()[name] is not original for name, original in _REPLACEABLE.items())
        handles = replaced or any(vars(kind)["_set"] is not original for kind, original in _SET.items())
        given = () if initializer is None else tuple(initargs)
        if replaced or handles or overrides_inner_parts(self, isinstance(self, ThreadQueueParts)):
            from ._impl.pool.queue_pool_start import start

            start(self, initializer, given, maxtasksperchild, handles)
        else:
            workers = self._make_workers(initializer, given, maxtasksperchild)
            # A signal handler may raise between any two steps.
            self._terminate = util.Finalize(self, workers.terminate, exitpriority=15)
            try:
                workers.start()
            except BaseException:
                self._terminate.cancel()
                if workers.is_started:
                    workers.terminate()
                raise
            self._workers, self._hub = workers, workers.hub
        self._state = RUN

    if TYPE_CHECKING:
        # The standard package's inner names: attributes of a pool of queues; other pools compute them (`VIEWS`).
        _cache: Any
        _change_notifier: Any
        _pool: Any
        _result_handler: Any
        _task_handler: Any
        _taskqueue: Any
        _worker_handler: Any
    else:  # hidden from type checkers, so that they report misspelt names

        def __getattr__(self, name: str) -> Any:
            # The pool does not have the attribute, but the standard package's pool may.
            if (view := type(self)._views.get(name)) is not None and self._workers is not None:
                return view(self)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def __setattr__(self, name: str, value: Any) -> None:
            if name in SETTERS and self._workers is not None:
                SETTERS[name](self, value)
            else:
                object.__setattr__(self, name, value)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(VIEWS if self._workers is not None else ())]

    def _make_workers(self, initializer: Any, initargs: tuple[Any, ...], maxtasksperchild: int | None) -> Any:
        main = worker_main(self._ctx.get_start_method())
        return Workers(self._processes, partial(self.Process, self._ctx), initializer, initargs, maxtasksperchild, main)

    def __del__(self, _warn: Any = warnings.warn, RUN: str = RUN) -> None:
        if self._state == RUN:
            try:
                told = repr(self)
            except Exception:  # the interpreter ends, and modules are empty
                told = object.__repr__(self)
            _warn(f"unclosed running multiprocessing pool {told}", ResourceWarning, source=self)
            # A program that keeps the warning keeps the pool object alive; the workers end nevertheless.
            self._terminate()

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={len(getattr(self, '_pool', ()))}>"

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    # ---- calls ----

    def apply(self, func: Callable[..., Result], args: Iterable[Any] = (), kwds: dict[str, Any] = {}) -> Result:
        """Call ``func(*args, **kwds)`` in a worker, wait, and return its result.

        Raises: what `func` raises, and the pool's errors (see the class).
        """
        check_function(func)
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Result],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] = {},
        callback: Callable[[Result], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> ApplyResult[Result]:
        """Start ``func(*args, **kwds)`` in a worker, and return an `AsyncResult` at once.

        Args:
            func: the function to call.
            args: its positional arguments.
            kwds: its keyword arguments.
            callback: a function that is called with the result. It runs in a thread of the pool and should return soon.
            error_callback: a function that is called with the exception instead, if the call fails.

        Raises:
            ValueError: the pool is closed.

        Example::

            result = pool.apply_async(pow, (2, 10))
            print(result.get(timeout=5))  # 1024
        """
        hub = self._hub
        if hub is None:
            self._check_running()
            result: ApplyResult[Result] = ApplyResult(self, callback, error_callback)
            self._taskqueue.put(([(result._job, 0, func, args, kwds)], None))
            return result
        if self._state != RUN:
            raise ValueError("Pool not running")
        try:
            if callback is None and error_callback is None:
                return ApplyResult(self, None, None, hub.call(func, args, kwds, False))
            ticket = hub.call(func, args, kwds, True)
        except ValueError:
            stay_if_program_ends()
            raise
        result = ApplyResult(self, callback, error_callback, ticket)
        self._workers.results.enter(ticket.job, result)
        return result

    def map(
        self, func: Callable[[Item], Result], iterable: Iterable[Item], chunksize: int | None = None
    ) -> list[Result]:
        """Return ``[func(item) for item in iterable]``; the workers make the calls, the results are in the order of the items.

        Args:
            func: a function of one argument.
            iterable: the items. All of them are read before the first call; see `imap` for long inputs.
            chunksize: the number of items that a worker receives at once. None adapts it to how long the calls take; the
                standard package then makes four chunks for each worker.

        Raises:
            ValueError: `chunksize` is less than 1.
            What the first failing call raised, and the pool's errors (see the class).
        """
        check_function(func)
        return self._map_async(func, iterable, mapstar, chunksize).get()

    def map_async(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int | None = None,
        callback: Callable[[list[Result]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Result]:
        """Start `map`, and return a `MapResult` at once; its `get` returns the list of the results.

        Args:
            func: a function of one argument.
            iterable: the items.
            chunksize: as in `map`.
            callback: a function that is called with the list of the results, in a thread of the pool.
            error_callback: a function that is called with the exception instead, if a call fails.
        """
        return self._map_async(func, copy_of_list(iterable), mapstar, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Result], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Result]:
        """Return ``[func(*item) for item in iterable]``; like `map`, for a function of several arguments.

        Example::

            pool.starmap(pow, [(2, 5), (3, 2)])  # [32, 9]
        """
        check_function(func)
        items = iterable if type(iterable) in (list, tuple, range) else list(iterable)
        try:
            return self._map_async(func, items, starmapstar, chunksize).get()
        except TypeError as error:
            explain_item(error, items)
            raise

    def starmap_async(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Result]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Result]:
        """Start `starmap`, and return a `MapResult` at once. The parameters are those of `map_async`."""
        return self._map_async(func, copy_of_list(iterable), starmapstar, chunksize, callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Any],
        mapper: Callable[..., Any],
        chunksize: int | None = None,
        callback: Callable[[list[Result]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Result]:
        self._check_running()
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        items: Any = iterable if type(iterable) in (list, tuple, range) else list(iterable)
        hub = self._hub
        if hub is None or mapper not in (mapstar, starmapstar):
            if chunksize is None:
                chunksize = -(-len(items) // (4 * max(1, len(self._pool))))
            result: MapResult[Result] = MapResult(
                self, chunksize if len(items) else 0, len(items), callback, error_callback
            )
            if len(items):
                self._post(result, mapper, self._get_tasks(func, items, chunksize))
            return result
        star, told = mapper is starmapstar, callback is not None or error_callback is not None
        try:
            ticket = hub.map(func, items, star, chunksize, told)
        except ValueError:
            stay_if_program_ends()
            raise
        if not told:
            return MapResult(self, chunksize, len(items), None, None, ticket)
        result = MapResult(self, chunksize, len(items), callback, error_callback, ticket)
        self._workers.results.enter(ticket.job, result)
        return result

    def _post(self, result: Any, func: Any, items: Iterable[Any], set_length: Any = None) -> None:
        """Submit a call of `func` for each item; each outcome goes to `result`."""
        self._taskqueue.put((self._guarded_task_generation(result._job, func, items), set_length))

    def imap(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> IMapIterator[Result]:
        """Return an iterator over ``func(item)`` for each item, in the order of the items.

        The pool reads the iterable while results are taken, so the iterable may be endless. A loop that ends early cancels
        the calls that have not begun.

        Args:
            func: a function of one argument.
            iterable: the items. A separate thread reads an iterator.
            chunksize: the number of items that a worker receives at once.
            buffersize: the number of items that may be in progress or wait to be taken; None means about 1,000 items and 64 MiB
                (a `ThreadPool`: 1,000 items or 100 chunks). The standard package has no such limit and no such parameter.

        Returns:
            An `IMapIterator`. Its method ``next(timeout)`` raises `maniple.TimeoutError` after `timeout` seconds.

        Raises:
            ValueError: the pool is closed, or `chunksize` or `buffersize` is less than 1.
        """
        results: IMapIterator[Result] = self._stream(IMapIterator, func, iterable, chunksize, buffersize)
        return results

    def imap_unordered(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> IMapUnorderedIterator[Result]:
        """Return an iterator over the results in the order in which the calls end. The parameters are those of `imap`."""
        results: IMapUnorderedIterator[Result] = self._stream(
            IMapUnorderedIterator, func, iterable, chunksize, buffersize
        )
        return results

    def _stream(
        self, kind: Any, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int, buffersize: int | None
    ) -> Any:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        if chunksize == 1:
            chunksize = 1  # an int, also if the caller passed True or 1.0
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be 1 or more, not {buffersize}")
        if self._workers is None:
            return self._stream_by_queues(kind, func, iterable, chunksize, buffersize)
        window, ordered = buffersize or max(WINDOW, self._tasks_ahead * chunksize), kind is IMapIterator
        stream = open_stream(
            self._workers, func, iterable, type(iterable) not in self._tame, chunksize, window, ordered
        )
        return kind(self, stream, len(iterable) if isinstance(iterable, list | tuple | range) else None)

    def _stream_by_queues(
        self, kind: Any, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int, buffersize: int | None
    ) -> Any:
        if buffersize is not None:
            raise ValueError(
                f"{type(self).__name__} overrides parts of Pool, so it has no buffersize: leave the argument out"
            )
        results = kind(self)
        if chunksize == 1:
            self._post(results, func, iterable, results._set_length)
            return results
        self._post(results, mapstar, self._get_tasks(func, iterable, chunksize), results._set_length)
        return ChunkedResults(results)

    # ---- the end ----

    def close(self) -> None:
        """Accept no more calls. The workers end when all calls that were submitted have ended."""
        util.debug("closing pool")
        # The next call repeats a call that a signal handler has interrupted.
        if self._state in (RUN, CLOSE):
            self._state = CLOSE
            if self._workers is not None:
                self._workers.close()
            else:
                self._worker_handler._state = CLOSE
                self._change_notifier.put(None)

    def terminate(self) -> None:
        """End the pool at once: drop the calls that have not ended, and end the workers.

        A `get` that waits for a dropped call raises ValueError. Workers that do not end within two seconds are killed.
        """
        self._state = TERMINATE
        self._terminate()
        if self._workers is not None and not self._workers.is_over:
            # The finalizer makes the call once, and a signal handler has interrupted it.
            self._workers.terminate()
        if self._workers is None and (watch := getattr(self._cache, "watch", None)) is not None:
            # The class may override `_terminate` without ending the watch.
            watch.end(cancelled())

    def join(self) -> None:
        """Wait until the workers have ended. Call `close` or `terminate` first.

        Raises:
            ValueError: neither `close` nor `terminate` was called.
        """
        util.debug("joining pool")
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        if self._workers is not None:
            self._workers.join()
            return
        for part in (self._worker_handler, self._task_handler, self._result_handler, *self._pool):
            part.join()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        self.terminate()


class ThreadPool(ThreadQueueParts, Pool):
    """A pool of threads with the interface of `Pool`. Nothing is pickled.

    Args:
        processes: the number of threads. None means the number of processors that this process may use.
        initializer: a function that each thread calls once, as ``initializer(*initargs)``.
        initargs: the arguments of `initializer`.
    """

    _wrap_exception = False
    _tame = ()
    _tasks_ahead = 100
    _descriptors = 0

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """Return the thread object of a new worker. A subclass may override it."""
        from .dummy import Process

        return Process(*args, **kwds)

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        super().__init__(processes, initializer, initargs)

    def _make_workers(self, initializer: Any, initargs: tuple[Any, ...], maxtasksperchild: int | None) -> Any:
        return ThreadWorkers(self._processes, partial(self.Process, self._ctx), initializer, initargs)


# Programs replace these names, and `_set` of the handles, to change how calls are run. The engine does not use them, so such a
# pool becomes a pool of queues.
_REPLACEABLE = {
    name: globals()[name]
    for name in (
        "ApplyResult",
        "IMapIterator",
        "IMapUnorderedIterator",
        "MapResult",
        "_helper_reraises_exception",
        "mapstar",
        "starmapstar",
        "worker",
    )
}
_SET = {kind: vars(kind)["_set"] for kind in (ApplyResult, MapResult, IMapIterator, IMapUnorderedIterator)}
STANDARD.update({kind: dict(vars(kind)) for kind in (QueueParts, Pool, ThreadQueueParts, ThreadPool)})


public_module.finish(globals())
