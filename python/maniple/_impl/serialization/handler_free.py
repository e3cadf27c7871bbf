"""Work that signal handlers have interrupted repeatedly, done by a thread in which no handler runs.

If a handler always raises before the main thread has unpickled a value, the value would never be complete.  So another thread
unpickles it, and the main thread waits.
"""

from __future__ import annotations

from ..compat.greenlets import threads_are_real
from ..sync.thread_call import ThreadCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["HandlerFreeCall"]


class HandlerFreeCall(ThreadCall):
    """The call ``make()`` in a separate thread, if a thread can be started."""

    #: whether there was no thread for it
    alone = False

    def result(self) -> Any:
        """Wait for the result and return it, or raise the error. After an exception of a handler it can be called again."""
        if not self._taken.locked():
            try:
                if not threads_are_real():
                    raise RuntimeError
                # Not `threading.Thread`, whose start waits until the thread runs, which is time for the next signal.
                self.begin()
            except RuntimeError:  # no thread can be started: the calling thread does the work
                self.alone = True  # after an interruption the owner starts again
                make: Any = self._make
                return make()
        return self._result()
