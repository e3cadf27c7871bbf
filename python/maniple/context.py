"""Contexts: each has one start method, and methods that make the package's objects for it.

The methods of `BaseContext` make objects that belong to the context's start
method.  `DefaultContext` uses the program's start method.  Its bound methods are
the functions of the package itself.
"""

# Type checkers see the contexts as subclasses of the standard package's contexts (see `ObjectFactories`), so that
# `ProcessPoolExecutor(mp_context=...)` accepts them. The methods return this package's objects.
# mypy: disable-error-code=override
from __future__ import annotations

import os
import sys
from threading import local

from . import process
from . import reduction as reduction
from ._impl.compat import public_module
from ._impl.compat.factories import ObjectFactories
from .reduction import HAVE_SEND_HANDLE

reduction.context = sys.modules[__name__]

# Not `typing.TYPE_CHECKING`: the import of `typing` would take a third of the time that this package takes to import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger
    from typing import Any, Literal, overload
else:

    def overload(signature: object) -> None:
        """Ignore a signature that only type checkers read; the next definition replaces it."""


__all__ = ("AuthenticationError", "BufferTooShort", "ManipleError", "ProcessError", "TimeoutError")

# ---------------------------------------------------------------- exceptions


class ManipleError(Exception):
    """The base class of all exceptions that this package defines.

    Exceptions that the standard package also has keep their standard bases beside it, so existing ``except`` clauses
    catch what they caught before. The package also raises exceptions of Python's own, which do not derive from
    this class: `ValueError`, `OSError`, `EOFError`, `queue.Empty`, `queue.Full`, `threading.BrokenBarrierError`.
    The standard package does not have this class.
    """

    #: the exceptions of the earlier tries of the task, if it had `retries`; exceptions of the program have this only after such tries
    earlier_errors: tuple[BaseException, ...] = ()


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


class BaseContext(ObjectFactories):
    """The functions and classes of the package for one start method.

    `get_context` returns a context. Its methods have the names of the package's functions; the objects that they
    make belong to the context's start method.
    """

    _name: str
    Process: type[process.BaseProcess]

    # A context has all names of the package, also the exceptions.
    ProcessError, BufferTooShort, TimeoutError, AuthenticationError = _EXCEPTIONS  # type: ignore[assignment]

    current_process = staticmethod(process.current_process)  # type: ignore[assignment]
    parent_process = staticmethod(process.parent_process)  # type: ignore[assignment]
    active_children = staticmethod(process.active_children)  # type: ignore[assignment]

    # ------------------------------------------------------------ machine

    def cpu_count(self) -> int:
        """Return the number of processors of this machine.

        The number may be larger than the number that this process may use; `Pool` counts only usable processors.

        Raises:
            NotImplementedError: the system does not report the number.
        """
        if (count := os.cpu_count()) is None:
            raise NotImplementedError("cannot determine number of cpus")
        return count

    # ------------------------------------------------------------ settings

    def freeze_support(self) -> None:
        """Run the child's part, and exit, if this frozen program was started as a child; do nothing otherwise.

        A program that is frozen into an executable calls it first under ``if __name__ == "__main__"``.
        """
        if getattr(sys, "frozen", False):
            from . import spawn

            spawn.freeze_support()

    def get_logger(self) -> Logger:
        """Return the package's `logging.Logger`. It has no handler and does not propagate to the root logger."""
        from . import util

        return util.get_logger()

    def log_to_stderr(self, level: int | str | None = None) -> Logger:
        """Add a handler that writes the package's log to standard error, and return the logger.

        Args:
            level: the level of the logger, such as `logging.INFO`; None leaves the level as it is.
        """
        from . import util

        return util.log_to_stderr(level)

    def allow_connection_pickling(self) -> None:
        """Import the module that makes connections and sockets picklable. This package needs no call of it."""
        from .connection import Connection  # noqa: F401  (the import registers the reducers)

    def set_executable(self, executable: str | bytes | None) -> None:
        """Set the Python interpreter that the start methods ``spawn`` and ``forkserver`` run.

        Args:
            executable: the path of the interpreter. The default is `sys.executable`.
        """
        from . import spawn

        spawn.set_executable(executable)

    def set_forkserver_preload(self, module_names: list[str], *, on_error: str = "ignore") -> None:
        """Set the modules that the fork server imports before it forks the first child.

        Args:
            module_names: the names of the modules. If this is never called, the server imports the program's main
                module, from Python 3.13.10 on.
            on_error: what the server does when an import fails: ``'ignore'`` it, ``'warn'`` on standard error, or
                ``'fail'``, which ends the server.

        Raises:
            TypeError: `module_names` is not a list of str.
            ValueError: `on_error` has another value.
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
        """Return the context of a start method: an object with the functions and classes of this package.

        Args:
            method: ``'fork'``, ``'spawn'`` or ``'forkserver'``; None means this context, and for the package's own function
                the context of the program's start method, which is fixed from then on.

        Raises:
            ValueError: this system has no such start method.
        """
        return self._own() if method is None else _context_named(method)

    def _own(self) -> BaseContext:
        return self

    @overload
    def get_start_method(self, allow_none: Literal[False] = False) -> str: ...
    @overload
    def get_start_method(self, allow_none: bool) -> str | None: ...
    def get_start_method(self, allow_none: bool = False) -> str | None:
        """Return the name of the context's start method.

        Args:
            allow_none: has no effect here; the context always has a start method.
        """
        return self._name

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Raise ValueError: only the default context, which is the package itself, can change its start method."""
        raise ValueError("cannot set start method of concrete context")

    @property
    def reducer(self) -> Any:
        """The module, or the object, that pickles objects and passes descriptors.

        A reducer that is set applies to all contexts: its `dump` pickles what children of the methods ``spawn`` and ``forkserver``
        receive, and its `ForkingPickler` pickles what goes through connections and queues.
        """
        return reduction

    @reducer.setter
    def reducer(self, reduction: Any) -> None:
        _reduce_by(reduction)

    def _check_available(self) -> None:
        """Raise ValueError if the system does not support the start method."""


#: modules that have the reducer as `reduction`, or its pickler as `_ForkingPickler`; modules that are imported later read both here
_REDUCING = (
    "connection forkserver heap managers popen_forkserver popen_spawn_posix queues resource_sharer sharedctypes spawn"
)


def _reduce_by(reducer: Any) -> None:
    """Replace the present reducer in all modules that use it; a module for which the program has set another keeps that."""
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
    """Return a ``_Popen`` function that makes a ``Popen`` of the given module; the first call imports the module."""

    def _Popen(process_obj: process.BaseProcess) -> Any:
        return process._sibling(module).Popen(process_obj)

    return staticmethod(_Popen)


class DefaultContext(BaseContext):
    """The context behind the functions of the package itself.

    It takes the program's start method: the method of `set_start_method`, or the system's default at the first use.
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
        """Set the start method of the program. Call it at most once, under ``if __name__ == "__main__"``.

        Args:
            method: ``'fork'``, ``'spawn'`` or ``'forkserver'``. None, with `force`, removes the choice.
            force: True replaces a start method that is already fixed.

        Raises:
            RuntimeError: the start method is already fixed, and `force` is false.
            ValueError: this system has no such start method.
        """
        if not (force or self._actual_context is None):
            if getattr(process.current_process(), "_inheriting", False):
                from ._impl.start.unguarded import error_in_child

                raise error_in_child("calls set_start_method()")
            raise RuntimeError("context has already been set")
        open_again = method is None and force
        self._actual_context = None if open_again else self.get_context(method)

    @overload
    def get_start_method(self, allow_none: Literal[False] = False) -> str: ...
    @overload
    def get_start_method(self, allow_none: bool) -> str | None: ...
    def get_start_method(self, allow_none: bool = False) -> str | None:
        """Return the name of the program's start method; unless `allow_none`, the call fixes the method.

        Args:
            allow_none: True returns None if the start method is not fixed yet.
        """
        if allow_none and self._actual_context is None:
            return None
        return self._settle()._name

    def get_all_start_methods(self) -> list[str]:
        """Return the names of the start methods that this system supports; the first is the default."""
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
    """An activity that runs in a separate process, started by the program's start method.

    The interface is that of `threading.Thread`: make an object, `start` it, `join` it. A subclass may override `run`.

    Args:
        group: None; the parameter exists for likeness with `threading.Thread`.
        target: the function that `run` calls in the child. None means that the child does nothing.
        name: a name for logs and messages; None generates one.
        args: the positional arguments of `target`.
        kwargs: the keyword arguments of `target`.
        daemon: True terminates the process when the process that made it exits. None takes the value of the
            current process. A daemonic process may not have children. The workers of a pool
            are daemonic, and may.
        env: environment variables of the child, a dict of str; None as a value removes a variable. They are set before the child
            loads the main module (spawn, forkserver).
        cwd: the directory in which the child calls `run`. The main module is loaded in the program's directory.

    Attributes: `name`, `daemon`, `pid` (also `ident`), `exitcode`, `authkey`, `sentinel`.

    Under ``spawn`` and ``forkserver`` the child receives `target`, `args` and `kwargs` as a pickle. Lambdas, closures and
    local classes are sent by value; the standard package refuses them.

    Example::

        def greet(name):
            print("hello", name)

        if __name__ == "__main__":
            child = maniple.Process(target=greet, args=("world",))
            child.start()
            child.join()
            print(child.exitcode)  # 0
    """

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        chosen = _default_context.get_context().Process
        return chosen._Popen(process_obj)

    @staticmethod
    def _after_fork() -> None:
        chosen = _default_context.get_context().Process
        chosen._after_fork()


class SpawnProcess(BaseProcess):
    """A `Process` that starts as a fresh interpreter."""

    _start_method = "spawn"
    _Popen = _starting_with("popen_spawn_win32" if sys.platform == "win32" else "popen_spawn_posix")

    @staticmethod
    def _after_fork() -> None:
        """Do nothing: a fresh interpreter has copied nothing from its parent."""


class SpawnContext(BaseContext):
    """The context of the start method ``spawn``: a child is a fresh interpreter. It works on all systems."""

    _name, Process = "spawn", SpawnProcess


_concrete_contexts: dict[str, BaseContext] = {"spawn": SpawnContext()}

if sys.platform != "win32":

    class ForkProcess(BaseProcess):
        """A `Process` that starts as a copy of its parent."""

        _start_method = "fork"
        _Popen = _starting_with("popen_fork")

    class ForkServerProcess(BaseProcess):
        """A `Process` that starts as a copy of the fork server."""

        _start_method = "forkserver"
        _Popen = _starting_with("popen_forkserver")

    class ForkContext(BaseContext):
        """The context of the start method ``fork``: a child is a copy of its parent, made by `os.fork`."""

        _name, Process = "fork", ForkProcess

    class ForkServerContext(BaseContext):
        """The context of the start method ``forkserver``: a child is a copy of a small helper process without threads.

        The helper process starts with the first child.
        """

        _name, Process = "forkserver", ForkServerProcess

        def _check_available(self) -> None:
            # The server receives the child's descriptors over its socket.
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
    """Return the context that the standard package of the running Python uses by default."""
    if sys.platform in ("win32", "darwin"):  # macOS's own libraries do not survive a fork
        usual = "spawn"
    elif sys.version_info < (3, 14):
        usual = "fork"
    else:
        usual = "forkserver" if HAVE_SEND_HANDLE else "spawn"
    return _concrete_contexts[usual]


_default_context = DefaultContext()


def _force_start_method(method: str) -> None:
    """Fix the default context's start method in a child: the method that started the child is available."""
    _default_context._actual_context = _concrete_contexts[method]


# ---------------------------------------------------------------- while a child is started

_tls = local()


def get_spawning_popen() -> Any:
    """Return the `Popen` object for which this thread pickles a child at the moment, or None."""
    return getattr(_tls, "spawning_popen", None)


def set_spawning_popen(popen: Any) -> None:
    """Set the `Popen` object for which this thread pickles a child; None means that it pickles no child."""
    from ._impl.compat import standard_package

    _tls.spawning_popen = popen
    standard_package.spawning(popen)


def assert_spawning(obj: object) -> None:
    """Raise RuntimeError unless this thread pickles a child at the moment.

    Locks, queues and shared memory call it when they are pickled: only the start of a child may pickle them.
    """
    if get_spawning_popen() is not None:
        return
    standard = sys.modules.get("multiprocessing.context")
    if standard is not None and standard.get_spawning_popen() is not None:
        name = type(obj).__name__
        raise RuntimeError(
            f"a {name} of maniple can only be an argument of a process of maniple, and this process is one of multiprocessing: start it by "
            f"maniple.Process, or make the {name} by multiprocessing"
        )
    raise RuntimeError(
        f"{type(obj).__name__} objects should only be shared between processes through inheritance: give it to the processes as they "
        f"start, by Process(args=...) or by Pool(initializer=..., initargs=...), or use such an object of a Manager()"
    )


public_module.finish(globals())
