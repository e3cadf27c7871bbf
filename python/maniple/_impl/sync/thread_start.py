"""Starts of threads that a signal handler's exception does not leave half done.

`Thread.start` does not: it waits for the new thread, and an exception of a handler in that wait makes either thread raise `KeyError`,
since both remove the new thread from the same table.  Handlers run in the main thread only, so another thread makes the call.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from functools import partial

from ..._maniple import assured
from ..compat.greenlets import threads_are_real
from .thread_call import ThreadCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ThreadStart", "start_assured", "start_steadily"]


def start_assured(thread: Any) -> None:
    """Start a thread, or call the method `start` of another object.

    Raises:
        RuntimeError: no thread can be started.
        MemoryError: the new thread had no memory to begin with. (`Thread.start` would wait forever.)
    """
    if not isinstance(thread, threading.Thread) or not threads_are_real():
        thread.start()
        return
    note: dict[str, Any] = {}
    attributes: dict[str, Any] = vars(thread)
    own: Any = thread
    attributes["_bootstrap"] = assured(own._bootstrap, note, own._started)
    try:
        thread.start()
    finally:
        attributes.pop("_bootstrap", None)
    if note["error"] is not None:
        threading._limbo.pop(thread, None)  # type: ignore[attr-defined]
        raise MemoryError("there was no memory for a new thread to begin with") from note["error"]


class ThreadStart(ThreadCall):
    """The start of a thread, or of an object with such a method `start`."""

    def __init__(self, thread: Any) -> None:
        # From Python 3.14 on, a thread may inherit the context of the thread that starts it.
        super().__init__(partial(copy_context().run, start_assured, thread))
        # Whether the attempts to prevent the start have succeeded.
        self._attempts: list[bool] = []

    def __call__(self) -> None:
        """Start the thread. If a handler of the calling thread raises, the thread starts nevertheless, or `cancel` prevents it.

        Raises:
            RuntimeError: no thread can be started.
        """
        if threading.current_thread() is threading.main_thread() and threads_are_real():
            self.begin()
        else:
            self._run()
        self._result()

    def cancel(self) -> bool:
        """Prevent the start, unless the thread has started already; return whether it is prevented. It can be called again."""
        if True not in self._attempts:
            # One call of C code: no handler runs between the attempt and the note of its result.
            self._attempts.extend(map(self._taken.acquire, (False,)))
        if True in self._attempts:
            return True
        self._wait()
        return self.error is not None


def start_steadily(thread: Any) -> None:
    """Start a thread (see `ThreadStart`)."""
    ThreadStart(thread)()
