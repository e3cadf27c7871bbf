"""Work that only a thread can wait for: a full queue, a full connection, the end of a pool.

A queue or a connection has one thread for all of its waits. The thread ends after a second without work.
"""

from __future__ import annotations

import os
import threading
from _queue import Empty, SimpleQueue

from ..._maniple import Hold
from ..sync.bells import Letter
from ..sync.thread_start import start_steadily
from .doors import door

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..._maniple import Mailbox

__all__ = ["Helper", "Room", "Work", "in_thread"]

# Seconds without work after which the thread ends.
_IDLE = 1.0
# Seconds after which a wait for room looks whether a task still wants it.
_SLICE = 0.5


class Helper:
    """Calls functions one after the other in a thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        # Has an element for each call that is made or waits.
        self._unfinished: list[None] = []
        self._is_running = False
        self._owner = os.getpid()

    @property
    def is_of_parent(self) -> bool:
        """Whether this process is a forked child of the one that made this object, and so does not have the thread."""
        return self._owner != os.getpid()

    @property
    def is_free(self) -> bool:
        """Whether no call is made or waits."""
        return not self._unfinished

    def submit(self, work: Callable[[], object]) -> None:
        """Have the thread call `work`, which does not raise."""
        with Hold(self._lock):
            self._unfinished.append(None)
            self._work.put(work)
            if not self._is_running:
                start_steadily(threading.Thread(target=self._run, name="maniple-async-helper", daemon=True))
                self._is_running = True

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=_IDLE)
            except Empty:
                with self._lock:
                    if self._work.empty():
                        self._is_running = False
                        return
                continue
            work()
            self._unfinished.pop()
            del work


class Work:
    """A call in a helper's thread, for which a task waits (`Door.until`)."""

    def __init__(self, helper: Helper, call: Callable[[], Any]) -> None:
        self._helper, self._call = helper, call
        self._letter: Letter | None = None
        self._error: BaseException | None = None
        self.result: Any = None

    def _tell(self, mailbox: Mailbox, number: int) -> bool:
        self._letter = Letter(mailbox, number)
        self._helper.submit(self._run)
        return False

    def _give_up(self, mailbox: Mailbox, number: int) -> None:
        """Do nothing: the call continues."""

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self._error = error
        assert self._letter is not None
        self._letter.release()

    def outcome(self) -> Any:
        """Return what the call has returned, or raise what it has raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback refers to this frame
        return self.result


async def in_thread(call: Callable[[], Any]) -> Any:
    """Make a call in a thread of its own, and return its result. If the task is cancelled, the call continues."""
    work = Work(Helper(), call)
    await door().until(work)
    return work.outcome()


class _Place(Letter):
    """The wait of a task for room in a queue."""

    __slots__ = ("is_over",)

    def __init__(self, mailbox: Mailbox, number: int) -> None:
        super().__init__(mailbox, number)
        self.is_over = False


class Room:
    """The waits of this process's tasks for room in a queue. A task that learns of room tries, and then says so.

    As many tasks are woken as there are places. No other task is woken before these have tried.

    Args:
        log: the memory of the queue.
        most: the greatest number of its items.
    """

    def __init__(self, log: Any, most: int) -> None:
        self._log, self._most = log, most
        self.helper = Helper()
        self._places: SimpleQueue[_Place] = SimpleQueue()
        self._tried: SimpleQueue[_Place] = SimpleQueue()

    def wait(self) -> _Turn:
        """Return the source of one wait, which is also a context in which the task tries."""
        return _Turn(self)

    def _next(self) -> _Place | None:
        """Return the first task that waits, if there is one."""
        while True:
            try:
                place = self._places.get_nowait()
            except Empty:
                return None
            if not place.is_over:
                return place

    def _step(self) -> None:
        first = self._next()
        if first is None:
            return
        told = [first]
        try:
            while not self._log.wait_for_room(_SLICE):
                if first.is_over:
                    return
            while len(told) < self._most - len(self._log) and (place := self._next()) is not None:
                told.append(place)
        except (OSError, MemoryError):
            pass  # the queue is closed in this process, or the system lacks memory: the task sees it
        for place in told:
            place.release()
        left = set(told)
        while left:
            try:
                left.discard(self._tried.get(timeout=_IDLE))
            except Empty:
                return  # the loop is closed, or busy


class _Turn:
    """One wait of a task for room; a context in which it tries."""

    def __init__(self, room: Room) -> None:
        self._room, self._place = room, None

    _place: _Place | None

    def _tell(self, mailbox: Mailbox, number: int) -> bool:
        self._place = place = _Place(mailbox, number)
        self._room._places.put(place)
        self._room.helper.submit(self._room._step)
        return False

    def _give_up(self, mailbox: Mailbox, number: int) -> None:
        """Do nothing: the end of the context does it."""

    def __enter__(self) -> _Turn:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._place is not None:
            self._place.is_over = True
            self._room._tried.put(self._place)
