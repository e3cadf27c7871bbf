"""The workers of an executor, and their end with the program.

The pool outlives its executor: when the executor is collected or shut down, the pool is closed, and ends after its last task.  When the
program ends, it waits for all pools, as with the standard package.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from weakref import WeakSet

from ... import util
from ..._maniple import Futures, Hold
from ..pool.results import tell
from ..pool.worker_main import worker_main
from ..pool.workers import Workers
from .futures import settle
from .worker import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._maniple import Terms
    from .options import Chosen

    Table = Mapping[int, Any]
else:
    Table = Mapping

__all__ = ["ExecutorPool", "Processes", "is_over"]


class Completions:
    """Completes an executor's futures in the pool's keeper, in the place of the pool's `PendingCallbacks`."""

    # No caller waits for an event of this object.
    _called = None

    def __init__(self, futures: Futures) -> None:
        self._futures = futures
        self._is_told = False

    @property
    def over(self) -> bool:
        return False

    @over.setter
    def over(self, is_over: bool) -> None:
        if is_over:
            self._futures.end()

    @property
    def is_due_again(self) -> bool:
        """Whether `one_entered_late` has to be called again after a moment."""
        return self._futures.lacks_memory()

    def ended(self, job: int) -> Completions:
        return self

    def one_entered_late(self) -> Completions | None:
        # The keeper asks until there is none.
        self._is_told = not self._is_told and self._futures.has_slow()
        return self if self._is_told else None

    def _complete(self) -> None:
        """Complete the futures whose tasks have ended. The keeper calls it."""
        self._futures.keep()


class Processes(Table):
    """The processes of a pool's workers by their process ids; empty until the pool is there."""

    pool: ExecutorPool | None = None

    def _now(self) -> dict[int, Any]:
        return {} if self.pool is None else {process.pid: process for process in list(self.pool.processes)}

    def __getitem__(self, pid: int) -> Any:
        return self._now()[pid]

    def __iter__(self) -> Iterator[int]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def copy(self) -> dict[int, Any]:
        """Return the present processes."""
        return self._now()


class ExecutorPool(Workers):
    """The workers of one executor.

    Workers that are forked start together with the first task, while the program has few threads.  Other workers start one by one, when
    there are more tasks than workers.
    """

    def __init__(
        self,
        processes: int,
        context: Any,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks: int | None,
        chosen: Chosen | None,
    ) -> None:
        method = context.get_start_method()
        self.most = processes
        self.wanted = processes if method == "fork" else 1
        make_process = partial(_process, context)
        limits = () if chosen is None else chosen.limits
        super().__init__(self.wanted, make_process, initializer, initargs, max_tasks, worker_main(method), limits)
        #: the limits and retries of the calls; None if there are none
        self.terms: Terms | None = None
        if chosen is not None:
            self.setup, self.size = chosen.setup, (None, 0.0, chosen.spares)
            self.terms = chosen.terms(self._main)
        self.futures = Futures(self.hub, settle)
        self.results: Any = Completions(self.futures)

    def start(self) -> None:
        """Start the first workers and the keeper."""
        _watch_end()
        super().start()
        _pools.add(self)

    def grow(self) -> None:
        """Start another worker if there are more tasks than workers."""
        with Hold(self.lock):
            if self.wanted < self.most and self.futures.count() > self.wanted:
                self.wanted += 1
                self.resize(self.wanted)

    def drop_waiting(self, running: int) -> None:
        """Cancel the futures of the tasks that no worker has begun, except the oldest, until `running` tasks are left in all."""
        self.futures.withdraw_all(running)

    def end_workers(self, how: str) -> None:
        """Call the method `how` of each worker's process that runs. No new worker replaces them."""
        self.hub.resize(0)
        for process in list(self.processes):
            try:
                if process.is_alive():
                    getattr(process, how)()
            except ValueError:
                pass  # the process object is closed

    def is_own(self) -> bool:
        """Return whether this process has made the pool."""
        return self._owner == os.getpid()


def _process(context: Any, target: Any, **kwds: Any) -> Any:
    return context.Process(target=serve, **kwds)


# ---- the end of the program ----

#: the pools that have started
_pools: WeakSet[ExecutorPool] = WeakSet()
_over = False
# The process in which `_end_all` is registered.
_watched = 0


def is_over() -> bool:
    """Return whether the program ends, so that no more tasks can be submitted."""
    return _over and _watched == os.getpid()


def _watch_end() -> None:
    global _over, _watched
    pid = os.getpid()
    if _watched != pid:
        if _watched == 0:
            # Before `threading` waits for the program's other threads, which may wait for futures.
            try:
                threading._register_atexit(_end_all)  # type: ignore[attr-defined]
            except RuntimeError:
                _over, _watched = True, pid  # the interpreter ends
                raise
        _over, _watched = False, pid
        # A child of a `Process` ends its daemonic children, and pools' workers are such, before it comes to `threading`.
        util.Finalize(None, _end_all, exitpriority=20)


def _end_all() -> None:
    """Wait for the submitted tasks of all executors."""
    global _over
    if _watched != os.getpid():
        return
    _over = True
    pools = [pool for pool in list(_pools) if pool.is_own()]
    for pool in pools:
        pool.close()
    for pool in pools:
        try:
            pool.join()
        except RuntimeError as error:
            tell(error)
