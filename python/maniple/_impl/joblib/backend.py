"""The backend that joblib calls.

joblib submits batches of calls, and a *tracker* with each.  When a batch has ended, its tracker must be called: it takes the results,
and submits further batches.  The thread that calls the trackers is

- the caller's own thread, which waits for the results in `retrieval_context`, if `Parallel` returns a list (`_OwnCall`);
- a thread of the call, if `Parallel` returns a generator, or has a time limit, which joblib watches (`_ThreadCall`).

So the input of `Parallel`, which trackers read, may itself wait for other calls of the pool.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue
from weakref import ref

from joblib.parallel import (  # type: ignore[import-untyped]
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    cpu_count,
    register_parallel_backend,
)

from ...process import current_process
from ..pool.payload import text_of_task
from ..pool.results import tell
from ..pool.thread_stats import name_of_function
from .arrays import SharedArrays
from .batches import Batches
from .options import calls_of, limits_of, refuse_others
from .pool import Lease, Settings, Task, default_method, lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ManipleBackend", "register"]

_IDLE = 300.0
# Seconds that a thread waits for the oldest task before it looks at the others; joblib itself looks every 10 ms.
_FIRST_PAUSE, _LAST_PAUSE = 0.001, 0.01
# The module `multiprocessing`; None if JOBLIB_MULTIPROCESSING=0 forbids processes.
_PROCESSES: Any = getattr(sys.modules["joblib.parallel"], "mp", None)


class _ThreadCall:
    """A call of `joblib.Parallel` whose trackers are called by a thread of its own."""

    notifies = True

    def __init__(self) -> None:
        self._ended: SimpleQueue[Task | None] = SimpleQueue()
        # The thread refers to the queue alone, so a generator without references is collected.
        thread = threading.Thread(target=_call_trackers, args=(self._ended,), name="maniple-joblib-call", daemon=True)
        thread.start()
        #: the function that receives a task when it has ended
        self.deliver = self._ended.put

    def add(self, task: Task) -> None:
        """Add a task that was submitted, or that failed before."""
        if task.failure is not None:
            self._ended.put(task)

    def call_ended(self) -> None:
        """Do nothing: the thread calls the trackers."""

    def wait(self, is_aborting: Callable[[], bool]) -> None:
        """Do nothing: joblib waits."""

    def end(self) -> None:
        """End the thread after the trackers that wait."""
        self._ended.put(None)


def _call_trackers(ended: SimpleQueue[Task | None]) -> None:
    while (task := ended.get()) is not None:
        try:
            task.call_tracker()
        except BaseException as error:
            tell(error)
        del task


class _OwnCall:
    """A call of `joblib.Parallel` whose trackers are called by the caller's thread.

    The thread waits for the oldest open task, and drives the hub meanwhile: so no other thread is between it and the workers.  From time
    to time it looks at the next tasks, which may end before.
    """

    notifies = False

    def __init__(self, workers: int) -> None:
        # In the order of submission. Later tasks than these have hardly begun.
        self._open: dict[Task, None] = {}
        self._window = 8 * workers
        self._is_calling = False

    def deliver(self, task: Task) -> None:
        """Do nothing: the thread looks at the tasks."""

    def add(self, task: Task) -> None:
        """Add a task that was submitted, or that failed before."""
        self._open[task] = None

    def call_ended(self) -> bool:
        """Call the trackers of the tasks that have ended; return whether there were any. A tracker may submit tasks."""
        if self._is_calling:
            return False
        ended = [task for task in islice(self._open, self._window) if task.is_ended()]
        self._is_calling = True
        try:
            for task in ended:
                del self._open[task]
                task.call_tracker()
        finally:
            self._is_calling = False
        return bool(ended)

    def wait(self, is_aborting: Callable[[], bool]) -> None:
        """Call the trackers of all tasks, until the last one has ended, or a tracker has found an error."""
        pause = _FIRST_PAUSE
        while self._open and not is_aborting():
            if self.call_ended():
                pause = _FIRST_PAUSE
            else:
                next(iter(self._open)).ticket.wait(pause)
                pause = min(2 * pause, _LAST_PAUSE)

    def end(self) -> None:
        """Forget the tasks."""
        self._open.clear()


class ManipleBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """The joblib backend "maniple"; `maniple.joblib.register` describes its arguments.

    An object that `parallel_config` holds may serve several `joblib.Parallel` objects at the same time.  So each of these gets an
    object of its own.
    """

    supports_retrieve_callback = True
    supports_return_generator = True
    supports_timeout = True
    supports_inner_max_num_threads = True

    def __init__(
        self, nesting_level: int | None = None, inner_max_num_threads: int | None = None, **options: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._options = options
        self._serves: Any = None
        self._workers: Lease | None = None
        self._arrays: SharedArrays | None = None
        self._batches: Batches | None = None
        self._call: _OwnCall | _ThreadCall | None = None

    # ---- the workers ----

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of workers for `n_jobs`; 1 means that the calls run in this thread."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or _PROCESSES is None or n_jobs == 1:
            return 1
        if (reason := self._reason_for_one()) is not None:
            warnings.warn(f"maniple-backed parallel loops cannot be {reason}, setting n_jobs=1", stacklevel=3)
            return 1
        return max(cpu_count() + 1 + n_jobs, 1) if n_jobs < 0 else n_jobs

    def _reason_for_one(self) -> str | None:
        """Return why the process or the thread may have no workers; None if it may."""
        settings = current_process()._config
        daemonic = bool(settings.get("daemon")) and not settings.get("may_have_children")
        if daemonic or (not settings.get("may_have_children") and _PROCESSES.current_process().daemon):
            return "nested below a daemonic process"
        if self.nesting_level != 0 and not self.in_main_thread():
            return "nested below threads"
        return None

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **options: Any
    ) -> int:
        """Get workers for a `joblib.Parallel`, and return their number."""
        if self._serves is None or self._serves() is not parallel:
            own = type(self)(self.nesting_level, self.inner_max_num_threads, **self._options)
            own._serves = ref(parallel)
            raise FallbackToBackend(own)
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._end()
        chosen = {**self._options, **options}
        settings = self._settings(n_jobs, chosen)
        self._arrays = SharedArrays(chosen.get("max_nbytes"), chosen.get("mmap_mode"), chosen.get("temp_folder"))
        self._workers = lease(settings, n_jobs, calls_of(chosen))
        self._batches = None
        return n_jobs

    def _settings(self, n_jobs: int, chosen: dict[str, Any]) -> Settings:
        if "timeout" in chosen:
            raise ValueError("the backend has no timeout; idle_worker_timeout says when unused workers end")
        refuse_others(chosen)
        threads = self.inner_max_num_threads or max(cpu_count() // n_jobs, 1)
        # A limit that the program has set for itself holds for its workers, unless the call has another.
        forced = self.inner_max_num_threads is not None
        environment = {
            name: str(threads) if forced else os.environ.get(name, str(threads)) for name in self.MAX_NUM_THREADS_VARS
        }
        if self.TBB_ENABLE_IPC_VAR not in os.environ:
            environment[self.TBB_ENABLE_IPC_VAR] = "1"
        idle = chosen.get("idle_worker_timeout")
        return Settings(
            chosen.get("start_method") or default_method(),
            environment,
            threads,
            chosen.get("initializer"),
            tuple(chosen.get("initargs") or ()),
            _IDLE if idle is None else idle,
            limits_of(chosen),
        )

    def terminate(self) -> None:
        """Give the workers back, and remove the files of shared arrays."""
        self._end()
        self.reset_batch_stats()

    def _end(self) -> None:
        workers, self._workers = self._workers, None
        arrays, self._arrays = self._arrays, None
        if workers is not None:
            workers.end()
        if arrays is not None:
            arrays.end()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Withdraw the tasks of the call, and end the workers that run some of them."""
        if self._workers is not None:
            self._workers.abort()
            if ensure_ready:
                self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self.parallel._backend_kwargs)

    # ---- a call ----

    def start_call(self) -> None:
        """Begin a call of `joblib.Parallel`."""
        returns_list = getattr(self.parallel, "return_as", "list") == "list"
        assert self._workers is not None
        self._call = _OwnCall(self._workers.size) if returns_list and self.parallel.timeout is None else _ThreadCall()

    def stop_call(self) -> None:
        """End a call of `joblib.Parallel`."""
        call, self._call = self._call, None
        if call is not None:
            call.end()
        self._batches = None
        if self._arrays is not None:
            self._arrays.end_call()

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> Task:
        """Submit a batch of calls; `callback` is called with the returned task when the batch has ended."""
        call, workers, arrays = self._call, self._workers, self._arrays
        assert call is not None and workers is not None and arrays is not None
        if self._batches is None:
            self._batches = Batches(workers.main, arrays)
        # While the caller submits the first batches, nothing else calls the trackers of those that have ended.
        call.call_ended()
        task = Task(callback or _ignore, call.deliver, arrays, self._text_of_calls(func))
        arrays.begin()
        try:
            content = self._batches.pickled(func)
        except Exception as problem:
            arrays.pickled()
            task.failure = problem
        else:
            task.files = arrays.pickled()
            workers.submit(task, call.notifies, *content)
        call.add(task)
        return task

    def _text_of_calls(self, batch: Any) -> str:
        """Return the name of the function that a batch calls first, and the indexes of its calls, for people."""
        items = getattr(batch, "items", None)
        if not isinstance(items, list) or not items:
            return name_of_function(batch)
        # joblib counts a batch before it submits it.
        counted: Any = getattr(self.parallel, "n_dispatched_tasks", None)
        first = counted - len(items) if isinstance(counted, int) else None
        return text_of_task(name_of_function(items[0][0]), first, len(items))

    # The name of `submit` before joblib 1.6.
    apply_async = submit

    def retrieve_result_callback(self, task: Task) -> Any:
        """Return the results of a batch that has ended, or raise its exception."""
        error: BaseException | None = None
        try:
            return task.result()
        except BaseException as problem:
            error = problem
            raise
        finally:
            if self._workers is not None:
                self._workers.ended(task, error)
            del error

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """Wait for the tasks of a call that returns a list, before joblib fetches the results."""
        if self._call is not None:
            self._call.wait(lambda: getattr(self.parallel, "_aborting", False))
        yield


def _ignore(task: Task) -> None:
    pass


def register(make_default: bool = False) -> None:
    """Register the backend in this process."""
    register_parallel_backend("maniple", ManipleBackend, make_default=make_default)
