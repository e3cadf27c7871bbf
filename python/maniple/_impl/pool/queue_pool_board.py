"""What the workers of a pool of queues are doing, in memory that they share with the pool's process.

The queues of such a pool are its class's own, so nothing can be added to what they carry. Instead each worker has a place on the
board and writes there what it does: that it waits for a task, which task it runs, which ones it has sent outcomes of. When a
worker dies, the pool's process reads what it did last.

A place is written by its worker alone, and taken and given back under the board's lock. Its first word counts the changes and is
odd while one is made, so a reader sees whether it read in the middle of one; what a dead worker wrote stays as it is.
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

# Left at an end of work; done after as many tasks as a worker has.
STARTING, WAITING, RUNNING, UNREADABLE, LEFT, DONE = range(1, 7)

# In words of eight bytes: changes, pid, phase, job, place, how many outcomes were sent; the tasks of the last of those; a text.
CHANGES, PID, PHASE, JOB, PLACE, SENT = range(6)
REMEMBERED = 256
LATEST = 8
TEXT = LATEST + 2 * REMEMBERED
TEXT_WORDS = 64
WORDS = TEXT + TEXT_WORDS
BIGGEST = (1 << 63) - 1


class Note:
    """What a worker has written. `changes` grows with everything that it does; `sent` has the latest (job, place) pairs."""

    __slots__ = ("changes", "phase", "sent", "task", "text")

    def __init__(self, words: list[int], text: bytes) -> None:
        self.changes, self.phase = words[CHANGES], words[PHASE]
        self.task = words[JOB], words[PLACE]
        latest = words[LATEST:TEXT]
        count = 2 * min(words[SENT], REMEMBERED)
        self.sent = frozenset(zip(latest[0:count:2], latest[1:count:2], strict=True))
        self.text = text.rstrip(b"\0").decode(errors="replace") if self.phase == UNREADABLE else ""


class InitArgs(tuple):  # type: ignore[type-arg]
    """An initializer's arguments, which reach every worker: they take the board along."""

    board: Board | None = None

    @classmethod
    def of(cls, args: Iterable[Any], board: Board | None) -> InitArgs:
        self = cls(args)
        self.board = board
        return self

    def __reduce__(self) -> Any:
        return InitArgs.of, (tuple(self), self.board)


class Board:
    """Places for `places` workers."""

    def __init__(self, ctx: Any, places: int) -> None:
        self.places = places
        self.lock = Lock(ctx=ctx)
        # After the places a word that is not 0 once the pool is terminated.
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
        """A place for this process; None if all are taken."""
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
        """Note that nobody waits for the outcome of a task any more."""
        self._words()[self.places * WORDS] = 1

    def is_terminated(self) -> bool:
        """Whether the pool was terminated."""
        return self._words()[self.places * WORDS] != 0

    def read(self, pid: int) -> Note | None:
        """What the worker `pid` has noted; None if it has no place, or changes it all the time."""
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
        """What the worker `pid`, which is dead, noted last; its place is given back."""
        place = self._place_of(pid)
        if place is None:
            return None
        note = Note(place.tolist(), bytes(place[TEXT:].cast("B")))
        with Hold(self.lock):
            place[PHASE] = place[PID] = 0
        return note


def _end_with_parent() -> None:
    """Have this process killed when the one that started it ends, however it does: its queue might never say so."""
    parent = parent_process()
    sentinel = getattr(parent, "_sentinel", None)
    if sentinel is not None:
        # A pipe's end, which hangs up with the parent.
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
            # A task of a program's own numbering: the pool learns that it is lost, but later.
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
        """The worker took something that it cannot unpickle."""
        text = f"{type(error).__name__}: {error}".encode()[: 8 * TEXT_WORDS - 1]
        self._words[TEXT:].cast("B")[: len(text) + 1] = text + b"\0"
        self._change(UNREADABLE)
