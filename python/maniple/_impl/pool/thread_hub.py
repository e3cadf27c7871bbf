"""The hub of a pool of threads: the counterpart of `Hub` without processes.

Nothing is pickled; the caller gets the exception object that the task raised.

One queue has the entries of all calls, in the order of the calls: ``(job, item, index)``. Each thread of the pool takes the next entry
and calls ``job.run(item, index)`` (`thread_jobs.py`, `thread_stream_jobs.py`). An entry without a job, `_END`, follows the last one after
`close`: the thread that takes it puts it back for the next thread, and ends.

A caller that waits makes a *bell*, adds it to the bells of its job, checks the job once more, and waits. A thread of the pool stores the
outcome first, and then looks for bells. So it sees the bell, or the caller sees the outcome.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from ... import util
from ..._maniple import Hold
from ..sync.bells import Bells, Letter
from .feeders import Feeders, new_queue
from .no_memory import NO_MEMORY, pause
from .payload import WorkerLostError, cancelled
from .thread_jobs import Call, Job, MapCall
from .thread_stats import Ended, Row, stats_of_threads
from .thread_stream_jobs import ReadJob, StreamJob
from .thread_streams import ThreadStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .stats import PoolStats
    from .thread_terms import ThreadTerms
    from .threads import ThreadWorkers

__all__ = ["ThreadHub"]

_END = (None, None, 0)


class Elsewhere:
    """Replaces the lock and the queue in a forked child, which has no copies of the pool's threads: using the pool raises an error."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Raise RuntimeError."""
        raise RuntimeError(
            "the threads of this pool are in the process that forked this one; a forked child cannot use "
            "them; make another pool in the child"
        )

    __enter__ = acquire

    def put(self, _: object) -> None:
        """Raise RuntimeError."""
        self.acquire()

    def release(self) -> None:
        """Do nothing: this is never acquired."""

    def __exit__(self, *exc_info: object) -> None:
        pass


class ThreadHub:
    """Distributes tasks to threads.

    The threads of callers hold the lock by a `Hold`, since signal handlers may raise there. The pool's own threads hold it by ``with``,
    which costs less.
    """

    def __init__(self, workers: ThreadWorkers) -> None:
        self.workers = workers
        self.lock: Any = threading.RLock()
        util.register_after_fork(self, ThreadHub._lose_threads)
        self.tasks: Any = new_queue()
        self.feeders = Feeders(self.feed)
        #: the jobs that are not over, by number
        self.jobs: dict[int, Job] = {}
        #: the accounts of the jobs that are over
        self.ended = Ended()
        #: the streams that no thread feeds, as far as is known, by number
        self.unfed: dict[int, StreamJob] = {}
        self.numbers = itertools.count(1)
        self.closed = False
        #: the bells of the threads that wait for the end of the pool's threads
        self.bells = Bells()
        #: why no thread is left
        self.lost: Callable[[], BaseException] | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is a forked child, which has no copies of the threads."""
        return isinstance(self.lock, Elsewhere)

    # ---- calls ----

    def call(self, func: Any, args: Any, kwds: Any, told: bool, terms: ThreadTerms | None = None) -> Call:
        if terms is not None:
            func = terms.applied_to(func)
        job = Call(self, func, args, kwds, told)
        self._enter(job, 1)
        return job

    def _enter(self, job: Job, entries: int) -> None:
        """Submit a job whose tasks all exist; each of the entries lets a thread take part."""
        try:
            self.jobs[job.job] = job
            for _ in range(entries):
                self.tasks.put((job, None, 0))
        except BaseException:
            self.jobs.pop(job.job, None)
            raise
        if self.lost is not None:
            self._fail_all(self.lost)

    def map(
        self, func: Any, items: Any, star: bool, chunksize: int | None, told: bool, terms: ThreadTerms | None = None
    ) -> MapCall:
        if terms is not None:
            func = terms.applied_to(func)
        threads = len(self.workers.processes)
        if chunksize is None:
            chunksize = max(1, -(-len(items) // (4 * threads)))
        job = MapCall(self, func, items, star, chunksize, told)
        job.returns = terms is not None and terms.returns
        # An empty input needs an entry, so that its end is processed like any other.
        self._enter(job, max(1, min(threads, job.parts)))
        return job

    def stream(
        self,
        func: Any,
        items: Any,
        external: bool,
        star: bool,
        chunksize: int,
        window: int,
        ordered: bool,
        terms: ThreadTerms | None = None,
    ) -> ThreadStream:
        if terms is not None:
            func = terms.applied_to(func)
        if not external:
            read = ReadJob(self, func, star, chunksize, items, ordered)
            # If a signal handler raises, the end of the stream cancels the job.
            stream = ThreadStream(self, read)
            if self.closed:  # by another thread, after the caller has looked
                raise ValueError("Pool not running")
            if not read.over:
                self._enter(read, min(len(self.workers.processes), len(read.open)))
            return stream
        job = StreamJob(self, func, star, chunksize, window, ordered)
        # Made first: if a signal handler raises, its end cancels the job.
        stream = ThreadStream(self, job)
        job.stream = weakref.ref(stream)
        if self.unfed or self.is_elsewhere:  # which raises here, and not in a feeder
            with Hold(self.lock):
                self._drop_orphans()
        self.unfed[job.job] = self.jobs[job.job] = job
        # In this order: `close` sets the attribute first, and then looks for streams whose input is open.
        if self.closed:  # by another thread, after the caller has looked
            stream.cancel()
            raise ValueError("Pool not running")
        if self.lost is not None:
            self._fail_all(self.lost)
        return stream

    def _streams(self) -> list[StreamJob]:
        return [job for job in list(self.jobs.values()) if isinstance(job, StreamJob)]

    def _drop_orphans(self) -> None:
        """Forget the streams whose making a signal handler interrupted before a thread fed them. The end of such a
        stream does so, unless a handler interrupts it at its first step, or a reference to the handler's exception
        keeps the stream."""
        for number, job in list(self.unfed.items()):
            if job.is_fed or number not in self.jobs:
                self.unfed.pop(number, None)
            elif not self.workers.opening or job.stream() is None:
                job.abandon(True)

    def feed(self, number: int, iterator: Iterator[Any]) -> None:
        """Make tasks of the items of `iterator` for the stream `number`. A feeder calls this method."""
        job = self.jobs.get(number)
        if isinstance(job, StreamJob):  # else the stream was dropped already
            job.feed(iterator)

    def abandon(self, job: StreamJob, begun: bool) -> None:
        """Drop the outcomes of a job, which no caller takes any more; if `begun`, also cancel its tasks that have not begun."""
        if not self.is_elsewhere:
            job.abandon(begun)

    # ---- waits ----

    def wait_until(self, bells: Bells, found: Callable[[], Any], timeout: float | None) -> Any:
        """Wait until `found`, which is called with the lock held, returns a true value; return its last value."""
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            with Hold(self.lock):
                if result := found():
                    return result
                bell = bells.new()
                # A thread that stores an outcome after this check rings the bell.
                result = found()
                left = None if limit is None else limit - time.monotonic()
                if result or (left is not None and left <= 0):
                    bells.take_back(bell)
                    return result
            self._wait_for(bells, bell, left)

    def _wait_for(self, bells: Bells, bell: Any, timeout: float | None) -> None:
        lock = self.lock
        if not lock._is_owned():
            bells.wait(bell, timeout)
            return
        # A signal handler waits that has interrupted this thread while it had the lock. The threads that end the call need the lock. They
        # find what they would find if the handler had raised; the interrupted step looks again at what may have changed.
        state = lock._release_save()
        try:
            bells.wait(bell, timeout)
        finally:
            lock._acquire_restore(state)

    def tell(self, bells: Bells, found: Callable[[], Any], letter: Letter) -> bool:
        """Have `letter` posted with the bells; return True, without that, if `found` returns a true value."""
        with Hold(self.lock):
            if found():
                return True
            bells.append(letter)
            # A thread that stores an outcome after this check rings the bell.
            if is_there := bool(found()):
                bells.take_back(letter)
            return is_there

    def ring(self, bells: Bells) -> None:
        """Wake the threads that wait for `bells`."""
        with Hold(self.lock):
            bells.ring()

    # ---- threads ----

    def serve(self, row: Row) -> None:
        """Run the tasks in a thread of the pool, until the pool is closed and no task is left. The thread counts in `row`."""
        get = self.tasks.get
        while True:
            try:
                job, item, index = get()
            except (MemoryError, RuntimeError):  # a queue of another package may make a lock: "can't allocate lock"
                pause()
                continue
            if job is None:
                break
            while True:
                try:
                    job.run(item, index, row)
                    break
                except NO_MEMORY:
                    pause()
            del job, item
        while True:
            # Calls may have come after the end.
            try:
                job, item, index = self.tasks.get_nowait()
            except queue.Empty:
                break
            while job is not None:
                try:
                    job.run(item, index, row)
                    break
                except NO_MEMORY:
                    pause()
            del job, item
        self.tasks.put(_END)

    # ---- state ----

    def open_jobs(self) -> dict[int, int]:
        return {number: job.items_done() for number, job in list(self.jobs.items())}

    def leave(self, job: Job) -> None:
        """Take a job that ends out of the table of open jobs. The caller holds the lock, and repeats an interrupted call."""
        if job.job in self.jobs:
            self.ended.add(job, self.lost is not None and not self.closed)
            self.jobs.pop(job.job, None)

    def stats(self) -> PoolStats:
        """Return the counters of the pool."""
        return stats_of_threads(self)

    def waiting(self) -> tuple[int, int]:
        """Return the number of jobs that no thread has begun, and 0: threads get no tasks in advance."""
        return sum(not job.begun and not job.over for job in list(self.jobs.values())), 0

    def cancel_all(self, kill: bool) -> None:
        """Cancel the tasks of all calls that have not begun.

        Raises:
            ValueError: `kill`.
        """
        if kill:
            raise ValueError(
                "a thread cannot be ended: cancel_all() without kill=True cancels the tasks that have not begun"
            )
        for job in list(self.jobs.values()):
            job.withdraw()

    def kick(self) -> None:
        """Do nothing: no thread has to be woken."""

    # ---- the end ----

    def _lose_threads(self) -> None:
        self.lock = self.tasks = Elsewhere()
        self.feeders = Feeders(self.feed)
        self.workers.lock._at_fork_reinit()  # type: ignore[attr-defined]  # as `threading` does after a fork

    def close(self) -> None:
        if self.is_elsewhere:
            return
        with Hold(self.lock):
            self.closed = True
            self._drop_orphans()
            for job in self._streams():
                job.feeder.ring()
            self.feeders.end()
            self.end_if_closed()

    def end_if_closed(self) -> None:
        """Let the threads end after the tasks that are in the queue, if the pool is closed and no more tasks follow."""
        if self.closed and not any(job.input_open for job in self._streams()):
            self.tasks.put(_END)

    def terminate(self) -> None:
        if self.is_elsewhere:
            return
        with Hold(self.lock):
            self.closed = True
            self._fail_all(cancelled)
            self.feeders.end()
            self.end_if_closed()

    def _fail_all(self, why: Callable[[], BaseException]) -> None:
        """Fail all jobs, and run their callbacks if no thread is left."""
        failed: list[Job] = []
        with Hold(self.lock):
            for job in list(self.jobs.values()):
                if job.fail(why()):
                    failed.append(job)
        if self.lost is not None:
            for job in failed:
                if job.told:
                    self.workers.completed(job.job)

    def lose(self, why: str) -> None:
        """Fail all calls, also later ones: no thread is left."""
        self.lost = cancelled if self.closed else lambda: WorkerLostError(why, 0, None, "", "")
        self._fail_all(self.lost)
