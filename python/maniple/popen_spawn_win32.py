"""Start method ``spawn`` on Windows: the child is a fresh interpreter that reads its process object from shared memory.

The child inherits handles under the same numbers: the memory, which its command line names, a handle on its parent, and
those that the pickles name.  So it needs nothing of its parent's after the start.  The module can be imported on all
systems, so that tools can import all modules of the package; it works on Windows only.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from types import SimpleNamespace

from . import spawn, util  # noqa: F401  (a name of the standard package)
from ._impl.start.descriptors import close_number
from ._impl.start.launch import as_here
from ._maniple import Child, claim_handle, filled_memory, own_process
from .context import get_spawning_popen, reduction, set_spawning_popen  # noqa: F401  (names of the standard package)
from .popen_spawn_posix import ToldPopen
from .spawn import WINEXE, WINSERVICE  # noqa: F401  (likewise)
from .util import Finalize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Popen"]

# Exit code with which terminate() ends a process: far from what programs use.
TERMINATE = 1 << 16


def _path_eq(p1: str, p2: str) -> bool:
    """Return whether two paths name the same file, as far as that shows without a look at the file system."""
    return p1 == p2 or os.path.normcase(p1) == os.path.normcase(p2)


#: whether this interpreter was started by the launcher of a virtual environment
WINENV: bool = not _path_eq(sys.executable or "", getattr(sys, "_base_executable", sys.executable) or "")


def _close_handles(*handles: int) -> None:
    for handle in handles:
        close_number(handle)


def _program() -> tuple[str, dict[str, str]]:
    """Return the interpreter's file, and what its environment has beyond this process's.

    The launcher of a virtual environment would start the interpreter as a child of its own, which this process does not
    know. So the interpreter is started directly, with the variable from which it learns of the virtual environment.
    """
    program = os.fsdecode(spawn._interpreter())
    if WINENV and _path_eq(program, sys.executable):
        return vars(sys)["_base_executable"], {"__PYVENV_LAUNCHER__": sys.executable}
    return program, {}


# A handle on this process, which its children inherit.
_own: int | None = None


def _lifeline() -> Any:
    global _own
    if _own is None:
        _own = own_process()
    return SimpleNamespace(r=_own)


class _DupHandle:
    """A handle that the child inherits under the same number."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def detach(self) -> int:
        """Return the handle, which the child then owns. Call it once."""
        return claim_handle(self.handle)


class Popen(ToldPopen):
    """A child made by starting the interpreter anew."""

    method, DupFd = "spawn", _DupHandle
    _child: Child

    def duplicate_for_child(self, handle: int) -> int:
        """Make the child inherit ``handle``, and return its number there."""
        if self is not get_spawning_popen():
            raise AssertionError("handles can be passed only while the child is being started")
        self._fds.append(handle)
        return handle

    def _launch(self, process_obj: Any) -> None:
        line = _lifeline()
        speech = filled_memory("maniple-start", self._speech(process_obj, line))
        try:
            command = as_here(spawn.get_command_line(pipe_handle=speech))
            program, more = _program()
            around = getattr(process_obj, "_surroundings", None)
            variables = dict(os.environ) if around is None else around.environment()
            handles = sorted({speech, line.r, *self._fds})
            stderr = None if self._tap is None else self._tap[0]
            arguments = [program, *map(os.fsdecode, command[1:])]
            child = Child(program, arguments, [*(variables | more).items()], handles, stderr, process_obj._is_tied())
        finally:
            close_number(speech)
        self._child, self.pid, self.sentinel = child, child.pid, child.sentinel
        self.finalizer = Finalize(self, child.close)
        process_obj._popen = self

    def poll(self, flag: int = 0) -> int | None:
        """Return the exit code, or None."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end, at most ``timeout`` seconds; return the exit code or None."""
        if self.returncode is None:
            # Another thread may see the end, and close the object.
            with suppress(ValueError):
                if self._child.wait(timeout):
                    self.returncode = self._child.poll()
        return self.returncode

    def _end(self) -> None:
        if self.returncode is None:
            with suppress(ValueError):
                self._child.terminate()

    def terminate(self) -> None:
        """End the process at once."""
        self._end()

    def kill(self) -> None:
        """End the process at once."""
        self._end()

    def interrupt(self) -> None:
        """Raise NotImplementedError: Windows cannot send SIGINT to a single process."""
        raise NotImplementedError("interrupt() is not available on Windows: use terminate()")

    def close(self) -> None:
        """Release the handle."""
        if self.finalizer is not None:
            self.finalizer()
