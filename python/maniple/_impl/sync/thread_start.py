"""Starts of threads that a signal handler's exception does not leave half done.

`Thread.start` does not: it waits for the new thread, and an exception of a handler in that wait makes either thread raise `KeyError`,
since both remove the new thread from the same table.  Handlers run in the main thread only, so another thread makes the call.
"""

from __future__ import annotations

import threading
from _thread import start_new_thread
from contextvars import copy_context
from functools import partial

from ..compat.greenlets import threads_are_real
from .thread_call import ThreadCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ThreadStart", "start_steadily"]


class ThreadStart(ThreadCall):
    """The start of a thread, or of an object with such a method `start`."""

    def __init__(self, thread: Any) -> None:
        # From Python 3.14 on, a thread may inherit the context of the thread that starts it.
        super().__init__(partial(copy_context().run, thread.start))

    def __call__(self) -> None:
        """Start the thread. If a handler of the calling thread raises, the thread starts nevertheless, or `cancel` prevents it.

        Raises:
            RuntimeError: no thread can be started.
        """
        if threading.current_thread() is threading.main_thread() and threads_are_real():
            start_new_thread(self._run, ())
        else:
            self._run()
        self._result()

    def cancel(self) -> bool:
        """Prevent the start, unless the thread has started already; return whether it is prevented."""
        if self._taken.acquire(False):
            return True
        self._wait()
        return self.error is not None


def start_steadily(thread: Any) -> None:
    """Start a thread (see `ThreadStart`)."""
    ThreadStart(thread)()
