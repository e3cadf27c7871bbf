"""The worker processes of an executor."""

from __future__ import annotations

from collections.abc import Callable

from ..pool import payload
from ..pool.workers import WorkerHandles, worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["serve"]


def serve(handles: WorkerHandles, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Run a worker process. If a result cannot be pickled, the worker sends pickle's own error, as the standard executor does."""
    payload.wraps_refusals = False
    worker(handles, initializer, initargs)
