"""What a forked child does from its first line to its last; for the start methods that fork, and for the fork server."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

from . import _neighbour
from .util import _exit_function, _flush_std_streams
from .util import is_exiting as _exit_work_done

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["live_and_exit"]


def live_and_exit(life: Callable[[], int]) -> NoReturn:
    """In a forked child: call ``life`` for an exit code, and exit with it."""
    code = 1
    try:
        # What the parent wants done at exit is the parent's; what the child
        # adds from here on is its own, and is done below.
        atexit._clear()
        atexit.register(_neighbour.at_exit)
        atexit.register(_exit_function)
        code = life()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        _flush_std_streams()
    finally:
        try:
            # Mostly both of ours are all there is, with nothing left to do.
            if not _exit_work_done() or atexit._ncallbacks() != 2 or _neighbour.is_there():
                atexit._run_exitfuncs()
                _flush_std_streams()
        finally:
            os._exit(code)
