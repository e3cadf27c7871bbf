"""Empties a pool's queue of tasks after a worker was killed that may have read a part of a message.

This concerns queues of a class's own that are pipes (`_inqueue._reader` is a connection, `_inqueue._rlock` keeps its readers apart).
The package's own queues give an item whole or not at all.

Workers that run a task go on: they are kept from reading by the lock, which is held here meanwhile.
"""

from __future__ import annotations

import os
import select
import threading
import time

from ._board import RUNNING, WAITING
from ._payload import WorkerLostError
from .connection import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._queue_watch import Death, UnderWay, Watch

__all__ = ["can_be_emptied", "empty_queue", "may_have_read_a_part"]

# How often a task may be the first in the queue when a worker dies that had noted nothing, before it is taken for the reason.
TRIES = 3
# How long to wait for the outcomes that are on their way, in seconds.
PATIENCE = 5.0


def may_have_read_a_part(death: Death) -> bool:
    """Whether the worker died where it may have been reading."""
    return death.error is None and death.note is not None and death.note.phase == WAITING and death.exitcode != 0


def can_be_emptied(queue: Any) -> bool:
    """Whether `queue` is a pipe whose readers take turns by a lock."""
    return isinstance(getattr(queue, "_reader", None), Connection) and getattr(queue, "_rlock", None) is not None


def empty_queue(watch: Watch) -> bool:
    """Have all tasks that no worker has begun sent again, by an empty queue. False: this is not such a queue, or it cannot be done now."""
    if not can_be_emptied(watch.inqueue) or not _lock_out(watch, watch.inqueue._rlock):
        return False
    reader, lock = watch.inqueue._reader, watch.inqueue._rlock
    try:
        mark = watch.send_mark()
        limit = time.monotonic() + PATIENCE
        while not watch.has_come(mark):
            if time.monotonic() > limit or watch.over or watch.broken is not None:
                return False
            time.sleep(0.002)
        # Whoever puts a task may wait for room, holding this.
        while not watch.putting.acquire(timeout=0.002):
            _drain(reader.fileno())
        _drain(reader.fileno())
        watch.ends_taken = watch.ends_sent
        again = _not_begun(watch)
    finally:
        lock.release()
    threading.Thread(target=_send_again, args=(watch, again), name="maniple-pool-errand", daemon=True).start()
    return True


def _lock_out(watch: Watch, lock: Any) -> bool:
    """Take the readers' lock; workers that hold it, or wait for it, are ended."""
    for _ in range(50):
        for pid, note in watch.notes().items():
            if note is None:
                # What it does is not known: it may run a task.
                return False
            if note.phase != RUNNING and pid not in watch.dismissed:
                watch.dismissed.add(pid)
                watch.known[pid].kill()
        if lock.acquire(True, 0.05):
            return True
    return False


def _drain(fd: int) -> None:
    while select.select([fd], [], [], 0)[0] and os.read(fd, 1 << 16):
        pass


def _not_begun(watch: Watch) -> list[UnderWay]:
    running = {note.task for note in watch.notes().values() if note is not None and note.phase == RUNNING}
    with watch.changed:
        waiting = [way for key, way in watch.sent.items() if way.put and key not in running]
    deaths = [death for death in watch.deaths if may_have_read_a_part(death)]
    if waiting and deaths:
        waiting[0].suspected += 1
        if waiting[0].suspected > TRIES:
            job, place = waiting.pop(0).task[:2]  # type: ignore[index]  # one that is under way has its task
            watch.lose((job, place), deaths[0])
    return waiting


def _send_again(watch: Watch, tasks: list[UnderWay]) -> None:
    try:
        for way in tasks:
            watch.put(way.task)
    except Exception as error:
        watch.give_up(WorkerLostError(f"the queue of tasks does not take them again: {error!r}", 0, None, "", ""))
    finally:
        watch.putting.release()
