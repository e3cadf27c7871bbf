"""The loop of the fork server: it accepts clients, forks their children and reports the exit codes.

`maniple.forkserver` describes the protocol, and has the client and the server's entry point.
"""

from __future__ import annotations

import errno
import os
import signal
import socket as net
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ, DefaultSelector
from time import monotonic, sleep
from warnings import warn

from ... import forkserver, popen_fork, resource_tracker, util
from ..._maniple import Greeting, discard_children
from ...context import AuthenticationError, reduction
from .. import PACKAGE
from .descriptors import patiently, pipe, socket_above
from .forked import live_and_exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Server"]

# The time limit for a client's authentication, in seconds. Other clients do not wait for it.
_PATIENCE = 10.0
# Seconds that the server waits before it retries after a shortage.
_PAUSE = 0.05


class Server:
    """The server's loop: clients, their requests, ended children, and the end of the last client."""

    def __init__(self, listener: net.socket, alive_r: int, key: bytes, saved_handlers: dict[int, Any]) -> None:
        self._listener, self._alive_r, self._key = listener, alive_r, key
        self._handlers = saved_handlers
        self._status_of: dict[int, int] = {}  # pid -> status pipe
        self._untold: list[tuple[int, int]] = []  # status pipes, and the exit codes to write to them
        self._lines: set[net.socket] = set()  # connections of authenticated clients
        self._guests: dict[net.socket, float] = {}  # connection of a client that has not authenticated -> its deadline
        self._to_import = ["synchronize", "queues", "popen_forkserver", "_impl.pool.payload", "_impl.pool.workers"]
        self._wake_r, self._wake_w = pipe()
        for fd in (self._wake_r, self._wake_w):
            os.set_blocking(fd, False)

    def run(self) -> None:
        """Serve until all holders of the alive pipe have closed it; then raise SystemExit."""
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._wake)
        with DefaultSelector() as self._selector:
            for source, action in (
                (self._listener, self._accept),
                (self._wake_r, self._reap),
                (self._alive_r, self._end),
            ):
                self._selector.register(source, EVENT_READ, action)
            while True:
                for ready in self._select():
                    ready()
                if self._guests:
                    self._dismiss_silent()
                if self._untold:
                    self._tell()

    def _select(self) -> list[Callable[[], None]]:
        """Wait for an event, and return the functions to call."""
        try:
            ready = self._selector.select(
                _PAUSE if self._untold else _PATIENCE if self._guests or self._status_of else None
            )
        except OSError:  # ENOMEM: the server owns all descriptors, so they cause no other error
            sleep(_PAUSE)
            return []
        return [key.data for key, _ in ready] or [self._reap]

    def _wake(self, signum: int, frame: object) -> None:
        """Handle SIGCHLD. The interpreter writes to the pipe too, but ignores a failure of that."""
        with suppress(OSError):
            patiently(os.write, self._wake_w, b"\0")

    def _end(self) -> None:
        try:
            left = os.read(self._alive_r, 4096)
        except OSError:
            return sleep(_PAUSE)
        # The pipe is only ever closed. What a faulty process writes into it has no meaning.
        if not left:
            raise SystemExit

    def _tell(self) -> None:
        """Write exit codes into their pipes; retry later those that fail for lack of memory."""
        untold, self._untold = self._untold, []
        for status_w, code in untold:
            try:
                forkserver.write_signed(status_w, code)
            except BrokenPipeError:
                pass  # the client has ended, or has closed the process object
            except OSError:
                self._untold.append((status_w, code))
                continue
            os.close(status_w)

    def _reap(self) -> None:
        with suppress(OSError):  # the pipe is empty, or there is no memory: the next event retries
            os.read(self._wake_r, 65536)
        while True:
            pid = 0
            with suppress(ChildProcessError):  # none left
                pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            status_w = self._status_of.pop(pid, None)
            if status_w is None:  # started by a preloaded module
                warn(f"forkserver: waitpid returned unexpected pid {pid}", stacklevel=2)
                continue
            self._untold.append((status_w, os.waitstatus_to_exitcode(status)))

    def _accept(self) -> None:
        line = None
        try:
            line, _ = self._listener.accept()
            line = socket_above(line)
            line.settimeout(None)
            greeting = Greeting(line.fileno(), self._key)
            self._selector.register(line, EVENT_READ, partial(self._greet, line, greeting))
        except (OSError, EOFError, MemoryError) as problem:
            if line is not None:
                line.close()
            elif not isinstance(problem, BlockingIOError):
                sleep(_PAUSE)  # the client stays in the backlog
            return
        self._guests[line] = monotonic() + _PATIENCE

    def _greet(self, line: net.socket, greeting: Greeting) -> None:
        try:
            if not greeting.hear():
                return
            patiently(self._selector.modify, line, EVENT_READ, partial(self._serve, line))
        except (OSError, EOFError, AuthenticationError):
            # The client has no key, or has closed the connection. The other clients are not affected.
            self._dismiss(line)
            return
        del self._guests[line]
        self._lines.add(line)

    def _dismiss(self, line: net.socket) -> None:
        self._guests.pop(line, None)
        self._lines.discard(line)
        with suppress(KeyError):  # the selector has removed a descriptor that it cannot wait for
            self._selector.unregister(line)
        line.close()

    def _dismiss_silent(self) -> None:
        now = monotonic()
        for line in [line for line, end in self._guests.items() if end <= now]:
            self._dismiss(line)

    def _serve(self, line: net.socket) -> None:
        fds: list[int] = []
        try:
            fds = reduction.recvfds(line, forkserver.MAXFDS_TO_SEND + 1)
            if 4 <= len(fds) <= forkserver.MAXFDS_TO_SEND:
                self._fork(*fds)
                return
        except (RuntimeError, AssertionError):
            # Some descriptors were lost, because the server has no free descriptors.
            if self._refuse(line, errno.EMFILE):
                return
        except MemoryError:
            util.close_fds(*fds)
            if self._refuse(line, errno.ENOMEM):
                return
        except (OSError, EOFError) as problem:
            util.close_fds(*fds)
            if fds and self._refuse(line, problem.errno or errno.EAGAIN):  # type: ignore[union-attr]  # EOFError comes without any
                return
            if isinstance(problem, OSError) and problem.errno in (errno.ENOMEM, errno.ENOBUFS, errno.ENFILE):
                sleep(_PAUSE)
                return
            fds = []  # the client has closed the connection
        self._dismiss(line)

    @staticmethod
    def _refuse(line: net.socket, number: int) -> bool:
        """Send the error number to a client. Return False if the client has ended, or does not read its answers."""
        answer = forkserver.SIGNED_STRUCT.pack(number)
        try:
            return patiently(line.send, answer, net.MSG_DONTWAIT) == len(answer)
        except OSError:
            return False

    def _fork(self, data_r: int, status_w: int, *fds: int) -> None:
        """Fork a child. An OSError or a MemoryError leaves the descriptors open."""
        resource_tracker._fork_intent.preserve_fd = True

        def life() -> int:
            self._selector.close()
            for inherited in (self._listener, *self._lines, *self._guests):
                inherited.close()
            unused = [self._alive_r, self._wake_r, self._wake_w, *self._status_of.values()]
            unused += [other for other, _ in self._untold]
            popen_fork._hold(status_w)  # the child's own children close it
            return forkserver._serve_one(data_r, list(fds), unused, self._handlers)

        if (pid := os.fork()) == 0:
            live_and_exit(life)
        try:
            with suppress(BrokenPipeError):
                forkserver.write_signed(status_w, pid)
        except OSError:
            discard_children([pid])  # the client will never receive its pid
            raise
        self._status_of[pid] = status_w
        util.close_fds(data_r, *fds)
        self._stock_up()

    def _stock_up(self) -> None:
        """Import the modules that most children need; called after the first child was forked, so that it does not wait."""
        try:
            while self._to_import:
                __import__(f"{PACKAGE}.{self._to_import[-1]}")
                self._to_import.pop()
        except (OSError, MemoryError, ImportError):
            pass  # a shortage: retry after the next child
