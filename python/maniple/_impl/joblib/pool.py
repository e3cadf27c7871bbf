"""The pool of workers that all calls of `joblib.Parallel` in a process share.

Each `joblib.Parallel` object that is in use has a *lease* of the pool.  The pool has as many workers as its largest lease asks for.
When no lease is left, the pool waits for the next one, and its workers end after some time.  A call whose workers must be prepared
otherwise gets another pool; the earlier one ends with its last lease.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ... import forkserver, get_all_start_methods, get_context, spawn, util
from ..._maniple import Hold
from ...context import TimeoutError
from ..pool.limit_errors import MemoryLimitError, SoftTimeoutError, TaskTimeoutError
from ..pool.options import terms_of
from ..pool.payload import WorkerLostError, note, renamed
from ..pool.worker_main import WorkerMain, worker_main
from ..pool.workers import Workers
from .arrays import SharedArrays
from .batches import AloneMain
from .worker import Environment, prepare, run_joblib_batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._maniple import Terms

__all__ = ["Lease", "Settings", "Task", "lease", "shutdown"]


class Settings(NamedTuple):
    """How the workers of a pool are prepared."""

    start_method: str
    environment: dict[str, str]
    threads: int
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    idle_timeout: float
    #: the limits of a worker's memory, which the engine takes, and the number of its tasks
    limits: tuple[tuple[int | None, int | None], int | None] = (None, None), None


def default_method() -> str:
    """Return the start method whose workers neither load the program's main module nor copy its threads, and start soonest."""
    methods = get_all_start_methods()
    # From Python 3.13.10 on, the fork server itself loads the main module, by default.
    loads_main = "__main__" in forkserver._forkserver._preload_modules and bool(spawn._main_module_data())
    return "forkserver" if "forkserver" in methods and not loads_main else "spawn"


class Task:
    """A batch of calls that was submitted."""

    __slots__ = ("_arrays", "_tracker", "calls", "deliver", "failure", "files", "ticket")

    def __init__(self, tracker: Any, deliver: Callable[[Task], object], arrays: SharedArrays, calls: str = "") -> None:
        self._tracker, self._arrays = tracker, arrays
        #: the function of the batch's first call, and the indexes of its calls, for people
        self.calls = calls
        #: the function that receives the task when it has ended
        self.deliver = deliver
        #: the error of a batch that could not be sent
        self.failure: BaseException | None = None
        #: the files of arrays that the batch uses
        self.files: Any = ()
        self.ticket: Any = None

    def _complete(self) -> None:
        # The pool's keeper calls it.
        self.deliver(self)

    def is_ended(self) -> bool:
        """Return whether the batch has ended."""
        return self.failure is not None or bool(self.ticket.ready())

    def call_tracker(self) -> None:
        """Call joblib's tracker of the batch, which has ended."""
        files, self.files = self.files, ()
        self._arrays.release(files)
        self._tracker(self)

    def result(self) -> Any:
        """Return the results of the batch, which has ended, or raise its exception."""
        if self.failure is not None:
            raise self.failure
        try:
            return self.ticket.get()
        except SoftTimeoutError as error:
            note(error, f"The task was {self.calls}.")
            raise
        except (WorkerLostError, TaskTimeoutError, MemoryLimitError) as error:
            if not error.task:  # no worker gets ready
                raise
            # The error names the function of this package that runs the batch.
            named = renamed(error, self.calls)
        raise named

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the results of the batch, as `AsyncResult.get` does."""
        if self.failure is None and not self.ticket.wait(timeout):
            raise TimeoutError(f"the batch has not ended after {timeout} seconds")
        return self.result()


def _process(context: Any, main: WorkerMain | None, target: Any, **kwds: Any) -> Any:
    process = context.Process(target=target, **kwds)
    if main is not None:
        process._without_main = main
    return process


class _Pool:
    """The workers, and what is known of them."""

    def __init__(self, settings: Settings, size: int) -> None:
        self.settings, self.size = settings, size
        self.owner = os.getpid()
        self.leases: set[Lease] = set()
        self.idle_since = time.monotonic()
        #: whether the pool ends with its last lease
        self.is_retired = False
        method, environment = settings.start_method, Environment(settings.environment, settings.threads)
        #: what the workers have in `__main__`
        self.main: WorkerMain = worker_main(method) if method == "fork" else AloneMain()
        alone = None if method == "fork" else AloneMain()
        make = partial(_process, get_context(method), alone)
        initargs = environment, settings.initializer, settings.initargs
        (memory, recycle), most_tasks = settings.limits
        limits = (None, memory, recycle) if memory or recycle else ()
        of_workers = worker_main(method) if alone is None else AloneMain()
        self.workers = Workers(size, make, prepare, initargs, most_tasks, of_workers, limits)
        self._finalizer = util.Finalize(None, self.workers.terminate, exitpriority=15)
        try:
            self.workers.start()
        except BaseException:
            self._finalizer.cancel()
            raise
        self.hub = self.workers.hub

    def fits(self, settings: Settings) -> bool:
        return not self.is_retired and self.owner == os.getpid() and self.settings == settings

    def resize(self) -> None:
        """Start or end workers until there are as many as the largest lease asks for."""
        wanted = max((lease.size for lease in self.leases), default=self.size)
        if wanted != self.size:
            self.size = wanted
            self.workers.resize(wanted)

    def retire(self) -> None:
        """End the pool when its last lease ends."""
        self.is_retired = True
        if not self.leases and self.owner == os.getpid():
            self.workers.close()
            # From here on the workers end as soon as they can, and with the program at the latest, since they are daemonic.
            self._finalizer.cancel()


_lock = threading.RLock()
# Notified when the idle time may end earlier than the janitor knows.
_changed = threading.Condition(_lock)
_shared: _Pool | None = None
# The longest sleep in seconds of the janitor.
_LONGEST = 3600.0
# The thread that ends an unused pool, while there is a pool.
_janitor: threading.Thread | None = None


def _forget() -> None:
    """In a forked child, forget the parent's pool."""
    global _lock, _changed, _shared, _janitor
    _lock, _shared, _janitor = threading.RLock(), None, None
    _changed = threading.Condition(_lock)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def lease(settings: Settings, size: int, calls: dict[str, Any]) -> Lease:
    """Return a new lease of the process's pool, for batches with these options of calls."""
    global _shared, _janitor
    with Hold(_lock):
        pool = _shared
        if pool is None or not pool.fits(settings):
            if pool is not None:
                pool.retire()
            _shared = None
            pool = _shared = _Pool(settings, size)
            _changed.notify_all()
        new = Lease(pool, size, terms_of(calls, pool.workers._main))
        pool.leases.add(new)
        pool.resize()
        if _janitor is None:
            _janitor = threading.Thread(target=_watch, name="maniple-joblib-idle", daemon=True)
            _janitor.start()
        return new


def shutdown() -> None:
    """End the pool: at once if no call uses it, otherwise with its last lease. Wait for the workers of an unused pool."""
    global _shared
    with Hold(_lock):
        pool, _shared = _shared, None
        if pool is None:
            return
        pool.retire()
        _changed.notify_all()
    if not pool.leases and pool.owner == os.getpid():
        pool.workers.join()


def _watch() -> None:
    """End the pool when it was unused for its idle time."""
    global _shared, _janitor
    with _changed:
        while (pool := _shared) is not None:
            limit = pool.settings.idle_timeout
            left = limit if pool.leases else pool.idle_since + limit - time.monotonic()
            if left <= 0:
                pool.retire()
                _shared = None
            del pool
            if left > 0:
                _changed.wait(min(left, _LONGEST))
        _janitor = None


class Lease:
    """The use of the pool by one `joblib.Parallel` object."""

    def __init__(self, pool: _Pool, size: int, terms: Terms | None) -> None:
        self.size = size
        self.pool: _Pool = pool
        # The limits and retries of the batches.
        self._terms = terms
        self._open: set[Task] = set()

    @property
    def main(self) -> WorkerMain:
        """What the workers have in `__main__`."""
        return self.pool.main

    def submit(
        self, task: Task, notifies: bool, stream: bytes, functions: dict[bytes, bytes], buffers: list[Any]
    ) -> None:
        """Submit a pickled batch. `notifies`: whether the task is delivered when it has ended."""
        pool = self.pool
        self._open.add(task)
        task.ticket = pool.hub.call(run_joblib_batch, (stream, functions, *buffers), {}, notifies, self._terms)
        if notifies:
            pool.workers.results.enter(task.ticket.job, task)

    def ended(self, task: Task, error: BaseException | None) -> None:
        """Record that a task has ended."""
        self._open.discard(task)
        if isinstance(error, WorkerLostError) and not error.task:
            # No worker gets ready, so the pool has failed: the next call gets another one.
            self.pool.is_retired = True

    def abort(self) -> None:
        """Withdraw the tasks of this lease that wait, and end the workers that run others; the pool replaces them."""
        tasks, self._open = list(self._open), set()
        # From the newest on, so that no worker begins a task that is about to be withdrawn.
        sent = [task for task in tasks if task.ticket is not None]
        for task in sorted(sent, key=lambda task: task.ticket.job, reverse=True):
            task.ticket.cancel(True)

    def end(self) -> None:
        """Give the pool back."""
        global _shared
        with Hold(_lock):
            pool = self.pool
            if self not in pool.leases:
                return
            pool.leases.discard(self)
            pool.idle_since = time.monotonic()
            if pool.is_retired:
                if _shared is pool:
                    _shared = None
                pool.retire()
