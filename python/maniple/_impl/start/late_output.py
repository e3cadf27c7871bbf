"""Standard error of programs that outlive the worker that started them.

A worker's standard error is a pipe that the pool reads. Programs that the worker starts inherit it, and may outlive the
worker. A closed pipe would kill them at their next write, and a full pipe would block them. So a thread that all pools
share reads the pipe until its last writer has closed it; after the end of this process a helper program reads it.
"""

from __future__ import annotations

import atexit
import errno
import os
import select
import sys
import threading
import time
from contextlib import suppress
from signal import SIGHUP, SIGINT, SIGQUIT

from ... import util
from ..._maniple import Hold
from ..sync.thread_start import ThreadStart
from .descriptors import Mark, close_own, mark, patiently, pipe

__all__ = ["forward"]

# The helper program that continues when this process has ended.  Its arguments are the pipes.
_GO_ON = """
import errno, os, select, sys, time
pipes = set(map(int, sys.argv[1:]))
poller = select.poll()
for pipe in pipes: poller.register(pipe, select.POLLIN)
while pipes:
    try: ready = poller.poll()
    except OSError: ready = time.sleep(0.05) or ()  # no memory
    for pipe, _ in ready:
        try: data = os.read(pipe, 65536)
        except OSError as problem:
            if problem.errno in (errno.EAGAIN, errno.ENOMEM): continue
            data = b""
        try:
            while data: data = data[os.write(2, data):] or None
        except OSError: data = None
        if data == b"":
            poller.unregister(pipe)
            pipes.discard(pipe)
"""


# Seconds before a retry after a lack of memory.
_AGAIN = 0.05


class _Forwarder:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipes: dict[int, Mark] = {}
        # A pipe that wakes the thread, while the thread runs.
        self._wake_r = self._wake_w = -1
        self._thread: threading.Thread | None = None
        atexit.register(self._leave_to_program)

    def add(self, fd: int) -> None:
        with Hold(self._lock):
            # If the start fails, the caller keeps the descriptor and retries. So the descriptor must not stay in
            # `_pipes`: the thread could close it, and its number could be reused.
            if self._thread is None:
                self._wake_r, self._wake_w = pipe()
                self._thread = threading.Thread(target=self._run, name="maniple-late-output", daemon=True)
                self._pipes[fd] = mark(fd)
                start = ThreadStart(self._thread)
                try:
                    start()
                except BaseException:
                    del self._pipes[fd]
                    if start.cancel():
                        self._thread = None
                        util.close_fds(self._wake_r, self._wake_w)
                    raise
            else:
                self._pipes[fd] = mark(fd)
                os.write(self._wake_w, b"!")

    def _run(self) -> None:
        while True:
            try:
                self._go_on()
                return
            except (MemoryError, OSError):
                time.sleep(_AGAIN)  # meanwhile the programs wait

    def _go_on(self) -> None:
        while True:
            poller = select.poll()
            poller.register(self._wake_r, select.POLLIN)
            with Hold(self._lock):
                if not self._pipes:
                    self._thread = None
                    util.close_fds(self._wake_r, self._wake_w)
                    return
                for fd in self._pipes:
                    poller.register(fd, select.POLLIN)
            try:
                ready = patiently(poller.poll)
            except OSError:  # no memory, also after retries for a second
                continue
            for fd, _ in ready:
                if fd == self._wake_r:
                    with suppress(OSError):
                        os.read(fd, 512)
                elif not _pass_on(fd):
                    with Hold(self._lock):
                        close_own(fd, self._pipes.pop(fd, None))

    def _leave_to_program(self) -> None:
        with Hold(self._lock):
            pipes = [fd for fd, file in self._pipes.items() if mark(fd) == file]
            if not pipes or getattr(sys, "frozen", False):
                return
            from ... import spawn
            from . import launch

            argv: list[str | bytes] = [spawn._interpreter(), "-I", "-S", "-c", _GO_ON, *map(str, pipes)]
            try:
                launch.start_program(argv[0], argv, pipes, blocked_signals=(SIGINT, SIGHUP, SIGQUIT))
            except OSError as problem:
                util.info("the standard error of programs that continue is closed: %s", problem)


def _pass_on(fd: int) -> bool:
    """Copy the readable data to standard error; return False at the end of the pipe."""
    try:
        data = patiently(os.read, fd, 65536)
    except BlockingIOError:
        return True
    except OSError as problem:
        return problem.errno == errno.ENOMEM
    if not data:
        return False
    try:
        while data:
            data = data[patiently(os.write, 2, data) :]
    except OSError:
        pass  # standard error is closed, or has no reader
    return True


_forwarder: _Forwarder | None = None


def forward(fd: int) -> None:
    """Copy the data of the pipe with the read end ``fd`` to standard error from now on. The call takes over the
    descriptor."""
    global _forwarder
    if _forwarder is None:
        _forwarder = _Forwarder()
    _forwarder.add(fd)


def _forget() -> None:
    """In a forked child, close the pipes, which the parent reads."""
    global _forwarder
    if (forwarder := _forwarder) is not None:
        _forwarder = None
        atexit.unregister(forwarder._leave_to_program)
        for fd, file in forwarder._pipes.items():
            close_own(fd, file)
        if forwarder._thread is not None:
            util.close_fds(forwarder._wake_r, forwarder._wake_w)


os.register_at_fork(after_in_child=_forget)
