"""The streams of `imap` in a pool of threads, which take outcomes from a job and pass the results to the caller."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from operator import length_hint

from ..._maniple import Hold
from ...context import TimeoutError
from ..sync.bells import Letter
from .no_memory import NO_MEMORY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._maniple import Mailbox
    from .thread_hub import ThreadHub
    from .thread_stream_jobs import Outcome, StreamJob

__all__ = ["ThreadStream"]


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


_NOTHING_TAKEN = Batch([], deque(), [], 0, 0)


class ThreadStream:
    """The results of `imap` and `imap_unordered`."""

    #: the caller may take all results of the deque that `_ready` returns
    gives_ahead = True

    # Of a stream for whose other attributes there was no memory.
    _job: StreamJob = None  # type: ignore[assignment]
    _batch = _NOTHING_TAKEN

    def __init__(self, hub: ThreadHub, job: StreamJob) -> None:
        self._hub = hub
        self._job = job

    def __del__(self) -> None:
        try:
            if self._job is not None and not self._job.over:
                self._hub.abandon(self._job, self.given > 0 or not self._job.is_fed)
        except NO_MEMORY:
            self._job.abandon_without_memory()
        except BaseException:  # raised by a signal handler
            self._hub.abandon(self._job, self.given > 0 or not self._job.is_fed)
            raise

    def fed(self) -> None:
        """Record that a thread feeds the stream. A stream that is dropped before this call, because a handler
        interrupted its maker, is cancelled."""
        self._job.is_fed = True
        self._hub.unfed.pop(self._job.job, None)

    def cancel(self) -> None:
        """Cancel the tasks that have not begun."""
        self._hub.abandon(self._job, True)

    @property
    def job(self) -> int:
        """The number of the job."""
        return self._job.job

    @property
    def given(self) -> int:
        """The number of items whose outcomes the caller has taken."""
        batch = self._batch
        if not batch.parts:
            return batch.items - len(batch.left)
        return batch.items - sum(map(length_hint, batch.parts)) - sum(len(one) == 2 for one in batch.left.copy())

    def progress(self) -> tuple[int, int, bool]:
        """Return the number of items with an outcome, the number of taken outcomes, and whether the job has ended."""
        job, batch = self._job, self._batch
        given = self.given if batch.parts else batch.items - len(batch.left)
        return job.fed if job.over else job.items_done(), given, job.over

    def _ready(self, timeout: float | None) -> deque[tuple[bool, Any]]:
        """Wait for results, and return them as pairs: whether the call succeeded, and its result or exception. The caller takes the first.

        Raises:
            TimeoutError: there is no result after `timeout` seconds.
            StopIteration: there are no more results.
        """
        if left := self._batch.left:
            return left
        job = self._job
        if job.over and job.failure is None:
            if self._batch.index == job.length:
                raise StopIteration
            if job.ordered and job.chunksize == 1 and (all_left := self._all()):
                return all_left
        with Hold(self._hub.lock):
            outcomes = self._look()
        if outcomes is None:
            outcomes = self._hub.wait_until(job.own_bells(), self._look, timeout)
        if outcomes is None:
            raise TimeoutError(f"no result arrived within {timeout} seconds")
        return outcomes

    def _all(self) -> deque[tuple[bool, Any]] | None:
        """Take all outcomes of a job that is over, without the lock.

        Return None if the stream has taken some, if there are too many, or if a task was cancelled."""
        job, length = self._job, self._job.length
        if self._batch is not _NOTHING_TAKEN or not length or length > job.most:
            return None
        left = job.all_outcomes(length)
        if left is None:
            return None
        batch = Batch([], left, [], length, length)
        first = self._begin(batch)
        if first is batch:
            # No thread stores an outcome any more, and the stream has them all.
            job.outcomes = job.outcomes.__class__()
        return first.left

    def _begin(self, batch: Batch) -> Batch:
        """Make `batch` the first one, in one step, unless another thread has been faster; return the first one."""
        first: Batch = vars(self).setdefault("_batch", batch)
        return first

    def withdraw(self) -> bool:
        """Cancel the tasks that have not begun; return whether there was one. The caller can still take the results of the others."""
        return self._job.withdraw()

    def forget(self, mailbox: Mailbox, number: int) -> int:
        """Forget the wait of a task of an event loop; return the number of the other tasks that wait."""
        return self._job.forget(mailbox, number)

    def tell(self, mailbox: Mailbox, number: int) -> bool:
        """Post `number` when there is a result, or no further one; return True, and post nothing, if that is so already."""
        return self._hub.tell(self._job.own_bells(), self._has_news, Letter(mailbox, number))

    def _has_news(self) -> bool:
        try:
            return bool(self._batch.left or self._look())
        except StopIteration:
            return True

    def _look(self) -> deque[tuple[bool, Any]] | None:
        """Return the available results; None if there are none yet. The caller holds the hub's lock."""
        job = self._job
        while not (batch := self._batch).left:
            # Read first: outcomes that arrive after this step are found by the next call.
            is_over = job.over
            is_new = self._take()
            if job.feeder:
                self._hub.ring(job.feeder)
            if is_new:
                continue
            if not is_over:
                if job.failure is None:
                    return None
                job.fail(job.failure)  # a signal handler has interrupted an earlier call
                continue
            if batch is not self._batch:
                continue  # another thread has taken all outcomes
            if job.failure is None or batch.index < 0:
                raise StopIteration
            # The tasks that have not ended count as one failed task.
            last = Batch([], deque([(False, job.failure)]), [], batch.items + 1, -1)
            if self._batch is batch:
                self._batch = last
        return self._batch.left

    def _take(self) -> bool:
        """Take the outcomes that have arrived, and return whether there were any."""
        before = self._batch
        index, items = before.index, before.items
        if index < 0:
            return False
        if before.taken:
            self._forget()
        job = self._job
        left: deque[Any]
        parts: list[Iterator[Any]] = []
        found = job.arrived(index, job.most)
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
        batch = Batch(found, left, parts, items, index + len(found))
        if before is _NOTHING_TAKEN:
            self._begin(batch)
        elif self._batch is before:  # else a signal handler has waited here, and another thread has taken the outcomes
            self._batch = batch
        self._forget()
        return True

    def _forget(self) -> None:
        """Remove the taken outcomes from the job. If a signal handler interrupts the call, the next call continues."""
        batch = self._batch
        self._job.discard(batch.taken, batch.index)
        batch.taken = []
