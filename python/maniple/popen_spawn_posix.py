"""Start method ``spawn``: the child is a fresh interpreter that reads its process object from a pipe.

The child's command line names the pipe.  The parent writes two pickles to it: the
preparation data, which set up the interpreter and name the lifeline, and the
process object.
"""

from __future__ import annotations

import io
import os
from _pickle import PicklingError

from . import popen_fork, spawn, util  # noqa: F401
from ._impl.pool.worker_main import WorkerMain, by_value, worker_main
from ._impl.start import launch  # noqa: F401
from ._impl.start.descriptors import duplicate, patiently, pipe
from ._maniple import discard_children
from .context import get_spawning_popen, reduction, set_spawning_popen
from .popen_fork import Lifeline, Wires

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Popen"]


# Seconds between two reads of a child's standard error while the child does not read its pipe.
_LOOK = 0.02


def _wait_for_room(line: int, timeout: float) -> None:
    """Wait until the pipe can be written to, or has no reader."""
    import select

    poller = select.poll()
    poller.register(line, select.POLLOUT)
    patiently(poller.poll, timeout * 1000)


def _pass_on_interrupt(problem: BaseException) -> None:
    """Raise `problem` if a signal handler raised it; return if pickling did."""
    from ._maniple import interrupts

    if interrupts(problem):
        raise problem


class ToldPopen(popen_fork.Popen):
    """A child that copies nothing of its parent, and reads its data from a pipe."""

    def __init__(self, process_obj: Any) -> None:
        # The descriptors for the child, collected while the process object is pickled.
        self._fds: list[int] = []
        self._to_close: list[int] = []  # descriptors that only the child uses
        # For a pool's worker: the descriptor of its standard error, and the function that reads what it writes there.
        self._tap: tuple[int, Callable[[], None]] | None = vars(process_obj).pop("_tap", None)
        # The description of `__main__` in a child that does not load the program's main module.
        self._without_main: WorkerMain | None = vars(process_obj).pop("_without_main", None)
        try:
            super().__init__(process_obj)
        finally:
            util.close_fds(*self._to_close)

    def _speech(self, process_obj: Any, line: Lifeline) -> memoryview:
        """Return the pickles for the child: its preparation data and its process object."""
        out = io.BytesIO()
        # Not None if the pickling of another child starts this one.
        outer = get_spawning_popen()
        set_spawning_popen(self)
        try:
            main = worker_main(self.method) if self._without_main is None else self._without_main
            told = spawn.get_preparation_data(process_obj.name)
            alone = self._without_main is not None
            if alone:
                spawn._leave_out_main(told)
            told["lifeline"] = self.duplicate_for_child(line.r)
            if self._tap is not None:
                told["stderr"] = self.duplicate_for_child(self._tap[0])
            if (around := getattr(process_obj, "_surroundings", None)) is not None:
                told["surroundings"] = around.early()
            if not alone and main.may_lack():
                by_value()
                from ._impl.serialization.main_definitions import definitions

                told["main_definitions"] = definitions(main)
            reduction.dump(told, out)
            self._describe(process_obj, out, main)
        finally:
            set_spawning_popen(outer)
        return out.getbuffer()

    def _describe(self, process_obj: Any, out: io.BytesIO, main: WorkerMain) -> None:
        """Pickle the process object. Objects that pickle rejects, or that the child cannot find by name, go by value."""
        start, descriptors, refusal = out.tell(), len(self._fds), None
        try:
            reduction.dump(process_obj, out)
        except (PicklingError, AttributeError, TypeError) as problem:
            _pass_on_interrupt(problem)
            refusal = problem
        if refusal is None and (not main.may_lack() or b"_main__" not in out.getvalue()[start:]):
            return
        pickler = by_value()
        del self._fds[descriptors:]
        try:
            pickled = pickler.dump(process_obj, main)
        except Exception as problem:
            _pass_on_interrupt(problem)
            if refusal is None:
                raise
            raise refusal from None
        finally:
            refusal = None  # its traceback refers to this frame, and so to `out`, which must not be kept alive
        out.seek(start)
        out.truncate()
        out.write(pickled)

    def _say(self, line: int, speech: memoryview) -> None:
        if self._tap is None:
            with open(line, "wb", closefd=False) as out:
                out.write(speech)
            return
        _, take_in = self._tap
        os.set_blocking(line, False)
        try:
            while speech:
                try:
                    speech = speech[patiently(os.write, line, speech) :]
                except BlockingIOError:
                    # The child may wait for room in its standard error, which the thread that starts workers reads.
                    take_in()
                    _wait_for_room(line, _LOOK)
        except BrokenPipeError:
            pass  # the child has ended, or is ending; its exit code and its standard error say why


class _DupFd:
    """A descriptor that the child inherits under the same number."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        """Return the descriptor."""
        return self.fd


class Popen(ToldPopen):
    """A child made by starting the interpreter anew."""

    method, DupFd = "spawn", _DupFd

    def duplicate_for_child(self, fd: int) -> int:
        """Make the child inherit ``fd``, and return its number there."""
        if fd <= 2:
            # In the child, the number would be a standard stream.
            fd = duplicate(fd)
            self._to_close += [fd]
        self._fds += [fd]
        return fd

    def _launch(self, process_obj: Any) -> None:
        from . import resource_tracker as tracking

        tracker = tracking.getfd()
        wires = Wires()
        try:
            speech = self._speech(process_obj, wires.line)
            told_r, told_w = pipe()
        except BaseException:
            wires.abandon()
            raise
        popen_fork._hold(told_w)  # the child detects by the end of the pipe that the parent has given up
        started: list[int] = []
        try:
            try:
                line = launch.as_here(spawn.get_command_line(tracker_fd=tracker, pipe_handle=told_r))
                self._fds += [tracker, told_r, *wires.ended[1:]]
                stderr = None if self._tap is None else self._tap[0]
                around = getattr(process_obj, "_surroundings", None)
                variables = None if around is None else around.environment()
                launch.run(spawn._interpreter(), line, self._fds, stderr=stderr, started=started, environment=variables)
            finally:
                os.close(told_r)
            self.pid = started[0]
            self.sentinel = wires.become_parent(self.pid)
            self._keep(self.sentinel, wires.line)
            self._say(told_w, speech)
            process_obj._popen = self  # here: a signal handler may raise before the caller stores this object
        except BaseException:
            # Also after the child's death or a signal handler's exception: do not leave a child that has read only a
            # part. No handler runs before this step, and each may raise.
            discard_children(started)
            if self._held[0] >= 0:
                self.close()
            else:
                wires.abandon(vars(self).get("sentinel", -1))
            raise
        finally:
            popen_fork.let_go(told_w)
