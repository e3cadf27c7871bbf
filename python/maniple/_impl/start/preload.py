"""The imports of a fork server before its first fork, and its restart if an import makes forking unsafe.

A child is a copy of the server, so the server must have no other threads, and the original functions of the operating system.  A
main module (or another preloaded module) may start threads, or replace `os.fork`, sockets and locks, as `gevent.monkey.patch_all`
does.  Then the children and the server would hang.  So such a server restarts in the same process, as a fresh interpreter that does
not import this module.  Each child then imports the module itself, as a spawned child does.
"""

from __future__ import annotations

import os
import signal
import sys
from _thread import _count as count_threads
from warnings import warn

from ... import process, spawn, util
from .steady_imports import SteadyFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["Beginning", "handle_import_error", "preload_all"]

# The functions that the server and a forked child rely on: module -> names.
_RELIED_ON = {
    "os": ("fork", "read", "write", "waitpid", "pipe"),
    "posix": ("fork", "waitpid"),
    "socket": ("socket",),
    "select": ("select", "poll", "epoll"),
    "selectors": ("DefaultSelector",),
    "signal": ("signal", "set_wakeup_fd"),
    "_thread": ("allocate_lock", "start_new_thread", "get_ident"),
    "threading": ("Lock", "RLock", "Thread", "_start_new_thread", "get_ident", "current_thread"),
}


def _relied_on() -> list[Any]:
    return [getattr(sys.modules[module], name, None) for module, names in _RELIED_ON.items() for name in names]


class Beginning:
    """The state of this process before the imports, and the restart in this state."""

    def __init__(self, sigint: Any) -> None:
        """Record the state. ``sigint`` is the children's handler of SIGINT, which the server itself ignores."""
        self._functions = _relied_on()
        self._handlers = {
            **{number: signal.getsignal(number) for number in signal.valid_signals()},
            signal.SIGINT: sigint,
        }
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._environment = dict(os.environ)
        # The original functions, also if a module replaces them.
        self._execve, self._set_handler = os.execve, signal.signal

    def is_spoilt(self, *, by_threads: bool) -> bool:
        """Return whether this process can no longer be forked safely."""
        if any(known is not now for known, now in zip(self._functions, _relied_on())):
            return True
        return by_threads and count_threads() > 0

    def again(self, descriptor: int, write: Callable[[int], None], inherited: tuple[int, ...]) -> None:
        """Restart this process with the same command line. It reads what ``write`` writes from ``descriptor``, and has ``inherited``."""
        stored = os.memfd_create("forkserver") if hasattr(os, "memfd_create") else _unnamed_file()
        write(stored)
        os.lseek(stored, 0, os.SEEK_SET)
        os.dup2(stored, descriptor)
        for number in (descriptor, *inherited):
            os.set_inheritable(number, True)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, {*self._mask, signal.SIGINT})
        for number, handler in self._handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                self._set_handler(number, signal.SIG_IGN if handler is signal.SIG_IGN else signal.SIG_DFL)
        self._execve(sys.executable, sys.orig_argv, self._environment)


def _unnamed_file() -> int:
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# ---------------------------------------------------------------- importing


def handle_import_error(on_error: str, modinfo: str, exc: BaseException, *, warn_stacklevel: int) -> None:
    """Handle the failed import of a module by the client's choice: ``ignore``, ``warn`` or ``fail``."""
    if on_error == "fail":
        raise exc
    if on_error == "warn":
        warn(f"Failed to preload {modinfo}: {exc}", ImportWarning, stacklevel=warn_stacklevel + 1)


def _preload_main(load: Callable[[str], object], where: str, on_error: str) -> None:
    """Load the main module as a child does. An exception is handled by `on_error`; it will occur in the child as well."""
    me = process.current_process()
    vars(me)["_inheriting"] = True
    try:
        load(where)
    except (Exception, SystemExit) as exc:
        handle_import_error(on_error, "__main__", exc, warn_stacklevel=3)
    finally:
        del vars(me)["_inheriting"]


def preload_all(
    preload: Iterable[str],
    main_path: str | None = None,
    sys_path: list[str] | None = None,
    sys_argv: list[str] | None = None,
    on_error: str = "ignore",
    main_name: str | None = None,
    after: Callable[[str], object] | None = None,
) -> None:
    """Import the modules ``preload`` with the client's search path and arguments; call ``after`` with the name of each."""
    if sys_argv is not None:
        sys.argv[:] = sys_argv
    if sys_path is not None:
        sys.path[:] = sys_path
    with SteadyFinder():
        for module in preload:
            if module != "__main__":
                try:
                    __import__(module)
                except ImportError as exc:
                    handle_import_error(on_error, f"module {module!r}", exc, warn_stacklevel=2)
            elif main_name is not None:
                _preload_main(spawn._fixup_main_from_name, main_name, on_error)
            elif main_path is not None:
                _preload_main(spawn.import_main_path, main_path, on_error)
            if after is not None:
                after(module)
    # Otherwise each child would write the output that the modules have left in the buffers.
    util._flush_std_streams()
