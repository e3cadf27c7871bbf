"""The exceptions for tasks that a pool ends: at a time limit, at a memory limit, or because their call was cancelled."""

from __future__ import annotations

import builtins

from ...context import ManipleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CancelledError", "MemoryLimitError", "SoftTimeoutError", "TaskTimeoutError"]


def seconds(time: float) -> str:
    """Return a time for people: three significant digits, and the unit."""
    return f"{time:.3g} s"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.4g} {unit}"
        amount /= 1000
    return f"{amount:.4g} TB"


class TaskTimeoutError(ManipleError, builtins.TimeoutError):
    """A task ran for longer than its `task_timeout`, so the pool ended the task's worker.

    Only this task fails; another worker takes the place of its worker. A `TimeoutError` that the function itself raises is not of
    this class.

    Attributes:
        task: the function, and the index of the item, that the worker was running.
        limit: the time limit in seconds.
        elapsed: the time in seconds that the task had run.
        pid: the process id of the worker.
    """

    def __init__(self, task: str, limit: float, elapsed: float, pid: int) -> None:
        # One argument: `OSError` takes two for an error number and its text.
        super().__init__(
            f"{task} exceeded its task_timeout of {seconds(limit)}: its worker, process {pid}, was ended after {seconds(elapsed)}"
        )
        self.task = task
        self.limit = limit
        self.elapsed = elapsed
        self.pid = pid

    def __reduce__(self) -> Any:
        return type(self), (self.task, self.limit, self.elapsed, self.pid), self.__dict__


class SoftTimeoutError(ManipleError, builtins.TimeoutError):
    """A task has run for longer than its `soft_timeout`. The exception is raised inside the task, which may catch it and clean up.

    Attributes:
        limit: the time limit in seconds.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(f"the task exceeded its soft_timeout of {seconds(limit)}")
        self.limit = limit

    def __reduce__(self) -> Any:
        return type(self), (self.limit,), self.__dict__


class MemoryLimitError(ManipleError, MemoryError):
    """A worker used more memory than the pool's `memory_limit` while it ran a task, so the pool ended the worker.

    Only this task fails; another worker takes the place of its worker.

    Attributes:
        task: the function, and the index of the item, that the worker was running.
        limit: the limit in bytes.
        peak: the most memory, in bytes, that the worker is known to have used.
        pid: the process id of the worker.
    """

    def __init__(self, task: str, limit: int, peak: int, pid: int) -> None:
        super().__init__(
            f"{task} exceeded the memory_limit of {size(limit)}: its worker, process {pid}, was ended when it had used {size(peak)}"
        )
        self.task = task
        self.limit = limit
        self.peak = peak
        self.pid = pid

    def __reduce__(self) -> Any:
        return type(self), (self.task, self.limit, self.peak, self.pid), self.__dict__


class CancelledError(ManipleError):
    """The call was cancelled (`AsyncResult.cancel`, `Pool.cancel_all`), so it has no result."""


for _error in (CancelledError, MemoryLimitError, SoftTimeoutError, TaskTimeoutError):
    _error.__module__ = "maniple.pool"
del _error
