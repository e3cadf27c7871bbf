"""A context: one start method, and everything that is made for it.

Each method of `BaseContext` makes an object that belongs to the context's start
method.  `DefaultContext` stands for whatever method the program settles on, and
its bound methods are the functions of the package itself.
"""

# For a type checker our contexts are the standard package's, too, so that `ProcessPoolExecutor(mp_context=...)` takes them; what their
# methods make is ours.
# mypy: disable-error-code=override
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from errno import EMFILE, ENFILE
from threading import local

from . import process
from . import reduction as reduction
from ._impl.compat import late_annotations
from .reduction import HAVE_SEND_HANDLE

reduction.context = sys.modules[__name__]

# Not `typing.TYPE_CHECKING`: importing that module is a third of what it takes to import this package.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from ctypes import _CData, _SimpleCData
    from logging import Logger
    from multiprocessing.context import BaseContext as _Accepted  # as which the standard library's functions take ours
    from typing import Any, Literal, TypeVar, overload

    import maniple as _siblings

    from . import connection, managers, pool, queues, sharedctypes, synchronize

    Held = TypeVar("Held")
    Kind = TypeVar("Kind", bound=_CData)
    Whole = Literal["b", "B", "h", "H", "i", "I", "l", "L", "q", "Q"]
    Real = Literal["f", "d"]
    Text = Literal["c"] | type[ctypes.c_char]
else:
    _Accepted = object

    def overload(signature: object) -> None:
        """Only type checkers look at signatures that the next definition replaces."""


__all__ = ("AuthenticationError", "BufferTooShort", "ManipleError", "ProcessError", "TimeoutError")

# ---------------------------------------------------------------- exceptions


class ManipleError(Exception):
    """The base class of all exceptions that this package defines.

    Exceptions that the standard package also has keep their standard bases beside it, so existing ``except`` clauses
    catch what they caught before. The package also raises exceptions of Python's own, which do not derive from
    this class: `ValueError`, `OSError`, `EOFError`, `queue.Empty`, `queue.Full`, `threading.BrokenBarrierError`.
    The standard package does not have this class.
    """


class ProcessError(ManipleError):
    """The base class of `BufferTooShort`, `TimeoutError` and `AuthenticationError`.

    A method also raises it when the state of its manager does not allow the call, such as a second `start`.
    """


class BufferTooShort(ProcessError):
    """A received message does not fit into the buffer of `Connection.recv_bytes_into`.

    ``args[0]`` is the whole message, as bytes.
    """


class TimeoutError(ProcessError):
    """A result did not arrive within the time limit: `AsyncResult.get`, and `next` of an iterator of `Pool.imap`.

    It is not the built-in `TimeoutError`.
    """


class AuthenticationError(ProcessError):
    """The process at the other end of a connection does not have the same authentication key."""


_EXCEPTIONS = (ProcessError, BufferTooShort, TimeoutError, AuthenticationError)


# ---------------------------------------------------------------- contexts


class _Siblings:
    """Modules that are loaded when they are first used, which may be where no descriptor is left to read them."""

    def __getattr__(self, name: str) -> Any:
        try:
            module = process._sibling(name)
        except OSError as problem:
            if problem.errno in (EMFILE, ENFILE):
                del problem.filename
                problem.strerror = (
                    f"could not load what is needed for the first use of {__package__}.{name}: {problem.strerror}; close some "
                    "files, or raise the limit (ulimit -n)"
                )
            raise
        setattr(self, name, module)
        return module


if not TYPE_CHECKING:
    _siblings = _Siblings()


class BaseContext(_Accepted):
    """The factory functions for one start method."""

    _name: str
    Process: type[process.BaseProcess]

    # A context stands for the whole package, exceptions and all.
    ProcessError, BufferTooShort, TimeoutError, AuthenticationError = _EXCEPTIONS  # type: ignore[assignment]

    current_process = staticmethod(process.current_process)  # type: ignore[assignment]
    parent_process = staticmethod(process.parent_process)  # type: ignore[assignment]
    active_children = staticmethod(process.active_children)  # type: ignore[assignment]

    # ------------------------------------------------------------ machine

    def cpu_count(self) -> int:
        """Number of processors of this machine."""
        if (count := os.cpu_count()) is None:
            raise NotImplementedError("cannot determine number of cpus")
        return count

    # ------------------------------------------------------------ passing data

    def Pipe(self, duplex: bool = True) -> tuple[connection.Connection, connection.Connection]:
        """Two connected `Connection` objects; without ``duplex`` the first only receives."""
        return _siblings.connection.Pipe(duplex)

    def Queue(self, maxsize: int = 0) -> queues.Queue[Any]:
        """A queue for many writers and readers; ``maxsize`` 0 means no bound."""
        return _siblings.queues.Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> queues.JoinableQueue[Any]:
        """A `Queue` whose items can be reported as done and waited for."""
        return _siblings.queues.JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> queues.SimpleQueue[Any]:
        """A queue without a limit and without time-outs; `put` does not wait for a reader."""
        return _siblings.queues.SimpleQueue(ctx=self.get_context())

    def Manager(self) -> managers.SyncManager:
        """A started manager: a process that holds objects for others."""
        started = _siblings.managers.SyncManager(ctx=self.get_context())
        started.start()
        return started

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> pool.Pool:
        """A pool of worker processes: `help(maniple.pool.Pool)` tells of its arguments, methods and errors."""
        ctx = self.get_context()
        return _siblings.pool.Pool(processes, initializer, initargs, maxtasksperchild, context=ctx)

    # ------------------------------------------------------------ synchronisation

    def Lock(self) -> synchronize.Lock:
        """A lock that any process may release."""
        return _siblings.synchronize.Lock(ctx=self.get_context())

    def RLock(self) -> synchronize.RLock:
        """A lock that its owner may take again."""
        return _siblings.synchronize.RLock(ctx=self.get_context())

    def Condition(self, lock: Any = None) -> synchronize.Condition:
        """A condition variable on ``lock``, or on an `RLock` of its own."""
        return _siblings.synchronize.Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> synchronize.Semaphore:
        """A semaphore that starts at ``value``."""
        return _siblings.synchronize.Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> synchronize.BoundedSemaphore:
        """A semaphore that refuses to rise above ``value``."""
        return _siblings.synchronize.BoundedSemaphore(value, ctx=self.get_context())

    def Event(self) -> synchronize.Event:
        """A flag to wait for."""
        return _siblings.synchronize.Event(ctx=self.get_context())

    def Barrier(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> synchronize.Barrier:
        """A point at which ``parties`` processes wait for each other."""
        return _siblings.synchronize.Barrier(parties, action, timeout, ctx=self.get_context())

    # ------------------------------------------------------------ shared memory

    @overload
    def RawValue(self, typecode_or_type: type[Kind], *args: Any) -> Kind: ...
    @overload
    def RawValue(self, typecode_or_type: str, *args: Any) -> Any: ...
    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """A ctypes object in shared memory, without a lock."""
        return _siblings.sharedctypes.RawValue(typecode_or_type, *args)

    @overload
    def RawArray(
        self, typecode_or_type: type[Kind], size_or_initializer: int | Iterable[Any]
    ) -> ctypes.Array[Kind]: ...
    @overload
    def RawArray(self, typecode_or_type: str, size_or_initializer: int | Iterable[Any]) -> Any: ...
    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """A ctypes array in shared memory, without a lock."""
        return _siblings.sharedctypes.RawArray(typecode_or_type, size_or_initializer)

    @overload
    def Value(self, typecode_or_type: type[Kind], *args: Any, lock: Literal[False]) -> Kind: ...
    @overload
    def Value(self, typecode_or_type: str, *args: Any, lock: Literal[False]) -> Any: ...
    @overload
    def Value(
        self, typecode_or_type: type[_SimpleCData[Held]], *args: Any, lock: Any = True
    ) -> sharedctypes.Synchronized[Held]: ...
    @overload
    def Value(self, typecode_or_type: Whole, *args: Any, lock: Any = True) -> sharedctypes.Synchronized[int]: ...
    @overload
    def Value(self, typecode_or_type: Real, *args: Any, lock: Any = True) -> sharedctypes.Synchronized[float]: ...
    @overload
    def Value(self, typecode_or_type: str | type[_CData], *args: Any, lock: Any = True) -> Any: ...
    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A ctypes object in shared memory; ``lock`` is True, False or a lock."""
        return _siblings.sharedctypes.Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    @overload
    def Array(
        self, typecode_or_type: type[Kind], size_or_initializer: int | Iterable[Any], *, lock: Literal[False]
    ) -> ctypes.Array[Kind]: ...
    @overload
    def Array(
        self, typecode_or_type: str, size_or_initializer: int | Iterable[Any], *, lock: Literal[False]
    ) -> Any: ...
    @overload
    def Array(
        self, typecode_or_type: Text, size_or_initializer: int | Iterable[Any], *, lock: Any = True
    ) -> sharedctypes.SynchronizedString: ...
    @overload
    def Array(
        self, typecode_or_type: type[_SimpleCData[Held]], size_or_initializer: int | Iterable[Any], *, lock: Any = True
    ) -> sharedctypes.SynchronizedArray[Held]: ...
    @overload
    def Array(
        self, typecode_or_type: Whole, size_or_initializer: int | Iterable[int], *, lock: Any = True
    ) -> sharedctypes.SynchronizedArray[int]: ...
    @overload
    def Array(
        self, typecode_or_type: Real, size_or_initializer: int | Iterable[float], *, lock: Any = True
    ) -> sharedctypes.SynchronizedArray[float]: ...
    @overload
    def Array(
        self, typecode_or_type: str | type[_CData], size_or_initializer: int | Iterable[Any], *, lock: Any = True
    ) -> Any: ...
    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A ctypes array in shared memory; ``lock`` is True, False or a lock."""
        ctx = self.get_context()
        return _siblings.sharedctypes.Array(typecode_or_type, size_or_initializer, lock=lock, ctx=ctx)

    # ------------------------------------------------------------ settings

    def freeze_support(self) -> None:
        """Take over if this frozen program was started to be a child; else do nothing."""
        if getattr(sys, "frozen", False):
            from . import spawn

            spawn.freeze_support()

    def get_logger(self) -> Logger:
        """The package's logger."""
        from . import util

        return util.get_logger()

    def log_to_stderr(self, level: int | str | None = None) -> Logger:
        """Send the package's log to stderr; return the logger."""
        from . import util

        return util.log_to_stderr(level)

    def allow_connection_pickling(self) -> None:
        """Make connections and sockets picklable."""
        from .connection import Connection  # noqa: F401  (importing it is all)

    def set_executable(self, executable: str | bytes | None) -> None:
        """Set the interpreter with which children are started."""
        from . import spawn

        spawn.set_executable(executable)

    def set_forkserver_preload(self, module_names: list[str], *, on_error: str = "ignore") -> None:
        """Name modules that the fork server imports before it forks.

        ``on_error`` says what an import that fails does: ``'ignore'``, ``'warn'``
        on stderr, or ``'fail'``, which ends the server.
        """
        from . import forkserver

        forkserver.set_forkserver_preload(module_names, on_error=on_error)

    @overload
    def get_context(self, method: None = None) -> DefaultContext: ...
    @overload
    def get_context(self, method: Literal["fork"]) -> ForkContext: ...
    @overload
    def get_context(self, method: Literal["spawn"]) -> SpawnContext: ...
    @overload
    def get_context(self, method: Literal["forkserver"]) -> ForkServerContext: ...
    @overload
    def get_context(self, method: str | None) -> BaseContext: ...
    def get_context(self, method: str | None = None) -> BaseContext:
        """The context of the start method so named; None: this one (of the default context: the program's)."""
        return self._own() if method is None else _context_named(method)

    def _own(self) -> BaseContext:
        return self

    @overload
    def get_start_method(self, allow_none: Literal[False] = False) -> str: ...
    @overload
    def get_start_method(self, allow_none: bool) -> str | None: ...
    def get_start_method(self, allow_none: bool = False) -> str | None:
        """The name of the start method; it is never open here."""
        return self._name

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Only the default context can change its method."""
        raise ValueError("cannot set start method of concrete context")

    @property
    def reducer(self) -> Any:
        """The module (or object) that turns objects into pickles and passes handles.

        One that is set is used by every context: `dump` for what children of the methods ``spawn`` and ``forkserver`` are told,
        `ForkingPickler` for what goes through connections and queues.
        """
        return reduction

    @reducer.setter
    def reducer(self, reduction: Any) -> None:
        _reduce_by(reduction)

    def _check_available(self) -> None:
        """Raise ValueError where the platform cannot do it."""


#: modules that have the reducer as `reduction`, or its pickler as `_ForkingPickler`; those imported later take them from here
_REDUCING = (
    "connection forkserver heap managers popen_forkserver popen_spawn_posix queues resource_sharer sharedctypes spawn"
)


def _reduce_by(reducer: Any) -> None:
    """Use another reducer wherever the present one is used; not where a program has set something else."""
    global reduction
    replaced, reduction = reduction, reducer
    for name in _REDUCING.split():
        module = sys.modules.get(f"{__package__}.{name}")
        if module is None:
            continue
        names, pickler = vars(module), getattr(reducer, "ForkingPickler", None)
        if names.get("reduction") is replaced:
            names["reduction"] = reducer
        if pickler is not None and names.get("_ForkingPickler") is getattr(replaced, "ForkingPickler", None):
            names["_ForkingPickler"] = pickler


def _starting_with(module: str) -> Any:
    """A ``_Popen`` that takes the class from the sibling module, imported when first used."""

    def _Popen(process_obj: process.BaseProcess) -> Any:
        return process._sibling(module).Popen(process_obj)

    return staticmethod(_Popen)


class DefaultContext(BaseContext):
    """The program's own context: settles on a start method when one is first needed.

    Without ``context`` it would settle on the platform's usual one.
    """

    def __init__(self, context: BaseContext | None = None) -> None:
        self._default_context = _platform_default() if context is None else context
        self._actual_context: BaseContext | None = None

    def _settle(self) -> BaseContext:
        settled = self._actual_context
        if settled is None:
            settled = self._actual_context = self._default_context
        return settled

    def _own(self) -> BaseContext:
        return self._settle()

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Settle on a start method; with ``force`` again, or (None) leave it open again."""
        if not (force or self._actual_context is None):
            raise RuntimeError("context has already been set")
        open_again = method is None and force
        self._actual_context = None if open_again else self.get_context(method)

    @overload
    def get_start_method(self, allow_none: Literal[False] = False) -> str: ...
    @overload
    def get_start_method(self, allow_none: bool) -> str | None: ...
    def get_start_method(self, allow_none: bool = False) -> str | None:
        """The name of the start method; None where it is open and ``allow_none``."""
        if allow_none and self._actual_context is None:
            return None
        return self._settle()._name

    def get_all_start_methods(self) -> list[str]:
        """The start methods that this platform has, its default first."""
        first = self._default_context._name
        return [first] + [name for name, ctx in _concrete_contexts.items() if name != first and _is_available(ctx)]


def _is_available(ctx: BaseContext) -> bool:
    try:
        ctx._check_available()
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- the start methods

BaseProcess = process.BaseProcess


class Process(BaseProcess):
    """A process started by the program's chosen start method."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        chosen = _default_context.get_context().Process
        return chosen._Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        chosen = _default_context.get_context().Process
        chosen._after_fork()


class SpawnProcess(BaseProcess):
    """A process that begins as a fresh interpreter."""

    _start_method = "spawn"
    _Popen = _starting_with("popen_spawn_win32" if sys.platform == "win32" else "popen_spawn_posix")

    @staticmethod
    def _after_fork() -> None:
        """Nothing was copied, so nothing is dropped."""


class SpawnContext(BaseContext):
    """Start method ``spawn``."""

    _name, Process = "spawn", SpawnProcess


_concrete_contexts: dict[str, BaseContext] = {"spawn": SpawnContext()}

if sys.platform != "win32":

    class ForkProcess(BaseProcess):
        """A process that begins as a copy of its parent."""

        _start_method = "fork"
        _Popen = _starting_with("popen_fork")

    class ForkServerProcess(BaseProcess):
        """A process that begins as a copy of a small helper process."""

        _start_method = "forkserver"
        _Popen = _starting_with("popen_forkserver")

    class ForkContext(BaseContext):
        """Start method ``fork``."""

        _name, Process = "fork", ForkProcess

    class ForkServerContext(BaseContext):
        """Start method ``forkserver``."""

        _name, Process = "forkserver", ForkServerProcess

        def _check_available(self) -> None:
            # The server is sent the child's descriptors over its socket.
            if not HAVE_SEND_HANDLE:
                raise ValueError("forkserver start method not available")

    _concrete_contexts = {"fork": ForkContext(), **_concrete_contexts, "forkserver": ForkServerContext()}

DefaultContext.Process = Process


def _context_named(method: str) -> BaseContext:
    found = _concrete_contexts.get(method)
    if found is None:
        raise ValueError(f"cannot find context for {method!r}")
    found._check_available()
    return found


def _platform_default() -> BaseContext:
    """The context that the running Python's own package would take."""
    if sys.platform in ("win32", "darwin"):  # macOS's own libraries do not survive a fork
        usual = "spawn"
    elif sys.version_info < (3, 14):
        usual = "fork"
    else:
        usual = "forkserver" if HAVE_SEND_HANDLE else "spawn"
    return _concrete_contexts[usual]


_default_context = DefaultContext()


def _force_start_method(method: str) -> None:
    """Settle the default context on what a child was started with, and which is available therefore."""
    _default_context._actual_context = _concrete_contexts[method]


# ---------------------------------------------------------------- while a child is started

_tls = local()


def get_spawning_popen() -> Any:
    """The Popen for which this thread is pickling right now, or None."""
    return getattr(_tls, "spawning_popen", None)


def set_spawning_popen(popen: Any) -> None:
    """Say for which Popen this thread pickles from now on; None: for none."""
    from ._impl.compat import neighbour

    _tls.spawning_popen = popen
    neighbour.spawning(popen)


def assert_spawning(obj: object) -> None:
    """Raise RuntimeError unless ``obj`` is being pickled for a child that is being started."""
    if get_spawning_popen() is not None:
        return
    raise RuntimeError(f"{type(obj).__name__} objects should only be shared between processes through inheritance")


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name.startswith("__"):  # the import system asks for some
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ._impl.compat.imported_names import find

        return find(__name__, name)


late_annotations.take_off(globals())
