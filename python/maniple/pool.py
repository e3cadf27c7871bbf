"""Pools of worker processes, and of threads.

    with Pool(4) as pool:
        squares = pool.map(square, range(1000))

The interface is the standard package's. The behaviour differs when something fails: a worker that dies fails only its own task
(`WorkerLostError`), a new worker takes its place, and the pool continues.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from queue import Full

from . import get_context, util
from ._impl.compat import public_module
from ._impl.pool.inputs import (
    arguments_of,
    check_callbacks,
    check_chunksize,
    check_function,
    copy_of_list,
    default_processes,
    explain_item,
    keyword_arguments,
    length_of,
    read_at_once,
)
from ._impl.pool.limit_errors import CancelledError, MemoryLimitError, SoftTimeoutError, TaskTimeoutError
from ._impl.pool.limits import refuse_impossible_size
from ._impl.pool.names import (
    ExceptionWithTraceback,
    _helper_reraises_exception,
    job_counter,
    mapstar,
    rebuild_exc,
    starmapstar,
    worker,
)
from ._impl.pool.options import (
    Retries,
    backlog_of,
    count_of,
    memory_limit_of,
    seeds_of,
    setup_of,
    size_of,
    spares_of,
    tasks_of,
    terms_of,
    worker_limits_of,
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
from ._impl.pool.views import SETTERS, VIEWS, View
from ._impl.pool.worker_main import worker_main
from ._impl.pool.workers import Workers
from ._maniple import Hub
from .connection import wait
from .context import TimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, Self, SupportsIndex, TypeVar, Unpack, overload

    from ._impl.pool.options import CallOptions, ItemCallOptions, ItemOptions, TaskOptions, ThreadOptions
    from ._impl.pool.stats import Latency as Latency
    from ._impl.pool.stats import PoolStats as PoolStats
    from ._impl.pool.stats import SlowTask as SlowTask
    from ._impl.pool.stats import WorkerStats as WorkerStats

    Item = TypeVar("Item")
else:

    def overload(signature: object) -> None:
        """Ignore a signature that only type checkers read; the next definition replaces it."""


__all__ = [
    "CancelledError",
    "Latency",
    "MaybeEncodingError",
    "MemoryLimitError",
    "Pool",
    "PoolStats",
    "RemoteTraceback",
    "ResultDecodeError",
    "Retries",
    "SlowTask",
    "SoftTimeoutError",
    "TaskTimeoutError",
    "ThreadPool",
    "WorkerLostError",
    "WorkerStats",
]

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
            and its control group (the standard package counts all processors before Python 3.13). With `memory_limit`, None
            means at most as many workers as fit into the memory of the control group.
        initializer: a function that each worker calls once, as ``initializer(*initargs)``, before its first task.
        initargs: the arguments of `initializer`.
        maxtasksperchild: the number of tasks after which a new worker replaces a worker; None means never.
        context: the context whose start method starts the workers; None means the program's.
        max_tasks_per_child: another name of `maxtasksperchild`.
        worker_init_timeout: the time in seconds that a worker may take from its start until its `initializer` has returned.
            A worker that takes longer is ended. If that happens to worker after worker, the calls raise `WorkerLostError`.
        memory_limit: the memory that a worker may use, as a number of bytes or as text. "4GB" is 4 * 10**9 bytes; "4GiB" and "4G" are
            4 * 2**30 bytes, as for docker and systemd; the same holds for K, M and T. The pool looks at the resident
            memory of busy workers about 50 times a second, and ends a worker that uses more: its task raises `MemoryLimitError`. Where the
            system lets the pool make control groups, a group also keeps the worker, and the processes that it starts, from more than
            64 MiB beyond the limit. Files, shared memory, and memory that a forked worker has from its parent do not count.
        memory_limit_strict: whether a system that does not tell a process's memory is an error (OSError).
        max_rss_per_worker: the memory that a worker may use before a new worker replaces it, after its task. It counts as for `memory_limit`.
        min_processes: the number of workers that stay without work. The pool then starts a worker when a task waits that no worker is
            free for, up to `processes`. None means that all workers stay.
        idle_timeout: the time in seconds without work after which a worker beyond `min_processes` ends (10 by default).
        spare_workers: the number of additional workers that are started in advance, and take the place of a worker that ends. None
            means 1 if the pool has a `task_timeout`, workers are not forked, and there is no `affinity` and no `accelerators`; otherwise 0.
        max_backlog: the number of calls of `apply_async` that may wait for a worker. None means no limit.
        backlog_full: what `apply_async` does then: "block" waits, "raise" raises `queue.Full`.
        env: environment variables of the workers, a dict of str; None as a value removes a variable. They are set before a worker loads
            the program's main module (spawn, forkserver).
        cwd: the directory in which the workers call `initializer` and the tasks. The main module is loaded in the program's directory.
        threads_per_worker: the number of threads that numerical libraries start in a worker. It sets `OMP_NUM_THREADS`,
            `OPENBLAS_NUM_THREADS`, `MKL_NUM_THREADS`, `BLIS_NUM_THREADS`, `VECLIB_MAXIMUM_THREADS`, `NUMEXPR_NUM_THREADS`,
            `NUMBA_NUM_THREADS` and `RAYON_NUM_THREADS`; `env` takes precedence. Libraries read these variables when they are loaded. A library that a forked
            worker, or a fork server that preloads modules, has loaded before is limited only if `threadpoolctl` is installed.
        affinity: the processors of each worker: "spread" shares the processors of this process out; of a list of sets of CPU
            numbers, each worker gets one set in turn.
        accelerators: a number of accelerators, or a list of their numbers or identifiers. Each worker sees one of them, by
            `CUDA_VISIBLE_DEVICES`, `ROCR_VISIBLE_DEVICES` and `ZE_AFFINITY_MASK`. A worker that replaces another one takes over its
            accelerator. Without `processes` there is a worker for each. An identifier that is listed twice is shared.
        finalizer: a function that each worker calls, as ``finalizer(*finalargs)``, when it ends after `close`, because a new worker
            replaces it, or because the pool needs fewer workers. It is not called in workers that are terminated or die; the end of a ``with`` block terminates them, so call
            `close` and `join` inside the block. An exception goes to standard error.
        finalargs: the arguments of `finalizer`.
        seed: an int that is not negative and has at most 128 bits. Before each call, the worker seeds `random` and `numpy.random`, from
            this number, the number of the call to the pool's methods, and the index of the item. So each run draws the same numbers, for any number of workers and
            any `chunksize`. All tries of an item draw the same numbers. Generators that the program makes itself are not seeded:
            `maniple.task_seed()` returns a seed for them in the task. Without a seed, each worker has a random state of its own; forked
            workers do not copy their parent's.
        options: the options of calls, for all calls of this pool that do not have their own.

    Options of a call (of `map`, `imap`, `starmap`, `apply` and their other forms):
        task_timeout: the time in seconds that each item's task may run. A task that runs longer raises `TaskTimeoutError`: the pool
            ends its worker, with the processes that the worker has started, and starts another. The limit also holds for code that
            blocks, holds the interpreter's lock or ignores signals.
        soft_timeout: the time in seconds after which `SoftTimeoutError` is raised inside the task, which may clean up, or while its
            result is pickled.
        retries: the number of further tries of a task whose worker died, or that exceeded a limit; or a `Retries` object. The
            exception of the last try has those of the earlier tries in its notes and in `earlier_errors`.
        priority: an int; tasks with a lower number go first. Calls with equal numbers share the workers.
        progress: for a call of `map`, `imap` or another of their forms only: True or a label shows a bar on the terminal or in the notebook,
            by tqdm if it is installed; "rich" shows one by rich. A function is called as ``progress(done, total)`` up to ten times a
            second with the number of items that have an outcome, and with the number of all items, None while it is unknown. `map`
            calls it in its own thread, the calls that return at once in a thread of theirs.
        return_exceptions: if True, the exception of a failed item takes the place of its result. Type checkers see that in the types of
            calls that have the option, not of those that have it from their pool.
      With a limit, with retries or with `return_exceptions`, each item travels by itself, for every `chunksize`.

    Raises:
        ValueError: `processes` is less than 1, `maxtasksperchild` is not a positive int, a limit is not positive, a CPU in `affinity` is
            not available, or there are more workers than accelerators.
        TypeError: `processes` is not an int, `initializer` or `finalizer` is not callable, or another option has a wrong type.
        FileNotFoundError, NotADirectoryError: `cwd` is not a directory.
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
    # What the error about a pool that is not running adds.
    _why_closed = ""
    # The workers and the hub of the engine; None in a pool of queues (`queue_pool.py`), which serves classes that override how
    # calls are run.
    _workers: Any = None
    _hub: Any = None
    # The options of calls that do not have their own, and the engine's form of them.
    _options: dict[str, Any] = {}
    _terms: Any = None
    # The number of calls that may wait, and whether `apply_async` waits then; None: there is no limit.
    _backlog: tuple[int, bool] | None = None
    # The seeds of the calls, if the pool has a seed.
    _seeds: Any = None
    # Iterating over these types runs no code of the program, so any thread may do it. Other iterables get a feeder thread.
    _tame: tuple[type, ...] = (list, tuple, range)
    # The number of descriptors of this process that each worker needs.
    _descriptors = 3
    # The least number of chunks of `imap` that may be in progress or wait, if the call has no `buffersize`.
    _tasks_ahead = 0

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
        *,
        max_tasks_per_child: int | None = None,
        worker_init_timeout: float | None = None,
        memory_limit: int | str | None = None,
        memory_limit_strict: bool = True,
        max_rss_per_worker: int | str | None = None,
        min_processes: int | None = None,
        idle_timeout: float | None = None,
        spare_workers: int | None = None,
        max_backlog: int | None = None,
        backlog_full: Literal["block", "raise"] = "block",
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        threads_per_worker: int | None = None,
        affinity: Literal["spread"] | Sequence[Iterable[int]] | None = None,
        accelerators: int | Sequence[int | str] | None = None,
        finalizer: Callable[..., object] | None = None,
        finalargs: Iterable[Any] = (),
        seed: SupportsIndex | None = None,
        **options: Unpack[CallOptions],
    ) -> None:
        # For `__del__`, if the constructor fails.
        self._state = INIT
        self._ctx = context or get_context()
        if not hasattr(self._ctx, "get_start_method"):
            raise TypeError(
                f"context must be a context, such as maniple.get_context('spawn'), not {context!r:.80} of type {type(context).__name__}"
            )
        setup = setup_of(
            finalargs,
            env=env,
            cwd=cwd,
            threads_per_worker=threads_per_worker,
            affinity=affinity,
            accelerators=accelerators,
            finalizer=finalizer,
        )
        seeds = None if seed is None else seeds_of(seed)
        if processes is None:
            processes = default_processes(memory_limit_of(memory_limit), None if setup is None else setup.accelerators)
        if not hasattr(processes, "__index__"):
            raise TypeError(f"processes must be an int or None, not {processes!r} of type {type(processes).__name__}")
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if setup is not None:
            setup.refuse_size(processes)
        maxtasksperchild = tasks_of(maxtasksperchild, max_tasks_per_child)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        of_workers = worker_limits_of(worker_init_timeout, memory_limit, max_rss_per_worker, memory_limit_strict)
        spare_workers = spares_of(
            spare_workers,
            options.get("task_timeout") is not None and self._ctx.get_start_method() != "fork",
            setup is not None and setup.gives_each_its_own,
        )
        size = size_of(processes, min_processes, idle_timeout, spare_workers)
        backlog = backlog_of(max_backlog, backlog_full)
        limits = *of_workers, *size
        terms_of(dict(options), None) if options else None  # raises for what cannot be
        refuse_impossible_size(processes + size[2], self._descriptors)
        self._processes = processes
        replaced = any(globals()[name] is not original for name, original in _REPLACEABLE.items())
        handles = replaced or any(vars(kind)["_set"] is not original for kind, original in _SET.items())
        given = arguments_of(initializer, initargs)
        if replaced or handles or overrides_inner_parts(self, isinstance(self, ThreadQueueParts)):
            if options or any(limits) or setup is not None or seeds is not None or backlog is not None:
                raise ValueError(f"{type(self).__name__} replaces parts of Pool, so it has no options: leave them out")
            from ._impl.pool.queue_pool_start import start

            start(self, initializer, given, maxtasksperchild, handles)
        else:
            workers = self._make_workers(initializer, given, maxtasksperchild, *([limits] if any(limits) else []))
            workers.setup, workers.size = setup, size
            # A signal handler may raise between any two steps.
            self._terminate = util.Finalize(self, workers.terminate, exitpriority=15)
            try:
                workers.start()
            except BaseException:
                # If a handler interrupts this as well, the finalizer does it.
                workers.terminate()
                self._terminate.cancel()
                raise
            self._workers, self._hub = workers, workers.hub
            self._options, self._seeds, self._backlog = dict(options), seeds, backlog
            # An attribute of the instance, also if it is None: `apply_async` finds it more quickly.
            self._terms = terms_of(dict(options), workers._main, seeds) if options or seeds is not None else None
        self._state = RUN

    if TYPE_CHECKING:
        # The standard package's inner names: attributes of a pool of queues; other pools compute them (`View`).
        _cache: Any
        _change_notifier: Any
        _pool: Any
        _result_handler: Any
        _task_handler: Any
        _taskqueue: Any
        _worker_handler: Any
    else:  # hidden from type checkers, so that they report misspelt names

        def __setattr__(self, name: str, value: Any) -> None:
            if name in SETTERS and self._workers is not None:
                SETTERS[name](self, value)
            else:
                object.__setattr__(self, name, value)

    def __dir__(self) -> list[str]:
        names = list(super().__dir__())
        return (
            names
            if self._workers is not None
            else [name for name in names if name not in VIEWS or name in self.__dict__]
        )

    def _make_workers(
        self,
        initializer: Any,
        initargs: tuple[Any, ...],
        maxtasksperchild: int | None,
        limits: tuple[Any, ...] = (),
    ) -> Any:
        main, make = worker_main(self._ctx.get_start_method()), partial(self.Process, self._ctx)
        return Workers(self._processes, make, initializer, initargs, maxtasksperchild, main, limits)

    def _terms_for(self, options: dict[str, Any]) -> Any:
        """Return the engine's form of a call's options."""
        if self._workers is None:
            raise ValueError(
                f"{type(self).__name__} replaces parts of Pool, so its calls have no options: leave them out"
            )
        return terms_of({**self._options, **options}, self._workers._main, self._seeds)

    def _display_of(self, options: Any) -> Any:
        """Take the option `progress` out of a call's options, and return the display of the call; None: nothing is shown."""
        if "progress" not in options or self._workers is None:
            return None
        from ._impl.pool.progress import display_of  # late: few calls need it

        return display_of(options.pop("progress"))

    def __del__(self, _warn: Any = warnings.warn, RUN: str = RUN, TERMINATE: str = TERMINATE) -> None:
        if self._state == RUN:
            try:
                told = repr(self)
            except Exception:  # the interpreter ends, and modules are empty
                told = object.__repr__(self)
            _warn(f"unclosed running multiprocessing pool {told}", ResourceWarning, source=self)
            # A program that keeps the warning keeps the pool object alive; the workers end nevertheless.
            self._terminate()
        elif self._state == TERMINATE and self._workers is not None and not self._workers.is_over:
            # A signal handler has interrupted `terminate`.
            self._terminate()

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={len(getattr(self, '_pool', ()))}>"

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError(f"Pool not running{self._why_closed}")

    # ---- calls ----

    @overload
    def apply(
        self,
        func: Callable[..., Result],
        args: Iterable[Any] = ...,
        kwds: dict[str, Any] = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[TaskOptions],
    ) -> Result: ...
    @overload
    def apply(
        self,
        func: Callable[..., Result],
        args: Iterable[Any] = ...,
        kwds: dict[str, Any] = ...,
        *,
        return_exceptions: bool,
        **options: Unpack[TaskOptions],
    ) -> Result | BaseException: ...
    def apply(
        self,
        func: Callable[..., Result],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] = {},
        **options: Unpack[CallOptions],
    ) -> Result:
        """Call ``func(*args, **kwds)`` in a worker, wait, and return its result.

        Raises: what `func` raises, and the pool's errors (see the class, as for `options`).
        """
        check_function(func)
        return self.apply_async(func, args, kwds, **options).get()  # type: ignore[return-value]

    @overload
    def apply_async(
        self,
        func: Callable[..., Result],
        args: Iterable[Any] = ...,
        kwds: dict[str, Any] = ...,
        callback: Callable[[Result], object] | None = ...,
        error_callback: Callable[[BaseException], object] | None = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[TaskOptions],
    ) -> ApplyResult[Result]: ...
    @overload
    def apply_async(
        self,
        func: Callable[..., Result],
        args: Iterable[Any] = ...,
        kwds: dict[str, Any] = ...,
        callback: Callable[[Result | BaseException], object] | None = ...,
        error_callback: Callable[[BaseException], object] | None = ...,
        *,
        return_exceptions: bool,
        **options: Unpack[TaskOptions],
    ) -> ApplyResult[Result | BaseException]: ...
    def apply_async(
        self,
        func: Callable[..., Result],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] = {},
        callback: Callable[[Result], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Unpack[CallOptions],
    ) -> ApplyResult[Result]:
        """Start ``func(*args, **kwds)`` in a worker, and return an `AsyncResult` at once.

        Args:
            func: the function to call.
            args: its positional arguments.
            kwds: its keyword arguments.
            callback: a function that is called with the result. It runs in a thread of the pool and should return soon.
            error_callback: a function that is called with the exception instead, if the call fails.
            options: `task_timeout`, `retries` and others; see the class.

        Raises:
            ValueError: the pool is closed.

        Example::

            result = pool.apply_async(pow, (2, 10))
            print(result.get(timeout=5))  # 1024
        """
        hub = self._hub
        terms = self._terms_for(options) if options else self._terms  # type: ignore[arg-type]
        if hub is None:
            self._check_running()
            result: ApplyResult[Result] = ApplyResult(self, callback, error_callback)
            self._taskqueue.put(([(result._job, 0, func, args, kwds)], None))
            return result
        if self._state != RUN:
            raise ValueError(f"Pool not running{self._why_closed}")
        if told := callback is not None or error_callback is not None:
            check_callbacks(callback=callback, error_callback=error_callback)
        if type(kwds) is not dict:
            kwds = keyword_arguments(kwds)
        try:
            if self._backlog is not None:
                most, blocks = self._backlog
                of_call = None if terms is None else terms.of_call()
                given = hub.call_if_room(func, args, kwds, told, of_call, most, blocks)
                if given is None:
                    raise Full(
                        f"max_backlog={most} allows no further call to wait for a worker: wait for results, or leave out "
                        "backlog_full='raise', and the call waits"
                    )
                ticket = given
            elif terms is None:
                ticket = hub.call(func, args, kwds, told)
            else:
                ticket = hub.call(func, args, kwds, told, terms.of_call())
        except Full:
            raise
        except Exception as error:
            if isinstance(error, ValueError):
                stay_if_program_ends()
            self._workers.explain_unsent(error, args, kwds)
            raise
        if not told:
            return ApplyResult(self, None, None, ticket)
        result = ApplyResult(self, callback, error_callback, ticket)
        self._workers.results.enter(ticket.job, result)
        return result

    @overload
    def map(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int | None = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[ItemOptions],
    ) -> list[Result]: ...
    @overload
    def map(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int | None = ...,
        *,
        return_exceptions: bool,
        **options: Unpack[ItemOptions],
    ) -> list[Result | BaseException]: ...
    def map(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int | None = None,
        **options: Unpack[ItemCallOptions],
    ) -> list[Result]:
        """Return ``[func(item) for item in iterable]``; the workers make the calls, the results are in the order of the items.

        Args:
            func: a function of one argument.
            iterable: the items. All of them are read before the first call; see `imap` for long inputs.
            chunksize: the number of items that a worker receives at once. None adapts it to how long the calls take; the
                standard package then makes four chunks for each worker.
            options: `task_timeout`, `retries`, `progress` and others; see the class.

        Raises:
            ValueError: `chunksize` is less than 1.
            What the first failing call raised, and the pool's errors (see the class).
        """
        check_function(func)
        display = self._display_of(options) if options else None
        result = self._map_async(func, iterable, mapstar, chunksize, None, None, options)
        return result.get() if display is None else display.attend(result)

    @overload
    def map_async(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int | None = ...,
        callback: Callable[[list[Result]], object] | None = ...,
        error_callback: Callable[[BaseException], object] | None = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[ItemOptions],
    ) -> MapResult[Result]: ...
    @overload
    def map_async(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int | None = ...,
        callback: Callable[[list[Result | BaseException]], object] | None = ...,
        error_callback: Callable[[BaseException], object] | None = ...,
        *,
        return_exceptions: bool,
        **options: Unpack[ItemOptions],
    ) -> MapResult[Result | BaseException]: ...
    def map_async(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int | None = None,
        callback: Callable[[list[Result]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Unpack[ItemCallOptions],
    ) -> MapResult[Result]:
        """Start `map`, and return a `MapResult` at once; its `get` returns the list of the results.

        Args:
            func: a function of one argument.
            iterable: the items.
            chunksize: as in `map`.
            callback: a function that is called with the list of the results, in a thread of the pool.
            error_callback: a function that is called with the exception instead, if a call fails.
            options: `task_timeout`, `retries` and others; see the class.
        """
        display = self._display_of(options) if options else None
        items = copy_of_list(iterable)
        result = self._map_async(func, items, mapstar, chunksize, callback, error_callback, options)
        return result if display is None else display.watch_map(result)

    @overload
    def starmap(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[ItemOptions],
    ) -> list[Result]: ...
    @overload
    def starmap(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = ...,
        *,
        return_exceptions: bool,
        **options: Unpack[ItemOptions],
    ) -> list[Result | BaseException]: ...
    def starmap(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        **options: Unpack[ItemCallOptions],
    ) -> list[Result]:
        """Return ``[func(*item) for item in iterable]``; like `map`, for a function of several arguments.

        Example::

            pool.starmap(pow, [(2, 5), (3, 2)])  # [32, 9]
        """
        check_function(func)
        items = iterable if type(iterable) in (list, tuple, range) else list(iterable)
        display = self._display_of(options) if options else None
        try:
            result = self._map_async(func, items, starmapstar, chunksize, None, None, options)
            return result.get() if display is None else display.attend(result)
        except TypeError as error:
            explain_item(error, items)
            raise

    @overload
    def starmap_async(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = ...,
        callback: Callable[[list[Result]], object] | None = ...,
        error_callback: Callable[[BaseException], object] | None = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[ItemOptions],
    ) -> MapResult[Result]: ...
    @overload
    def starmap_async(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = ...,
        callback: Callable[[list[Result | BaseException]], object] | None = ...,
        error_callback: Callable[[BaseException], object] | None = ...,
        *,
        return_exceptions: bool,
        **options: Unpack[ItemOptions],
    ) -> MapResult[Result | BaseException]: ...
    def starmap_async(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Result]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        **options: Unpack[ItemCallOptions],
    ) -> MapResult[Result]:
        """Start `starmap`, and return a `MapResult` at once. The parameters are those of `map_async`."""
        display = self._display_of(options) if options else None
        items = copy_of_list(iterable)
        result = self._map_async(func, items, starmapstar, chunksize, callback, error_callback, options)
        return result if display is None else display.watch_map(result)

    def _map_async(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Any],
        mapper: Callable[..., Any],
        chunksize: int | None = None,
        callback: Callable[[list[Result]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        options: Any = None,
    ) -> MapResult[Result]:
        self._check_running()
        terms = self._terms_for(options) if options else self._terms
        if chunksize is not None:
            check_chunksize(chunksize)
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
        star = mapper is starmapstar
        if told := callback is not None or error_callback is not None:
            check_callbacks(callback=callback, error_callback=error_callback)
        try:
            if terms is None:
                ticket = hub.map(func, items, star, chunksize, told)
            else:
                if terms.single:
                    chunksize = 1
                ticket = hub.map(func, items, star, chunksize, told, terms.of_call())
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

    @overload
    def imap(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = ...,
        buffersize: int | None = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[ItemOptions],
    ) -> IMapIterator[Result]: ...
    @overload
    def imap(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = ...,
        buffersize: int | None = ...,
        *,
        return_exceptions: bool,
        **options: Unpack[ItemOptions],
    ) -> IMapIterator[Result | BaseException]: ...
    def imap(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = 1,
        buffersize: int | None = None,
        **options: Unpack[ItemCallOptions],
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
            options: `task_timeout`, `retries` and others; see the class.

        Returns:
            An `IMapIterator`. Its method ``next(timeout)`` raises `maniple.TimeoutError` after `timeout` seconds.

        Raises:
            ValueError: the pool is closed, or `chunksize` or `buffersize` is less than 1.
        """
        results: IMapIterator[Result] = self._stream(IMapIterator, func, iterable, chunksize, buffersize, options)
        return results

    @overload
    def imap_unordered(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = ...,
        buffersize: int | None = ...,
        *,
        return_exceptions: Literal[False] = ...,
        **options: Unpack[ItemOptions],
    ) -> IMapUnorderedIterator[Result]: ...
    @overload
    def imap_unordered(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = ...,
        buffersize: int | None = ...,
        *,
        return_exceptions: bool,
        **options: Unpack[ItemOptions],
    ) -> IMapUnorderedIterator[Result | BaseException]: ...
    def imap_unordered(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = 1,
        buffersize: int | None = None,
        **options: Unpack[ItemCallOptions],
    ) -> IMapUnorderedIterator[Result]:
        """Return an iterator over the results in the order in which the calls end. The parameters are those of `imap`."""
        results: IMapUnorderedIterator[Result] = self._stream(
            IMapUnorderedIterator, func, iterable, chunksize, buffersize, options
        )
        return results

    def _stream(
        self,
        kind: Any,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int,
        buffersize: int | None,
        options: Any = None,
    ) -> Any:
        if self._state != RUN:
            raise ValueError(f"Pool not running{self._why_closed}")
        display, terms = None, self._terms
        if options:
            display = self._display_of(options)  # which takes its option from the dict
            terms = self._terms_for(options) if options else terms
        if type(chunksize) is not int or chunksize < 1:
            check_chunksize(chunksize)
            if chunksize == 1:
                chunksize = 1  # an int, also if the caller passed True or 1.0
        if buffersize is not None:
            buffersize = count_of("buffersize", buffersize, 1)
        if self._workers is None:
            return self._stream_by_queues(kind, func, iterable, chunksize, buffersize)
        if terms is not None:
            terms = terms.of_call()
            chunksize = 1 if terms.single else chunksize
        window, ordered = buffersize or max(WINDOW, self._tasks_ahead * chunksize), kind is IMapIterator
        external = type(iterable) not in self._tame
        if external and (items := read_at_once(iterable, window)) is not None:
            iterable, external = items, False
        length = length_of(iterable) if external else len(iterable)  # type: ignore[arg-type]  # a list, a tuple or a range
        stream = open_stream(self._workers, func, iterable, external, chunksize, window, ordered, terms)
        results = kind(self, stream, length)
        return results if display is None else display.watch_iterator(results)

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

    def resize(self, processes: int) -> None:
        """Set the number of workers. New workers start at once; surplus workers end after their tasks.

        Workers that have not begun a task that they got end first, because they may be stopped (SIGSTOP), and then those with the highest
        numbers. A worker that is stopped while it has no task is not noticed.

        Args:
            processes: the number of workers; in a pool with `min_processes` the greatest number.

        Raises:
            ValueError: it is less than 1 or than `min_processes`, there are more workers than accelerators, or the pool is closed.
            OSError: a limit of the system does not allow so many workers.
        """
        self._check_running()
        if self._workers is None or isinstance(self, ThreadPool):
            raise ValueError(f"a {type(self).__name__} cannot be resized")
        processes = count_of("processes", processes, 1)
        least, _, spares = self._workers.size
        if least is not None and processes < least:
            raise ValueError(f"processes ({processes}) must not be less than min_processes ({least})")
        if (setup := self._workers.setup) is not None:
            setup.refuse_size(processes)
        if processes > self._processes:
            refuse_impossible_size(processes + spares, self._descriptors, True)
        self._processes = processes
        self._workers.resize(processes)

    def cancel_all(self, kill: bool = False) -> None:
        """Cancel all calls: tasks that have not begun do not begin. The pool can be used further.

        Args:
            kill: whether the workers that run tasks are ended, too. Other workers take their places.

        Raises:
            ValueError: `kill`, and the pool is one of threads.
        """
        if self._workers is None:
            raise ValueError(f"a {type(self).__name__} cannot cancel its calls; terminate() ends all of them")
        self._hub.cancel_all(bool(kill))

    def stats(self) -> PoolStats:
        """Return what the pool has counted so far: its tasks, its workers, how long tasks wait and run (seconds), and memory (bytes).

        The counters are always on. A pool that was closed or terminated returns its last numbers.

        Returns:
            A `maniple.pool.PoolStats`, a frozen dataclass. ``print(pool.stats())`` prints a table; ``as_dict()`` and ``prometheus()`` are for programs.

        Raises:
            RuntimeError: this process is a forked child, and the pool is its parent's.
        """
        from ._impl.pool.stats import stats_of

        return stats_of(self)

    def join(self, timeout: float | None = None) -> bool | None:
        """Wait until the workers have ended. Call `close` or `terminate` first.

        Args:
            timeout: the time limit in seconds; None means no limit.

        Returns:
            With a time limit, whether the workers have ended; otherwise None, as in the standard package.

        Raises:
            ValueError: neither `close` nor `terminate` was called.
        """
        util.debug("joining pool")
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        if self._workers is not None:
            ended = self._workers.join(timeout)
            return None if timeout is None else bool(ended)
        until = None if timeout is None else time.monotonic() + timeout
        parts = (self._worker_handler, self._task_handler, self._result_handler, *self._pool)
        for part in parts:
            part.join(*([] if until is None else [max(0.0, until - time.monotonic())]))
        return None if until is None else not any(part.is_alive() for part in parts)

    def __reduce__(self) -> Any:
        raise NotImplementedError(
            "pool objects cannot be passed between processes or pickled; if the function of a call is a method of an object that has a pool, "
            "leave the pool out of the object's state (__getstate__), or make the function a static method"
        )

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        self.terminate()

    # ---- in an event loop ----

    async def join_async(self, timeout: float | None = None) -> bool:
        """As `join`, in a task of asyncio, trio or anyio: the event loop is not blocked. Return whether the workers have ended."""
        from ._impl.aio.helpers import in_thread

        return await in_thread(partial(self.join, timeout)) is not False

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        """End the pool as `terminate` does, and wait for its end, without blocking the event loop."""
        from ._impl.aio.helpers import in_thread

        await in_thread(self._end)

    def _end(self) -> None:
        self.terminate()
        self.join()


class ThreadPool(ThreadQueueParts, Pool):
    """A pool of threads with the interface of `Pool`. Nothing is pickled.

    Args:
        processes: the number of threads. None means the number of processors that this process may use.
        initializer: a function that each thread calls once, as ``initializer(*initargs)``.
        initargs: the arguments of `initializer`.

        options: `retries` and `return_exceptions`, as in `Pool`, for all calls of this pool that do not have their own.

    The calls have the options `retries`, `return_exceptions` and `progress`. No thread is lost, so a call is tried again after the
    exceptions that ``on=`` of `Retries` names, and the pause before a try occupies the thread. Limits and priorities are refused: a thread
    cannot be ended. So are the options of `Pool` for its workers' processes: threads share one environment, directory and random state.
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
        **options: Unpack[ThreadOptions],
    ) -> None:
        if options:
            from ._impl.pool.thread_terms import thread_terms

            thread_terms(dict(options), None)  # raises for what cannot be
        super().__init__(processes, initializer, initargs)
        if options:
            try:
                self._terms = self._terms_for(dict(options))
            except BaseException:
                self.terminate()
                raise
            self._options = dict(options)

    def _terms_for(self, options: dict[str, Any]) -> Any:
        from ._impl.pool.thread_terms import thread_terms  # late: few calls need it

        if self._workers is None:
            return super()._terms_for(options)
        return thread_terms({**self._options, **options}, self._workers)

    def _make_workers(
        self,
        initializer: Any,
        initargs: tuple[Any, ...],
        maxtasksperchild: int | None,
        limits: tuple[Any, ...] = (),
    ) -> Any:
        return ThreadWorkers(self._processes, partial(self.Process, self._ctx), initializer, initargs)


# A `__getattr__` in their place would make each call several times as expensive: the interpreter then looks up every attribute of
# a pool anew.
for _name, _make in VIEWS.items():
    setattr(Pool, _name, View(_name, _make))
del _name, _make

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


public_module.finish(
    globals(), **dict.fromkeys(("Latency", "PoolStats", "SlowTask", "WorkerStats"), "_impl.pool.stats")
)
