"""The board: shared memory in which the workers of a pool of queues write which tasks they run.

The class of such a pool defines its queues, so the pool cannot add anything to their messages. Instead each worker has a place on
the board, and writes there that it waits for a task, which task it runs, and for which tasks it has sent outcomes. When a
worker dies, the pool's process reads its last state.

Only its worker writes to a place; places are assigned and released under the board's lock. The first word of a place counts the
changes, and is odd during a change, so a reader detects a change in progress. The state of a dead worker does not change.
"""

from __future__ import annotations

import os
import signal

from ..._maniple import Hold, end_with
from ...heap import Arena
from ...process import parent_process
from ...synchronize import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["DONE", "LEFT", "RUNNING", "STARTING", "UNREADABLE", "WAITING", "Board", "InitArgs", "Note"]

# LEFT: the worker received an end of work. DONE: the worker has run its maximum number of tasks.
STARTING, WAITING, RUNNING, UNREADABLE, LEFT, DONE = range(1, 7)

# In words of eight bytes: changes, pid, phase, job, place, number of sent outcomes; the tasks of the latest outcomes; a text.
CHANGES, PID, PHASE, JOB, PLACE, SENT = range(6)
REMEMBERED = 256
LATEST = 8
TEXT = LATEST + 2 * REMEMBERED
TEXT_WORDS = 64
WORDS = TEXT + TEXT_WORDS
BIGGEST = (1 << 63) - 1


class Note:
    """The state that a worker has written. `changes` grows with each change; `sent` has the latest (job, place) pairs."""

    __slots__ = ("changes", "phase", "sent", "task", "text")

    def __init__(self, words: list[int], text: bytes) -> None:
        self.changes, self.phase = words[CHANGES], words[PHASE]
        self.task = words[JOB], words[PLACE]
        latest = words[LATEST:TEXT]
        count = 2 * min(words[SENT], REMEMBERED)
        self.sent = frozenset(zip(latest[0:count:2], latest[1:count:2], strict=True))
        self.text = text.rstrip(b"\0").decode(errors="replace") if self.phase == UNREADABLE else ""


class InitArgs(tuple):  # type: ignore[type-arg]
    """The initializer's arguments with the board: they reach every worker."""

    board: Board | None = None

    @classmethod
    def of(cls, args: Iterable[Any], board: Board | None) -> InitArgs:
        self = cls(args)
        self.board = board
        return self

    def __reduce__(self) -> Any:
        return InitArgs.of, (tuple(self), self.board)


class Board:
    """A board with places for `places` workers."""

    def __init__(self, ctx: Any, places: int) -> None:
        self.places = places
        self.lock = Lock(ctx=ctx)
        # The places, and a word that is nonzero once the pool is terminated.
        self.memory = Arena(places * WORDS * 8 + 8)

    def _words(self) -> memoryview:
        return memoryview(self.memory.buffer).cast("q")

    def _place_of(self, pid: int) -> memoryview | None:
        words = self._words()
        for first in range(0, self.places * WORDS, WORDS):
            if words[first + PID] == pid:
                return words[first : first + WORDS]
        return None

    def enter(self) -> Notes | None:
        """Assign a place to this process; return None if there is no free place."""
        with Hold(self.lock):
            place = self._place_of(0)
            if place is None:
                return None
            place[PHASE], place[SENT] = STARTING, 0
            place[PID] = os.getpid()
        _end_with_parent()
        if callable(inherited := signal.getsignal(signal.SIGTERM)):
            from ..start.forked import end_after

            end_after(inherited, self.is_terminated)
        return Notes(place)

    def terminate(self) -> None:
        """Record that the pool is terminated: no caller waits for an outcome any more."""
        self._words()[self.places * WORDS] = 1

    def is_terminated(self) -> bool:
        """Whether the pool was terminated."""
        return self._words()[self.places * WORDS] != 0

    def read(self, pid: int) -> Note | None:
        """Return the state of the worker `pid`; None if it has no place, or changes the place all the time."""
        place = self._place_of(pid)
        if place is None:
            return None
        for _ in range(100):
            changes = place[CHANGES]
            copy = place.tolist()
            if changes % 2 == 0 and place[CHANGES] == changes:
                break
        else:
            return None
        return Note(copy, bytes(place[TEXT:].cast("B")))

    def last_words(self, pid: int) -> Note | None:
        """Return the last state of the dead worker `pid`, and release its place."""
        place = self._place_of(pid)
        if place is None:
            return None
        note = Note(place.tolist(), bytes(place[TEXT:].cast("B")))
        with Hold(self.lock):
            place[PHASE] = place[PID] = 0
        return note


def _end_with_parent() -> None:
    """Make the kernel kill this process when its parent ends: its queues may not report that end."""
    parent = parent_process()
    sentinel = getattr(parent, "_sentinel", None)
    if sentinel is not None:
        # The end of a pipe that closes with the parent.
        end_with(sentinel)


class Notes:
    """A worker's side of its place."""

    def __init__(self, place: memoryview) -> None:
        self._words = place

    def _change(self, phase: int) -> None:
        words = self._words
        words[CHANGES] += 1 + words[CHANGES] % 2
        words[PHASE] = phase
        words[CHANGES] += 1

    def waiting(self) -> None:
        self._change(WAITING)

    def left(self) -> None:
        self._change(LEFT)

    def done(self) -> None:
        self._change(DONE)

    def running(self, job: Any, place: Any) -> None:
        words = self._words
        words[CHANGES] += 1 + words[CHANGES] % 2
        try:
            words[JOB], words[PLACE] = job, place
        except (TypeError, ValueError):
            # The program numbers its tasks in its own way. The pool detects a lost task of this kind later.
            words[JOB] = words[PLACE] = -1
        words[PHASE] = RUNNING
        words[CHANGES] += 1

    def sent(self, job: Any, place: Any) -> None:
        words = self._words
        at = LATEST + 2 * (words[SENT] % REMEMBERED)
        words[CHANGES] += 1 + words[CHANGES] % 2
        try:
            words[at], words[at + 1] = job, place
        except (TypeError, ValueError):
            words[at] = words[at + 1] = -1
        words[SENT] += 1
        words[CHANGES] += 1

    def unreadable(self, error: BaseException) -> None:
        """Record that the worker received a message that it cannot unpickle."""
        text = f"{type(error).__name__}: {error}".encode()[: 8 * TEXT_WORDS - 1]
        self._words[TEXT:].cast("B")[: len(text) + 1] = text + b"\0"
        self._change(UNREADABLE)
