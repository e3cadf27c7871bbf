"""The handles that a pool's asynchronous methods give: `AsyncResult` and its kin."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .context import TimeoutError

if TYPE_CHECKING:
    from ._workers import Workers

__all__ = ["ApplyResult", "AsyncResult", "MapResult"]


class ApplyResult:
    """The outcome of one call that may not have ended yet."""

    __slots__ = (
        "_called",
        "_callbacks",
        "_lock",
        "_name",
        "_outcome",
        "_success",
        "_ticket",
        "_workers",
        "__weakref__",
    )

    def __init__(
        self,
        workers: Workers,
        name: str,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> None:
        self._workers = workers
        self._name = name
        self._callbacks = (callback, error_callback)
        # Set once the callbacks have been called; None where there are none.
        self._called = threading.Event() if callback or error_callback else None
        self._lock = threading.Lock()
        self._ticket: Any = None
        self._success: bool | None = None
        self._outcome: Any = None

    def _collect(self) -> None:
        """Take the outcome out of the ticket, once."""
        with self._lock:
            if self._success is not None:
                return
            try:
                self._outcome, self._success = self._ticket.take(), True
            except BaseException as error:
                self._outcome, self._success = self._workers.explain(error, self._name), False

    def _complete(self) -> None:
        """Called by the pool's keeper when the call has ended: run the callbacks, then let waiting callers go on."""
        self._collect()
        callback = self._callbacks[0 if self._success else 1]
        try:
            if callback:
                callback(self._outcome)
        finally:
            self._callbacks = (None, None)
            if self._called:
                self._called.set()

    def ready(self) -> bool:
        """Whether the call has ended."""
        if self._success is not None:
            return self._called is None or self._called.is_set()
        if self._called is not None:
            return self._called.is_set()
        return bool(self._ticket.ready())

    def successful(self) -> bool:
        """Whether it ended without an exception; `ValueError` if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        self._collect()
        return bool(self._success)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the call has ended, or for `timeout` seconds."""
        self._wait(timeout)

    def _wait(self, timeout: float | None) -> bool:
        if self._called is not None:
            limit = None if timeout is None else time.monotonic() + timeout
            if self._success is None and not self._ticket.wait(timeout):
                return False
            return self._called.wait(None if limit is None else max(0.0, limit - time.monotonic()))
        return self._success is not None or bool(self._ticket.wait(timeout))

    def get(self, timeout: float | None = None) -> Any:
        """The call's result, or the exception that it raised; `TimeoutError` if it has not ended in `timeout` seconds."""
        if not self._wait(timeout):
            raise TimeoutError
        if self._success is None:
            self._collect()
        if self._success:
            return self._outcome
        raise self._outcome


AsyncResult = ApplyResult


class MapResult(ApplyResult):
    """The outcome of a `map` or `starmap` that may not have ended yet."""

    __slots__ = ()
