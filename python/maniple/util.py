"""Utilities: logging, finalizers, fork hooks, the temporary directory, the end of a process.

Nearly every module of the package imports this one, and every child of the
``spawn`` method runs all of it.  So it imports few modules, and most of them late.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterable
from itertools import count
from weakref import ref

from . import process as process
from ._impl.compat import public_module
from ._impl.start.after_fork import _afterfork_counter, _afterfork_registry, _run_after_forkers  # noqa: F401
from ._impl.start.after_fork import register_after_fork as register_after_fork
from ._impl.start.descriptors import _close_stdin as _close_stdin
from ._impl.start.descriptors import _flush_std_streams as _flush_std_streams
from ._impl.start.descriptors import descriptor_limit
from .process import _cleanup, active_children, current_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger
    from typing import Any

__all__ = [
    "sub_debug",
    "debug",
    "info",
    "sub_warning",
    "warn",
    "get_logger",
    "log_to_stderr",
    "get_temp_dir",
    "register_after_fork",
    "is_exiting",
    "Finalize",
    "ForkAwareThreadLock",
    "ForkAwareLocal",
    "close_all_fds_except",
    "SUBDEBUG",
    "SUBWARNING",
]

# ---------------------------------------------------------------- logging

NOTSET, SUBDEBUG, DEBUG, INFO, SUBWARNING, WARNING = 0, 5, 10, 20, 25, 30

# Existing logging configurations use this name.
LOGGER_NAME = "multiprocessing"
DEFAULT_LOGGING_FORMAT = "[%(levelname)s/%(processName)s] %(message)s"

_logger: Logger | None = None
_log_to_stderr: bool = False


def sub_debug(msg: object, *args: object) -> None:
    """Log a message at `SUBDEBUG` (5). It costs nothing before `get_logger` is called."""
    if (log := _logger) is not None:
        log.log(SUBDEBUG, msg, *args, stacklevel=2)


def debug(msg: object, *args: object) -> None:
    """Log a message at DEBUG."""
    if (log := _logger) is not None:
        log.log(DEBUG, msg, *args, stacklevel=2)


def info(msg: object, *args: object) -> None:
    """Log a message at INFO."""
    if (log := _logger) is not None:
        log.log(INFO, msg, *args, stacklevel=2)


def sub_warning(msg: object, *args: object) -> None:
    """Log a message at `SUBWARNING` (25)."""
    if (log := _logger) is not None:
        log.log(SUBWARNING, msg, *args, stacklevel=2)


def warn(msg: object, *args: object) -> None:
    """Log a message at WARNING."""
    if (log := _logger) is not None:
        log.log(WARNING, msg, *args, stacklevel=2)


def _name_in_logs() -> None:
    """Put this process's name into log records, if the program has imported `logging`.

    `logging` reads the name from the module ``multiprocessing``, which may be the standard package, or absent.
    """
    logging = sys.modules.get("logging")
    # Another thread may be importing `logging` at the moment.
    if (
        logging is None
        or not hasattr(logging, "setLogRecordFactory")
        or sys.modules.get("multiprocessing") is sys.modules[__package__]
    ):
        return
    make = logging.getLogRecordFactory()
    if getattr(make, "names_process", False):  # copied by a fork
        return

    def make_named(*args: Any, **kwargs: Any) -> Any:
        record = make(*args, **kwargs)
        if record.processName is not None:  # logging.logMultiprocessing
            record.processName = current_process().name
        return record

    vars(make_named)["names_process"] = True
    logging.setLogRecordFactory(make_named)


def get_logger() -> Logger:
    """Return the package's `logging.Logger`. It has no handler and does not propagate to the root logger."""
    global _logger
    if (log := _logger) is None:
        from logging import getLogger

        log = getLogger(LOGGER_NAME)
        log.propagate = False
        _name_in_logs()
        # Registered again, so that `_exit_function` runs (and may log) before the
        # shutdown that `logging` registered when it was imported.
        _register_exit(again=True)
        _logger = log
    return log


def log_to_stderr(level: int | str | None = None) -> Logger:
    """Add a handler that writes the package's log to standard error, and return the logger.

    Args:
        level: the level of the logger; None leaves the level as it is.
    """
    global _log_to_stderr
    from logging import Formatter, StreamHandler

    to_stderr = StreamHandler()
    to_stderr.setFormatter(Formatter(DEFAULT_LOGGING_FORMAT))
    target = get_logger()
    target.addHandler(to_stderr)
    if level:
        target.setLevel(level)
    _log_to_stderr = True
    return target


# ---------------------------------------------------------------- addresses


def _platform_supports_abstract_sockets() -> bool:
    return sys.platform in ("linux", "android")


def is_abstract_socket_namespace(address: str | bytes | None) -> bool:
    """Return True if `address` names a socket without a file (Linux: it begins with a NUL)."""
    if isinstance(address, str):
        return address.startswith("\0")
    if isinstance(address, bytes):
        return address.startswith(b"\0")
    if address:
        raise TypeError(f"address type of {address!r} unrecognized")
    return False


abstract_sockets_supported: bool = _platform_supports_abstract_sockets()

# ---------------------------------------------------------------- temporary directory

# The size of sun_path in bytes: a socket's path with its final NUL.
_SUN_PATH_MAX = 108 if sys.platform == "linux" else 104


def _remove_temp_dir(rmtree: Callable[..., Any], tempdir: str) -> None:
    rmtree(tempdir, ignore_errors=True)
    # None at the end of the interpreter's shutdown
    if (me := current_process()) is not None:
        me._config.pop("tempdir", None)


def get_temp_dir() -> str:
    """Return the path of a private directory that this process and its children share; it is removed at exit."""
    config = current_process()._config
    if config.get("tempdir") is None:
        from ._impl.start import temp_dir  # late: most children make no sockets

        made = temp_dir.make()
        if config.get("tempdir", made) is None:
            del config["tempdir"]  # a program has stored it
        if (first := config.setdefault("tempdir", made)) is not made:
            # Another thread's, which may be in use already.
            temp_dir.remove(made)
            return str(first)
        info("created temp directory %s", made)
        # Priority -100: after all finalizers that may still use a socket in it.
        Finalize(None, _remove_temp_dir, args=(temp_dir.remove, made), exitpriority=-100)
    return str(config["tempdir"])


# ---------------------------------------------------------------- finalizers

# (exitpriority, serial) -> Finalize
_finalizer_registry: dict[tuple[int | None, int], Finalize] = {}
_finalizer_counter = count()


def _begin_afresh() -> None:
    """In a forked child, drop the parent's finalizers and call the functions of `register_after_fork`."""
    _finalizer_registry.clear()
    # Before 3.14 the interpreter would wait at its end for executor threads that the fork did not copy.
    if (executors := sys.modules.get("concurrent.futures.thread")) is not None:
        getattr(executors, "_threads_queues", {}).clear()
    _run_after_forkers()


def _is_interruption(error: BaseException) -> bool:
    from ._maniple import interrupts

    return interrupts(error)


class Finalize:
    """A call that happens once: when the finalizer is called, when `obj` is collected, or at exit.

    Args:
        obj: the object whose collection triggers the call; None means that only the exit does.
        callback: the function to call.
        args: its positional arguments.
        kwargs: its keyword arguments.
        exitpriority: a number; the call also happens at exit, the highest number first. None means that exit does not trigger it.

    If a signal handler interrupts a call that the exit also triggers, the call can happen again. A copy that a forked
    child inherits never calls.
    """

    # The key in the registry; None: not there yet, or not any more.
    _key: Any = None

    def __init__(
        self,
        obj: Any,
        callback: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        exitpriority: int | None = None,
    ) -> None:
        if not (exitpriority is None or isinstance(exitpriority, int)):
            raise TypeError(f"Exitpriority ({exitpriority!r}) must be None or int, not {type(exitpriority)!s}")
        if obj is None and exitpriority is None:
            raise ValueError("Without object, exitpriority cannot be None")
        self._weakref = None if obj is None else ref(obj, self)
        self._callback: Callable[..., Any] | None = callback
        self._args: Iterable[Any] | None = args
        self._kwargs: dict[str, Any] | None = kwargs or {}
        self._pid: int = os.getpid()
        self._key = (exitpriority, next(_finalizer_counter))
        _finalizer_registry[self._key] = self

    # The defaults keep these objects reachable during the interpreter's shutdown, when module globals are None.
    def __call__(
        self,
        wr: Any = None,
        _finalizer_registry: dict[Any, Any] = _finalizer_registry,
        sub_debug: Callable[..., None] = sub_debug,
        getpid: Callable[[], int] = os.getpid,
    ) -> Any:
        """Make the call, unless it was made or cancelled, or another process made the finalizer."""
        outcome = None
        try:
            if _finalizer_registry.pop(self._key, None) is None:
                sub_debug("finalizer no longer registered")
                return None
            if self._pid == getpid():
                call: Any = self._callback
                args, kwargs = self._args or (), self._kwargs or {}
                sub_debug("finalizer calling %s with args %s and kwargs %s", call, args, kwargs)
                outcome = call(*args, **kwargs)
            else:
                sub_debug("finalizer ignored because different process")
        except BaseException as error:
            key = self._key
            if self._callback is not None and key[0] is not None:
                # If a handler has raised the error, the work is not done, and the next call, or the exit, does it. No other handler
                # runs before this step.
                _finalizer_registry[key] = self
                if not _is_interruption(error):
                    _finalizer_registry.pop(key, None)
            raise
        self._forget()
        return outcome

    def _forget(self, _finalizer_registry: dict[Any, Any] = _finalizer_registry) -> None:
        # An interrupted call in a handler may have registered it again meanwhile.
        _finalizer_registry.pop(self._key, None)
        self._weakref = self._callback = None
        self._args = self._kwargs = self._key = None

    def cancel(self) -> None:
        """Cancel the call. It has no effect after the call."""
        if _finalizer_registry.pop(self._key, None) is not None:
            self._forget()

    def still_active(self) -> bool:
        """Return True if the call has not happened and is not cancelled."""
        return self._key in _finalizer_registry

    def __repr__(self) -> str:
        name = type(self).__name__
        call, watched = self._callback, self._weakref
        if call is None or (watched is not None and watched() is None):
            return f"<{name} object, dead>"
        shown = {
            "callback": getattr(call, "__name__", call),
            "args": self._args or None,
            "kwargs": self._kwargs or None,
            "exitpriority": self._key[0],
        }
        told = "".join(f", {what}={value}" for what, value in shown.items() if value is not None)
        return f"<{name} object{told}>"


def _run_finalizers(minpriority: int | None = None) -> None:
    """Run the finalizers that have an exit priority (of at least ``minpriority``).

    The highest priority runs first; among equal priorities, the youngest. Other threads may add and remove finalizers
    meanwhile, so the function looks up each again before its call.
    """
    registry = _finalizer_registry
    if registry is None:  # the module is being torn down
        return
    due = [
        key for key in tuple(registry) if (rank := key[0]) is not None and (minpriority is None or rank >= minpriority)
    ]
    due.sort(reverse=True)
    for key in due:
        pending = registry.get(key)
        if pending is None:
            continue
        sub_debug("calling %s", pending)
        try:
            pending()
        except Exception as problem:
            from traceback import print_exception

            print_exception(problem)
    if minpriority is None:
        registry.clear()


# ---------------------------------------------------------------- end of the process

_exiting: bool | None = False
#: in a child: the exit code that `_exit_function` logs when all its work is done
_exit_code: int | None = None


def is_exiting() -> bool:
    """Return True if the process has begun to exit."""
    # None once module globals are cleared
    return _exiting is None or _exiting


def _terminate_daemons(active_children: Callable[[], list[Any]], info: Callable[..., None]) -> None:
    for child in active_children():
        if child.daemon and (popen := child._popen):
            info("calling terminate() for daemon %s", child.name)
            popen.terminate()


def _end_helpers_of_threads() -> None:
    """Do the first half of `_exit_function` if there are other threads that the interpreter will join."""
    threads = threading.enumerate()
    if any(not thread.daemon for thread in threads if thread is not threading.current_thread()):
        _run_finalizers(minpriority=0)
        _terminate_daemons(active_children, info)


# The defaults: as for Finalize.__call__.
def _exit_function(
    info: Callable[..., None] = info,
    debug: Callable[..., None] = debug,
    _run_finalizers: Callable[..., None] = _run_finalizers,
    active_children: Callable[[], list[Any]] = active_children,
    current_process: Callable[[], Any] = current_process,
    _terminate_daemons: Callable[..., None] = _terminate_daemons,
) -> None:
    """Run the package's work at exit; the second call does nothing.

    It runs the finalizers of priority zero and up (queue feeders, managers),
    terminates daemonic children, joins all children, and runs the remaining
    finalizers, which may remove what the children were using.
    """
    global _exiting
    if _exiting:
        return
    _exiting, code = True, _exit_code
    info("process shutting down")
    debug('running all "atexit" finalizers with priority >= 0')
    _run_finalizers(minpriority=0)
    # Without a current process the interpreter has cleared this module already.
    if current_process() is not None:
        # The keeper of a pool that has not ended starts workers again.
        while children := active_children():
            _terminate_daemons(active_children, info)
            for child in children:
                info("calling join() for process %s", child.name)
                child.join()
    debug('running the remaining "atexit" finalizers')
    _run_finalizers(minpriority=None)
    if code is not None:
        info("process exiting with exitcode %d", code)


def _log_exit(code: int, exit_work_follows: bool) -> None:
    """Log the exit code of this child: at once, or after the package's work at exit if that follows."""
    global _exit_code
    if exit_work_follows and not _exiting:
        _exit_code = code
    else:
        info("process exiting with exitcode %d", code)


def _register_exit(again: bool = False) -> None:
    """Register `_exit_function` with `atexit`; it runs before the functions that were registered earlier."""
    if again:
        atexit.unregister(_exit_function)
    atexit.register(_exit_function)


_register_exit()

# ---------------------------------------------------------------- fork-aware objects


class ForkAwareThreadLock:
    """A `threading.Lock` that is free in a forked child."""

    def __init__(self) -> None:
        lock: Any = threading.Lock()
        self._lock = lock
        self.acquire, self.release = lock.acquire, lock.release
        self._at_fork_reinit = getattr(lock, "_at_fork_reinit", None)  # systems without forks have no such method
        register_after_fork(self, _free)

    def __enter__(self) -> bool:
        return bool(self.acquire())

    def __exit__(self, *args: object) -> None:
        self.release()


def _free(lock: Any) -> None:
    lock._at_fork_reinit()


class ForkAwareLocal(threading.local):
    """A `threading.local` that is empty in a forked child and after unpickling."""

    def __init__(self) -> None:
        register_after_fork(self, _empty_namespace)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def _empty_namespace(obj: Any) -> None:
    vars(obj).clear()


# ---------------------------------------------------------------- descriptors and streams


MAXFD = descriptor_limit()


def close_all_fds_except(fds: Iterable[int]) -> None:
    """Close all file descriptors of the process except those in `fds`."""
    start = 0
    for kept in sorted(set(fds)):
        os.closerange(start, kept)
        start = kept + 1
    os.closerange(start, MAXFD)


def close_fds(*fds: int) -> None:
    """Close the given file descriptors."""
    for number in fds:
        os.close(number)


# ---------------------------------------------------------------- starting a program


def spawnv_passfds(path: str | bytes, args: Iterable[str | bytes], passfds: Iterable[int]) -> int:
    """Start a program that inherits only the descriptors 0 to 2 and `passfds`, and return its process id.

    Args:
        path: the path of the program.
        args: its arguments; the first is its name.
        passfds: the descriptors that it inherits, under the same numbers.

    Raises:
        OSError: the program cannot be started.
    """
    from ._impl.start.launch import start_program

    return start_program(path, args, passfds)


#: this package's own function, also if a program replaces `spawnv_passfds`
_spawnv_passfds = spawnv_passfds


def _args_from_interpreter_flags() -> list[str]:
    """Return the options of this interpreter's command line that children receive, too."""
    from ._impl.start.launch import interpreter_options  # late: most children start no processes

    return interpreter_options()


def _cleanup_tests() -> None:
    """Clean up between CPython's own tests.

    Reap children, stop the fork server and the resource tracker, and run the
    remaining finalizers.
    """
    from test.support import gc_collect, reap_children  # type: ignore[import-not-found]

    from .forkserver import _forkserver
    from .resource_tracker import _resource_tracker

    _cleanup()
    for helper in (_forkserver, _resource_tracker):
        helper._stop()
    _run_finalizers(minpriority=None)
    gc_collect()
    reap_children()


public_module.finish(globals())
