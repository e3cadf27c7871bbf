"""The handles that a pool's asynchronous methods give: `AsyncResult`, `MapResult` and the iterators of `imap`.

A handle has one of two sources. The engine's calls give it a *ticket* (or a *stream*), which knows the outcome. Without one it
works as the standard package's: it enters itself into its pool's `_cache`, and the pool, or a program that makes tasks by itself,
hands it outcomes through `_set`. The names that programs read, such as `_number_left`, are there in both cases.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable

from ..._maniple import Hold
from ...context import TimeoutError
from ...util import is_exiting
from ..compat.late_annotations import Generic, TypeVar
from .names import job_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Self

Result = TypeVar("Result")

__all__ = [
    "ApplyResult",
    "AsyncResult",
    "IMapIterator",
    "IMapUnorderedIterator",
    "Inner",
    "MapResult",
    "stay_if_program_ends",
    "tell",
]

NONE = (None, None)


def tell(error: BaseException) -> None:
    """Report an exception that has nobody to go to, as a thread's own; the thread goes on."""
    threading.excepthook(
        threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    )


class Inner:
    """An attribute of the standard package's handles: computed by `view` where the engine ran the call, else an ordinary one."""

    def __init__(self, view: Callable[[Any], Any]) -> None:
        self.view = view
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, handle: Any, owner: type | None = None) -> Any:
        if handle is None:
            return self
        if handle._ticket is not None:
            return self.view(handle)
        try:
            return handle.__dict__[self.name]
        except KeyError:
            raise AttributeError(f"{type(handle).__name__!r} object has no attribute {self.name!r}") from None

    def __set__(self, handle: Any, value: Any) -> None:
        if handle._ticket is not None:
            raise AttributeError(f"{self.name} can be read but not set: the outcome of this call comes from the engine")
        handle.__dict__[self.name] = value


class Ending:
    """A call's end, to be waited for like a `threading.Event`."""

    def __init__(self, result: ApplyResult[Any]) -> None:
        self._result = result

    def is_set(self) -> bool:
        """Return True if the call has ended."""
        return self._result.ready()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the call has ended, at most `timeout` seconds; return True if it has."""
        return self._result._wait(timeout)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the event of a call that the engine runs has is_set() and wait(), but no {name!r}")


def _jobs_of(handle: Any) -> Any:
    return {} if handle._pool is None else handle._pool._cache


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
    """What handles of all kinds do alike."""

    __slots__ = ()

    _pool: Any
    _ticket: Any
    _cache: Any
    _job: Any

    def _counts(self, place: int) -> bool:
        """Whether the task's outcome is the first that comes of it."""
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
            pass  # the program took it out
        self._pool = None


class ApplyResult(Handle[Result]):
    """The result of `Pool.apply_async`, which may not be there yet. `AsyncResult` is another name of this class.

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
        # Keeps the pool from being collected, and so ended, before the call has.
        self._pool = pool
        self._ticket = ticket
        if ticket is None:
            self._event = threading.Event()
            self._job = next(job_counter)
            self._cache = pool._cache
            self._callback, self._error_callback = callback, error_callback
            self._success = self._value = None
            self._cache[self._job] = self
            return
        self._called: threading.Event | None = None
        self._callbacks: tuple[Any, Any] = NONE
        if callback is not None or error_callback is not None:
            # One of them is to be called when the call has ended; only then does it count as ended.
            self._callbacks = (callback, error_callback)
            self._called = threading.Event()

    # ---- what programs that know the standard package's handles read ----

    _job = Inner(lambda result: result._ticket.job)
    _cache = Inner(_jobs_of)
    _event = Inner(Ending)
    _callback = Inner(lambda result: result._callbacks[0])
    _error_callback = Inner(lambda result: result._callbacks[1])
    _success = Inner(
        lambda result: result._ticket.successful() if result._ticket.ready() else result._unknown("_success")
    )
    _value = Inner(_value_of)

    def _unknown(self, name: str) -> Any:
        """What an attribute is before the call has ended."""

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """Note the outcome of task `i`: whether it succeeded, and its result or exception."""
        if self._counts(i):
            self._success, self._value = obj
            self._end()

    def _abandon(self, error: BaseException) -> None:
        """No more outcomes come: end with `error`."""
        if not self._event.is_set():
            self._success, self._value = False, error
            self._end()

    def _end(self) -> None:
        callback = self._callback if self._success else self._error_callback
        try:
            if callback:
                callback(self._value)
        except BaseException as error:
            # The thread that hands out outcomes does not end for a callback that fails.
            tell(error)
        finally:
            self._retire()
            self._event.set()

    # ---- the engine ----

    def _complete(self) -> None:
        """Called by the pool's keeper when the call has ended: run the callbacks, then let waiting callers go on."""
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
            self._called.set()

    # ---- what callers use ----

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
        # Waiting for the ticket first lets this thread, not the keeper, take in the answer.
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
        if not self._wait(timeout):
            raise TimeoutError
        result: Result
        if self._ticket is None:
            if not self._success:
                raise self._value
            result = self._value
            return result
        self._pool = None
        try:
            result = self._ticket.get()
        except ValueError:
            stay_if_program_ends()
            raise
        return result


AsyncResult = ApplyResult


def stay_if_program_ends() -> None:
    """In a daemon thread of a program that is ending, and has ended its pools with it: never return.

    Such a thread ends with the program, wherever it is.  An error would only be printed, by a program that has nothing wrong.
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

    # The engine makes chunks as it goes where no size was asked for; told is the standard package's size.
    _chunksize = Inner(
        lambda result: (result._shape[0] or -(-result._shape[1] // (4 * result._shape[2]))) if result._shape[1] else 0
    )
    _number_left = Inner(_chunks_left)

    def _unknown(self, name: str) -> Any:
        return True if name == "_success" else [None] * self._shape[1]

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """Note the outcome of chunk `i`: whether it succeeded, and its results or exception."""
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


class Held:
    """So many outcomes that wait to be taken; the engine holds them, so they can only be counted here."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


class NoCondition:
    """Stands where the standard package's iterator has a condition, which nobody would notify here."""

    def __enter__(self) -> NoReturn:
        raise AttributeError("this iterator is fed by the engine and has no condition to wait for; use next(timeout)")

    def __exit__(self, *_: object) -> None:
        """Never entered."""

    def __getattr__(self, name: str) -> NoReturn:
        self.__enter__()


class IMapIterator(Handle[Result]):
    """The iterator that `Pool.imap` returns: the results, in the order of the items.

    A result that is an exception is raised by the step that reaches it; the iteration can go on afterwards.
    """

    def __init__(self, pool: Any, stream: Any = None, length: int | None = None) -> None:
        # Keeps the pool from being collected, and so ended, before this is.
        self._pool = pool
        self._ticket = stream
        if stream is not None:
            self._items_there = length
            # In place of the method of this name, which is for outcomes that come through `_set`.
            self._next = stream.next  # type: ignore[method-assign]
            return
        self._cond = threading.Condition(threading.Lock())
        self._job = next(job_counter)
        self._cache = pool._cache
        self._items, self._unsorted = collections.deque(), {}
        self._index, self._length = 0, None
        self._cache[self._job] = self

    _job = Inner(lambda results: results._ticket.job)
    _cache = Inner(_jobs_of)
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

    def next(self, timeout: float | None = None) -> Result:
        """Return the next result.

        Args:
            timeout: the time limit in seconds; None means no limit.

        Raises:
            maniple.TimeoutError: no result arrived within `timeout` seconds. A later call may succeed.
            StopIteration: there are no more results.
            What the call of the item raised.
        """
        try:
            result: Result = self._next(timeout)
        except ValueError:
            stay_if_program_ends()
            raise
        return result

    __next__ = next

    def _next(self, timeout: float | None) -> Any:
        with Hold(self._cond):
            self._cond.wait_for(lambda: self._items or self._index == self._length, timeout)
            if not self._items:
                if self._index == self._length:
                    self._pool = None
                    raise StopIteration
                raise TimeoutError
            success, value = self._items.popleft()
        if success:
            return value
        raise value

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """Note the outcome of task `i`: whether it succeeded, and its result or exception."""
        if self._counts(i):
            with Hold(self._cond):
                self._unsorted[i] = obj
                while self._index in self._unsorted:
                    self._arrive(self._unsorted.pop(self._index))
                self._end_if_all_there()

    def _set_length(self, length: int) -> None:
        """So many outcomes will have come at the end."""
        if self._ticket is not None:
            raise AttributeError(
                "the engine knows how many results there are; _set_length is for handles that a program made"
            )
        with Hold(self._cond):
            self._length = length
            self._end_if_all_there()

    def _abandon(self, error: BaseException) -> None:
        """No more outcomes come: end with `error`."""
        with Hold(self._cond):
            if self._index != self._length:
                self._arrive((False, error))
                self._length = self._index
                self._end_if_all_there()

    def _arrive(self, outcome: tuple[bool, Any]) -> None:
        self._items.append(outcome)
        self._index += 1
        self._cond.notify()

    def _end_if_all_there(self) -> None:
        if self._index == self._length:
            self._cond.notify_all()
            self._retire()


class IMapUnorderedIterator(IMapIterator[Result]):
    """The iterator that `Pool.imap_unordered` returns: the results, in the order in which the calls end."""

    def _set(self, i: int, obj: tuple[bool, Any]) -> None:
        """Note the outcome of any task: whether it succeeded, and its result or exception."""
        if self._counts(i):
            with Hold(self._cond):
                self._arrive(obj)
                self._end_if_all_there()
