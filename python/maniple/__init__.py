"""maniple: processes as easy as threads, a drop-in for Python's ``multiprocessing``.

Every public name of the standard package is here under the same name, with the
same signature and behaviour::

    from maniple import Pool

    if __name__ == "__main__":
        with Pool() as pool:
            print(pool.map(abs, range(-3, 3)))

The functions below are bound methods of the default context; `get_context`
returns an object with the same methods for one start method.
"""

import sys as _sys

from . import context, process, reduction  # noqa: F401
from ._impl.compat.factories import Factory as _Factory
from .context import ManipleError as ManipleError
from .context import _default_context as _ctx

# The log levels that the standard package adds to those of `logging`.
SUBDEBUG, SUBWARNING = 5, 25

# ---- exceptions
ProcessError = context.ProcessError
BufferTooShort = context.BufferTooShort
TimeoutError = context.TimeoutError
AuthenticationError = context.AuthenticationError

# ---- functions that annotations use as classes
TYPE_CHECKING = False
if TYPE_CHECKING:
    # Type checkers see the classes of the objects that the methods of the default context return.
    from ._impl.pool.limit_errors import CancelledError as CancelledError
    from ._impl.pool.limit_errors import MemoryLimitError as MemoryLimitError
    from ._impl.pool.limit_errors import SoftTimeoutError as SoftTimeoutError
    from ._impl.pool.limit_errors import TaskTimeoutError as TaskTimeoutError
    from ._impl.pool.options import Retries as Retries
    from ._impl.pool.payload import ResultDecodeError as ResultDecodeError
    from ._impl.pool.payload import WorkerLostError as WorkerLostError
    from ._impl.pool.shared import shared_pool as shared_pool
    from ._impl.pool.task_seeds import task_seed as task_seed
    from ._impl.pool.worker_place import worker_count as worker_count
    from ._impl.pool.worker_place import worker_id as worker_id
    from ._impl.pool.worker_place import worker_state as worker_state
    from ._maniple import __version__ as __version__
    from .context import Process as Process
    from .executor import ProcessPoolExecutor as ProcessPoolExecutor
    from .pool import Pool as Pool
    from .process import active_children as active_children
    from .process import current_process as current_process
    from .process import parent_process as parent_process
    from .queues import JoinableQueue as JoinableQueue
    from .queues import Queue as Queue
    from .queues import ShutDown as ShutDown
    from .queues import SimpleQueue as SimpleQueue
    from .synchronize import Barrier as Barrier
    from .synchronize import BoundedSemaphore as BoundedSemaphore
    from .synchronize import Condition as Condition
    from .synchronize import Event as Event
    from .synchronize import Lock as Lock
    from .synchronize import RLock as RLock
    from .synchronize import Semaphore as Semaphore
else:
    Process = _ctx.Process
    current_process = _ctx.current_process
    parent_process = _ctx.parent_process
    active_children = _ctx.active_children
    Pool = _Factory(_ctx.Pool, "pool")

    Queue = _Factory(_ctx.Queue, "queues")
    JoinableQueue = _Factory(_ctx.JoinableQueue, "queues")
    SimpleQueue = _Factory(_ctx.SimpleQueue, "queues")

    Lock = _Factory(_ctx.Lock, "synchronize")
    RLock = _Factory(_ctx.RLock, "synchronize")
    Condition = _Factory(_ctx.Condition, "synchronize")
    Semaphore = _Factory(_ctx.Semaphore, "synchronize")
    BoundedSemaphore = _Factory(_ctx.BoundedSemaphore, "synchronize")
    Event = _Factory(_ctx.Event, "synchronize")
    Barrier = _Factory(_ctx.Barrier, "synchronize")

# ---- processes and passing data
cpu_count = _ctx.cpu_count
Manager = _ctx.Manager
Pipe = _ctx.Pipe

# ---- shared memory
Value = _ctx.Value
Array = _ctx.Array
RawValue = _ctx.RawValue
RawArray = _ctx.RawArray

# ---- settings
freeze_support = _ctx.freeze_support
get_logger = _ctx.get_logger
log_to_stderr = _ctx.log_to_stderr
allow_connection_pickling = _ctx.allow_connection_pickling
set_executable = _ctx.set_executable
set_forkserver_preload = _ctx.set_forkserver_preload
get_context = _ctx.get_context
get_start_method = _ctx.get_start_method
set_start_method = _ctx.set_start_method
get_all_start_methods = _ctx.get_all_start_methods
reducer = _ctx.reducer

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "CancelledError",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "ManipleError",
    "MemoryLimitError",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "ProcessPoolExecutor",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "ResultDecodeError",
    "Retries",
    "Semaphore",
    "ShutDown",
    "SimpleQueue",
    "SoftTimeoutError",
    "TaskTimeoutError",
    "TimeoutError",
    "Value",
    "WorkerLostError",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
    "shared_pool",
    "task_seed",
    "worker_count",
    "worker_id",
    "worker_state",
]


_OF_POOL = (
    "CancelledError",
    "MemoryLimitError",
    "ResultDecodeError",
    "Retries",
    "SoftTimeoutError",
    "TaskTimeoutError",
    "WorkerLostError",
)

_OF_WORKER = ("worker_count", "worker_id", "worker_state")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Names that the standard package does not have; imported at their first use.
        if name in _OF_POOL:
            from . import pool

            return getattr(pool, name)
        if name in _OF_WORKER:
            from ._impl.pool import worker_place

            return getattr(worker_place, name)
        if name == "task_seed":
            from ._impl.pool.task_seeds import task_seed

            return task_seed
        if name == "ProcessPoolExecutor":
            from .executor import ProcessPoolExecutor

            return ProcessPoolExecutor
        if name == "shared_pool":
            from ._impl.pool.shared import shared_pool

            return shared_pool
        if name == "ShutDown":
            from . import queues

            return queues.ShutDown
        if name == "__version__":
            from ._maniple import __version__

            return __version__
        if name in (
            "connection",
            "executor",
            "managers",
            "pool",
            "queues",
            "shared_memory",
            "sharedctypes",
            "synchronize",
        ):
            # ``help(maniple.pool.Pool)`` works without a separate import.
            from ._impl.compat.factories import _siblings

            return getattr(_siblings, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    late = "ProcessPoolExecutor", "ShutDown", "shared_pool", "task_seed", "__version__"
    return sorted({*globals(), *_OF_POOL, *_OF_WORKER, *late})


# Children of spawn and forkserver load the program's main module under this
# name; in the program itself the name has to refer to the same module.
if "__main__" in _sys.modules:
    _sys.modules["__mp_main__"] = _sys.modules["__main__"]

del TYPE_CHECKING
