"""What a forked child does from its first line to its last; for the start methods that fork, and for the fork server."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

from ... import process
from ...process import _say
from ...util import _exit_function, _flush_std_streams
from ..compat import neighbour

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["end_after", "live_and_exit"]


def end_after(inherited: Callable[..., object], is_terminated: Callable[[], bool]) -> Callable[..., object]:
    """Have SIGTERM end this worker of a pool that was terminated, after the handler that came with the fork, which may only note the signal.

    Returns the handler that it installs.
    """
    from signal import SIG_DFL, SIGTERM, raise_signal, signal

    def handle(number: int, frame: object) -> None:
        inherited(number, frame)
        if is_terminated():
            signal(SIGTERM, SIG_DFL)
            raise_signal(SIGTERM)

    signal(SIGTERM, handle)
    return handle


def live_and_exit(life: Callable[[], int]) -> NoReturn:
    """In a forked child: call ``life`` for an exit code, and exit with it."""
    code = 1
    process._exit_work_follows = True
    try:
        # What the parent wants done at exit is the parent's; what the child
        # adds from here on is its own, and is done below.
        atexit._clear()
        atexit.register(neighbour.at_exit)
        atexit.register(_exit_function)
        code = life()
    except BaseException:
        _say(lambda: sys.excepthook(*sys.exc_info()))
    finally:
        try:
            # Mostly both of ours are all there is: what does nothing is not called in a child, which copies each page it writes to.
            if atexit._ncallbacks() == 2 and not neighbour.is_there():
                atexit.unregister(neighbour.at_exit)
            atexit._run_exitfuncs()
            _flush_std_streams()
        finally:
            os._exit(code)
