"""The handles that a pool's asynchronous methods give: `AsyncResult` and its kin."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import GenericAlias

from .context import TimeoutError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Generic, TypeVar

    Result = TypeVar("Result")

    class OfResult(Generic[Result]):
        """Something that can be subscripted with the type of a result."""

else:
    Result = "Result"

    class OfResult:
        """Something that can be subscripted with the type of a result."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)


__all__ = ["ApplyResult", "AsyncResult", "MapResult"]

NONE = (None, None)


class ApplyResult(OfResult[Result]):
    """The outcome of one call that may not have ended yet."""

    __slots__ = ("__weakref__", "_called", "_callbacks", "_pool", "_ticket")

    def __init__(
        self,
        pool: Any,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        # Keeps the pool from being collected, and so ended, before the call has.
        self._pool = pool
        # Set by the pool.
        self._ticket: Any = None
        self._called: threading.Event | None = None
        self._callbacks: tuple[Any, Any] = NONE
        if callback is not None or error_callback is not None:
            # One of them is to be called when the call has ended; only then does it count as ended.
            self._callbacks = (callback, error_callback)
            self._called = threading.Event()

    def _complete(self) -> None:
        """Called by the pool's keeper when the call has ended: run the callbacks, then let waiting callers go on."""
        callback, error_callback = self._callbacks
        assert self._called is not None
        try:
            if self._ticket.successful():
                if callback:
                    callback(self._ticket.get())
            elif error_callback:
                try:
                    self._ticket.get()
                except BaseException as error:
                    error_callback(error)
        finally:
            self._callbacks = NONE
            self._pool = None
            self._called.set()

    def ready(self) -> bool:
        """Whether the call has ended."""
        return self._called.is_set() if self._called else bool(self._ticket.ready())

    def successful(self) -> bool:
        """Whether it ended without an exception; `ValueError` if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return bool(self._ticket.successful())

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, or for `timeout` seconds."""
        self._wait(timeout)

    def _wait(self, timeout: float | None) -> bool:
        if self._called is None or self._called.is_set():
            return bool(self._ticket.wait(timeout))
        # Waiting for the ticket first lets this thread, not the keeper, take in the answer.
        limit = None if timeout is None else time.monotonic() + timeout
        if not self._ticket.wait(timeout):
            return False
        return self._called.wait(None if limit is None else max(0.0, limit - time.monotonic()))

    def get(self, timeout: float | None = None) -> Result:
        """The call's result, or the exception that it raised; `TimeoutError` if it has not ended in `timeout` seconds."""
        if not self._wait(timeout):
            raise TimeoutError
        self._pool = None
        result: Result = self._ticket.get()
        return result


AsyncResult = ApplyResult


class MapResult(ApplyResult[list[Result]]):
    """The outcome of a `map` or `starmap` that may not have ended yet."""

    __slots__ = ()

    def __init__(
        self,
        pool: Any,
        chunksize: int | None,
        length: int,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> None:
        super().__init__(pool, callback, error_callback)
