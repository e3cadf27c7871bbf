"""Start method ``forkserver``: the child is a fork of a small helper process.

The child is a child of the server, not of this process.  The server writes its pid,
and at the end its exit code, to a pipe, which is the sentinel.  Server and child
both hold the write end.  If the server dies first, the pipe ends without an exit
code when the child ends; the exit code is 255 then.
"""

from __future__ import annotations

import os
from errno import ENOMEM
from threading import RLock

from . import forkserver, popen_fork, spawn, util
from ._impl.compat import public_module
from ._impl.start.descriptors import call_into, patiently
from ._maniple import Hold
from .context import reduction, set_spawning_popen
from .popen_spawn_posix import ToldPopen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Popen"]

_UNKNOWN_EXIT = 255
# Seconds after which a thread that waits for the end looks whether another thread has seen it.
_SLICE = 1.0
# An exit code is a byte, or the negative number of a signal.
_EXIT_CODES = range(-128, 256)


# The flag of a `poll` that does not wait.
_NOT_AT_ALL = popen_fork.WNOHANG


class _DupFd:
    """A descriptor that is sent to the child, identified by its index among the sent descriptors."""

    def __init__(self, ind: int) -> None:
        self.ind = ind

    def detach(self) -> int:
        """Return the descriptor, in the child."""
        fds: Any = forkserver.get_inherited_fds()  # a list in every child of the server
        return int(fds[self.ind])


class Popen(ToldPopen):
    """A child made by the fork server."""

    method, DupFd = "forkserver", _DupFd

    def duplicate_for_child(self, fd: int) -> int:
        """Add ``fd`` to the descriptors that are sent to the child, and return its index."""
        place = len(self._fds)
        self._fds += [fd]
        return place

    def _launch(self, process_obj: Any) -> None:
        line = popen_fork.lifeline()
        speech = self._speech(process_obj, line)
        # Held by the thread that reads the exit code, which can be read once. A signal handler in this thread may read it, too.
        self._reading: Any = RLock()
        self._answer: list[bytes] = []
        ends: list[int] = []  # of the status pipe for reading, of the data pipe for writing
        try:
            forkserver._forkserver._connect(self._fds, ends)
            popen_fork._hold(ends[1])
            self._keep(ends[0], line)
            self.pid = forkserver.read_signed(ends[0])
            self._say(ends[1], speech)
            process_obj._popen = self  # here: a signal handler may raise before the caller stores this object
        except BaseException as problem:
            # A child that was forked nevertheless has received nothing or a part, and ends when it finds the data pipe closed.
            if self._held[0] >= 0:
                self.close()
            elif ends:
                os.close(ends[0])
            forkserver.explain(problem)
            raise
        finally:
            for end in ends[1:]:
                if end in popen_fork._lifelines:
                    popen_fork.let_go(end)
                else:
                    os.close(end)

    def poll(self, flag: int = _NOT_AT_ALL) -> int | None:
        """Return the exit code, or None; with ``flag`` 0 wait for it."""
        if (code := self.returncode) is not None:
            return code
        from .connection import wait

        while True:
            try:
                is_over = wait([self.sentinel], 0 if flag == _NOT_AT_ALL else _SLICE)
            except OSError:
                if self.returncode is None:
                    raise
            # Another thread may have read the code and closed the sentinel, whose number may be another file's by now.
            if (code := self.returncode) is not None:
                return code
            if is_over:
                break
            if flag == _NOT_AT_ALL:
                return None
        with Hold(self._reading):
            if (code := self.returncode) is None:
                self.returncode = code = self._read_code()
        return code

    def _read_code(self) -> int:
        parts, size = self._answer, forkserver.SIGNED_STRUCT.size
        # If a signal handler reads meanwhile, this read finds the end of the pipe, and the handler's part is in the list.
        while len(whole := b"".join(parts)) < size:
            try:
                patiently(call_into, parts, os.read, self.sentinel, size - len(whole))
            except OSError as problem:
                if problem.errno == ENOMEM:
                    raise  # the code is still in the pipe
                return _UNKNOWN_EXIT
            if not parts[-1] and len(b"".join(parts)) < size:
                return _UNKNOWN_EXIT
        (number,) = forkserver.SIGNED_STRUCT.unpack(whole)
        # A faulty child may have written into the pipe.
        return int(number) if number in _EXIT_CODES else _UNKNOWN_EXIT


public_module.finish(globals())
