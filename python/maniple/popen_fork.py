"""Start method ``fork``: the child is a copy of its parent.

Two facts must reach the other side without polling: that the child ended, and
that the parent ended.

* The parent learns it from the *sentinel*: a pidfd where the system has them
  (exact: it does not matter what the child's own children inherited), elsewhere
  the read end of a pipe whose write end only the child holds.
* The child learns it from the *lifeline*, a pipe whose write end only the parent
  holds.  Children forked later would inherit that end and keep it open beyond
  the parent's death, so each closes the lifelines of its elder siblings first.
  A daemonic child, and a manager's server, ask the kernel to end them then.  A
  program that calls `os.fork` itself keeps the ends in both processes: if it
  becomes a daemon that way, its children stay.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from _thread import allocate_lock as Lock
from contextlib import suppress
from signal import SIGINT, SIGKILL, SIGTERM

from . import _forked, _imports_under_way, process, util
from ._descriptors import Mark, above_stdio, mark, pipe
from .resource_tracker import _fork_intent
from .util import Finalize, _flush_std_streams, close_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Popen"]

# What every forked child asks for first; found once, here.
for _name in ("context", "util", "_neighbour"):
    process._sibling(_name)

# Write ends held by this process that a forked child has no business with.
_lifelines: dict[int, Mark] = {}


def _hold(fd: int) -> None:
    """Note a descriptor that forked children are to close."""
    _lifelines[fd] = mark(fd)


def _release(watched: int, lifeline: int) -> None:
    """Close both descriptors that a parent keeps for a child."""
    # Each look costs a start some pages: a program that has closed one of the two, as one that becomes a daemon, has closed both.
    file = _lifelines.pop(lifeline, None)
    if file is not None and mark(lifeline) == file:
        close_fds(watched, lifeline)


def _drop_inherited_lifelines() -> None:
    # The last was made for this very child, and the first tells whether the program has closed what was open before.
    for fd, file in _lifelines.items():
        if len(_lifelines) == 1 or mark(fd) == file:
            break
        _lifelines[fd] = None
    for fd, file in _lifelines.items():
        if file is not None:
            try:
                os.close(fd)
            except OSError:
                pass
    _lifelines.clear()


# What is told of a child whose exit code nobody can learn any more.
_UNKNOWN_EXIT = 255

# Of each process its own: held while a child is reaped by its number.  (One for all would have to be freed in each forked child.)
_reaping: dict[int, Any] = {}

# An interpreter that was built on an old system has neither, whatever the kernel can do.
_send = getattr(signal, "pidfd_send_signal", None)
_P_PIDFD = getattr(os, "P_PIDFD", None)

_pidfds_work: bool | None = None


def _have_pidfds() -> bool:
    """Tell whether the kernel hands out pidfds (old kernels and sandboxes do not)."""
    global _pidfds_work
    if _pidfds_work is None:
        try:
            os.close(os.pidfd_open(os.getpid()))
            _pidfds_work = True
        except (AttributeError, OSError):
            _pidfds_work = False
    return _pidfds_work


def _watch(pid: int) -> int:
    """Return a descriptor that becomes readable when our child ``pid`` ends."""
    try:
        return above_stdio(os.pidfd_open(pid))
    except OSError as problem:
        if problem.errno != errno.ESRCH:
            # No descriptor left.  Nobody could ever wait for this child.
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, SIGKILL)
                os.waitpid(pid, 0)
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
        self.lifeline_r, self.lifeline_w = pipe()
        _hold(self.lifeline_w)
        # The second pipe stands in where there are no pidfds.
        self.ended: tuple[int, ...] = ()
        if not _have_pidfds():
            try:
                self.ended = pipe()
            except BaseException:
                self.abandon()
                raise

    def for_child(self) -> list[int]:
        """The ends that the child has to keep open."""
        return [self.lifeline_r, *self.ended[1:]]

    def become_child(self) -> int:
        """Called in a forked child that has dropped `_lifelines`: close the parent's other end, return the lifeline."""
        if self.ended:  # asked for only then, too: a call less in every child
            os.close(self.ended[0])
            _hold(self.ended[1])  # our own children must not keep us "alive"
        return self.lifeline_r

    def become_parent(self, pid: int) -> tuple[int, int]:
        """Called when the child runs: close its ends, return sentinel and lifeline."""
        os.close(self.lifeline_r)
        if self.ended:
            os.close(self.ended[1])
            return self.ended[0], self.lifeline_w
        try:
            return _watch(pid), self.lifeline_w
        except BaseException:
            self._let_go()
            raise

    def abandon(self) -> None:
        """Close everything: no child was started."""
        self._let_go()
        close_fds(*self.ended[:1], *self.for_child())

    def _let_go(self) -> None:
        _lifelines.pop(self.lifeline_w, None)
        os.close(self.lifeline_w)


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
        with _reaping.setdefault(os.getpid(), Lock()):
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
        if self.returncode is None and os.getpid() == self._maker:
            from .connection import wait

            if not wait([self.sentinel], 0 if flag else None):
                return None
            from ._maniple import exit_told

            code = exit_told(self.sentinel)
            if self.returncode is None:
                self.returncode = _UNKNOWN_EXIT if code is None else code
        return self.returncode

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
                except PermissionError:
                    pass  # or a sandbox that refuses the call
                except ProcessLookupError:
                    return
                except OSError:
                    pass  # no pidfd: the child had ended before there was one, or the program has closed it
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
        lifeline = wires.lifeline_w
        held = [-1, lifeline]  # the first is to be the sentinel
        finalizer = Finalize(self, _release, held)

        def life() -> int:
            _imports_under_way.forget()
            _drop_inherited_lifelines()
            code: int = process_obj._bootstrap(wires.become_child() if wires.ended else wires.lifeline_r)
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
            held[0] = self.sentinel = wires.become_parent(pid)[0]
        except BaseException:  # everything is closed
            finalizer.cancel()
            raise
        self.finalizer = finalizer

    def _keep(self, sentinel: int, lifeline: int) -> None:
        """Hold on to both until this object is closed or dies."""
        self.sentinel = sentinel
        _hold(lifeline)
        self.finalizer = Finalize(self, _release, (sentinel, lifeline))

    def close(self) -> None:
        """Close the descriptors."""
        if (close_both := self.finalizer) is not None:
            close_both()


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name.startswith("__"):  # the import system asks for some
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ._imported_names import find

        return find(__name__, name)
