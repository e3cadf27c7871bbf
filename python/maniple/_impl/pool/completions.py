"""The thread that completes the results of calls that have a callback.

Decoding a result and its callback run code of the program, which may block.  The keeper must not wait for that, because it holds time
limits, detects deaths and starts workers.  The callbacks run one after the other, as in the standard package.
"""

from __future__ import annotations

import threading
import time

from ..compat.greenlets import threads_are_real
from ..sync.thread_start import start_assured
from .feeders import new_queue
from .no_memory import NO_MEMORY, pause
from .results import complete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Completions"]

# The seconds for which the end of a terminated pool waits for a callback.
_PATIENCE = 2.0
# How often (seconds) the keeper looks whether the pool was terminated while it waits for a callback.
_LOOK = 0.05


class Completions:
    """The results to complete, in the order in which their calls have ended. The keeper alone calls the methods."""

    def __init__(self) -> None:
        self._results = new_queue()
        #: the thread that completes them, from the first one on
        self.thread: threading.Thread | None = None

    def add(self, result: Any) -> None:
        """Have the thread complete a result. If there can be no thread, the keeper completes it.

        If it raises MemoryError, the keeper calls it again.
        """
        if result is None:
            return
        # A thread that had no memory to begin with may have ended.
        if (self.thread is None or not self.thread.is_alive()) and not self._start():
            complete(result)
            return
        self._results.put(result)

    def _start(self) -> bool:
        if not threads_are_real():
            return False
        thread = threading.Thread(target=self._run, name="maniple-pool-callbacks", daemon=True)
        try:
            start_assured(thread)
        except (MemoryError, RuntimeError):
            return False
        self.thread = thread
        return True

    def _run(self) -> None:
        while (result := self._results.get()) is not None:
            while True:
                try:
                    complete(result)
                    break
                except NO_MEMORY:
                    pause()
            del result  # it may keep anything alive

    def end(self, is_terminated: Callable[[], bool]) -> None:
        """Wait until all results are completed. Once the pool is terminated, the wait has a limit."""
        if (thread := self.thread) is None:
            return
        self._results.put(None)
        until: float | None = None
        while thread.is_alive() and (until is None or time.monotonic() < until):
            thread.join(_LOOK)
            if until is None and is_terminated():
                until = time.monotonic() + _PATIENCE
