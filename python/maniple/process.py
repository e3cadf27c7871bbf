"""Process objects: `BaseProcess`, the current process, its parent and its children.

`BaseProcess` describes a process, starts it, waits for it and ends it.  A
``Popen`` class for each start method makes the operating system's process;
`maniple.context` puts these classes into the subclasses of `BaseProcess`.

A process object is *initial* (made), *started*, *stopped* (the process ended, its
exit code is known) or *closed*.  Only the process that made it may start and join it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from weakref import WeakSet

from ._impl.compat import public_module
from ._impl.start import imports_in_progress  # noqa: F401  # its fork hook has to be registered before all others

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["BaseProcess", "current_process", "active_children", "parent_process"]


# Relative names in sys.path and of scripts refer to this directory, also after
# the program has changed to another one.
def _starting_place() -> str | None:
    try:
        return os.path.abspath(os.curdir)
    except (FileNotFoundError, PermissionError):  # the directory was removed, or may no longer be read
        return None


ORIGINAL_DIR = _starting_place()


#: modules of this package whose import has ended, by their names below the package
_whole: dict[str, Any] = {}


def _sibling(name: str) -> Any:
    """Return a module of this package that this module cannot import at its top, because it imports this one.

    A forked child runs as little code as possible: each function that it calls for the first time, also the import machinery,
    makes it copy memory pages.  `sys.modules` alone would not do: it also contains modules that another thread is still importing.
    """
    module = _whole.get(name)
    if module is None:
        from importlib import import_module

        module = _whole[name] = import_module(f"{__package__}.{name}")  # waits for another thread that imports it
    return module


def current_process() -> BaseProcess:
    """Return the `Process` object of the current process."""
    return _current_process


def active_children() -> list[BaseProcess]:
    """Return a list of the living children of the current process.

    The call also reaps the children that have ended.
    """
    _cleanup()
    return [*_children]


def parent_process() -> BaseProcess | None:
    """Return an object for the parent of the current process; None in the main process.

    The object has `name`, `pid`, `is_alive`, `join` and `sentinel`.
    """
    return _parent_process


def _cleanup() -> None:
    for child in tuple(_children):
        if child._has_ended():
            _children.discard(child)


# Milliseconds that a process has to clean up after its parent has ended.
_GRACE = 2000

# The running version's default for `kwargs`; both values are accepted.
_NO_KWARGS: Mapping[str, Any] | None = None if sys.version_info >= (3, 14) else {}


def _refuse(reason: str) -> NoReturn:
    # Callers of the standard package catch AssertionError. A raise statement, so that the check also works under python -O.
    raise AssertionError(reason)


class BaseProcess:
    """An activity that runs in a separate process; the base class of the `Process` class of each context.

    The parameters are those of `maniple.Process`.
    """

    _start_method: str | None = None
    # A manager's server is not a daemon, but it ends with its parent, too.
    _ends_with_maker: bool = False
    # What the child changes before it calls `run`: a `Surroundings`.
    _surroundings: Any = None

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:
        raise NotImplementedError(f"{type(process_obj).__name__} names no start method: take Process from a context")

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = _NO_KWARGS,
        *,
        daemon: bool | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        if group is not None:
            _refuse(
                "group argument must be None for now"
                + ("; the function is the argument target: Process(target=...)" if callable(group) else "")
            )
        maker = _current_process
        self._identity: tuple[int, ...] = (*maker._identity, next(_process_counter))
        self._config: dict[str, Any] = dict(maker._config)
        self._parent_pid, self._parent_name = os.getpid(), maker.name
        self._popen, self._closed = None, False
        self._target, self._args, self._kwargs = target, _checked_args(args), dict(kwargs or ())
        self._name: str = name or f"{type(self).__name__}-{':'.join(map(str, self._identity))}"
        if daemon is not None:
            self.daemon = daemon
        if env is not None or cwd is not None:
            self._surroundings = _surroundings_of(env, cwd)
        _dangling.add(self)

    # ------------------------------------------------------------ checks

    if not TYPE_CHECKING:  # hidden from type checkers, so that they report misspelt names

        def __getattr__(self, name: str) -> Any:
            if name in ("_closed", "_popen", "_identity", "_config", "_parent_pid") and "_identity" not in vars(self):
                raise AttributeError(
                    f"{type(self).__name__!r} object has no attribute {name!r}: {type(self).__qualname__}.__init__ has not called "
                    "super().__init__()"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def _opened(self) -> Any:
        """Return the Popen behind this object, or None before `start`; raise ValueError after `close`."""
        if self._closed:
            raise ValueError(f"process object is closed: {self._name}")
        return self._popen

    def _running(self, action: str) -> Any:
        """Return the Popen behind this object for an action that needs it."""
        if (popen := self._opened()) is None:
            raise AttributeError(f"can only {action} a started process")  # the standard package's type of error
        return popen

    def _check_closed(self) -> None:
        self._opened()

    def _opened_here(self, action: str) -> Any:
        """Return the Popen for an action that only the process that made this object may take."""
        popen = self._opened()
        if self._parent_pid != os.getpid():
            _refuse(f"can only {action} a child process")
        return popen

    def _is_tied(self) -> bool:
        """Return whether the process ends when its parent ends, also if the parent is killed."""
        return self._ends_with_maker or bool(self._config.get("daemon"))

    def _has_ended(self) -> bool:
        popen = self._popen
        return popen is not None and popen.poll() is not None

    # ------------------------------------------------------------ life

    def run(self) -> None:
        """Call ``target(*args, **kwargs)``. The child calls this method; a subclass may override it.

        An exception that it raises is printed to the child's standard error, and the exit code is 1.
        """
        if (work := self._target) is not None:
            work(*self._args, **self._kwargs)

    def start(self) -> None:
        """Start the process. Each object can be started once, by the process that made it.

        Raises:
            AssertionError: the process has been started already, another process made the object, or the current process
                is daemonic.
            OSError: the system lacks descriptors, memory or processes for the child; nothing is left behind.
            pickle.PicklingError, TypeError, AttributeError: an argument cannot be pickled (``spawn`` and ``forkserver``).
        """
        if self._opened() is not None:
            _refuse("cannot start a process twice")
        if os.getpid() != self._parent_pid:
            _refuse("can only start a process object created by current process")
        ours = _current_process._config
        # A daemonic process that is terminated would leave its children running. A pool's worker ends its children
        # itself, as its configuration says.
        if ours.get("daemon") and not ours.get("may_have_children"):
            _refuse("daemonic processes are not allowed to have children")
        _cleanup()
        if self._is_tied():
            _sibling("_maniple")  # imported here, so that no forked child has to import it
        try:
            self._popen = self._Popen(self)
        except (OSError, MemoryError) as problem:
            from ._impl.start.descriptors import explain_shortage  # loaded with each kind of Popen

            explain_shortage(problem, "the process cannot be started")
            raise
        finally:
            # Also if a signal handler has raised after the child had started: the Popen then stores itself.
            if (popen := self._popen) is not None:
                self._sentinel: int = popen.sentinel
                _children.add(self)
        # The arguments may refer to large objects, or to this object: drop them.
        for spent in ("_target", "_args", "_kwargs"):
            delattr(self, spent)

    def interrupt(self) -> None:
        """Send SIGINT to the process. Python raises KeyboardInterrupt there, unless the process handles the signal.

        The standard package has this method from Python 3.14 on.
        """
        self._running("interrupt").interrupt()

    def terminate(self) -> None:
        """Send SIGTERM to the process; on Windows, end it.

        Unless the process handles the signal, its ``finally`` blocks and exit handlers do not run. Its daemonic children end with
        it; its other children keep running.
        """
        self._running("terminate").terminate()

    def kill(self) -> None:
        """Send SIGKILL to the process; on Windows, end it."""
        self._running("kill").kill()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the process ends. It may be called any number of times.

        Args:
            timeout: the time limit in seconds; None means no limit. Afterwards `exitcode` is None if the process still runs.

        Raises:
            AssertionError: the process is not a started child of the current process.
        """
        popen = self._opened_here("join")
        if popen is None:
            _refuse("can only join a started process")
        if popen.wait(timeout) is not None:
            _children.discard(self)

    async def join_async(self) -> None:
        """Wait until the process ends, in a task of asyncio, trio or anyio: the event loop is not blocked.

        If the task is cancelled, the process runs on.

        Raises:
            AssertionError: the process is not a started child of the current process.
        """
        from ._impl.aio.doors import door

        if self._opened_here("join") is None:
            _refuse("can only join a started process")
        here = door()
        await here.checkpoint()
        while not self._closed and not self._has_ended():
            await here.readable(self.sentinel)
        if not self._closed:  # else another thread or task has seen the end
            self.join()

    def is_alive(self) -> bool:
        """Return True if the process has been started and has not ended."""
        popen = self._opened()
        if _current_process is self:
            return True
        self._opened_here("test")
        if popen is not None and popen.poll() is None:
            return True
        _children.discard(self)
        return False

    def close(self) -> None:
        """Release the descriptors of the object. Most methods of a closed object raise ValueError.

        Raises:
            ValueError: the process is still running.
        """
        popen = self._popen
        if popen is not None:
            # Not `_has_ended`: another thread may be closing the object as well.
            if popen.poll() is None:
                raise ValueError(
                    "Cannot close a process while it is still running. You should first call join() or terminate()."
                )
            self._closed = True  # first: a thread that finds no sentinel finds the reason
            sentinel = popen.sentinel
            popen.close()
            vars(self).pop("_sentinel", None)
            _children.discard(self)
            if (doors := sys.modules.get(f"{__package__}._impl.aio.doors")) is not None:
                doors.descriptor_closed(sentinel)  # a task may wait in `join_async`
        self._popen, self._closed = None, True

    # ------------------------------------------------------------ description

    @property
    def name(self) -> str:
        """The name of the process, a str. It serves logs and messages only and need not be unique."""
        return self._name

    @name.setter
    def name(self, text: str) -> None:
        if not isinstance(text, str):
            _refuse("name must be a string")
        self._name = text

    @property
    def daemon(self) -> bool:
        """Whether the process is terminated when the process that made it exits. It can be set before `start` only."""
        return bool(self._config.get("daemon", False))

    @daemon.setter
    def daemon(self, daemonic: bool) -> None:
        if self._popen:
            _refuse("process has already started")
        self._config["daemon"] = daemonic

    @property
    def authkey(self) -> bytes:
        """The authentication key of the process, bytes. A child receives the key of its parent."""
        key: bytes = self._config["authkey"]
        return key

    @authkey.setter
    def authkey(self, authkey: bytes) -> None:
        self._config["authkey"] = AuthenticationString(authkey)

    @property
    def exitcode(self) -> int | None:
        """The exit code of the process; None if it has not ended. ``-N`` means that signal N ended it."""
        popen = self._opened()
        return None if popen is None else popen.poll()

    @property
    def ident(self) -> int | None:
        """The process id; None before `start`."""
        popen = self._opened()
        return os.getpid() if self is _current_process else popen and popen.pid

    pid = ident

    @property
    def sentinel(self) -> int:
        """A file descriptor (on Windows, a handle) that becomes ready when the process ends; `maniple.connection.wait` accepts it.

        Raises:
            ValueError: the process has not been started.
        """
        self._opened()
        if (found := vars(self).get("_sentinel")) is None:
            self._opened()
            raise ValueError("process not started: it has no sentinel yet")
        return int(found)

    def _state(self) -> tuple[str, int | None]:
        """Return the state for `repr`, and the exit code or None."""
        if self._closed:
            return "closed", None
        if _current_process is self:
            return "started", None
        if os.getpid() != self._parent_pid:
            return "unknown", None
        if (popen := self._popen) is None:
            return "initial", None
        code = popen.poll()
        return ("started" if code is None else "stopped"), code

    def __repr__(self) -> str:
        state, code = self._state()
        words = [type(self).__name__, f"name={self._name!r}"]
        if (popen := self._popen) is not None:
            words.append(f"pid={popen.pid}")
        words += [f"parent={self._parent_pid}", state]
        if code is not None:
            from ._impl.start.exits import name_of_exit

            words.append(f"exitcode={name_of_exit(code)}")
        if self._config.get("daemon"):
            words.append("daemon")
        return f"<{' '.join(words)}>"

    # ------------------------------------------------------------ inside the child

    @staticmethod
    def _after_fork() -> None:
        """Drop the copies of objects that belong only to the parent."""
        _sibling("util")._begin_afresh()
        _sibling("_impl.compat.standard_package").after_fork()

    def _become_current(self, parent_sentinel: int | None) -> None:
        """Make ``self`` the current process of this interpreter, and apply its settings."""
        global _children, _current_process, _parent_process, _process_counter
        util = _sibling("util")
        if (method := self._start_method) is not None:
            _sibling("context")._force_start_method(method)
        copied_from = _current_process  # the hooks may need it alive
        _process_counter, _children, _current_process = count(1), set(), self
        _parent_process = _ParentProcess(self._parent_name, self._parent_pid, parent_sentinel)
        if parent_sentinel is not None and self._is_tied():
            try:
                _sibling("_maniple").end_after(parent_sentinel, self._parent_pid, _GRACE)
            except OSError as problem:
                from ._impl.start.exits import end_without_start

                end_without_start(self.name, problem)
        util._close_stdin()
        if "logging" in sys.modules:
            util._name_in_logs()
        if getattr(threading, "_HAVE_THREAD_NATIVE_ID", False):
            main: Any = threading.main_thread()
            main._set_native_id()
        try:
            self._after_fork()
        finally:
            del copied_from

    def _bootstrap(self, parent_sentinel: int | None = None) -> int:
        """Run this process, except for its work at exit, and return its exit code."""
        util = _sibling("util")
        code = 1
        try:
            self._become_current(parent_sentinel)
            if self._surroundings is not None:
                self._surroundings.enter()
            util.info("child process calling self.run()")
            self.run()
            code = 0
        except SystemExit as leaving:
            code = _code_of(leaving)
        except BaseException:
            code = _report_failure(self.name)
        finally:
            # The caller runs the functions of `atexit`, which also join the children, as at a program's end. The standard
            # package does so since 3.13.
            if _HELPERS_END_FIRST:
                if not _exit_work_follows:
                    util._exit_function()
                elif len(threading._active) > 1:  # type: ignore[attr-defined]  # saves most children the call
                    util._end_helpers_of_threads()
            threading._shutdown()  # type: ignore[attr-defined]
            util._log_exit(code, _exit_work_follows)
            util._flush_std_streams()
        return code


# Before 3.13 the standard package terminates daemonic children before it joins threads, since a thread may wait for a child.
_HELPERS_END_FIRST = sys.version_info < (3, 13)
# Set by a caller of `_bootstrap` that runs the work at exit itself. A program that calls `_bootstrap`, written for the standard
# package before 3.13, does not.
_exit_work_follows = False


def _checked_args(args: Iterable[Any]) -> tuple[Any, ...]:
    try:
        return tuple(args)
    except TypeError as problem:
        if hasattr(args, "__iter__"):
            raise  # its iteration has failed
        raise TypeError(
            f"args must be a tuple of the target's arguments, such as ({args!r},), not {args!r}"
        ) from problem


def _surroundings_of(env: Any, cwd: Any) -> Any:
    from ._impl.start.surroundings import Surroundings, checked_directory, checked_environment

    return Surroundings(
        None if env is None else checked_environment(env), None if cwd is None else checked_directory(cwd)
    )


def _code_of(leaving: SystemExit) -> int:
    """Return the exit status that Python uses for this SystemExit."""
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code
    _say(lambda: sys.stderr.write(f"{leaving.code}\n"))
    return 1


def _report_failure(name: str) -> int:
    from traceback import print_exc

    error = sys.exc_info()[1]
    if (
        isinstance(error, NameError)
        and (received := sys.modules.get(f"{__package__}._impl.serialization.received")) is not None
    ):
        received.explain(error)

    def report() -> None:
        sys.stderr.write(f"Process {name}:\n")
        print_exc()

    _say(report)
    return 1


def _say(report: Callable[[], object]) -> None:
    """Call `report`, which writes to `sys.stderr`; if that fails, call it again with `sys.__stderr__`."""
    chosen = sys.stderr
    if chosen is None:
        return
    try:
        report()
    except Exception:
        sys.stderr = sys.__stderr__
        try:
            report()
        except Exception:
            pass  # there is no original stderr
        finally:
            sys.stderr = chosen


class AuthenticationString(bytes):
    """An authentication key. It can be pickled only while a child is started, so that it does not leak."""

    def __reduce__(self) -> tuple[type[AuthenticationString], tuple[bytes]]:
        from . import context

        if context.get_spawning_popen() is None:
            raise TypeError("Pickling an AuthenticationString object is disallowed for security reasons")
        return type(self), (bytes(self),)


class _Unstarted(BaseProcess):
    """A process that this interpreter did not start by a Popen."""

    def __init__(self, name: str) -> None:
        vars(self).update(
            _identity=(), _name=name, _parent_pid=None, _parent_name=None, _popen=None, _closed=False, _config={}
        )


class _ParentProcess(_Unstarted):
    """The process that started the current process."""

    def __init__(self, name: str, pid: Any, sentinel: Any) -> None:
        # Assigned one by one, since each forked child runs this code (see `_sibling`).
        self._identity, self._config = (), {}
        self._name, self._pid, self._sentinel = name, pid, sentinel
        self._parent_pid: Any = None
        self._parent_name: Any = None
        self._popen, self._closed = None, False

    def _ended(self, timeout: float | None) -> bool:
        from .connection import wait

        return bool(wait([self._sentinel], timeout=timeout))

    def is_alive(self) -> bool:
        """Return True if the parent is still running."""
        return not self._ended(0)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the parent ends.

        Args:
            timeout: the time limit in seconds; None means no limit.
        """
        self._ended(timeout)

    ident = property(lambda self: self._pid, doc="The parent's pid.")
    pid = ident


def _key_of_the_standard_package() -> bytes:
    """Return the authentication key of the standard package in this process; empty if that package is not imported.

    A library that starts Python itself (loky does) passes the program's key to the standard package of the new process.  This
    package uses the same key there, so that proxies of managers and descriptors from the program are accepted.
    """
    theirs = sys.modules.get("multiprocessing.process")
    return bytes(getattr(getattr(theirs, "_current_process", None), "_config", {}).get("authkey", b""))


class _MainProcess(_Unstarted):
    """The main process of the program, or another process that this package did not start."""

    def __init__(self) -> None:
        super().__init__("MainProcess")
        # All descendants copy both.  The standard package names semaphores by the prefix.
        key = _key_of_the_standard_package() or os.urandom(32)
        self._config.update(authkey=AuthenticationString(key), semprefix="/mp")

    def close(self) -> None:
        """Do nothing: the object of the main process holds nothing."""


_parent_process: BaseProcess | None = None
_process_counter: count[int] = count(1)
_children: set[BaseProcess] = set()
# All Process objects that exist; leak checks read it.
_dangling: WeakSet[BaseProcess] = WeakSet()
_current_process: BaseProcess = _MainProcess()


public_module.finish(globals())
