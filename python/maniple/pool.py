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

from . import get_context, util
from ._maniple import Stream, usable_cores
from ._payload import MaybeEncodingError, RemoteTraceback, ResultDecodeError, WorkerLostError
from ._pool_names import ExceptionWithTraceback, job_counter, mapstar, rebuild_exc, starmapstar, worker
from ._results import ApplyResult, OfResult, Result
from ._results import AsyncResult as AsyncResult
from ._results import MapResult as MapResult
from ._threads import ThreadWorkers
from ._workers import Workers
from .connection import wait
from .context import TimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, TypeVar

    Item = TypeVar("Item")
    AnyResult = TypeVar("AnyResult", bound=ApplyResult[Any])

__all__ = ["Pool", "ThreadPool"]

RUN = "RUN"
CLOSE = "CLOSE"
TERMINATE = "TERMINATE"
INIT = "INIT"

# Items that `imap` has under way or waiting to be taken, unless told otherwise.
WINDOW = 1000


class IMapIterator(OfResult[Result]):
    """The results of `imap`, in the order of the input."""

    def __init__(self, pool: Pool) -> None:
        # Keeps the pool from being collected, and so ended, before this is.
        self._pool = pool
        self._next: Callable[[float | None], Result]

    def _over(self, stream: Stream) -> Self:
        self._next = stream.next
        return self

    def __iter__(self) -> Self:
        return self

    def next(self, timeout: float | None = None) -> Result:
        """The next result; `TimeoutError` if there is none within `timeout` seconds."""
        return self._next(timeout)

    __next__ = next


class IMapUnorderedIterator(IMapIterator[Result]):
    """The results of `imap_unordered`, as they come."""


def default_processes() -> int:
    """How many workers a pool has unless told: the processors that this process may use, by its affinity and its control group.

    What Python was told (`-X cpu_count`, `PYTHON_CPU_COUNT`) counts for more.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = getattr(os, "process_cpu_count", lambda: None)()
    if told not in (None, allowed):
        return int(told)
    return max(1, min(allowed, usable_cores()))


class Pool:
    """A pool of worker processes.

    `processes`: how many (the usable processors if None). `initializer(*initargs)` runs first in each worker.
    `maxtasksperchild`: a worker is replaced after so many tasks. `context`: how processes are started.
    """

    _wrap_exception = True
    # Of one whose making failed before it had begun.
    _state = INIT
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
        self._workers = self._make_workers(
            initializer, () if initializer is None else tuple(initargs), maxtasksperchild
        )
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
        processes: list[Any] = self._workers.processes
        return processes

    def _repopulate_pool(self) -> None:
        self._workers.repopulate()

    def _check_running(self) -> None:
        if self._state != RUN:
            raise ValueError("Pool not running")

    # ---- calls ----

    def apply(self, func: Callable[..., Result], args: Iterable[Any] = (), kwds: dict[str, Any] = {}) -> Result:
        """`func(*args, **kwds)` in a worker; waits for its result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Result],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] = {},
        callback: Callable[[Result], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> ApplyResult[Result]:
        """`apply` without waiting. Callbacks run in a thread of the pool's and should return soon."""
        if self._state != RUN:
            raise ValueError("Pool not running")
        result: ApplyResult[Result] = ApplyResult(self, callback, error_callback)
        if callback is None and error_callback is None:
            result._ticket = self._hub.call(func, args, kwds, False)
            return result
        return self._told(result, partial(self._hub.call, func, args, kwds, True))

    def map(
        self, func: Callable[[Item], Result], iterable: Iterable[Item], chunksize: int | None = None
    ) -> list[Result]:
        """`[func(item) for item in iterable]`, by the workers, in order."""
        return self._map_async(func, iterable, False, chunksize).get()

    def map_async(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int | None = None,
        callback: Callable[[list[Result]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Result]:
        """`map` without waiting."""
        return self._map_async(func, iterable, False, chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Result], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Result]:
        """`map` for a function of several arguments: `func(*item)` for each item."""
        return self._map_async(func, iterable, True, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Result]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Result]:
        """`starmap` without waiting."""
        return self._map_async(func, iterable, True, chunksize, callback, error_callback)

    def _map_async(
        self,
        func: Callable[..., Result],
        iterable: Iterable[Any],
        star: bool,
        chunksize: int | None,
        callback: Callable[[list[Result]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> MapResult[Result]:
        self._check_running()
        if chunksize is not None and chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        items: Any = iterable if type(iterable) in (list, tuple, range) else list(iterable)
        result: MapResult[Result] = MapResult(self, chunksize, len(items), callback, error_callback)
        if callback is None and error_callback is None:
            result._ticket = self._hub.map(func, items, star, chunksize, False)
            return result
        return self._told(result, partial(self._hub.map, func, items, star, chunksize, True))

    def imap(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> IMapIterator[Result]:
        """`map`, lazily: an iterator over the results, in order.

        At most `buffersize` items (about a thousand, and 64 MiB, if None) are under way or waiting to be taken; the rest of the
        iterable is not touched before there is room.
        """
        results: IMapIterator[Result] = IMapIterator(self)
        return results._over(self._stream(func, iterable, chunksize, buffersize, True))

    def imap_unordered(
        self,
        func: Callable[[Item], Result],
        iterable: Iterable[Item],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> IMapUnorderedIterator[Result]:
        """`imap` that gives results as they come."""
        results: IMapUnorderedIterator[Result] = IMapUnorderedIterator(self)
        return results._over(self._stream(func, iterable, chunksize, buffersize, False))

    def _stream(
        self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int, buffersize: int | None, ordered: bool
    ) -> Stream:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        if chunksize == 1:
            chunksize = 1  # of whatever type it was
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be 1 or more, not {buffersize}")
        window = buffersize or WINDOW
        external = type(iterable) not in self._tame
        stream: Stream = self._hub.stream(func, iterable, external, False, chunksize, window, ordered)
        if external:
            feeder = threading.Thread(
                target=self._hub.feed,
                args=(stream.job, iter(iterable), False),
                name="maniple-pool-feeder",
                daemon=True,
            )
            feeder.start()
        return stream

    def _told(self, result: AnyResult, submit: Callable[[], Any]) -> AnyResult:
        # The keeper, too, takes the lock: it may learn of the end before this thread has noted whom to tell.
        with self._workers.lock:
            result._ticket = ticket = submit()
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

    def __enter__(self) -> Self:
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
