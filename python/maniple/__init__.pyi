# The types of the package. At run time the names of classes below are bound methods of the default context, which make what
# the classes describe and may stand for them in annotations (`_factories.py`).

from typing import Literal, overload

from . import context as context
from . import process as process
from . import reduction as reducer
from . import reduction as reduction
from ._impl.pool.payload import ResultDecodeError as ResultDecodeError
from ._impl.pool.payload import WorkerLostError as WorkerLostError
from .context import AuthenticationError as AuthenticationError
from .context import BufferTooShort as BufferTooShort
from .context import Process as Process
from .context import ProcessError as ProcessError
from .context import TimeoutError as TimeoutError
from .pool import Pool as Pool
from .process import active_children as active_children
from .process import current_process as current_process
from .process import parent_process as parent_process
from .queues import JoinableQueue as JoinableQueue
from .queues import Queue as Queue
from .queues import SimpleQueue as SimpleQueue
from .synchronize import Barrier as Barrier
from .synchronize import BoundedSemaphore as BoundedSemaphore
from .synchronize import Condition as Condition
from .synchronize import Event as Event
from .synchronize import Lock as Lock
from .synchronize import RLock as RLock
from .synchronize import Semaphore as Semaphore

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "ResultDecodeError",
    "Semaphore",
    "SimpleQueue",
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
]

__version__: str
SUBDEBUG: int
SUBWARNING: int

Array = context._default_context.Array
Manager = context._default_context.Manager
Pipe = context._default_context.Pipe
RawArray = context._default_context.RawArray
RawValue = context._default_context.RawValue
Value = context._default_context.Value
allow_connection_pickling = context._default_context.allow_connection_pickling
cpu_count = context._default_context.cpu_count
freeze_support = context._default_context.freeze_support
get_all_start_methods = context._default_context.get_all_start_methods
get_context = context._default_context.get_context
get_logger = context._default_context.get_logger

@overload
def get_start_method(allow_none: Literal[False] = False) -> str: ...
@overload
def get_start_method(allow_none: bool) -> str | None: ...

log_to_stderr = context._default_context.log_to_stderr
set_executable = context._default_context.set_executable
set_forkserver_preload = context._default_context.set_forkserver_preload
set_start_method = context._default_context.set_start_method
