"""The worker table: shared memory in which the workers of a pool of queues write which tasks they run.

The class of such a pool defines its queues, so the pool cannot add anything to their messages. Instead each worker has an entry in
the table, and writes there that it waits for a task, which task it runs, and for which tasks it has sent outcomes. When a
worker dies, the pool's process reads its last state.

Only its worker writes to an entry; entries are assigned and released under the table's lock. The first word of an entry counts the
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

__all__ = ["DONE", "LEFT", "RUNNING", "STARTING", "UNREADABLE", "WAITING", "InitArgs", "WorkerState", "WorkerTable"]

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


class WorkerState:
    """The state that a worker has written. `changes` grows with each change; `sent` has the latest (job, place) pairs."""

    __slots__ = ("changes", "outcomes", "phase", "sent", "task", "text")

    def __init__(self, words: list[int], text: bytes) -> None:
        self.changes, self.phase = words[CHANGES], words[PHASE]
        self.task = words[JOB], words[PLACE]
        #: the number of outcomes that the worker has sent
        self.outcomes = words[SENT]
        latest = words[LATEST:TEXT]
        count = 2 * min(words[SENT], REMEMBERED)
        self.sent = frozenset(zip(latest[0:count:2], latest[1:count:2], strict=True))
        self.text = text.rstrip(b"\0").decode(errors="replace") if self.phase == UNREADABLE else ""


class InitArgs(tuple):  # type: ignore[type-arg]
    """The initializer's arguments with the table: they reach every worker."""

    table: WorkerTable | None = None

    @classmethod
    def of(cls, args: Iterable[Any], table: WorkerTable | None) -> InitArgs:
        self = cls(args)
        self.table = table
        return self

    def __reduce__(self) -> Any:
        return InitArgs.of, (tuple(self), self.table)


class WorkerTable:
    """A table with `entries` entries."""

    def __init__(self, ctx: Any, entries: int) -> None:
        self.entries = entries
        self.lock = Lock(ctx=ctx)
        # The entries, and a word that is nonzero once the pool is terminated.
        self.memory = Arena(entries * WORDS * 8 + 8)

    def _words(self) -> memoryview:
        return memoryview(self.memory.buffer).cast("q")

    def _entry_of(self, pid: int) -> memoryview | None:
        words = self._words()
        for first in range(0, self.entries * WORDS, WORDS):
            if words[first + PID] == pid:
                return words[first : first + WORDS]
        return None

    def enter(self) -> TableEntry | None:
        """Assign an entry to this process; return None if there is no free entry."""
        with Hold(self.lock):
            entry = self._entry_of(0)
            if entry is None:
                return None
            entry[PHASE], entry[SENT] = STARTING, 0
            entry[PID] = os.getpid()
        _end_with_parent()
        if callable(inherited := signal.getsignal(signal.SIGTERM)):
            from ..start.forked import end_after

            end_after(inherited, self.is_terminated)
        return TableEntry(entry)

    def terminate(self) -> None:
        """Record that the pool is terminated: no caller waits for an outcome any more."""
        self._words()[self.entries * WORDS] = 1

    def is_terminated(self) -> bool:
        """Return whether the pool was terminated."""
        return self._words()[self.entries * WORDS] != 0

    def read(self, pid: int) -> WorkerState | None:
        """Return the state of the worker `pid`; None if it has no entry, or changes its entry all the time."""
        entry = self._entry_of(pid)
        if entry is None:
            return None
        for _ in range(100):
            changes = entry[CHANGES]
            copy = entry.tolist()
            if changes % 2 == 0 and entry[CHANGES] == changes:
                break
        else:
            return None
        return WorkerState(copy, bytes(entry[TEXT:].cast("B")))

    def last_words(self, pid: int) -> WorkerState | None:
        """Return the last state of the dead worker `pid`, and release its entry."""
        entry = self._entry_of(pid)
        if entry is None:
            return None
        state = WorkerState(entry.tolist(), bytes(entry[TEXT:].cast("B")))
        with Hold(self.lock):
            entry[PHASE] = entry[PID] = 0
        return state


def _end_with_parent() -> None:
    """Make the kernel kill this process when its parent ends: its queues may not report that end."""
    parent = parent_process()
    sentinel = getattr(parent, "_sentinel", None)
    if sentinel is not None:
        # The end of a pipe that closes with the parent.
        end_with(sentinel)


class TableEntry:
    """A worker's side of its entry."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

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
