"""Start method ``fork``: the child is a copy of its parent.

Two facts must reach the other side without polling: that the child ended, and
that the parent ended.

* The parent learns it from the *sentinel*: a pidfd where the system has them
  (exact: it does not matter what the child's own children inherited), elsewhere
  the read end of a pipe whose write end only the child holds.
* The child learns it from the *lifeline*, a pipe whose write end only the parent
  holds.  One pipe serves all children of a process, whatever their start method.
  A forked child inherits the write end, too, and closes it first.
  A daemonic child, and a manager's server, ask the kernel to end them then.  A
  program that calls `os.fork` itself keeps the end in both processes: if it
  becomes a daemon that way, its children stay.

So a child costs its parent one descriptor.
"""

from __future__ import annotations

import errno
import os
import sys
from _thread import allocate_lock as Lock
from contextlib import suppress
from signal import SIGINT, SIGKILL, SIGTERM

from . import process, util
from ._impl.start import forked as _forked
from ._impl.start.descriptors import Mark, above_stdio, mark, pipe
from ._maniple import Hold
from .resource_tracker import _fork_intent
from .util import Finalize, _flush_std_streams, close_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Lifeline", "Popen", "Wires", "end_unwatched", "let_go", "lifeline"]

# What every forked child asks for first; found once, here.
for _name in ("context", "util", "_impl.compat.neighbour"):
    process._sibling(_name)

# Write ends held by this process that a forked child has no business with.
_lifelines: dict[int, Mark] = {}


def _hold(fd: int) -> None:
    """Note a descriptor that forked children are to close."""
    _lifelines[fd] = mark(fd)


class Lifeline:
    """This process's pipe for all of its children, and a descriptor to spare for a moment in which there is no other."""

    def __init__(self) -> None:
        self.maker = os.getpid()
        self.r, self.w = pipe()
        self.spare = -1
        _hold(self.w)
        self.file = _lifelines[self.w]

    def is_there(self) -> bool:
        """Whether the program has not closed it, as one does that becomes a daemon."""
        return mark(self.w) == self.file

    def have_spare(self) -> None:
        """See to it that there is a descriptor for what follows a fork."""
        if self.spare < 0:
            self.spare = above_stdio(os.dup(self.r))

    def give_spare(self) -> None:
        """Give it up: the next descriptor that is made will be there."""
        spare, self.spare = self.spare, -1
        if mark(spare) == self.file:
            os.close(spare)


_lifeline: Lifeline | None = None


def lifeline() -> Lifeline:
    """Return what a child of this process is to hold on to."""
    global _lifeline
    line = _lifeline
    if line is None or line.maker != os.getpid() or not line.is_there() or mark(line.r) != line.file:
        line = _lifeline = Lifeline()
    line.have_spare()
    return line


def _release(watched: int, line: Lifeline) -> None:
    """Close the descriptor that a parent keeps for a child."""
    # A program that has closed one of its descriptors without asking has closed the lifeline, too.
    if line.is_there():
        close_fds(watched)


def _drop_inherited_lifelines() -> None:
    # The first that is there was looked at just now; the program may have closed what was open before.
    for fd, file in _lifelines.items():
        if len(_lifelines) == 1 or mark(fd) == file:
            break
        _lifelines[fd] = None
    for fd, file in _lifelines.items():
        if file is not None:
            with suppress(OSError):
                os.close(fd)
    _lifelines.clear()


def let_go(fd: int) -> None:
    """Close a descriptor that forked children were to close."""
    file = _lifelines.pop(fd, None)
    if file is not None and mark(fd) == file:
        os.close(fd)


# What is told of a child whose exit code nobody can learn any more.
_UNKNOWN_EXIT = 255

# Of each process its own: held while a child is reaped by its number.  (One for all would have to be freed in each forked child.)
_reaping: dict[int, Any] = {}

# An interpreter that was built on an old system has neither, whatever the kernel can do.
try:
    from signal import pidfd_send_signal as _send
except ImportError:
    _send = None  # type: ignore[assignment]  # absent
_P_PIDFD = getattr(os, "P_PIDFD", None)

_pidfds_work: bool | None = None


def _have_pidfds() -> bool:
    """Tell whether the kernel hands out pidfds (old kernels and sandboxes do not)."""
    global _pidfds_work
    if _pidfds_work is None:
        try:
            os.close(os.pidfd_open(os.getpid()))
            _pidfds_work = True
        except AttributeError:
            _pidfds_work = False
        except OSError as problem:
            if problem.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL):
                raise  # no descriptor is left: that says nothing
            _pidfds_work = False
    return _pidfds_work


def end_unwatched(pid: int) -> None:
    """End our child ``pid``, which nobody could wait for."""
    with suppress(ProcessLookupError):
        os.kill(pid, SIGKILL)
    with suppress(ChildProcessError):
        try:
            os.waitpid(pid, 0)
        except BaseException:  # from a signal's handler: the child is reaped all the same
            os.waitpid(pid, 0)
            raise


def _watch(pid: int, line: Lifeline | None = None) -> int:
    """Return a descriptor that becomes readable when our child ``pid`` ends."""
    try:
        try:
            return above_stdio(os.pidfd_open(pid))
        except OSError as problem:
            if problem.errno != errno.EMFILE or line is None:
                raise
            line.give_spare()
            return os.pidfd_open(pid)
    except OSError as problem:
        if problem.errno != errno.ESRCH:
            if line is not None:
                end_unwatched(pid)
            raise
    # Reaped already: SIGCHLD is ignored, or another thread waits for any child.
    # A pipe without a writer says "ended" just as well.
    ended, writer = pipe()
    os.close(writer)
    return ended


def _id_of(popen: Popen) -> tuple[int, int]:
    """What `os.waitid` is to be given for this child."""
    return (_P_PIDFD, popen.sentinel) if _pidfds_work and _P_PIDFD is not None else (os.P_PID, popen.pid)


class Wires:
    """The descriptors between this process and a child that is about to be started."""

    def __init__(self) -> None:
        self.line = lifeline()
        # A pipe of the child's own stands in where there are no pidfds.
        self.ended: tuple[int, ...] = () if _have_pidfds() else pipe()

    def become_child(self) -> None:
        """Called in a forked child that has dropped `_lifelines`, where `ended` is not empty: close the parent's end."""
        os.close(self.ended[0])
        _hold(self.ended[1])  # our own children must not keep us "alive"

    def become_parent(self, pid: int) -> int:
        """Called when the child runs: close its ends, return the sentinel."""
        if self.ended:
            os.close(self.ended[1])
            return self.ended[0]
        return _watch(pid, self.line)

    def abandon(self) -> None:
        """No child was started."""
        close_fds(*self.ended)


class Popen:
    """A child made by `os.fork`."""

    method = "fork"

    def __init__(self, process_obj: Any) -> None:
        if getattr(sys, "frozen", False):
            from . import spawn

            spawn._take_over_if_frozen()
        # What is still buffered would otherwise be written by both.
        _flush_std_streams()
        self.returncode: int | None = None
        self._maker = os.getpid()
        self.finalizer: Finalize | None = None
        self._launch(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Return the number that ``fd`` has in the child."""
        return fd

    # ------------------------------------------------------------ watching

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, or None; with ``flag`` 0 wait for it."""
        code = self.returncode
        return self._look(flag) if code is None else code

    def _look(self, flag: int) -> int | None:
        # First looked at, then noted, then reaped: any number of threads may do so at once.  Whoever finds no child any more finds the
        # code that another has noted, or somebody else has reaped it.
        kind, number = _id_of(self)
        try:
            found = os.waitid(kind, number, os.WEXITED | os.WNOWAIT | flag)
        except ChildProcessError:
            return self._reaped_elsewhere(flag)
        except OSError:
            return self._look_by_number(flag)
        if found is None:
            return None
        self.returncode = code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        with suppress(OSError):
            os.waitid(kind, number, os.WEXITED | os.WNOHANG)
        return code

    def _look_by_number(self, flag: int) -> int | None:
        """The same where the system (a sandbox, a kernel before 5.4) does not take the call, or the program has closed the sentinel."""
        if flag == 0:
            with suppress(OSError):
                from . import connection

                connection.wait([self.sentinel])
        with Hold(_reaping.setdefault(os.getpid(), Lock())):
            if (code := self.returncode) is not None:
                return code
            try:
                reaped, status = os.waitpid(self.pid, flag)
            except ChildProcessError:
                return self._reaped_elsewhere(flag)
            if reaped:
                self.returncode = code = os.waitstatus_to_exitcode(status)
        return code

    def _reaped_elsewhere(self, flag: int) -> int | None:
        """The code of a child that is no child any more: SIGCHLD is ignored, or the program waits for any child by itself."""
        code = self.returncode
        if code is None and os.getpid() == self._maker:
            from .connection import wait

            if not wait([self.sentinel], 0 if flag else None):
                return None
            from ._maniple import exit_told

            told = exit_told(self.sentinel)
            code = self.returncode  # another thread may have noted it meanwhile
            if code is None:
                code = self.returncode = _UNKNOWN_EXIT if told is None else told
        return code

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end, at most ``timeout`` seconds; return the exit code or None."""
        if self.returncode is None and timeout is not None:
            from . import connection

            if not connection.wait([self.sentinel], timeout):
                return None
        # Ready means that the child is ending.  Over a pipe that may be a moment
        # before it can be reaped; with a timeout of zero even that is too long.
        return self.poll(os.WNOHANG if timeout == 0 else 0)

    # ------------------------------------------------------------ signals

    def _send_signal(self, sig: int) -> None:
        if self.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if _pidfds_work and _send is not None:
                # By number, it would go to another process where this one has ended and was reaped elsewhere.
                try:
                    _send(self.sentinel, sig)
                    return
                except OSError as problem:
                    if problem.errno == errno.ESRCH:
                        return
                    # A sandbox refuses the call; or it is no pidfd: the child had ended before there was one, or the program has closed it.
            try:
                os.kill(self.pid, sig)
            except PermissionError:
                # A set-uid child; but some systems say so, too, while it is ending.
                if self.wait(0.1) is None:
                    raise

    def interrupt(self) -> None:
        """Send SIGINT."""
        self._send_signal(SIGINT)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._send_signal(SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._send_signal(SIGKILL)

    # ------------------------------------------------------------ beginning and end

    def _launch(self, process_obj: Any) -> None:
        # What can be done before the fork is done before it: afterwards each page written to has to be copied.
        wires = Wires()
        held: list[Any] = [-1, wires.line]  # the first is to be the sentinel
        finalizer = Finalize(self, _release, held)

        def life() -> int:
            _drop_inherited_lifelines()
            if wires.ended:
                wires.become_child()
            code: int = process_obj._bootstrap(wires.line.r)
            return code

        _fork_intent.preserve_fd = True
        try:
            pid = os.fork()
            if pid == 0:
                _forked.live_and_exit(life)
        except BaseException:
            finalizer.cancel()
            wires.abandon()
            raise
        finally:
            _fork_intent.preserve_fd = False
        self.pid: int = pid
        try:
            held[0] = self.sentinel = wires.become_parent(pid)
        except BaseException:  # everything is closed
            finalizer.cancel()
            raise
        self.finalizer = finalizer

    def _keep(self, sentinel: int, line: Lifeline) -> None:
        """Hold on to the sentinel until this object is closed or dies."""
        self.sentinel = sentinel
        self.finalizer = Finalize(self, _release, (sentinel, line))

    def close(self) -> None:
        """Close the descriptor."""
        if (close := self.finalizer) is not None:
            close()


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name.startswith("__"):  # the import system asks for some
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ._impl.compat.imported_names import find

        return find(__name__, name)
