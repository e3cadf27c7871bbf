"""The threads that read the inputs of `imap` in a pool of threads.

Such a thread waits a moment for another input after it has read one, because its start costs more than most calls of `imap`.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator

from ..compat.greenlets import threads_are_real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .thread_hub import ThreadHub

__all__ = ["Feeders", "new_queue"]

# The number of threads that wait for inputs, at most.
_MOST_IDLE = 4
# The seconds that such a thread waits, at most.
_IDLE = 0.5
_END = (0, None)


def new_queue() -> Any:
    """Return a queue whose operations are single steps."""
    # The native queue waits in a way that greenlets cannot.
    return queue.SimpleQueue() if threads_are_real() else queue._PySimpleQueue()  # type: ignore[attr-defined]


class Feeder(threading.Thread):
    """A thread that reads inputs, which come through its own queue `inputs`."""

    def __init__(self, feeders: Feeders, job: int, iterator: Iterator[Any]) -> None:
        super().__init__(name="maniple-pool-feeder", daemon=True)
        self.inputs = new_queue()
        self.inputs.put((job, iterator))
        self._feeders = feeders

    def run(self) -> None:
        """Feed the stream of each input that comes."""
        feeders = self._feeders
        try:
            while True:
                try:
                    job, iterator = self.inputs.get(timeout=_IDLE)
                except queue.Empty:
                    try:
                        feeders.idle.remove(self)
                        return
                    except ValueError:  # another thread has taken this one, and its input comes
                        job, iterator = self.inputs.get()
                if iterator is None:
                    return
                feeders.hub.feed(job, iterator)
                del iterator  # it may keep anything alive
                if len(feeders.idle) >= _MOST_IDLE:
                    return
                feeders.idle.append(self)
                if feeders.hub.closed:
                    return
        finally:
            feeders.all.discard(self)


class Feeders:
    """The feeders of one hub."""

    def __init__(self, hub: ThreadHub) -> None:
        self.hub = hub
        self.all: set[Feeder] = set()
        self.idle: deque[Feeder] = deque()

    def feed(self, job: int, iterator: Iterator[Any]) -> Feeder | None:
        """Let an idle thread feed the stream of `job`, and return None; return a new thread if none is idle."""
        try:
            # A signal handler may raise between two steps. The idle thread then waits until the pool is closed.
            feeder = self.idle.pop()
        except IndexError:
            feeder = Feeder(self, job, iterator)
            self.all.add(feeder)
            return feeder
        feeder.inputs.put((job, iterator))
        return None

    def end(self) -> None:
        """Let each thread end after its present input."""
        for feeder in self.all.copy():
            feeder.inputs.put(_END)
