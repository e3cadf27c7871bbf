"""The calls of `imap` in a pool of threads: the job, whose tasks a feeder makes, and the stream, which passes the results to the caller."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from operator import length_hint

from ..._maniple import Hold
from ...context import TimeoutError
from ..sync.bells import Bells, Letter
from .thread_jobs import Job, function_of_task, pause, repeat_without_memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._maniple import Mailbox
    from .thread_hub import ThreadHub

    # whether the task succeeded, its result or results or exception, and of a failed task of several items their number
    Outcome = tuple[bool, Any] | tuple[bool, Any, int]

__all__ = ["StreamJob", "ThreadStream"]

# The outcomes taken at once, at most; and the tasks that the feeder makes between two checks, if no window limits them.
_MOST_AT_ONCE = 256


def _failed(error: BaseException, task: Any, chunksize: int) -> Outcome:
    return (False, error) if chunksize == 1 else (False, error, len(task))


class StreamJob(Job):
    """A call of `imap` or `imap_unordered`."""

    __slots__ = (
        "abandoned", "arrivals", "chunksize", "fed", "feeder", "input_open", "is_fed", "open", "ordered", "outcomes", "stream", "window",
    )  # fmt: skip

    bells: Bells

    def __init__(
        self, hub: ThreadHub, func: Callable[..., Any], star: bool, chunksize: int, window: int, ordered: bool
    ) -> None:
        super().__init__(hub, function_of_task(func, star, chunksize), False)
        self.bells = Bells()
        self.chunksize, self.ordered = chunksize, ordered
        #: the number of items that may be in progress or wait to be taken; None means no limit
        self.window: int | None = window
        # The outcomes by task, or, if the results are not ordered, in the order of their arrival.
        self.outcomes: dict[int, Outcome] = {}
        self.arrivals: deque[Outcome] = deque()
        #: has an element for each task that has not ended
        self.open: deque[None] = deque()
        self.input_open = True
        #: the number of items in tasks
        self.fed = 0
        #: the bell of the feeder while it waits for room
        self.feeder = Bells()
        #: whether no caller takes the outcomes
        self.abandoned = False
        #: a weak reference to the stream, and whether a thread feeds it
        self.stream: Callable[[], ThreadStream | None] = lambda: None
        self.is_fed = False

    def run(self, task: Any, index: int) -> None:
        self.begun = True
        outcome: Outcome | None = None  # of a cancelled task
        if not self.cancelled:
            try:
                outcome = (True, self.func(task))  # type: ignore[misc]
            except BaseException as error:
                outcome = repeat_without_memory(_failed, error, task, self.chunksize)
        if outcome is not None and not self.abandoned:
            try:
                if self.ordered:
                    self.outcomes[index] = outcome
                else:
                    self.arrivals.append(outcome)
            except MemoryError:
                repeat_without_memory(self._store, index, outcome)
        self.open.pop()
        if self.bells:
            repeat_without_memory(self.hub.ring, self.bells)
        # The order matters: `close_input` makes the same checks in the opposite order.
        if not self.open and not self.input_open:
            self.finish()
        # The traceback of an exception refers to this frame, and the frame would refer to the exception.
        del self, outcome

    def _store(self, index: int, outcome: Outcome) -> None:
        if self.ordered:
            self.outcomes[index] = outcome
        else:
            self.arrivals.append(outcome)

    def cancel(self) -> None:
        self.cancelled, self.input_open = True, False
        self.feeder.ring()

    def items_done(self) -> int:
        # The last task may have fewer items than the others. It counts as if it ended last.
        return self.fed if self.over else max(0, self.fed - len(self.open) * self.chunksize)

    # ---- the input ----

    def room(self) -> int:
        """Return the number of items that tasks may still be made of."""
        # No longer referred to after this call: the input may block, and the caller may drop the stream meanwhile.
        stream = self.stream()
        window = self.window
        if self.hub.closed or window is None or stream is None:
            return _MOST_AT_ONCE * self.chunksize
        return window - (self.fed - stream.given)

    def _may_go_on(self) -> bool:
        return self.room() > 0 or not self.input_open

    def feed(self, iterator: Iterator[Any]) -> None:
        """Make tasks of the items of `iterator`, in the feeder's thread, as long as there is room for more."""
        size, put, count = self.chunksize, self.hub.tasks.put, self.open.append
        tasks: Iterable[Any] = iterator if size == 1 else iter(lambda: list(itertools.islice(iterator, size)), [])
        failure: BaseException | None = None
        index = left = 0
        while not left and failure is None:
            if not self.input_open:
                return
            try:
                if not self._may_go_on():
                    self.hub.wait_until(self.feeder, self._may_go_on, None)
            except (MemoryError, RuntimeError):  # RuntimeError: "can't allocate lock"
                pause()
                continue
            left = max(1, self.room() // size)
            try:
                for task in itertools.islice(tasks, left):
                    if not self.input_open:
                        return
                    try:
                        count(None)
                    except MemoryError:
                        repeat_without_memory(count, None)
                    try:
                        put((self, task, index))
                    except MemoryError:
                        repeat_without_memory(self._put, task, index)
                    index += 1
                    left -= 1
                    self.fed += 1 if size == 1 else len(task)
                    task = None  # the input may block
            except BaseException as error:
                failure = error
        if failure is not None and not self.abandoned:
            repeat_without_memory(self._store, index, (False, failure))
        repeat_without_memory(self.close_input)
        # The traceback of the exception refers to this frame.
        del self, failure

    def _put(self, task: Any, index: int) -> None:
        self.hub.tasks.put((self, task, index))

    def close_input(self) -> None:
        """Make no more tasks. If a signal handler interrupts the call, the caller repeats it."""
        with Hold(self.hub.lock):
            self.input_open = False
            if not self.open:
                self.over = True
            if self.over:
                self.func = None
                self.hub.jobs.pop(self.job, None)
                self.bells.ring()
            self.feeder.ring()
            self.hub.end_if_closed()

    def abandon(self, begun: bool) -> None:
        """Drop the outcomes, which no caller takes any more; if `begun`, also cancel the tasks that have not begun."""
        with Hold(self.hub.lock):
            self.abandoned, self.window = True, None
            self.outcomes.clear()
            self.arrivals.clear()
            if begun:
                self.cancelled = True
                self.close_input()
            else:
                self.feeder.ring()


class Batch:
    """The last outcomes that a stream has taken.

    A stream replaces its batch in one step, because a signal handler may raise between two steps.
    """

    __slots__ = ("index", "items", "left", "parts", "taken")

    def __init__(
        self, taken: list[Outcome], left: deque[Any], parts: list[Iterator[Any]], items: int, index: int
    ) -> None:
        #: the outcomes that the job may still hold although they are taken
        self.taken = taken
        #: the elements that the caller has not taken: results, exceptions, or iterators over the results of a task
        self.left = left
        #: all of the iterators
        self.parts = parts
        #: the number of items up to the end of the batch
        self.items = items
        #: the task after the batch; -1 after the last one
        self.index = index


class ThreadStream:
    """The results of `imap` and `imap_unordered`."""

    #: the caller may take all results of the deque that `_ready` returns
    gives_ahead = True

    def __init__(self, hub: ThreadHub, job: StreamJob, external: bool) -> None:
        self._hub, self._job = hub, job
        self.job = job.job
        self._is_fed = not external
        # The results of a batch are taken without a call of this object, which wakes the feeder: a quarter of the window.
        self._most = max(1, min(_MOST_AT_ONCE, (job.window or 4 * _MOST_AT_ONCE) // (4 * job.chunksize)))
        self._batch = Batch([], deque(), [], 0, 0)

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
        """The number of items whose outcomes the caller has taken."""
        batch = self._batch
        if not batch.parts:
            return batch.items - len(batch.left)
        return batch.items - sum(map(length_hint, batch.parts)) - sum(len(one) == 2 for one in batch.left.copy())

    def progress(self) -> tuple[int, int, bool]:
        """Return the number of items with an outcome, the number of taken outcomes, and whether the job has ended."""
        return self._job.items_done(), self.given, self._job.over

    def _ready(self, timeout: float | None) -> deque[tuple[bool, Any]]:
        """Wait for results, and return them as pairs: whether the call succeeded, and its result or exception. The caller takes the first.

        Raises:
            TimeoutError: there is no result after `timeout` seconds.
            StopIteration: there are no more results.
        """
        if left := self._batch.left:
            return left
        outcomes: deque[tuple[bool, Any]] | None = self._hub.wait_until(self._job.bells, self._look, timeout)
        if outcomes is None:
            raise TimeoutError(f"no result arrived within {timeout} seconds")
        return outcomes

    def tell(self, mailbox: Mailbox, number: int) -> bool:
        """Post `number` when there is a result, or no further one; return True, and post nothing, if that is so already."""
        return self._hub.tell(self._job.bells, self._has_news, Letter(mailbox, number))

    def _has_news(self) -> bool:
        try:
            return bool(self._batch.left or self._look())
        except StopIteration:
            return True

    def _look(self) -> deque[tuple[bool, Any]] | None:
        """Return the available results; None if there are none yet. The caller holds the hub's lock."""
        job = self._job
        while not self._batch.left:
            # Read first: outcomes that arrive after this step are found by the next call.
            is_over = job.over
            is_new = self._take()
            if job.feeder:
                self._hub.ring(job.feeder)
            if is_new:
                continue
            if not is_over:
                return None
            batch = self._batch
            if job.failure is None or batch.index < 0:
                raise StopIteration
            # The tasks that have not ended count as one failed task.
            self._batch = Batch([], deque([(False, job.failure)]), [], batch.items + 1, -1)
        return self._batch.left

    def _take(self) -> bool:
        """Take the outcomes that have arrived, and return whether there were any."""
        index, items = self._batch.index, self._batch.items
        if index < 0:
            return False
        if self._batch.taken:
            self._forget()
        job = self._job
        left: deque[Any]
        parts: list[Iterator[Any]] = []
        found: list[Any]
        if job.ordered:
            outcomes = job.outcomes
            if index not in outcomes:
                return False
            found = list(map(outcomes.get, range(index, index + min(self._most, len(outcomes)))))
            if not all(found):
                del found[found.index(None) :]
        else:
            arrivals = job.arrivals
            found = list(map(arrivals.__getitem__, range(min(self._most, len(arrivals)))))
            if not found:
                return False
        if job.chunksize == 1:
            left = deque(found)
            items += len(found)
        else:
            left = deque()
            for fine, value, *count in found:
                if fine:
                    parts.append(iter(value))
                    left.append((True, parts[-1], True))
                else:
                    left.append((False, value))
                # A failed task has a single outcome for all of its items.
                items += len(value) if fine else count[0] if count else 1
        self._batch = Batch(found, left, parts, items, index + len(found))
        self._forget()
        return True

    def _forget(self) -> None:
        """Remove the taken outcomes from the job. If a signal handler interrupts the call, the next call continues."""
        batch, job = self._batch, self._job
        taken, index = batch.taken, batch.index
        # Each removal of several outcomes is one step.
        if job.ordered:
            deque(map(job.outcomes.pop, range(index - len(taken), index), itertools.repeat(None)), maxlen=0)
        elif job.arrivals and job.arrivals[0] is taken[0]:
            deque(itertools.starmap(job.arrivals.popleft, itertools.repeat((), len(taken))), maxlen=0)
        batch.taken = []
