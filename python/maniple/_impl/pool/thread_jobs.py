"""The calls of a pool of threads. A call of `apply` or `map` is also its own ticket: the counterpart of `Ticket` without processes.

A thread of the pool takes an entry ``(job, item, index)`` from the hub's queue, and calls ``job.run(item, index)``. No step of a task
holds a lock: each step that threads share is one operation of a list, a dict or a deque, which other threads see whole. The end of a
job holds the hub's lock, and happens once.

If ``run`` raises MemoryError, the task has not begun, and the thread calls it again. Once a task has begun, the job repeats each step that
needs memory until there is some (`no_memory.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain, repeat, starmap
from operator import length_hint
from threading import Thread
from time import sleep

from ..._maniple import Hold
from ...context import TimeoutError
from ..sync.bells import Bells, Letter
from ..sync.thread_start import start_steadily
from .limit_errors import CancelledError
from .no_memory import NO_MEMORY, PAUSE
from .payload import withdrawn
from .thread_stats import name_of_function, next_batch, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._maniple import Mailbox
    from .thread_hub import ThreadHub
    from .thread_stats import Account, Row

__all__ = ["WITHDRAWN", "Call", "Job", "MapCall", "function_of_task"]

#: The value of `Job.cancelled` after a caller has cancelled the call.
WITHDRAWN = "withdrawn"


def _chunk(func: Callable[[Any], Any], chunk: Any) -> list[Any]:
    # Not `list(map(func, chunk))`, for which a StopIteration of the function is the end.
    return [func(item) for item in chunk]


def _star_chunk(func: Callable[..., Any], chunk: Any) -> list[Any]:
    return [func(*item) for item in chunk]


def _star(func: Callable[..., Any], item: Any) -> Any:
    return func(*item)


def function_of_task(func: Callable[..., Any], star: bool, chunksize: int) -> Callable[[Any], Any]:
    """Return the function that runs a task: an item if `chunksize` is 1, else a list of items."""
    if chunksize == 1:
        return partial(_star, func) if star else func
    return partial(_star_chunk if star else _chunk, func)


class Job:
    """One call.

    A thread sets `over` under the hub's lock, after all outcomes are stored.
    """

    __slots__ = ("bells", "begun", "cancelled", "failure", "func", "hub", "job", "over", "since", "told", "__weakref__")

    def __init__(self, hub: ThreadHub, func: Callable[..., Any] | None, told: bool) -> None:
        self.hub = hub
        #: the number of the job, and when it was made
        self.job, self.since = next(hub.numbers), now()
        self.func = func
        #: whether the pool runs callbacks when the job ends
        self.told = told
        #: whether a thread has begun a task
        self.begun = False
        #: whether tasks that have not begun do not begin; `WITHDRAWN`: each of them then fails with `CancelledError`
        self.cancelled: bool | str = False
        self.over = False
        #: the error of the whole job: the pool has ended
        self.failure: BaseException | None = None
        #: the bells of the threads that wait for outcomes; None until a thread waits
        self.bells: Bells | None = None

    def items_done(self) -> int:
        """Return the number of items with an outcome."""
        raise NotImplementedError

    def account(self) -> Account:
        """Return the numbers of tasks received, completed, failed, cancelled and running, and of items of ended tasks."""
        raise NotImplementedError

    def finish(self) -> None:
        """End the job after its last outcome. A thread of the pool calls this method, where no signal handler runs.

        If it raises MemoryError, it has done nothing, and the thread calls it again.
        """
        hub = self.hub
        is_first = False
        while True:
            try:
                with hub.lock:
                    if not self.over:
                        hub.leave(self)
                        if self.bells:
                            self.bells.ring()
                        self.over = is_first = True
                break
            except NO_MEMORY:
                sleep(PAUSE)
        while is_first:
            try:
                self.release()
                if self.told:
                    self._tell_end()
                break
            except NO_MEMORY:
                sleep(PAUSE)

    def fail(self, error: BaseException) -> bool:
        """End the job with `error`, unless it is over. Return whether it was not over.

        The caller holds the hub's lock. It repeats the call if a signal handler interrupts it.
        """
        is_failed = not self.over
        if is_failed:
            self.failure = error
            self.cancel()
            self.over = True
        if self.bells:
            self.bells.ring()
        self.hub.leave(self)
        return is_failed

    def cancel(self) -> None:
        """Let no more tasks begin."""
        self.cancelled = True

    def withdraw(self) -> bool:
        """Cancel the tasks that have not begun, for a caller; return whether there was one. The outcome of each is a `CancelledError`.

        A signal handler may interrupt it. A thread of the pool then ends the job.
        """
        raise NotImplementedError

    def was_withdrawn(self) -> bool:
        """Return whether a caller has cancelled a task."""
        raise NotImplementedError

    def withdrawal(self) -> BaseException:
        """Return the exception of a task that a caller has cancelled."""
        return withdrawn(name_of_function(self.func), None, 1)

    def _end_withdrawn(self) -> None:
        """End a job none of whose tasks has begun. A caller calls this method."""
        with Hold(self.hub.lock):
            is_ended = self.fail(self.withdrawal())
        if is_ended and self.told:
            # Not in this thread, where a signal handler may raise. If there is no other, the next free thread of the pool does it.
            with suppress(MemoryError, RuntimeError):
                start_steadily(Thread(target=self._tell_end, name="maniple-pool-cancelled", daemon=True))

    def _tell_end(self) -> None:
        """Run the callbacks of the job, which is over. No signal handler runs in the calling thread."""
        while self.told:
            try:
                self.hub.workers.completed(self.job)
                self.told = False
            except NO_MEMORY:  # for the call itself
                sleep(PAUSE)

    def release(self) -> None:
        """Drop the references to the function and its arguments."""
        self.func = None

    # ---- the ticket ----

    def ready(self) -> bool:
        return self.over

    @property
    def is_decoded(self) -> bool:
        return self.over

    def left(self) -> int:
        """Return the number of items without an outcome."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> bool:
        return self.over or bool(self.hub.wait_until(self.own_bells(), self.ready, timeout))

    def tell(self, mailbox: Mailbox, number: int) -> bool:
        """Post `number` when the job is over; return True, and post nothing, if it is over already."""
        return self.over or self.hub.tell(self.own_bells(), self.ready, Letter(mailbox, number))

    def forget(self, mailbox: Mailbox, number: int) -> int:
        """Forget the wait of a task of an event loop; return the number of the other tasks that wait."""
        bells = self.bells
        if bells is None:
            return 0
        with Hold(self.hub.lock):
            letters = [bell for bell in bells if isinstance(bell, Letter)]
            for letter in letters:
                if letter.mailbox is mailbox and letter.number == number:
                    bells.take_back(letter)
            return sum(not (letter.mailbox is mailbox and letter.number == number) for letter in letters)

    def running(self) -> bool:
        """Return whether a thread runs a task of the job."""
        return not self.over and self.tasks_running() > 0

    def tasks_running(self) -> int:
        """Return the number of tasks of the job that threads run."""
        return sum(row.job is self for row in self.hub.workers.rows)

    def own_bells(self) -> Bells:
        """Return the bells of the job, which the first thread that waits makes."""
        if self.bells is None:
            with Hold(self.hub.lock):
                if self.bells is None:
                    self.bells = Bells()
        return self.bells

    def successful(self) -> bool:
        raise NotImplementedError

    def outcome(self) -> Any:
        """Return the result, or raise the exception, of a job that is over."""
        raise NotImplementedError

    def get(self, timeout: float | None = None) -> Any:
        if not self.over and not self.wait(timeout):
            raise TimeoutError(f"the call has not ended after {timeout} seconds")
        if self.failure is not None:
            raise self.failure
        return self.outcome()


class Call(Job):
    """A call of `apply`."""

    __slots__ = ("args", "claim", "fine", "kwds", "value")

    def __init__(self, hub: ThreadHub, func: Callable[..., Any], args: Any, kwds: Any, told: bool) -> None:
        super().__init__(hub, func, told)
        self.args, self.kwds = args, kwds
        #: has an element until a thread begins the call, or a caller cancels it
        self.claim: deque[None] = deque((None,))
        # The steps that store the outcome need no memory.
        self.value: Any = None
        self.fine = False

    def run(self, _item: None, _index: int, row: Row) -> None:
        if self.cancelled:
            if not self.claim:
                self._end_unbegun()
            return
        started = row.since = now()
        row.job = self
        try:
            self.claim.pop()
        except IndexError:
            row.job = None
            self._end_unbegun()
            return
        self.begun = True
        try:
            self.value = self.func(*self.args, **self.kwds)  # type: ignore[misc]
            self.fine = True
        except BaseException as error:
            self.value = error
        row.end(started, self, self.fine, self.since)
        while True:
            try:
                self.finish()
                break
            except NO_MEMORY:
                sleep(PAUSE)
        # The traceback of an exception refers to this frame, and the frame would refer to the exception.
        del self

    def _end_unbegun(self) -> None:
        """End a call that was cancelled, if a signal handler has interrupted the caller. A thread of the pool calls this method."""
        while not self.over or self.told:
            try:
                if not self.over:
                    if self.failure is None:
                        self.failure = self.withdrawal()
                    self.finish()
                self._tell_end()
            except NO_MEMORY:  # for a call itself
                sleep(PAUSE)

    def withdraw(self) -> bool:
        if self.over:
            return False
        try:
            self.claim.pop()
        except IndexError:
            return False
        self._end_withdrawn()
        return True

    def was_withdrawn(self) -> bool:
        return not self.begun and isinstance(self.failure, CancelledError)

    def release(self) -> None:
        self.func = self.args = self.kwds = None

    def items_done(self) -> int:
        return 0

    def account(self) -> Account:
        failed = not self.fine and self.value is not None
        return (
            1,
            int(self.fine),
            int(failed),
            0,
            int(self.begun and not self.fine and not failed),
            int(self.fine or failed),
        )

    def left(self) -> int:
        return 0 if self.over else 1

    def successful(self) -> bool:
        return self.fine and self.failure is None

    def outcome(self) -> Any:
        if self.fine:
            return self.value
        raise self.value


class MapCall(Job):
    """A call of `map`. Each entry in the hub's queue lets one more thread take part, until no task is left."""

    __slots__ = (
        "chunksize",
        "dropped",
        "failures",
        "items",
        "length",
        "open",
        "parts",
        "result",
        "returns",
        "source",
        "values",
        "withdrawn",
    )

    def __init__(
        self, hub: ThreadHub, func: Callable[..., Any], items: Any, star: bool, chunksize: int, told: bool
    ) -> None:
        super().__init__(hub, function_of_task(func, star, chunksize), told)
        # A list may change while the tasks run.
        self.items, self.length, self.chunksize = items.copy() if type(items) is list else items, len(items), chunksize
        self.parts = -(-self.length // chunksize)
        #: the tasks that have not begun
        self.source: deque[int] = deque(range(self.parts))
        #: the tasks that a caller has cancelled and that have no outcome yet, and the number of those that have
        self.withdrawn: deque[int] = deque()
        self.dropped = 0
        #: whether exceptions are among the results
        self.returns = False
        #: has an element for each task that has not ended
        self.open: deque[None] = deque(repeat(None, self.parts))
        self.values: list[Any] = [None] * self.parts
        self.failures: dict[int, BaseException] = {}
        self.result: list[Any] | None = None

    def run(self, _item: None, _index: int, row: Row) -> None:
        self.begun = True
        func, items, values, size = self.func, self.items, self.values, self.chunksize
        take, ended = self.source.popleft, self.open.pop
        # So many tasks are counted together: short ones, so that counting costs little.
        batch = 1
        while self.source:
            left = repeat(None, batch)
            started = row.since = now()
            row.job, failed, rest = self, 0, 0
            for _ in left:
                try:
                    index = take()
                except IndexError:
                    rest = 1
                    break
                try:
                    values[index] = func(items[index] if size == 1 else items[index * size : (index + 1) * size])  # type: ignore[misc]
                except BaseException as error:
                    failed += 1
                    while True:
                        try:
                            self.failures[index] = error
                            break
                        except NO_MEMORY:
                            sleep(PAUSE)
                ended()
            done = batch - length_hint(left) - rest
            took = row.end_several(started, self, done - failed, failed, self.since)
            batch = next_batch(batch, took)
        if self.withdrawn:
            self._drop_withdrawn()
        # If other threads still run tasks, the last one of them comes here after its task.
        while not self.open:
            try:
                self.finish()
                if self.told and isinstance(self.failure, CancelledError):
                    self._tell_end()  # a signal handler has interrupted the caller
                break
            except NO_MEMORY:
                sleep(PAUSE)
        # The traceback of an exception refers to this frame, and the frame would refer to the exception.
        del self

    def _drop_withdrawn(self) -> None:
        """Store the outcomes of the tasks that a caller has cancelled. A thread of the pool calls this method."""
        error: BaseException | None = None
        while error is None:
            try:
                error = self.withdrawal()
            except NO_MEMORY:
                sleep(PAUSE)
        while True:
            try:
                index = self.withdrawn.popleft()
            except IndexError:
                break  # another thread has taken the last one
            while True:
                try:
                    with self.hub.lock:
                        self.failures[index] = error
                        self.dropped += 1
                    break
                except NO_MEMORY:
                    sleep(PAUSE)
            self.open.pop()

    def cancel(self) -> None:
        self.cancelled = True
        self.source.clear()

    def withdraw(self) -> bool:
        before = len(self.withdrawn) + self.dropped
        # One step: no signal handler, and no other thread, comes between the removal of a task and its record.
        try:
            self.withdrawn.extend(starmap(self.source.popleft, repeat(())))
        except IndexError:
            pass  # it was the last one
        if len(self.withdrawn) + self.dropped == before:
            return False
        if self.begun or self.returns:
            # The threads that run tasks of the call may have looked for further ones already.
            self.hub.tasks.put((self, None, 0))
        else:
            self._end_withdrawn()
        return True

    def was_withdrawn(self) -> bool:
        return bool(self.dropped) or isinstance(self.failure, CancelledError)

    def release(self) -> None:
        self.func = self.items = None

    def items_done(self) -> int:
        return self.length - self.left()

    def account(self) -> Account:
        # In this order: a task that ends meanwhile counts as running.
        running, ended = len(self.open) - len(self.source), self.parts - len(self.open)
        dropped = min(self.dropped, ended)
        failed = min(len(self.failures) - dropped, ended - dropped)
        items = min(self.length, ended * self.chunksize)
        return self.parts, ended - failed - dropped, failed, dropped, max(0, running - len(self.withdrawn)), items

    def left(self) -> int:
        # The last task may have fewer items than the others. It counts as if it ended last.
        return 0 if self.over else max(0, self.length - (self.parts - len(self.open)) * self.chunksize)

    def successful(self) -> bool:
        return self.failure is None and (not self.failures or self.returns and self.dropped == len(self.failures))

    def outcome(self) -> list[Any]:
        if self.failures:
            if self.returns and self.dropped == len(self.failures):
                return [self.failures.get(index, value) for index, value in enumerate(self.values)]
            raise self.failures[min(self.failures)]
        if self.result is None:
            self.result = self.values if self.chunksize == 1 else list(chain.from_iterable(self.values))
        self.values = self.result
        return self.result
