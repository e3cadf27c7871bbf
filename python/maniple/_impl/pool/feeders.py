"""The threads that read the inputs of `imap`.

An input may block, so no input may wait for the end of another one.  But a thread for each costs more than most calls of `imap`, and many
threads that run at once slow each other down.  So a feeder reads one input after the other, while a *watch* looks whether it gets on:

1. The thread of the call puts the input into the queue.  If no feeder is free then, and no watch exists, it starts a feeder.
2. A feeder that takes an input while others wait, and no feeder is free, starts a watch.
3. If no feeder takes an input for some milliseconds while one waits, the watch becomes a feeder.  If no input waits, it becomes one, too,
   which is free.

A feeder that is free ends after a moment without an input.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from time import sleep

from ..compat.greenlets import threads_are_real
from ..sync.thread_start import start_assured
from .no_memory import NO_MEMORY, PAUSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Feeders", "new_queue"]

# The number of feeders that wait for inputs, at most.
_MOST_FREE = 4
# The seconds that a feeder waits, at most.
_PATIENCE = 0.5
# The seconds after which an input that waits gets another feeder.
_TICK = 0.005


def new_queue() -> Any:
    """Return a queue whose operations are single steps."""
    # The native queue waits in a way that greenlets cannot.
    return queue.SimpleQueue() if threads_are_real() else queue._PySimpleQueue()  # type: ignore[attr-defined]


def _refuse(error: Exception) -> Iterator[Any]:
    raise error
    yield


# In the place of an input.
_NOTHING = object()


class Feeder(threading.Thread):
    """A thread that reads inputs; at first it is the watch if it `watches`."""

    def __init__(self, feeders: Feeders, watches: bool = False) -> None:
        super().__init__(name="maniple-pool-feeder", daemon=True)
        self._feeders = feeders
        self._watches = watches
        self._is_free = False
        # The input that this thread reads.
        self._given: Any = _NOTHING

    def run(self) -> None:
        """Feed the stream of each input that comes."""
        while True:
            try:
                self._run()
                return
            except NO_MEMORY:
                sleep(PAUSE)

    def _run(self) -> None:
        # If a step raises MemoryError, this method is called again, and continues with that step.
        feeders = self._feeders
        if self._watches:
            feeders.watch()
        while True:
            if self._given is _NOTHING and not self._is_free and not self._watches:
                try:
                    self._given = feeders.inputs.get_nowait()
                except queue.Empty:
                    pass
            if self._given is _NOTHING:
                self._be_free(True)
                if self._watches:
                    feeders.is_watched = self._watches = False
                try:
                    self._given = feeders.inputs.get(timeout=_PATIENCE)
                except queue.Empty:
                    self._be_free(False)
                    if feeders.inputs.empty():
                        return
                    continue
            self._be_free(False)
            if self._given is None:
                feeders.inputs.put(None)  # for the others
                self._given = _NOTHING
                if not feeders.has_inputs():
                    return
                # A call that had begun has put its input behind the mark of the end.
                continue
            feeders.taken += 1
            feeders.start_watch()
            feeders.feed(*self._given)
            self._given = _NOTHING  # it may keep anything alive
            if len(feeders.free) >= _MOST_FREE:
                return

    def _be_free(self, is_free: bool) -> None:
        if self._is_free != is_free:
            if is_free:
                self._feeders.free.append(self)
            else:
                self._feeders.free.remove(self)
            self._is_free = is_free


class Feeders:
    """The feeders of a pool.

    Args:
        feed: called with each input, in a thread that may block.
    """

    def __init__(self, feed: Callable[..., object]) -> None:
        self.feed = feed
        self.inputs = new_queue()
        #: the feeders that wait for an input, or are about to. A thread that was not started yet is not among them.
        self.free: deque[Feeder] = deque()
        #: whether there is a watch
        self.is_watched = False
        #: how many inputs were taken; two feeders that count at once may count one
        self.taken = 0
        # The marks of the end in the queue.
        self._ends = 0

    def take(self, *given: Any) -> Feeder | None:
        """Have a feeder read an input; return a new feeder, which the caller has to start, if there is none for it."""
        self.inputs.put(given)
        return None if self.free or self.is_watched else Feeder(self)

    def has_inputs(self) -> bool:
        """Return whether an input waits."""
        return bool(self.inputs.qsize() > self._ends)

    def watch(self) -> None:
        """Wait until an input waits for long, or none waits."""
        seen = None
        while self.has_inputs() and (self.free or seen != self.taken):
            seen = self.taken
            sleep(_TICK)

    def start_watch(self) -> None:
        """Start a watch if it is missing. Without a thread, the input that waits ends with the error."""
        while not self.free and not self.is_watched and self.has_inputs():
            self.is_watched = True
            try:
                start_assured(Feeder(self, watches=True))
                return
            except MemoryError:
                # The caller repeats this step, so the input that waits gets a thread later.
                self.is_watched = False
                raise
            except RuntimeError as error:
                self.is_watched = False
                try:
                    given = self.inputs.get_nowait()
                except queue.Empty:
                    return
                if given is None:
                    self.inputs.put(None)
                    return
                job, _, *terms = given
                self.feed(job, _refuse(error), *terms)

    def end(self) -> None:
        """Let each feeder end after the inputs that wait."""
        self._ends += 1
        self.inputs.put(None)
