"""Start method ``spawn`` on Windows.

The child's command line names a pipe handle of the parent and the parent's pid;
the child duplicates the handle.  The module can be imported on all systems, so
that tools can import all modules of the package; it works on Windows only.
"""

from __future__ import annotations

import os
import sys
from signal import SIGTERM
from subprocess import list2cmdline

from . import context, reduction, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Popen"]

# Exit code with which terminate() ends a process: far from what programs use.
TERMINATE = 1 << 16
_INFINITE = 0xFFFFFFFF
_LONGEST_WAIT_MS = 0x7FFFFFFF


def _environment() -> dict[str, str] | None:
    """Return the environment for a child in a virtual environment; None means the parent's environment."""
    launcher = getattr(sys, "_base_executable", sys.executable)
    if os.path.normcase(launcher) == os.path.normcase(sys.executable):
        return None
    return {**os.environ, "__PYVENV_LAUNCHER__": sys.executable}


def _system() -> Any:
    """Return the module `_winapi`, which only Windows has."""
    from importlib import import_module

    return import_module("_winapi")


def _close_handles(*handles: int) -> None:
    close = _system().CloseHandle
    for number in handles:
        close(number)


class Popen:
    """A child made by starting the interpreter anew."""

    method = "spawn"

    def __init__(self, process_obj: Any) -> None:
        from importlib import import_module

        from . import spawn as starting

        windows = _system()
        told = starting.get_preparation_data(process_obj.name)
        # The read end stays open here until the child has duplicated it, which it
        # has done when it has read the pickles.
        read_handle, write_handle = windows.CreatePipe(None, 0)
        line = list2cmdline(starting.get_command_line(parent_pid=os.getpid(), pipe_handle=read_handle))
        program, environment = starting.get_executable(), _environment()
        if environment is not None and program == sys.executable:
            program = vars(sys)["_base_executable"]
        with open(import_module("msvcrt").open_osfhandle(write_handle, 0), "wb") as to_child:
            try:
                handle, thread_handle, self.pid, _ = windows.CreateProcess(
                    program, line, None, None, False, 0, environment, None, None
                )
            except BaseException:
                _close_handles(read_handle)
                raise
            _close_handles(thread_handle)
            self.returncode: int | None = None
            self._handle, self.sentinel = handle, int(handle)
            self.finalizer = util.Finalize(self, _close_handles, (self.sentinel, int(read_handle)))
            context.set_spawning_popen(self)
            try:
                for part in (told, process_obj):
                    reduction.dump(part, to_child)
            finally:
                context.set_spawning_popen(None)

    def duplicate_for_child(self, handle: int) -> int:
        """Return the number that ``handle`` has in the child."""
        if self is not context.get_spawning_popen():
            raise AssertionError("handles can be passed only while the child is being started")
        return int(vars(reduction)["duplicate"](handle, target_process=self.sentinel))

    def poll(self) -> int | None:
        """Return the exit code, or None."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end, at most ``timeout`` seconds; return the exit code or None."""
        if (known := self.returncode) is not None:
            return known
        windows = _system()
        span = _INFINITE if timeout is None else min(max(0, int(timeout * 1000 + 0.5)), _LONGEST_WAIT_MS)
        if windows.WaitForSingleObject(self.sentinel, span) != windows.WAIT_OBJECT_0:
            return None
        status = windows.GetExitCodeProcess(self._handle)
        self.returncode = known = -SIGTERM if status == TERMINATE else status
        return known

    def _end(self) -> None:
        """End the process at once."""
        if self.returncode is not None:
            return
        try:
            _system().TerminateProcess(self.sentinel, TERMINATE)
        except OSError:
            # Windows also denies access while the process is ending.
            if self.wait(1.0) is None:
                raise

    terminate = kill = _end

    def interrupt(self) -> None:
        """Raise NotImplementedError: Windows cannot send SIGINT to a single process."""
        raise NotImplementedError("interrupt() is not available on Windows: use terminate()")

    def close(self) -> None:
        """Close the handles."""
        close_both = self.finalizer
        close_both()
