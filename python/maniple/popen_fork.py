"""Start method ``fork``: the child is a copy of its parent.

Parent and child detect each other's end without polling:

* The parent waits on the *sentinel*: a pidfd if the system has pidfds (which is
  exact, regardless of what the child's own children inherit), otherwise the read
  end of a pipe whose write end only the child holds.
* The child waits on the *lifeline*, a pipe whose write end only the parent holds.
  One pipe serves all children of a process, for all start methods.  A forked child
  inherits the write end, too, and closes it first.  Daemonic children and a
  manager's server end when the lifeline does.  If a program calls `os.fork` itself,
  both processes keep the write end: a program that becomes a daemon by forking
  keeps its children.

So each child costs its parent one descriptor.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from _thread import RLock
from contextlib import suppress
from itertools import starmap
from signal import SIGINT, SIGTERM

from . import process, util
from ._impl.compat import public_module
from ._impl.start import forked as _forked
from ._impl.start.descriptors import Mark, above_stdio, call_into, duplicate, mark, pipe
from ._impl.sync.bells import new_lock
from ._maniple import Hold, discard_children
from .resource_tracker import _fork_intent
from .util import Finalize, _flush_std_streams, close_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Lifeline", "Popen", "Wires", "let_go", "lifeline"]

# Every forked child uses these modules, so they are imported before the fork.
for _name in ("context", "util", "_impl.compat.standard_package"):
    process._sibling(_name)

# Write ends of this process that a forked child closes, each with the identity of its file.
_lifelines: dict[int, Mark] = {}


def _hold(fd: int) -> None:
    """Register a descriptor that forked children close."""
    _lifelines[fd] = mark(fd)


class Lifeline:
    """This process's pipe for all of its children, and a spare descriptor for a child's pidfd when no other is free."""

    def __init__(self) -> None:
        self.maker: int = os.getpid()
        self.r, self.w = pipe()
        self.spare = -1
        _hold(self.w)
        self.file: Mark = _lifelines[self.w]

    def is_there(self) -> bool:
        """Return True if the write end is open. A program that becomes a daemon may close it."""
        return mark(self.w) == self.file

    def serves(self) -> bool:
        """Return True if this process has made it, and the program has closed neither end."""
        return self.maker == os.getpid() and self.is_there() and mark(self.r) == self.file

    def have_spare(self) -> None:
        """Reserve a descriptor for the pidfd after a fork."""
        if self.spare < 0:
            self.spare = duplicate(self.r)

    def give_spare(self) -> None:
        """Close the spare descriptor, so that its number is free for the next descriptor."""
        spare, self.spare = self.spare, -1
        if mark(spare) == self.file:
            os.close(spare)


_lifeline: Lifeline | None = None
# pid -> the lock under which that process makes its lifeline; a forked child has another
_making: dict[int, Any] = {}


def lifeline() -> Lifeline:
    """Return the lifeline of this process's children; make it if there is none, or the program has closed it."""
    global _lifeline
    line = _lifeline
    if line is None or line.spare < 0 or not line.serves():
        # The first starts of several threads share one.
        with Hold(_making.setdefault(os.getpid(), new_lock(RLock))):
            line = _lifeline
            if line is None or not line.serves():
                line = _lifeline = Lifeline()
            line.have_spare()
    return line


def _release(watched: int, line: Lifeline) -> None:
    """Close the descriptor that a parent keeps for a child; -1 if a signal handler has interrupted the start before the fork."""
    if watched < 0:
        return
    # A program that closes all descriptors has closed the lifeline, too. Then `watched` may be another file's number.
    if line.is_there():
        close_fds(watched)


def _drop_inherited_lifelines() -> None:
    # `lifeline` has checked the last write end. The program may have closed the others.
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
    """Close a descriptor that was registered with `_hold`."""
    file = _lifelines.pop(fd, None)
    if file is not None and mark(fd) == file:
        os.close(fd)


# Windows has neither. There, classes that derive from these override what uses them.
WNOHANG: int = getattr(os, "WNOHANG", 1)
SIGKILL: int = getattr(signal, "SIGKILL", SIGTERM)

# The exit code of a child whose real exit code was lost.
_UNKNOWN_EXIT = 255

# pid of this process -> the lock that it holds while it reaps a child by its pid.  (A single lock would have to be freed in each
# forked child.)
_reaping: dict[int, Any] = {}

# An interpreter that was built on an old system lacks both, even if the kernel has them.
try:
    from signal import pidfd_send_signal as _send
except ImportError:
    _send = None  # type: ignore[assignment]  # the interpreter lacks it
_P_PIDFD = getattr(os, "P_PIDFD", None)

_pidfds_work: bool | None = None

#: for `starmap`: one call without arguments
_NO_ARGUMENTS = ((),)


def _have_pidfds() -> bool:
    """Return whether the kernel provides pidfds (old kernels and sandboxes do not)."""
    global _pidfds_work
    if _pidfds_work is None:
        try:
            os.close(os.pidfd_open(os.getpid()))
            _pidfds_work = True
        except AttributeError:
            _pidfds_work = False
        except OSError as problem:
            if problem.errno not in (errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL):
                raise  # no descriptor is free, which says nothing about pidfds
            _pidfds_work = False
    return _pidfds_work


def _watch(pid: int, line: Lifeline | None = None) -> int:
    """Return a descriptor that becomes readable when the child ``pid`` ends."""
    opened: list[int] = []
    try:
        try:
            call_into(opened, os.pidfd_open, pid)
            return above_stdio(opened[0])
        except OSError as problem:
            if problem.errno != errno.EMFILE or line is None:
                raise
            line.give_spare()
            call_into(opened, os.pidfd_open, pid)
            return above_stdio(opened[0])
    except OSError as problem:
        if problem.errno != errno.ESRCH:
            raise
    except BaseException:  # raised by a signal handler
        close_fds(*opened)
        raise
    # The child is reaped already: SIGCHLD is ignored, or another thread waits for any child.
    # The read end of a pipe without a writer is readable, as a pidfd of an ended process is.
    ended, writer = pipe()
    os.close(writer)
    return ended


# The errors of calls that a sandbox or an older kernel refuses, whose descriptor the program has closed, or that are short of something.
_REFUSALS = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.EACCES,
    errno.EBADF,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
}


def _is_refused(problem: OSError) -> bool:
    """Return whether the system refused a call. A signal handler that interrupts the call may raise an OSError of its own."""
    return problem.errno in _REFUSALS


def _id_of(popen: Popen) -> tuple[int, int]:
    """Return the first two arguments of `os.waitid` for this child."""
    return (_P_PIDFD, popen.sentinel) if _pidfds_work and _P_PIDFD is not None else (os.P_PID, popen.pid)


class Wires:
    """The descriptors between this process and a child that is about to be started."""

    def __init__(self) -> None:
        self.line: Lifeline = lifeline()
        # Without pidfds, a pipe of the child serves as the sentinel.
        self.ended: tuple[int, ...] = () if _have_pidfds() else pipe()

    def become_child(self) -> None:
        """In a forked child, after `_drop_inherited_lifelines` and if `ended` is not empty: close the parent's end of the pipe."""
        os.close(self.ended[0])
        _hold(self.ended[1])  # a child of this child must not keep its sentinel open

    def become_parent(self, pid: int) -> int:
        """In the parent, after the fork: close the child's ends, and return the sentinel."""
        if self.ended:
            sentinel, ours = self.ended
            self.ended = (sentinel,)
            os.close(ours)
            return sentinel
        return _watch(pid, self.line)

    def abandon(self, sentinel: int = -1) -> None:
        """Close the descriptors, and the sentinel if there is one, since no child was started."""
        close_fds(*{sentinel, *self.ended} - {-1})


class Popen:
    """A child made by `os.fork`."""

    method = "fork"
    # The sentinel that the finalizer closes (-1: none), and the lifeline.
    _held: Any = (-1, None)

    def __init__(self, process_obj: Any) -> None:
        if getattr(sys, "frozen", False):
            from . import spawn

            spawn._take_over_if_frozen()
        # Otherwise both processes would write the buffered output.
        _flush_std_streams()
        self.returncode: int | None = None
        self._maker = os.getpid()
        # Held by the thread that sends a signal, and by the one that closes the sentinel: the number of a closed sentinel may
        # belong to the pidfd of another child.
        self._guard: Any = new_lock(RLock)
        self.finalizer: Finalize | None = None
        self._launch(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Return the number that ``fd`` has in the child."""
        return fd

    # ------------------------------------------------------------ watching

    def poll(self, flag: int = WNOHANG) -> int | None:
        """Return the exit code, or None; with ``flag`` 0 wait for it."""
        code = self.returncode
        return self._look(flag) if code is None else code

    def _look(self, flag: int) -> int | None:
        # Read the status without reaping, store it, then reap: several threads may do so at once.  A thread that finds no child
        # finds the code that another thread has stored, or the program has reaped the child.  Another thread may also have closed
        # the sentinel, whose number may then belong to the pidfd of another child.  A thread that waits uses the pid: until the
        # child is reaped, no other child has it.
        kind, number = _id_of(self) if flag else (os.P_PID, self.pid)
        try:
            found = os.waitid(kind, number, os.WEXITED | os.WNOWAIT | flag)
        except ChildProcessError:
            return self._reaped_elsewhere(flag)
        except OSError as problem:
            if (code := self.returncode) is not None:
                return code
            if not _is_refused(problem):
                raise
            return self._look_by_number(flag)
        if (code := self.returncode) is not None:
            return code
        if found is None:
            return None
        if found.si_pid != self.pid:
            return self._look_by_number(flag)  # the program has closed the sentinel, and the number is another child's
        self.returncode = code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        try:
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG)
        except BaseException:  # raised by a signal handler: no later call reaps the child, whose code is stored
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG)
            raise
        return code

    def _look_by_number(self, flag: int) -> int | None:
        """Reap the child by its pid: a sandbox or a kernel before 5.4 rejects the call, or the program has closed the sentinel."""
        if flag == 0:
            try:
                from . import connection

                connection.wait([self.sentinel])
            except OSError as problem:
                if not _is_refused(problem):
                    raise
        with Hold(_reaping.setdefault(os.getpid(), new_lock(RLock))):
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
        """Return the code of a child that this object did not reap: SIGCHLD is ignored, or the program waits for any
        child."""
        code = self.returncode
        if code is None and os.getpid() == self._maker:
            from .connection import wait

            if not wait([self.sentinel], 0 if flag else None):
                return None
            from ._maniple import exit_told

            told = exit_told(self.sentinel)
            code = self.returncode  # another thread may have stored it meanwhile
            if code is None:
                code = self.returncode = _UNKNOWN_EXIT if told is None else told
        return code

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end, at most ``timeout`` seconds; return the exit code or None."""
        if self.returncode is None and timeout is not None:
            from . import connection

            try:
                if not connection.wait([self.sentinel], timeout):
                    return self.returncode
            except OSError:
                # Another thread may have seen the end, and closed the sentinel.
                if self.returncode is None:
                    raise
        # A sentinel that is a pipe is ready a moment before the child can be reaped.
        # `poll(0)` waits for that moment; a timeout of zero does not wait at all.
        return self.poll(os.WNOHANG if timeout == 0 else 0)

    # ------------------------------------------------------------ signals

    def _send_signal(self, sig: int) -> None:
        if os.getpid() != self._maker:
            self._send_now(sig)  # a thread that this process does not have may hold the lock
            return
        with Hold(self._guard):
            self._send_now(sig)

    def _send_now(self, sig: int) -> None:
        if self.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if _pidfds_work and _send is not None:
                # A signal by pid would reach another process if this child was reaped elsewhere and its pid is reused.
                try:
                    _send(self.sentinel, sig)
                    return
                except OSError as problem:
                    if problem.errno == errno.ESRCH:
                        return
                    # A sandbox rejects the call, or the sentinel is not a pidfd: the child ended before `pidfd_open`, or the program
                    # has closed the sentinel.
            try:
                os.kill(self.pid, sig)
            except PermissionError:
                # A set-uid child. Some systems also raise this error while the child is ending.
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
        # As much as possible is done before the fork: after it, each page that is written to is copied.
        wires = Wires()
        held: list[Any] = [-1, wires.line]  # the sentinel replaces -1
        finalizer = Finalize(self, _release, held)

        def life() -> int:
            _drop_inherited_lifelines()
            if wires.ended:
                wires.become_child()
            code: int = process_obj._bootstrap(wires.line.r)
            return code

        started: list[int] = []
        try:
            _fork_intent.preserve_fd = True
            try:
                # As `call_into` does. From Python 3.12 on a warning about threads shows the line that forks.
                started.extend(starmap(os.fork, _NO_ARGUMENTS))
                if started[0] == 0:
                    _forked.live_and_exit(life)
            finally:
                _fork_intent.preserve_fd = False
            self.pid: int = started[0]
            held[0] = self.sentinel = wires.become_parent(self.pid)
            self.finalizer = finalizer
            process_obj._popen = self  # here: a signal handler may raise before the caller stores this object
        except BaseException:
            if started == [0]:
                os._exit(1)  # a handler has raised in the child before it began
            discard_children(started)  # no handler runs before this step, and each may raise
            finalizer.cancel()
            wires.abandon(held[0])
            raise

    def _keep(self, sentinel: int, line: Lifeline) -> None:
        """Store the sentinel; it is closed by `close`, or when this object is collected."""
        self.sentinel = sentinel
        held = [-1, line]
        self.finalizer = Finalize(self, _release, held)
        # From this step on the finalizer closes it. No handler of a signal runs in between.
        held[0], self._held = sentinel, held

    def close(self) -> None:
        """Close the descriptor."""
        if (close := self.finalizer) is None:
            return
        if os.getpid() != self._maker:
            close()  # a thread that this process does not have may hold the lock
            return
        with Hold(self._guard):
            close()


public_module.finish(globals())
