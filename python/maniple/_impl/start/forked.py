"""The life of a forked child, for the start method ``fork`` and the fork server."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable

from ... import process
from ...process import _say
from ...util import _exit_function, _flush_std_streams
from ..compat import standard_package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["end_after", "live_and_exit"]


def end_after(inherited: Callable[..., object], is_terminated: Callable[[], bool]) -> Callable[..., object]:
    """Install a handler by which SIGTERM ends this pool worker once its pool is terminated.

    The handler first calls the handler that the fork copied, which alone might ignore the signal.

    Returns:
        The installed handler.
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
        # The child drops the parent's exit functions. Those that the child
        # registers from here on are called below.
        atexit._clear()
        atexit.register(standard_package.at_exit)
        atexit.register(_exit_function)
        code = life()
    except BaseException:
        _say(lambda: sys.excepthook(*sys.exc_info()))
    finally:
        try:
            # Usually there are only these two functions. A function that would do nothing is not called, since the child copies
            # each memory page that it writes to.
            if atexit._ncallbacks() == 2 and not standard_package.is_there():
                atexit.unregister(standard_package.at_exit)
            atexit._run_exitfuncs()
            _flush_std_streams()
        finally:
            os._exit(code)
