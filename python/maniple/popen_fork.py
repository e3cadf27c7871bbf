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
import sys
from contextlib import suppress
from signal import SIGINT, SIGKILL, SIGTERM

from . import _forked, _imports_under_way, process, util
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
_lifelines: set[int] = set()


def _hold(fd: int) -> None:
    """Note a descriptor that forked children are to close."""
    _lifelines.add(fd)


def _release(watched: int, lifeline: int) -> None:
    """Close both descriptors that a parent keeps for a child."""
    _lifelines.discard(lifeline)
    close_fds(watched, lifeline)


def _drop_inherited_lifelines() -> None:
    for fd in _lifelines:
        try:
            os.close(fd)
        except OSError:
            pass
    _lifelines.clear()


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
        return os.pidfd_open(pid)
    except OSError as problem:
        if problem.errno != errno.ESRCH:
            # No descriptor left.  Nobody could ever wait for this child.
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)
            raise
    # Reaped already: SIGCHLD is ignored, or another thread waits for any child.
    # A pipe without a writer says "ended" just as well.
    ended, writer = os.pipe()
    os.close(writer)
    return ended


class Wires:
    """The descriptors between this process and a child that is about to be started."""

    def __init__(self) -> None:
        self.lifeline_r, self.lifeline_w = os.pipe()
        _hold(self.lifeline_w)
        # The second pipe stands in where there are no pidfds.
        self.ended: tuple[int, ...] = ()
        if not _have_pidfds():
            try:
                self.ended = os.pipe()
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
        _lifelines.discard(self.lifeline_w)
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
        self.finalizer: Finalize | None = None
        self._launch(process_obj)

    def duplicate_for_child(self, fd: int) -> int:
        """Return the number that ``fd`` has in the child."""
        return fd

    # ------------------------------------------------------------ watching

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, or None; with ``flag`` 0 wait for it."""
        code = self.returncode
        if code is not None:
            return code
        try:
            reaped, status = os.waitpid(self.pid, flag)
        except ChildProcessError:
            # Another thread reaped it just now and has set returncode, or is about to.
            return self.returncode
        if reaped:
            self.returncode = code = os.waitstatus_to_exitcode(status)
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
