"""Pools of worker processes, and of threads.

    with Pool(4) as pool:
        squares = pool.map(square, range(1000))

The interface is the standard package's. What differs is what happens when something goes wrong: a worker that dies fails only
the task that it was running (`WorkerLostError`), a new one takes its place, and the pool goes on.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from . import get_context, util
from ._maniple import Stream
from ._payload import MaybeEncodingError, RemoteTraceback, ResultDecodeError, WorkerLostError, is_plain
from ._pool_names import ExceptionWithTraceback, mapstar, rebuild_exc, starmapstar
from ._results import ApplyResult, AsyncResult, MapResult
from ._threads import ThreadWorkers
from ._workers import Workers
from .connection import wait
from .context import TimeoutError

__all__ = ["Pool", "ThreadPool"]

RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"
INIT = "INIT"

# Items that `imap` has under way or waiting to be taken, unless told otherwise.
WINDOW = 1000


class IMapIterator:
    """The results of `imap`, in the order of the input."""

    def __init__(self, workers: Workers, stream: Stream, name: str) -> None:
        self._workers = workers
        self._next = stream.next
        self._name = name

    def __iter__(self) -> IMapIterator:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """The next result; `TimeoutError` if there is none within `timeout` seconds."""
        try:
            return self._next(timeout)
        except WorkerLostError as error:
            self._workers.explain(error, self._name)
            raise

    __next__ = next


class IMapUnorderedIterator(IMapIterator):
    """The results of `imap_unordered`, as they come."""


def _name_of(func: Any) -> str:
    return getattr(func, "__qualname__", None) or repr(func)


def default_processes() -> int:
    """How many workers a pool has unless told: the processors that this process may use."""
    counted = getattr(os, "process_cpu_count", None)
    if counted is not None:
        return counted() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


class Pool:
    """A pool of worker processes.

    `processes`: how many (the usable processors if None). `initializer(*initargs)` runs first in each worker.
    `maxtasksperchild`: a worker is replaced after so many tasks. `context`: how processes are started.
    """

    _wrap_exception = True
    # Iterating over these runs nobody's code, so whoever has time may do it; anything else is iterated in a thread of its own.
    _tame: tuple[type, ...] = (list, tuple, range)

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        return ctx.Process(*args, **kwds)

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        # For __del__, should what follows fail.
        self._state = INIT
        self._ctx = context or get_context()
        if processes is None:
            processes = default_processes()
        if processes < 1:
            raise ValueError("a pool needs at least one process: processes must be 1 or more")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._processes = processes
        self._workers = self._make_workers(initializer, tuple(initargs), maxtasksperchild)
        self._hub = self._workers.hub
        self._workers.start()
        self._terminate = util.Finalize(self, self._workers.terminate, exitpriority=15)
        self._state = RUN

    def _make_workers(self, initializer: Any, initargs: tuple[Any, ...], maxtasksperchild: int | None) -> Any:
        return Workers(self._processes, partial(self.Process, self._ctx), initializer, initargs, maxtasksperchild)

    def __del__(self, _warn: Any = warnings.warn, RUN: str = RUN) -> None:
        if self._state == RUN:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)
            # Whoever keeps the warning keeps the pool object; its workers end all the same.
            self._terminate()

    def __repr__(self) -> str:
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={len(self._pool)}>"

    @property
    def _pool(self) -> list[Any]:
        return self._workers.processes

    def _repopulate_pool(self) -> None:
        self._workers.repopulate()

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    # ---- calls ----

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] = {}) -> Any:
        """`func(*args, **kwds)` in a worker; waits for its result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] = {},
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> ApplyResult:
        """`apply` without waiting. Callbacks run in a thread of the pool's and should return soon."""
        self._check_running()
        result = ApplyResult(self._workers, _name_of(func), callback, error_callback)
        return self._submit(result, lambda told: self._hub.call(func, is_plain(func), args, kwds, told))

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """`[func(item) for item in iterable]`, by the workers, in order."""
        return self._map_async(func, iterable, False, chunksize).get()

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """`map` without waiting."""
        return self._map_async(func, iterable, False, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """`map` for a function of several arguments: `func(*item)` for each item."""
        return self._map_async(func, iterable, True, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        """`starmap` without waiting."""
        return self._map_async(func, iterable, True, chunksize, callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult:
        self._check_running()
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        items = iterable if type(iterable) in (list, tuple, range) else list(iterable)
        result = MapResult(self._workers, _name_of(func), callback, error_callback)
        return self._submit(result, lambda told: self._hub.map(func, is_plain(func), items, star, chunksize, told))

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> IMapIterator:
        """`map`, lazily: an iterator over the results, in order.

        At most `buffersize` items (about a thousand, and 64 MiB, if None) are under way or waiting to be taken; the rest of the
        iterable is not touched before there is room.
        """
        return IMapIterator(*self._stream(func, iterable, chunksize, buffersize, True))

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> IMapUnorderedIterator:
        """`imap` that gives results as they come."""
        return IMapUnorderedIterator(*self._stream(func, iterable, chunksize, buffersize, False))

    def _stream(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int, buffersize: int | None, ordered: bool
    ) -> tuple[Workers, Stream, str]:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be 1 or more, not {buffersize}")
        window = buffersize or WINDOW
        external = type(iterable) not in self._tame
        stream = self._hub.stream(func, is_plain(func), iterable, external, False, chunksize, window, ordered)
        if external:
            feeder = threading.Thread(
                target=self._hub.feed,
                args=(stream.job, iter(iterable), False),
                name="maniple-pool-feeder",
                daemon=True,
            )
            feeder.start()
        return self._workers, stream, _name_of(func)

    def _submit(self, result: Any, submit: Callable[[bool], Any]) -> Any:
        if result._called is None:
            result._ticket = submit(False)
            return result
        # The keeper may learn of the end before this thread has noted whom to tell.
        with self._workers.lock:
            result._ticket = ticket = submit(True)
            self._workers.results[ticket.job] = result
        return result

    # ---- the end ----

    def close(self) -> None:
        """Take no more calls. Workers end when all that was submitted is done."""
        util.debug("closing pool")
        if self._state == RUN:
            self._state = CLOSE
            self._hub.close()

    def terminate(self) -> None:
        """Stop at once: drop what has not ended, and end the workers."""
        self._state = TERMINATE
        self._terminate()

    def join(self) -> None:
        """Wait for the workers to end. Call `close` or `terminate` first."""
        util.debug("joining pool")
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self._workers.join()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __enter__(self) -> Pool:
        self._check_running()
        return self

    def __exit__(self, exc_type: object, exc_val: object, exc_tb: object) -> None:
        self.terminate()


class ThreadPool(Pool):
    """A pool of threads with the interface of `Pool`."""

    _wrap_exception = False
    _tame = ()

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
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
