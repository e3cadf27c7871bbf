"""The handles that a pool's asynchronous methods return: `AsyncResult`, `MapResult` and the iterators of `imap`.

A handle has one of two sources. A call of the engine has a *ticket* (or a *stream*), which holds the outcome. A handle
without a ticket works like the standard package's: it adds itself to its pool's `_cache`, and the pool, or a program
that makes tasks itself, passes outcomes to `_set`. Both kinds have the attributes that programs read, such as
`_number_left` (`inner_attributes`).
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from ..._maniple import Hold, Results, Stream, Ticket, next_result
from ...context import TimeoutError
from ...util import is_exiting
from ..compat.public_module import Generic, TypeVar
from ..sync.bells import Bells, Letter, SteadyEvent
from .awaited import AsyncResults, Awaitable, advice_for_asyncio
from .inner_attributes import Ending, Held, Inner, NoCondition, jobs_of
from .names import job_counter
from .no_memory import NO_MEMORY, pause

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

Result = TypeVar("Result")

__all__ = [
    "ApplyResult",
    "AsyncResult",
    "ChunkedResults",
    "IMapIterator",
    "IMapUnorderedIterator",
    "MapResult",
    "stay_if_program_ends",
    "tell",
]

NONE = (None, None)


def tell(error: BaseException) -> None:
    """Report an exception that no caller receives through `threading.excepthook`; the thread continues, also if the hook raises."""
    with suppress(BaseException):
        threading.excepthook(
            threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
        )


def complete(result: ApplyResult[Any] | None) -> None:
    """Complete the result of a call that has ended, and report the exception of a callback; the pool's thread continues.

    If it raises MemoryError, it has not begun, and the thread calls it again.
    """
    if result is None:
        return
    try:
        result._complete()
    except BaseException as error:
        if result._called is not None and not result._called.is_set():
            raise
        with suppress(BaseException):
            tell(error)


def _cancel(ticket: Any, kill: bool) -> bool:
    """Cancel the call of a ticket or stream, and return whether a task was cancelled.

    Raises:
        ValueError: the class of the pool replaces parts of it; or `kill`, and the pool is one of threads.
    """
    if isinstance(ticket, Ticket | Stream):
        return bool(ticket.cancel(bool(kill)))
    withdraw = getattr(ticket, "withdraw", None)
    if withdraw is None:
        raise ValueError(
            "calls of a pool whose class replaces its parts cannot be cancelled; terminate() ends all of them"
        )
    if kill:
        raise ValueError("a thread cannot be ended: cancel() without kill=True cancels the tasks that have not begun")
    return bool(withdraw())


def _give_up(ticket: Any, mailbox: Any, number: int) -> None:
    """Cancel the call of a ticket or stream that the task with this wait awaited, unless another task or thread waits for it."""
    if ticket is not None and not ticket.forget(mailbox, number):
        if isinstance(ticket, Ticket | Stream):
            ticket.cancel(True)
        else:
            ticket.withdraw()


def _value_of(result: ApplyResult[Any]) -> Any:
    if not result._ticket.ready():
        return result._unknown("_value")
    if result._ticket.successful():
        return result._ticket.get()
    try:
        result._ticket.get()
    except BaseException as error:
        return error


class Handle(Generic[Result]):
    """The base class of all handles."""

    __slots__ = ()

    _pool: Any
    _ticket: Any
    _cache: Any
    _job: Any

    def _counts(self, place: int) -> bool:
        """Return whether this is the first outcome of the task."""
        if self._ticket is not None:
            raise AttributeError(
                "the outcome of this call comes from the engine; _set is for handles that a program made"
            )
        first = getattr(self._cache, "first", None)
        return first is None or bool(first(self._job, place))

    def _retire(self) -> None:
        try:
            del self._cache[self._job]
        except KeyError:
            pass  # the program has removed it
        self._pool = None


class ApplyResult(Handle[Result], Awaitable[Result]):
    """The future result of `Pool.apply_async`. `AsyncResult` is another name of this class.

    A task of an event loop awaits it: ``value = await pool.apply_async(work, (job,))``.

    Example::

        result = pool.apply_async(work, (job,))
        if not result.ready():
            result.wait(timeout=1)
        print(result.get())
    """

    __slots__ = ("__dict__", "__weakref__", "_called", "_callbacks", "_pool", "_ticket")

    def __init__(
        self,
        pool: Any,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        ticket: Any = None,
    ) -> None:
        # Keeps the pool from being collected, which would end it, before the call ends.
        self._pool = pool
        self._ticket = ticket
        if ticket is None:
            self._event = SteadyEvent()
            self._job = next(job_counter)
            self._cache = pool._cache
            self._callback, self._error_callback = callback, error_callback
            self._success = self._value = None
            self._cache[self._job] = self
            return
        self._called: threading.Event | None = None
        self._callbacks: tuple[Any, Any] = NONE
        if callback is not None or error_callback is not None:
            # The call counts as ended only after its callback has returned.
            self._callbacks = (callback, error_callback)
            self._called = SteadyEvent()

    # ---- the inner attributes of the standard package's handles ----

    _job = Inner(lambda result: result._ticket.job)
    _cache = Inner(jobs_of)
    _event = Inner(Ending)
    _callback = Inner(lambda result: result._callbacks[0])
    _error_callback = Inner(lambda result: result._callbacks[1])
    _success = Inner(
        lambda result: result._ticket.successful() if result._ticket.ready() else result._unknown("_success")
    )
    _value = Inner(_value_of)

    def _unknown(self, name: str) -> Any:
        """Return the value of an attribute before the call has ended."""

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """Store the outcome of task `i`: whether it succeeded, and its result or exception."""
        if self._counts(i):
            self._success, self._value = obj
            self._end()

    def _abandon(self, error: BaseException) -> None:
        """End the handle with `error`, since no more outcomes come."""
        if not self._event.is_set():
            self._success, self._value = False, error
            self._end()

    def _end(self) -> None:
        callback = self._callback if self._success else self._error_callback
        try:
            if callback:
                callback(self._value)
        except BaseException as error:
            # A callback that fails must not end the thread that handles outcomes.
            tell(error)
        finally:
            self._retire()
            self._event.set()

    # ---- the engine ----

    def _complete(self) -> None:
        """Run the callbacks, then wake waiting callers. The pool's keeper calls it when the call has ended."""
        callback, error_callback = self._callbacks
        assert self._called is not None
        try:
            try:
                value = self._ticket.get()
            except BaseException as error:
                if error_callback:
                    error_callback(error)
            else:
                if callback:
                    callback(value)
        finally:
            self._callbacks = NONE
            self._pool = None
            while True:
                try:
                    self._called.set()
                    break
                except NO_MEMORY:
                    pause()

    # ---- the public methods ----

    def __repr__(self) -> str:
        if not self.ready():
            state = "not ready" if self._ticket is None else "running" if self.running() else "waiting"
        elif self.cancelled():
            state = "cancelled"
        else:
            state = "finished" if self.successful() else "failed"
        return f"<{type(self).__name__} at {id(self):#x} {state}>{advice_for_asyncio()}"

    def ready(self) -> bool:
        """Return True if the call has ended."""
        if self._ticket is None:
            return bool(self._event.is_set())
        return self._called.is_set() if self._called else bool(self._ticket.ready())

    def successful(self) -> bool:
        """Return True if the call has ended without an exception.

        Raises:
            ValueError: the call has not ended.
        """
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return bool(self._success if self._ticket is None else self._ticket.successful())

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended.

        Args:
            timeout: the time limit in seconds; None means no limit.
        """
        self._wait(timeout)

    def _wait(self, timeout: float | None) -> bool:
        if self._ticket is None:
            return bool(self._event.wait(timeout))
        if self._called is None or self._called.is_set():
            return bool(self._ticket.wait(timeout))
        # Waiting for the ticket first makes this thread, not the keeper, receive the answer.
        limit = None if timeout is None else time.monotonic() + timeout
        if not self._ticket.wait(timeout):
            return False
        return self._called.wait(None if limit is None else max(0.0, limit - time.monotonic()))

    def get(self, timeout: float | None = None) -> Result:
        """Wait for the result of the call, and return it.

        Args:
            timeout: the time limit in seconds; None means no limit.

        Raises:
            maniple.TimeoutError: the call has not ended after `timeout` seconds. A later `get` may succeed.
            What the call raised, and the pool's errors: `WorkerLostError`, `ResultDecodeError`, `MaybeEncodingError`, ValueError.
        """
        ticket = self._ticket
        result: Result
        # The most frequent calls wait and take the result in one step.
        if ticket is None or timeout is not None or self._called is not None:
            if not self._wait(timeout):
                raise TimeoutError(f"the call has not ended after {timeout} seconds")
            if ticket is None:
                if not self._success:
                    raise self._value
                result = self._value
                return result
        try:
            result = ticket.get()
        except BaseException as error:
            # Not `ready`, which may pickle items: a signal handler has raised during the wait, and its exception must not be late.
            if ticket.is_decoded:
                self._pool = None
            if isinstance(error, ValueError):
                stay_if_program_ends()
            raise
        self._pool = None
        return result

    def _tell(self, mailbox: Any, number: int) -> bool:
        """Post `number` when the call has ended; return True, and post nothing, if it has ended already."""
        if self._ticket is not None and self._called is None:
            return bool(self._ticket.tell(mailbox, number))
        event: Any = self._event if self._ticket is None else self._called
        return not event.ring_when_set(Letter(mailbox, number))

    def _give_up(self, mailbox: Any, number: int) -> None:
        """Cancel the call, which the task that was cancelled awaited, unless another task awaits it."""
        _give_up(self._ticket, mailbox, number)

    # ---- more than the standard package ----

    def cancel(self, kill: bool = False) -> bool:
        """Cancel the call: a task of it that has not begun does not begin. `get` then raises `CancelledError`.

        A task that runs continues, and is not tried again if it fails.

        Args:
            kill: whether the workers that run tasks of the call are ended, too. Other workers take their places.

        Returns:
            True if a task was cancelled; False if all tasks had begun or ended.

        Raises:
            ValueError: `kill`, and the pool is one of threads.
        """
        return _cancel(self._ticket, kill)

    def cancelled(self) -> bool:
        """Return True if the call has ended, and a task of it was cancelled."""
        ticket: Any = self._ticket
        if isinstance(ticket, Ticket):
            return ticket.cancelled() and self.ready()
        return ticket is not None and ticket.was_withdrawn() and self.ready()

    def running(self) -> bool:
        """Return True if a worker runs a task of the call."""
        return self._ticket is not None and bool(self._ticket.running())

    def done(self) -> bool:
        """Return True if the call has ended; the name that futures have for `ready`."""
        return self.ready()


AsyncResult = ApplyResult


def stay_if_program_ends() -> None:
    """In a daemon thread of a program that is exiting, which has ended its pools: never return.

    Such a thread ends with the program.  An error would be printed although nothing is wrong.
    """
    if is_exiting() and threading.current_thread().daemon:
        while True:
            time.sleep(3600)


def _chunks_left(result: Any) -> int:
    chunksize: int = result._chunksize
    return -(-result._ticket.left() // chunksize) if chunksize else 0


class MapResult(ApplyResult[list[Result]]):
    """The result of `Pool.map_async` or `Pool.starmap_async`: `get` returns a list, in the order of the items."""

    __slots__ = ("_shape",)

    def __init__(
        self,
        pool: Any,
        chunksize: int | None,
        length: int,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        ticket: Any = None,
    ) -> None:
        super().__init__(pool, callback, error_callback, ticket)
        if ticket is not None:
            self._shape = (chunksize, length, pool._processes)
            return
        self._success, self._value, self._chunksize = True, [None] * length, chunksize
        self._number_left = -(-length // chunksize) if chunksize and chunksize > 0 else 0
        if not self._number_left:
            self._retire()
            self._event.set()

    # If no size was given, the engine adapts the size of chunks; this attribute is then the standard package's size.
    _chunksize = Inner(
        lambda result: (result._shape[0] or -(-result._shape[1] // (4 * result._shape[2]))) if result._shape[1] else 0
    )
    _number_left = Inner(_chunks_left)

    def _unknown(self, name: str) -> Any:
        return True if name == "_success" else [None] * self._shape[1]

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """Store the outcome of chunk `i`: whether it succeeded, and its results or exception."""
        if not self._counts(i):
            return
        success, value = obj
        if not success and self._success:
            self._success, self._value = False, value
        elif self._success:
            self._value[i * self._chunksize : (i + 1) * self._chunksize] = value
        self._number_left -= 1
        if self._number_left == 0:
            self._end()

    def _abandon(self, error: BaseException) -> None:
        if not self._event.is_set():
            self._number_left = 0
            super()._abandon(error)


class IMapIterator(Results[Result], AsyncResults[Result], Handle[Result]):
    """The iterator that `Pool.imap` returns: the results, in the order of the items. It is also an asynchronous iterator.

    If the call of an item failed, the step that reaches the item raises the exception; the iteration can continue afterwards.
    """

    def __init__(self, pool: Any, stream: Any = None, length: int | None = None) -> None:
        # Keeps the pool from being collected, which would end it, before this iterator.
        self._pool = pool
        self._ticket = stream
        if stream is not None:
            self._take_from(stream)
            if length is not None:
                self._items_there = length
            return
        # The condition exists for programs that read it.
        self._mutex = threading.RLock()
        self._cond = threading.Condition(self._mutex)
        self._bells = Bells()
        self._job = next(job_counter)
        self._cache = pool._cache
        self._items, self._unsorted = collections.deque(), {}
        self._index, self._length = 0, None
        self._cache[self._job] = self

    #: the number of the results, if the input has a length
    _items_there: int | None = None

    _job = Inner(lambda results: results._ticket.job)
    _cache = Inner(jobs_of)
    _cond = Inner(lambda results: NoCondition())
    _index = Inner(lambda results: results._ticket.progress()[0])
    _items = Inner(lambda results: Held(results._ticket.progress()[0] - results._ticket.progress()[1]))
    _unsorted = Inner(lambda results: Held(0))

    @Inner
    def _length(self) -> int | None:
        if self._items_there is None:
            arrived, _, ended = self._ticket.progress()
            return int(arrived) if ended else None
        return self._items_there

    def __iter__(self) -> Self:
        return self

    def __len__(self) -> int:
        """Return the number of results, also of those that were taken: ``tqdm(pool.imap(...))`` shows a bar.

        Raises:
            TypeError: the input is an iterator that has not been read to its end.
        """
        length = self._items_there
        if length is None:
            if self._ticket is None:
                length = self._length
            else:
                arrived, _, has_ended = self._ticket.progress()
                length = arrived if has_ended else None
        if length is None:
            raise TypeError("the number of results is unknown until the input has been read to its end")
        return length

    def __bool__(self) -> bool:
        return True

    def next(self, timeout: float | None = None) -> Result:
        """Return the next result.

        Args:
            timeout: the time limit in seconds; None means no limit.

        Raises:
            maniple.TimeoutError: no result arrived within `timeout` seconds. A later call may succeed.
            StopIteration: there are no more results.
            The exception that the call of the item raised.
        """
        # A subscription, because the interpreter runs signal handlers after a call of native code.
        return next_result[self, timeout]  # type: ignore[no-any-return]  # the function decides

    def cancel(self, kill: bool = False) -> bool:
        """Cancel the calls that have not begun. The results of the others can still be taken; then a step raises `CancelledError`
        for each cancelled call, or once for those whose items were not read yet, and the iteration ends.

        Args:
            kill: whether the workers that run calls of the iterator are ended, too. Other workers take their places.

        Returns:
            True if a call was cancelled.

        Raises:
            ValueError: `kill`, and the pool is one of threads.

        In a pool of threads that has begun no call of the iterator, the iteration ends with one `CancelledError`.
        """
        return _cancel(self._ticket, kill)

    def _tell(self, mailbox: Any, number: int) -> bool:
        """Post `number` when there is a result, or no further one; return True, and post nothing, if that is so already."""
        if self._ticket is not None:
            return bool(self._ticket.tell(mailbox, number))
        with Hold(self._mutex):
            if self._items or self._index == self._length:
                return True
            self._bells.append(Letter(mailbox, number))
        return False

    def _give_up(self, mailbox: Any, number: int) -> None:
        """Cancel the call, unless another task takes its results."""
        _give_up(self._ticket, mailbox, number)

    def _ready(self, timeout: float | None) -> collections.deque[tuple[bool, Any]]:
        """Wait for outcomes that came through `_set`, for `next`, which takes the first of them."""
        limit = None if timeout is None else time.monotonic() + timeout
        while True:
            with Hold(self._mutex):
                if self._items:
                    items: collections.deque[tuple[bool, Any]] = self._items
                    return items
                if self._index == self._length:
                    self._pool = None
                    raise StopIteration
                left = None if limit is None else limit - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"no result arrived within {timeout} seconds")
                bell = self._bells.new()
            self._bells.wait(bell, left)

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """Store the outcome of task `i`: whether it succeeded, and its result or exception."""
        if self._counts(i):
            with Hold(self._mutex):
                self._unsorted[i] = obj
                while self._index in self._unsorted:
                    self._arrive(self._unsorted.pop(self._index))
                self._end_if_all_there()

    def _set_length(self, length: int) -> None:
        """Set the number of outcomes."""
        if self._ticket is not None:
            raise AttributeError(
                "the engine knows how many results there are; _set_length is for handles that a program made"
            )
        with Hold(self._mutex):
            self._length = length
            self._end_if_all_there()

    def _abandon(self, error: BaseException) -> None:
        """End the handle with `error`, since no more outcomes come."""
        with Hold(self._mutex):
            if self._index != self._length:
                self._arrive((False, error))
                self._length = self._index
                self._end_if_all_there()

    def _arrive(self, outcome: tuple[bool, Any]) -> None:
        self._items.append(outcome)
        self._index += 1
        self._cond.notify()
        self._bells.ring()

    def _end_if_all_there(self) -> None:
        if self._index == self._length:
            self._cond.notify_all()
            self._bells.ring()
            self._retire()


class IMapUnorderedIterator(IMapIterator[Result]):
    """The iterator that `Pool.imap_unordered` returns: the results, in the order in which the calls end."""

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """Store the outcome of a task: whether it succeeded, and its result or exception."""
        if self._counts(i):
            with Hold(self._mutex):
                self._arrive(obj)
                self._end_if_all_there()


class ChunkedResults(Results[Result], AsyncResults[Result]):
    """An iterator over the results of an `IMapIterator` whose outcomes belong to chunks: lists of results."""

    def __init__(self, chunks: IMapIterator[list[Result]]) -> None:
        self._chunks = chunks
        # The outcome of the last taken results, and its remaining results. Both change in one step, because a signal
        # handler may raise between two steps.
        self._batch: tuple[Any, collections.deque[tuple[bool, Any]]] = None, collections.deque()

    def _tell(self, mailbox: Any, number: int) -> bool:
        return bool(self._batch[1]) or self._chunks._tell(mailbox, number)

    def _give_up(self, mailbox: Any, number: int) -> None:
        self._chunks._give_up(mailbox, number)

    def _ready(self, timeout: float | None) -> collections.deque[tuple[bool, Any]]:
        while not self._batch[1]:
            outcomes = self._chunks._ready(timeout)
            try:
                outcome = outcomes[0]
                if outcome is self._batch[0]:
                    outcomes.popleft()
                    continue
            except IndexError:  # another thread was faster
                continue
            success, value = outcome
            self._batch = outcome, collections.deque([(True, item) for item in value] if success else [outcome])
        return self._batch[1]
