"""The futures of an executor, and how the pool's keeper completes them.

A future makes its condition when it is first used: to wait for it in another thread's place, to add a callback, to pass it to
`concurrent.futures.wait`.  Most futures never need one, and the native module completes these without Python code
(``maniple-python/src/futures.rs``).
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import Future as _Future
from concurrent.futures import InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING

from ..compat.public_module import TypeVar
from ..pool.results import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._maniple import Futures

Result = TypeVar("Result")

__all__ = ["Future", "settle"]


def _yes() -> bool:
    return True


# The attributes of a new future in all versions of Python so far.  If a later version has others, the futures use its constructor.
_FIELDS = {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}
# Two assignments complete a future in one step only while the thread holds the interpreter lock.
_is_known = vars(_Future()).keys() == _FIELDS and getattr(sys, "_is_gil_enabled", _yes)()


class _Condition:
    """The attribute `_condition` of a future that has none yet."""

    def __get__(self, future: Any, kind: Any = None) -> Any:
        if future is None:
            return self
        # One of several threads wins.
        return future.__dict__.setdefault("_condition", threading.Condition())


class Future(_Future[Result]):
    """The future of a task of `maniple.ProcessPoolExecutor`."""

    def __init__(self, tasks: Futures) -> None:
        # None once the future has ended, which then keeps no pool.
        self._tasks: Futures | None = tasks
        self._job = 0
        self._state = PENDING
        self._result = self._exception = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    _condition: Any = _Condition()

    def _wait(self, timeout: float | None) -> float | None:
        """Wait for the end of the task as far as this thread can receive it; return the rest of the time limit."""
        tasks = self._tasks
        if tasks is None:
            return timeout
        if timeout is None:
            tasks.wait(self)
            return None
        limit = time.monotonic() + timeout
        tasks.wait(self, timeout)
        return max(0.0, limit - time.monotonic())

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result of the call, and return it.

        Args:
            timeout: the time limit in seconds; None means no limit.

        Raises:
            TimeoutError: the call has not ended after `timeout` seconds.
            concurrent.futures.CancelledError: the future was cancelled.
            What the call raised, or `WorkerLostError` if its worker died.
        """
        if self._state in (PENDING, RUNNING):
            timeout = self._wait(timeout)
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end of the call, and return its exception, or None. The parameter and the errors are those of `result`."""
        if self._state in (PENDING, RUNNING):
            timeout = self._wait(timeout)
        return super().exception(timeout)

    def running(self) -> bool:
        """Return whether a worker runs the call."""
        if self._state == PENDING and (tasks := self._tasks) is not None:
            tasks.has_begun(self, self._job)
        return bool(self._state == RUNNING)

    def cancel(self, kill: bool = False) -> bool:
        """Cancel the call if no worker has begun it. Return whether it is cancelled.

        Args:
            kill: whether to cancel a running call as well. That ends its worker, and a new worker takes its place. The future of the
                standard package has no such parameter.
        """
        if self._state == PENDING and (tasks := self._tasks) is not None:
            try:
                if tasks.withdraw(self, self._job):
                    cancel(self)
            except BaseException:
                # A signal handler has raised.
                if not tasks.is_open(self._job):
                    tasks.leave(self)
                raise
        if kill and self._state in (PENDING, RUNNING) and (tasks := self._tasks) is not None:
            # If a signal handler raises after this step, the keeper cancels the future.
            if tasks.end_running(self._job):
                cancel(self)
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)


if not _is_known:
    # Without the promise of the interpreter lock, or with other attributes, each future has a condition from the beginning.
    def _new(self: Any, tasks: Futures) -> None:
        _Future.__init__(self)
        self._tasks, self._job = tasks, 0

    del Future._condition
    Future.__init__ = _new  # type: ignore[method-assign]


def cancel(future: Future[Any]) -> None:
    """Cancel a future whose task was withdrawn or ended, and tell all that wait for it."""
    if future._state == RUNNING:
        future._state = PENDING  # otherwise the next call refuses
    if future._state == PENDING and _Future.cancel(future):
        future.set_running_or_notify_cancel()
    future._tasks = None


def settle(future: Future[Any], is_result: bool | None, value: Any) -> None:
    """Complete a future with a result or an exception, or cancel it (None). The pool's keeper calls it."""
    future._tasks = None
    try:
        if is_result is None:
            cancel(future)
        elif is_result:
            future.set_result(value)
        else:
            future.set_exception(value)
    except InvalidStateError:
        pass  # the program has completed it
    except BaseException as error:
        # A callback has raised something that is not an `Exception`.
        tell(error)
