"""What a worker knows about its place in the pool: its number, the number of workers, and the program's own state.

A number belongs to one worker at a time.  The worker that replaces another one takes over its number, and with it the processors and the
accelerator of the number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ...process import current_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Place", "worker_count", "worker_id", "worker_state"]

# The process that has the place: a child that it forks is no worker.
_process = 0
_number = _count = -1
# The process that has the state, and the state.
_state: tuple[int, dict[Any, Any]] = 0, {}


def worker_id() -> int | None:
    """Return the number of this worker in its pool, from 0 on; None in a process that is no worker.

    The worker that replaces another one has the same number; a spare worker has a number of its own. Two workers of a pool never have
    the same number at once, so the number may name a file, a port or a device of the worker. It is less than `worker_count()`.

    Example::

        def work(item):
            with open(f"log-{maniple.worker_id()}.txt", "a") as log:
                print(item, file=log)
    """
    return _number if _process == os.getpid() else None


def worker_count() -> int | None:
    """Return the number of workers, with the spare ones, of this worker's pool when the worker started; None in a process that is no worker."""
    return _count if _process == os.getpid() else None


def worker_state() -> dict[Any, Any]:
    """Return a dict that belongs to this process. The program may keep in it what its tasks share.

    Each worker has a dict of its own, which is empty at first. A worker that replaces another one begins with an empty dict. In a
    process that is no worker, the function returns a dict of that process.

    Example::

        def connect(address):
            maniple.worker_state()["db"] = open_database(address)

        def work(item):
            return maniple.worker_state()["db"].look_up(item)

        pool = maniple.Pool(4, initializer=connect, initargs=(address,))
    """
    global _state
    if _state[0] != (pid := os.getpid()):
        _state = pid, {}
    return _state[1]


for _function in (worker_id, worker_count, worker_state):
    _function.__module__ = "maniple"
# The name `Any` exists for type checkers alone, and programs evaluate annotations.
worker_state.__annotations__ = {"return": dict}


class Place:
    """A worker's place in its pool, and what the worker does at its beginning and its end besides its tasks."""

    __slots__ = ("_count", "_finalargs", "_finalizer", "_number", "_threads")

    def __init__(
        self,
        number: int,
        count: int,
        threads: int | None = None,
        finalizer: Callable[..., object] | None = None,
        finalargs: tuple[Any, ...] = (),
    ) -> None:
        self._number, self._count = number, count
        self._threads = threads
        self._finalizer, self._finalargs = finalizer, finalargs

    def __reduce__(self) -> Any:
        return Place, (self._number, self._count, self._threads, self._finalizer, self._finalargs)

    def take(self) -> None:
        """In the worker, before the initializer: make the place known, and what a fork has copied the worker's own."""
        global _process, _number, _count
        _process, _number, _count = os.getpid(), self._number, self._count
        forked = current_process()._start_method != "spawn"
        if forked and (numpy_random := sys.modules.get("numpy.random")) is not None:
            from .task_seeds import reseed_numpy

            reseed_numpy(numpy_random)
        if self._threads is not None:
            limit_loaded_libraries(self._threads)

    def leave(self) -> None:
        """In the worker, after its last task: call the finalizer."""
        if self._finalizer is not None:
            from .task_seeds import end_tasks

            end_tasks()
            self._finalizer(*self._finalargs)


def limit_loaded_libraries(threads: int) -> None:
    """Limit the threads of libraries that were loaded before the variables were set, by `threadpoolctl` if it is installed."""
    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return
    threadpool_limits(threads)
