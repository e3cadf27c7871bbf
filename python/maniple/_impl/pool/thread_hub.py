"""The hub of a pool of threads, and the ticket and the stream of a call: the counterparts of `Hub`, `Ticket` and `Stream` without processes.

Nothing is pickled; the caller gets the exception object that the task raised.
"""

from __future__ import annotations

import collections
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from ... import util
from ..._maniple import Hold
from ...context import TimeoutError
from ..sync.bells import Bells
from .payload import WorkerLostError, cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .threads import ThreadWorkers

__all__ = ["ThreadHub"]

# Seconds after which a thread that had no memory for a step repeats it.
_PAUSE = 0.02
# The tasks of a stream that are made at once, at most, from inputs of these types, which never block; and the outcomes taken at once.
_MOST_AT_ONCE = 64
_PROMPT: set[type] = {type(iter(kind())) for kind in (list, tuple)} | {type(iter(range(0)))}
_NO_ROOM = "there was no memory for a task's outcome"


def repeat_without_memory(step: Callable[..., Any], *args: Any) -> Any:
    """Call ``step(*args)`` until it does not raise MemoryError, and return its result."""
    while True:
        try:
            return step(*args)
        except MemoryError:
            time.sleep(_PAUSE)


class Job:
    """One call. Its hub's condition guards all attributes."""

    def __init__(
        self, number: int, func: Callable[..., Any], star: bool, window: int | None = None, chunksize: int = 1
    ) -> None:
        self.number = number
        self.func: Callable[..., Any] | None = func
        self.star = star
        self.window = window
        self.chunksize = chunksize
        # task -> whether it succeeded, its results or exception, and its number of items
        self.outcomes: dict[int, tuple[bool, Any, int]] = {}
        self.arrivals: collections.deque[int] = collections.deque()
        self.made = 0
        self.ended = 0
        self.items: int | None = None
        self.items_done = 0
        self.input_open = True
        #: the number of items in tasks
        self.fed = 0
        self.told = False
        # `abandoned`: no caller takes the outcomes. `cancelled`: tasks that have not begun do not begin.
        self.abandoned = self.cancelled = False
        #: of `imap`: a weak reference to the stream, and whether a thread feeds it
        self.stream: Callable[[], Any] | None = None
        self.is_fed = False
        #: whether the feeder of a stream waits, or is about to check whether it has to
        self.waits_for_room = False

    @property
    def over(self) -> bool:
        return not self.input_open and self.ended == self.made

    def run(self, chunk: list[Any]) -> tuple[bool, Any]:
        func = self.func
        assert func is not None
        try:
            return True, [func(*item) for item in chunk] if self.star else [func(item) for item in chunk]
        except BaseException as error:
            return False, error


class Elsewhere:
    """Replaces the condition in a forked child, which has no copies of the pool's threads: using the pool raises an error."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Raise RuntimeError."""
        raise RuntimeError(
            "the threads of this pool are in the process that forked this one; a forked child cannot use "
            "them; make another pool in the child"
        )

    __enter__ = acquire

    def release(self) -> None:
        """Do nothing: this is never acquired."""

    def __exit__(self, *exc_info: object) -> None:
        pass

    def notify_all(self) -> None:
        """Do nothing: no thread waits here."""


class Changed(threading.Condition):
    """The condition on which the pool's threads wait with `wait_for`, and callers with `wait_steadily`, because signal handlers may raise in
    the callers' threads."""

    def __init__(self, lock: threading.RLock) -> None:
        super().__init__(lock)
        self._mutex = lock
        self._bells = Bells()

    def notify_all(self) -> None:
        """Wake all waiting threads."""
        if self._waiters:  # type: ignore[attr-defined]  # the pool's threads; checked first since each task calls this method
            super().notify_all()
        self.ring()

    def ring(self) -> None:
        """Wake the waiting callers alone."""
        if self._bells:
            self._bells.ring()

    def wait_steadily(self, found: Callable[[], Any], timeout: float | None) -> Any:
        """Wait until `found`, which is called with the lock held, returns a true value; return its last value."""
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            with Hold(self._mutex):
                result = found()
                left = None if limit is None else limit - time.monotonic()
                if result or (left is not None and left <= 0):
                    return result
                bell = self._bells.new()
            self._bells.wait(bell, left)


class ThreadHub:
    """Distributes tasks to threads.

    The threads of callers hold the lock by a `Hold`, since signal handlers may raise there. The pool's own threads hold it by ``with``,
    which costs less.
    """

    def __init__(self, workers: ThreadWorkers) -> None:
        self.workers = workers
        self.lock: Any = threading.RLock()
        self.changed: Any = Changed(self.lock)
        util.register_after_fork(self, ThreadHub._lose_threads)
        self.tasks: collections.deque[tuple[Job, int, list[Any]]] = collections.deque()
        self.jobs: dict[int, Job] = {}
        self.numbers = itertools.count(1)
        self.closed = False
        #: why no thread is left, if the initializers of all have failed
        self.lost: str | None = None

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is a forked child, which has no copies of the threads."""
        return isinstance(self.changed, Elsewhere)

    # ---- calls ----

    def call(self, func: Any, args: Any, kwds: Any, told: bool) -> ThreadTicket:
        def whole_call(_: None) -> Any:
            return func(*args, **kwds)

        return ThreadTicket(self, self._submit(whole_call, [[None]], 1, False, told), single=True)

    def map(self, func: Any, items: Any, star: bool, chunksize: int | None, told: bool) -> ThreadTicket:
        if chunksize is None:
            chunksize = max(1, -(-len(items) // (4 * len(self.workers.processes))))
        chunks = [list(items[at : at + chunksize]) for at in range(0, len(items), chunksize)]
        # An empty input makes one empty task, so that its end is processed like any other.
        return ThreadTicket(self, self._submit(func, chunks or [[]], len(items), star, told), single=False)

    def _submit(self, func: Any, chunks: list[list[Any]], items: int, star: bool, told: bool) -> Job:
        job = Job(next(self.numbers), func, star)
        job.items = items
        job.input_open, job.made, job.told = False, len(chunks), told
        tasks = [(job, index, chunk) for index, chunk in enumerate(chunks)]
        with Hold(self.lock):
            # The order matters: if a signal handler raises between the two steps, the tasks run, and `close` waits for
            # no job without tasks.
            self.tasks.extend(tasks)
            self.jobs[job.number] = job
            ended = self._fail_if_lost()
            self.changed.notify_all()
        for number in ended:
            self.workers.completed(number)
        return job

    def stream(
        self, func: Any, items: Any, external: bool, star: bool, chunksize: int, window: int, ordered: bool
    ) -> ThreadStream:
        job = Job(next(self.numbers), func, star, window, chunksize)
        # Made first: if a signal handler raises, its end cancels the job.
        stream = ThreadStream(self, job, ordered, external)
        job.stream = weakref.ref(stream)
        with Hold(self.lock):
            self._drop_orphans()
            self.jobs[job.number] = job
            self._fail_if_lost()
        return stream

    def _drop_orphans(self) -> None:
        """Forget the streams whose making a signal handler interrupted before a thread fed them. The end of such a
        stream does so, unless a handler interrupts it at its first step, or a reference to the handler's exception
        keeps the stream."""
        for job in [job for job in self.jobs.values() if job.stream is not None and not job.is_fed]:
            if not self.workers.opening or (job.stream is not None and job.stream() is None):
                job.cancelled, job.input_open = True, False
                self._forget_if_over(job)

    def feed(self, number: int, iterator: Iterator[Any], star: bool) -> None:
        job = self.jobs.get(number)
        if job is None:
            return  # the stream was dropped already
        while True:
            try:
                with self.lock:
                    job.waits_for_room = True
                    if job.input_open and self._room(job) <= 0:
                        self.changed.wait_for(lambda: self._room(job) > 0 or not job.input_open)
                    job.waits_for_room = False
            except (MemoryError, RuntimeError):  # RuntimeError: "can't allocate lock"
                time.sleep(_PAUSE)
                continue
            if not job.input_open:
                return
            chunks, failure, is_last = self._read(job, iterator)
            is_in = False
            while True:
                try:
                    with self.lock:
                        if not is_in:
                            self._take_in(job, chunks, failure, is_last)
                            is_in = True
                        if not (is_last and self._forget_if_over(job)):
                            self.changed.notify_all()
                    break
                except MemoryError:
                    time.sleep(_PAUSE)

    def _read(self, job: Job, iterator: Iterator[Any]) -> tuple[list[list[Any]], BaseException | None, bool]:
        """Read the items of a stream's next task; of several tasks, if the input never blocks.

        Return them, the exception that ended the input, and whether the input has ended.
        """
        most = min(_MOST_AT_ONCE, self._room(job) // job.chunksize) if type(iterator) in _PROMPT else 1
        chunks: list[list[Any]] = []
        try:
            while True:
                chunk = list(itertools.islice(iterator, job.chunksize))
                if not chunk:
                    return chunks, None, True
                chunks.append(chunk)
                if len(chunks) >= most:
                    return chunks, None, False
        except BaseException as error:
            return chunks, error, True

    def _take_in(self, job: Job, chunks: list[list[Any]], failure: BaseException | None, is_last: bool) -> None:
        """Make tasks of the next items of a stream, and record the end of its input. All or nothing: there may be no memory."""
        if not job.input_open:
            return
        made, fed, before = job.made, job.fed, len(self.tasks)
        try:
            for chunk in chunks:
                self.tasks.append((job, made, chunk))
                made += 1
                fed += len(chunk)
            if failure is not None:
                self._note(job, made, (False, failure))
                made += 1
        except MemoryError:
            while len(self.tasks) > before:
                self.tasks.pop()
            raise
        job.made, job.fed, job.input_open = made, fed, not is_last

    def _room(self, job: Job) -> int:
        """Return the number of items that a stream may still make tasks of."""
        # No longer referred to after this call: the input may block, and the caller may drop the stream meanwhile.
        stream = job.stream() if job.stream is not None else None
        if self.closed or job.window is None or stream is None:
            return _MOST_AT_ONCE * job.chunksize
        return int(job.window - (job.fed - stream.given))

    # ---- threads ----

    def serve(self) -> None:
        """Run the tasks in a thread of the pool.

        A thread that has no memory for a step repeats the step: the task that it has taken would have no outcome otherwise.
        """
        while True:
            try:
                with self.lock:
                    if not self.tasks:
                        self.changed.wait_for(lambda: self.tasks or (self.closed and not self.jobs))
                        if not self.tasks:
                            return
                    job, index, chunk = self.tasks.popleft()
            except (MemoryError, RuntimeError):  # RuntimeError: "can't allocate lock"
                time.sleep(_PAUSE)
                continue
            outcome: tuple[bool, Any] | None = None
            try:
                outcome = (False, None) if job.cancelled else job.run(chunk)
            except MemoryError:
                pass
            finally:  # also if another thread raises an exception in this one
                is_noted = False
                while True:
                    try:
                        with self.lock:
                            if not is_noted:
                                self._note(job, index, outcome or (False, MemoryError(_NO_ROOM)), len(chunk))
                                is_noted = True
                            is_over = self._end(job)
                        break
                    except MemoryError:
                        time.sleep(_PAUSE)
            del outcome, chunk
            if is_over and job.told:
                self.workers.completed(job.number)
            del job

    def _end(self, job: Job) -> bool:
        """Wake the threads that wait for outcomes, and return whether the job has ended."""
        if job.input_open or job.ended != job.made:
            # The caller of `map` waits for the last task only.
            if job.stream is not None:
                self.changed.ring()
            return False
        return self._forget_if_over(job)

    def _note(self, job: Job, index: int, outcome: tuple[bool, Any], items: int = 0) -> None:
        # All or nothing: there may be no memory for a step.
        ended, done, noted = job.ended + 1, job.items_done + items, (*outcome, items)
        if not job.abandoned:
            job.outcomes[index] = noted
            try:
                job.arrivals.append(index)
            except MemoryError:
                del job.outcomes[index]
                raise
        job.ended, job.items_done = ended, done

    def abandon(self, job: Job, begun: bool) -> None:
        """Drop the outcomes of a job, which no caller takes any more; if `begun`, also cancel its tasks that have not begun."""
        if self.is_elsewhere:
            return
        with Hold(self.lock):
            job.abandoned, job.window = True, None
            job.outcomes.clear()
            if begun:
                job.cancelled, job.input_open = True, False
            self.changed.notify_all()
            self._forget_if_over(job)

    def _forget_if_over(self, job: Job) -> bool:
        if not job.over or job.number not in self.jobs:
            return False
        # There may be no memory for the first step; the others need none.
        self.changed.notify_all()
        job.func = None
        del self.jobs[job.number]
        return True

    # ---- state ----

    def open_jobs(self) -> dict[int, int]:
        with Hold(self.lock):
            return {number: job.items_done for number, job in self.jobs.items()}

    def waiting(self) -> tuple[int, int]:
        """Return the number of jobs that no thread has begun, and 0: threads get no tasks in advance."""
        with Hold(self.lock):
            waiting: dict[int, int] = {}
            for job, _, _ in self.tasks:
                waiting[job.number] = waiting.get(job.number, 0) + 1
            return sum(number in self.jobs and self.jobs[number].made == n for number, n in waiting.items()), 0

    def kick(self) -> None:
        """Do nothing: no thread has to be woken."""

    # ---- the end ----

    def _lose_threads(self) -> None:
        self.lock = self.changed = Elsewhere()
        self.workers.lock._at_fork_reinit()  # type: ignore[attr-defined]  # as `threading` does after a fork

    def close(self) -> None:
        if self.is_elsewhere:
            return
        with Hold(self.lock):
            self.closed = True
            self._drop_orphans()
            self.changed.notify_all()

    def terminate(self) -> None:
        if self.is_elsewhere:
            return
        with Hold(self.lock):
            self.closed = True
            self._fail_all(cancelled)
            self.changed.notify_all()

    def _fail_all(self, why: Callable[[], BaseException]) -> None:
        """Fail all jobs. The remaining tasks of a job count as one failed task, so that no caller waits for them."""
        self.tasks.clear()
        for job in self.jobs.values():
            job.input_open = False
            job.made = job.ended + 1
            self._note(job, job.made - 1, (False, why()))
        self.jobs.clear()

    def _fail_if_lost(self) -> list[int]:
        """If no thread is left, fail all jobs. Return the numbers of those whose callbacks the caller then runs without the lock."""
        if (why := self.lost) is None:
            return []
        told = [job.number for job in self.jobs.values() if job.told]
        self._fail_all(lambda: WorkerLostError(why, 0, None, "", ""))
        return told

    def lose(self, why: str) -> None:
        """Fail all calls, also later ones: no thread is left."""
        with Hold(self.lock):
            self.lost = why
            ended = self._fail_if_lost()
            self.changed.notify_all()
        for number in ended:
            self.workers.completed(number)


class ThreadTicket:
    """The outcome of a call."""

    def __init__(self, hub: ThreadHub, job: Job, single: bool) -> None:
        self._hub, self._job, self._single = hub, job, single
        self.job = job.number
        self._lock = threading.Lock()
        self._outcome: tuple[bool, Any] | None = None

    def ready(self) -> bool:
        return self._job.over

    def left(self) -> int:
        """Return the number of items without an outcome."""
        return 0 if self._job.over else (self._job.items or 0) - self._job.items_done

    def wait(self, timeout: float | None = None) -> bool:
        return bool(self._hub.changed.wait_steadily(lambda: self._job.over, timeout))

    def successful(self) -> bool:
        return self._collect()[0]

    def get(self, timeout: float | None = None) -> Any:
        if not self.wait(timeout):
            raise TimeoutError(f"the call has not ended after {timeout} seconds")
        fine, value = self._collect()
        if fine:
            return value
        raise value

    def _collect(self) -> tuple[bool, Any]:
        with Hold(self._lock):
            if self._outcome is None:
                outcomes = self._job.outcomes
                # The order matters: a signal handler may raise after any step.
                self._outcome = self._gathered([outcomes[index] for index in sorted(outcomes)])
                self._job.outcomes = {}
            return self._outcome

    def _gathered(self, outcomes: list[tuple[bool, Any, int]]) -> tuple[bool, Any]:
        values: list[Any] = []
        for fine, value, _ in outcomes:
            if not fine:
                return False, value
            values.extend(value)
        return True, values[0] if self._single else values


class ThreadStream:
    """The results of `imap` and `imap_unordered`."""

    #: the caller may take all results of the deque that `_ready` returns
    gives_ahead = True

    def __init__(self, hub: ThreadHub, job: Job, ordered: bool, external: bool) -> None:
        self._hub, self._job, self._ordered = hub, job, ordered
        self.job = job.number
        self._is_fed = not external
        # The results of a batch are taken without a call of this object, which wakes the feeder: a quarter of the window.
        self._most = max(1, min(_MOST_AT_ONCE, (job.window or 4 * _MOST_AT_ONCE) // (4 * job.chunksize)))
        # The tasks of the last taken results, the remaining results, the number of items up to their end, and the next task. It changes
        # in one step, because a signal handler may raise between two steps.
        self._batch: tuple[list[int], collections.deque[tuple[bool, Any]], int, int] = [], collections.deque(), 0, 0

    def __del__(self) -> None:
        try:
            if not self._job.over:
                self._hub.abandon(self._job, self.given > 0 or not self._is_fed)
        except BaseException:  # raised by a signal handler
            self._hub.abandon(self._job, self.given > 0 or not self._is_fed)
            raise

    def fed(self) -> None:
        """Record that a thread feeds the stream. A stream that is dropped before this call, because a handler
        interrupted its maker, is cancelled."""
        self._is_fed = self._job.is_fed = True

    def cancel(self) -> None:
        """Cancel the tasks that have not begun."""
        self._hub.abandon(self._job, True)

    @property
    def given(self) -> int:
        _, left, items, _ = self._batch
        return items - len(left)

    def progress(self) -> tuple[int, int, bool]:
        """Return the number of items with an outcome, the number of taken outcomes, and whether the job has ended."""
        return self._job.items_done, self.given, self._job.over

    def _arrived(self) -> tuple[list[int], collections.deque[tuple[bool, Any]], int, int] | None:
        """Forget the results of the last batch, and return the next batch; None if no result has arrived."""
        last, _, items, index = self._batch
        arrivals, outcomes = self._job.arrivals, self._job.outcomes
        for task in last:
            if not self._ordered and arrivals and arrivals[0] == task:
                arrivals.popleft()
            outcomes.pop(task, None)
        tasks: list[int] = []
        if self._ordered:
            while index in outcomes and len(tasks) < self._most:
                tasks.append(index)
                index += 1
        else:
            tasks.extend(itertools.islice(arrivals, self._most))
        if not tasks:
            return None
        results: collections.deque[tuple[bool, Any]] = collections.deque()
        for task in tasks:
            fine, value, count = outcomes[task]
            # A failed task has a single outcome for all of its items.
            before = len(results)
            results.extend([(True, one) for one in value] if fine else [(False, value)])
            items += max(count, len(results) - before)
        return tasks, results, items, index

    def _ready(self, timeout: float | None) -> collections.deque[tuple[bool, Any]]:
        """Wait for results, and return them as pairs: whether the call succeeded, and its result or exception. The caller takes the first.

        Raises:
            TimeoutError: there is no result after `timeout` seconds.
            StopIteration: there are no more results.
        """
        if left := self._batch[1]:
            return left
        outcomes: collections.deque[tuple[bool, Any]] | None = self._hub.changed.wait_steadily(self._look, timeout)
        if outcomes is None:
            raise TimeoutError(f"no result arrived within {timeout} seconds")
        return outcomes

    def _look(self) -> collections.deque[tuple[bool, Any]] | None:
        """Return the available results; None if there are none yet."""
        job = self._job
        while not self._batch[1]:
            batch = self._arrived()
            if job.waits_for_room:
                self._hub.changed.notify_all()
            if batch is None:
                if job.over and not job.outcomes:
                    raise StopIteration
                return None
            self._batch = batch
        return self._batch[1]
