"""`ProcessPoolExecutor`: the interface of `concurrent.futures` on maniple's pools.

    with ProcessPoolExecutor(4) as executor:
        future = executor.submit(pow, 2, 10)
        print(future.result())

The behaviour differs from the standard executor when a worker dies: only its own task fails (`WorkerLostError`), a new worker takes
its place, and the executor continues. No executor of this package is ever broken.
"""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from weakref import finalize

from . import get_context
from ._impl.compat import public_module
from ._impl.executor.futures import Future
from ._impl.executor.mapping import mapped
from ._impl.executor.pools import ExecutorPool, Processes, is_over
from ._impl.pool.inputs import arguments_of, default_processes
from ._maniple import Futures, Hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ParamSpec, TypeVar, Unpack

    from ._impl.executor.options import Chosen
    from ._impl.executor.view import ExecutorView
    from ._impl.pool.options import ExecutorOptions, TaskOptions
    from ._maniple import Terms

    Call = ParamSpec("Call")
    Result = TypeVar("Result")

__all__ = ["ExecutorView", "ProcessPoolExecutor"]

_AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"
_AFTER_EXIT = "cannot schedule new futures after interpreter shutdown"


class ProcessPoolExecutor(concurrent.futures.Executor):
    """An executor whose calls run in worker processes, with the interface of `concurrent.futures.ProcessPoolExecutor`.

    The futures are `concurrent.futures.Future` objects: `concurrent.futures.wait`, `as_completed` and asyncio's ``run_in_executor``
    accept them. Use the executor as a context manager: the end of the block waits for all calls.

    Args:
        max_workers: the number of workers. None means the number of processors that this process may use.
        mp_context: the context whose start method starts the workers, of this package or of `multiprocessing`; None means the
            program's start method.
        initializer: a function that each worker calls once, as ``initializer(*initargs)``, before its first call.
        initargs: the arguments of `initializer`.
        max_tasks_per_child: the number of tasks after which a new worker replaces a worker; None means never. With this argument,
            the start method is spawn if `mp_context` is None, and fork is refused, as in the standard package.
        options: options of `maniple.pool.Pool`, which the standard executor does not have, for all calls: `task_timeout`, `soft_timeout`,
            `retries`, `priority` (the method `options` sets them for some calls); for the workers: `worker_init_timeout`, `memory_limit`, `memory_limit_strict`, `max_rss_per_worker`,
            `spare_workers`, `env`, `cwd`, `threads_per_worker`, `affinity`, `accelerators`, `finalizer`, `finalargs`, `seed`.

    Raises:
        ValueError: `max_workers` or `max_tasks_per_child` is less than 1, or the start method is fork with `max_tasks_per_child`.
        TypeError: `initializer` is not callable, `max_tasks_per_child` is not an int, or an option is unknown or has a wrong type.

    A future raises, or returns from `exception()`:

    - the exception that the function raised, with the worker's traceback as its cause;
    - `WorkerLostError` if the worker of the call died, or if no worker can be started, for example because `initializer` raises. The
      standard executor fails all its calls with `BrokenProcessPool` and accepts no more; `WorkerLostError` is no such exception,
      because nothing is broken;
    - `TaskTimeoutError`, `SoftTimeoutError` or `MemoryLimitError` if the call exceeded a limit;
    - the error of pickling, if the function, its arguments or the result cannot be pickled, and `ResultDecodeError` if the result
      cannot be unpickled.

    Functions and arguments are pickled. Lambdas, closures and local classes are sent by value.

    Example::

        with ProcessPoolExecutor(4) as executor:
            futures = [executor.submit(work, job) for job in jobs]
            for future in concurrent.futures.as_completed(futures):
                print(future.result())
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        *,
        max_tasks_per_child: int | None = None,
        **options: Unpack[ExecutorOptions],
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
            if mp_context is None:
                mp_context = get_context("spawn")
        # A context of `multiprocessing` has the same start methods.
        if mp_context is not None and not hasattr(mp_context, "get_start_method"):
            raise TypeError(
                f"mp_context must be a context, such as multiprocessing.get_context('spawn'), not {mp_context!r}"
            )
        context = get_context() if mp_context is None else get_context(mp_context.get_start_method())
        if max_tasks_per_child is not None and context.get_start_method() == "fork":
            raise ValueError(
                "max_tasks_per_child is incompatible with the 'fork' multiprocessing start method; "
                "supply a different mp_context"
            )
        self._options: Chosen | None = None
        if options:
            from ._impl.executor.options import Chosen

            self._options = Chosen(dict(options), context.get_start_method() == "fork")
        if max_workers is None:
            max_workers = default_processes(*(() if self._options is None else self._options.of_size))
        if self._options is not None:
            self._options.refuse_size(max_workers)
        self._max_workers = max_workers
        self._mp_context = context
        self._initializer, self._initargs = initializer, arguments_of(initializer, initargs)
        self._max_tasks_per_child = max_tasks_per_child
        # None before the first call, and after `shutdown`; the pool that was shut down, to wait for it.
        self._pool: ExecutorPool | None = None
        self._ending: ExecutorPool | None = None
        self._is_shut = False
        self._lock = threading.RLock()
        self._finalizer: finalize[Any, Any] | None = None
        # Programs read it, although it is no part of the interface.
        self._processes: Processes | None = Processes()

    @property
    def _executor_manager_thread(self) -> threading.Thread | None:
        # As `_processes`.
        return None if self._pool is None else self._pool.keeper

    def _begin(self) -> ExecutorPool:
        """Start the workers, if that was not done."""
        with Hold(self._lock):
            if self._is_shut:
                raise RuntimeError(_AFTER_SHUTDOWN)
            if is_over() or sys.is_finalizing():
                raise RuntimeError(_AFTER_EXIT)
            if self._pool is None:
                pool = ExecutorPool(
                    self._max_workers,
                    self._mp_context,
                    self._initializer,
                    self._initargs,
                    self._max_tasks_per_child,
                    self._options,
                )
                self._finalizer = finalize(self, pool.close)
                self._finalizer.atexit = False
                try:
                    pool.start()
                except RuntimeError:
                    if is_over():
                        raise RuntimeError(_AFTER_EXIT) from None
                    raise
                self._pool = pool
                if self._processes is not None:
                    self._processes.pool = pool
            return self._pool

    def _refuse(self) -> RuntimeError:
        return RuntimeError(_AFTER_EXIT if is_over() and not self._is_shut else _AFTER_SHUTDOWN)

    def submit(
        self, fn: Callable[Call, Result], /, *args: Call.args, **kwargs: Call.kwargs
    ) -> concurrent.futures.Future[Result]:
        """Start ``fn(*args, **kwargs)`` in a worker, and return its future at once.

        Args:
            fn: the function to call.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Raises:
            RuntimeError: the executor is shut down, or the program ends.
            OSError: the workers cannot be started.

        Example::

            future = executor.submit(pow, 2, 10)
            print(future.result(timeout=5))  # 1024
        """
        pool = self._pool
        if pool is None:
            pool = self._begin()
        futures = pool.futures
        future: Future[Result] = Future(futures)
        terms = pool.terms
        try:
            if terms is None:
                future._job = futures.submit(future, fn, args, kwargs)
            else:
                future._job = futures.submit(future, fn, args, kwargs, terms.of_call())
        except ValueError:
            raise self._refuse() from None
        if pool.wanted < pool.most:
            pool.grow()
        return future

    def _send(self, terms: Terms | None, send: Callable[..., int], *call: Any) -> Future[Any]:
        """Submit a task by a method of `Futures`, with these terms. The pool has started."""
        pool = self._pool
        if pool is None:
            raise self._refuse()
        future: Future[Any] = Future(pool.futures)
        try:
            future._job = send(pool.futures, future, *call, None if terms is None else terms.of_call())
        except ValueError:
            raise self._refuse() from None
        if pool.wanted < pool.most:
            pool.grow()
        return future

    def _submit_chunk(self, fn: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> Future[Any]:
        pool = self._pool
        if pool is None:
            pool = self._begin()
        return self._send(pool.terms, Futures.submit_chunk, fn, chunk)

    def options(self, **options: Unpack[TaskOptions]) -> ExecutorView:
        """Return a view of this executor whose calls have further options. Its `submit` and `map` start calls of this executor.

        `submit` itself passes all keyword arguments to the function. The view is an `ExecutorView`, and no `ProcessPoolExecutor`. It has
        no workers of its own: its `shutdown`, and the end of its ``with`` block, shut this executor down.

        Args:
            options: `task_timeout`, `soft_timeout`, `retries` and `priority`, as for the calls of a `Pool`. They replace the options of the
                executor; None means no limit.

        Raises:
            ValueError: an option has a value that it cannot have.
            TypeError: an option is unknown or has a wrong type.

        Example::

            future = executor.options(task_timeout=3, retries=2).submit(fetch, url)
            pages = executor.options(priority=1).map(fetch, urls)
        """
        from ._impl.executor.view import ExecutorView  # late: few programs need it

        return ExecutorView(self, dict(options))

    def map(
        self,
        fn: Callable[..., Result],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Result]:
        """Return an iterator over ``fn(*items)`` for each tuple of items, in the order of the items.

        The calls start at once. If a call fails, the step that reaches it raises its exception, and the iteration ends. When the
        iteration ends early, calls that have not begun are cancelled.

        Args:
            fn: a function that takes an item of each iterable.
            iterables: the items. They are read at once, unless `buffersize` limits that.
            timeout: the time limit in seconds, from this call on, after which a step raises `TimeoutError`; None means no limit.
            chunksize: the number of calls that a worker receives at once.
            buffersize: the number of chunks that may be in progress or wait to be taken; None means all. The iterables are then read
                while results are taken, so they may be endless. The standard package has this parameter since Python 3.14.

        Raises:
            ValueError: `chunksize` or `buffersize` is less than 1.
            TypeError: `buffersize` is not an int.
            RuntimeError: the executor is shut down.
        """
        is_single = self._options is not None and self._options.is_single
        return mapped(self.submit, self._submit_chunk, is_single, fn, iterables, timeout, chunksize, buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls. The workers end when all calls that were submitted have ended.

        Args:
            wait: whether to wait until the workers have ended. A later call may wait for them.
            cancel_futures: whether to cancel the calls that no worker has begun. If fewer calls run than there are workers, the
                oldest calls count as begun, since the workers are about to run them.
        """
        with Hold(self._lock):
            self._is_shut = True
            pool = self._pool or self._ending
        if pool is None or not pool.is_own():
            return
        pool.close()
        if cancel_futures:
            pool.drop_waiting(self._max_workers)
        if wait:
            pool.join()
        with Hold(self._lock):
            # If a signal handler has interrupted this call, the next call repeats it.
            self._ending = None if wait else pool
            self._pool = self._processes = None
            if self._finalizer is not None:
                self._finalizer.detach()

    def _end(self, how: str) -> None:
        pool = self._pool
        self.shutdown(wait=False)
        if pool is not None and pool.is_own():
            pool.drop_waiting(0)
            pool.end_workers(how)

    def terminate_workers(self) -> None:
        """Shut the executor down, cancel the calls that no worker has begun, and end the workers with SIGTERM.

        The futures of the calls that run raise `WorkerLostError`. The standard package has this method since Python 3.14.
        """
        self._end("terminate")

    def kill_workers(self) -> None:
        """As `terminate_workers`, but with SIGKILL, which a worker cannot ignore."""
        self._end("kill")


public_module.finish(globals(), ExecutorView="_impl.executor.view")
