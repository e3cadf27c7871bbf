"""What a fork server imports before it forks its first child, and what becomes of a server that this has spoilt.

A child of the server is a copy of it, so the server has to stay a process that can be copied: without other threads, and with
the operating system's functions in place.  A main module (or a module that it was told to import) may start threads or replace
`os.fork`, sockets and locks, as `gevent.monkey.patch_all` does; its children would hang, and so would the server.  Such a
server begins again, in the same process, as a fresh interpreter that leaves this module out.  Each child then imports it by
itself, as a spawned one does.
"""

from __future__ import annotations

import os
import signal
import sys
from _thread import _count as count_threads
from warnings import warn

from ... import process, spawn, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["Beginning", "handle_import_error", "preload_all"]

# What the server and a child that was just forked rely on: module -> names.
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
    """This process as it was before anything was imported into it, and how it gets back there."""

    def __init__(self, sigint: Any) -> None:
        """``sigint`` is the handler that children are to have for SIGINT, which the server itself ignores."""
        self._functions = _relied_on()
        self._handlers = {
            **{number: signal.getsignal(number) for number in signal.valid_signals()},
            signal.SIGINT: sigint,
        }
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._environment = dict(os.environ)
        # As they are now, whatever replaces them.
        self._execve, self._set_handler = os.execve, signal.signal

    def is_spoilt(self, *, by_threads: bool) -> bool:
        """Tell whether this process is not fit to be forked any more."""
        if any(known is not now for known, now in zip(self._functions, _relied_on())):
            return True
        return by_threads and count_threads() > 0

    def again(self, descriptor: int, content: bytes, inherited: tuple[int, ...]) -> None:
        """Be a fresh interpreter, with the same command line; it reads ``content`` from ``descriptor`` and has ``inherited``."""
        stored = os.memfd_create("forkserver") if hasattr(os, "memfd_create") else _unnamed_file()
        with open(stored, "wb", closefd=False) as file:
            file.write(content)
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
    """Deal with a module that could not be imported as the client wants it: ``ignore``, ``warn`` or ``fail``."""
    if on_error == "fail":
        raise exc
    if on_error == "warn":
        warn(f"Failed to preload {modinfo}: {exc}", ImportWarning, stacklevel=warn_stacklevel + 1)


def _preload_main(load: Callable[[str], object], where: str, on_error: str) -> None:
    """Load the main module as a child would; what it does wrong it will do in the child, too."""
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
    """Import ``preload``, with the client's search path and arguments in place; call ``after`` with each one's name."""
    if sys_argv is not None:
        sys.argv[:] = sys_argv
    if sys_path is not None:
        sys.path[:] = sys_path
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
    # Or each child would write once more what they have left in the buffers.
    util._flush_std_streams()
