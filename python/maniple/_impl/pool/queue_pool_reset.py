"""Empties the queue of tasks, and finds the task that a dead worker had taken and not noted, or could not unpickle.

Such a worker had taken one of the first tasks in the queue, or was killed while it took it or while it was idle. If the queue is a
pipe, the worker may have read a part of a message, and the next reader would read garbage. So no more tasks are put, the queue is
emptied, and the workers that run no task are ended. The tasks that no worker has begun are then sent again: first the tasks that may
have been taken, one at a time. If a worker dies again before it has noted the task, that task is the cause, and fails.

Workers that run a task continue. No task that a worker has begun is sent again.
"""

from __future__ import annotations

import os
import select
import threading
import time

from ...connection import Connection
from .payload import WorkerLostError
from .queue_pool_worker_table import RUNNING, UNREADABLE, WAITING
from .results import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .queue_pool_records import Death, UnderWay
    from .queue_pool_watch import Watch

__all__ = ["can_be_emptied", "may_have_unnamed_task", "recover"]

# Seconds between two checks, and seconds to wait for the outcomes in transit.
TICK = 0.003
PATIENCE = 10.0
# The number of deaths after which a task that was not noted fails: at the first death the worker may have been idle.
TRIES = 2


class Over(Exception):
    """The pool has ended, or the queue cannot be emptied."""


def may_have_unnamed_task(death: Death) -> bool:
    """Return whether a worker with an entry may have died with a task that its entry does not name."""
    return death.error is None and death.state is not None and death.state.phase in (WAITING, UNREADABLE)


def key_of(way: UnderWay) -> tuple[Any, Any]:
    task: Any = way.task
    return task[0], task[1]


def can_be_emptied(queue: Any) -> bool:
    """Return whether `queue` can be read without unpickling its items."""
    return all(hasattr(getattr(queue, "_reader", None), name) for name in ("poll", "recv_bytes"))


def recover(watch: Watch) -> None:
    """Empty the queue and send its tasks again; called in a separate thread."""
    takers: list[threading.Thread] = []
    while not watch.putting.acquire(timeout=TICK):
        # A thread that puts a task may hold the lock while it waits for room.
        _drain(watch, takers)
    try:
        _end_takers(watch, takers)
        suspects, rest = _take_back(watch)
        for way in suspects:
            _try_alone(watch, way)
        for way in rest:
            _put(watch, way)
    except Over:
        pass
    except Exception as error:
        tell(error)
        watch.give_up(WorkerLostError(f"the queue of tasks cannot be emptied: {error!r}", 0, None, "", ""))
    finally:
        watch.putting.release()
        watch.recovering = False


def _take_back(watch: Watch) -> tuple[list[UnderWay], list[UnderWay]]:
    """Empty the queue; return the tasks that no worker has begun: those that a worker may have taken, and the others."""
    _drain(watch)
    ended = _end_idle(watch)
    _drain(watch)
    running = {state.task for state in watch.states().values() if state is not None and state.phase == RUNNING}
    running |= {death.state.task for death in list(watch.deaths) if death.state and death.state.phase == RUNNING}
    sent = watch.all_sent()
    mark, limit = watch.send_mark(), time.monotonic() + PATIENCE
    while not watch.has_come(mark):
        _pause(watch)
        if time.monotonic() > limit:
            raise Over
    with watch.changed:
        tasks = [way for key, way in watch.sent.items() if way.put and key not in running and key not in sent]
    guilty = _noted_nothing(watch)
    return tasks[: ended + len(guilty)], tasks[ended + len(guilty) :]


def _try_alone(watch: Watch, way: UnderWay) -> None:
    key = key_of(way)
    _put(watch, way)
    while True:
        _pause(watch)
        if key not in watch.sent or any(
            state and state.phase == RUNNING and state.task == key for state in watch.states().values()
        ):
            return
        if any(
            death.state and death.state.task == key and death.state.phase == RUNNING for death in list(watch.deaths)
        ):
            return
        if key in watch.all_sent():
            return
        for death in _noted_nothing(watch):
            _drain(watch)
            way.suspected += 1
            unreadable = death.state is not None and death.state.phase == UNREADABLE
            if unreadable or way.suspected >= TRIES:
                watch.lose(key, death)
                return
            _put(watch, way)


def _put(watch: Watch, way: UnderWay) -> None:
    key = key_of(way)
    with watch.changed:
        if key not in watch.sent:
            return
        # The order of `sent` is the order in the queue.
        watch.sent[key] = watch.sent.pop(key)
    watch.put(way.task)


def _noted_nothing(watch: Watch) -> list[Death]:
    """Return the new deaths of workers that had noted nothing, and remove them from the list."""
    deaths = [death for death in list(watch.deaths) if may_have_unnamed_task(death)]
    for death in deaths:
        watch.deaths.remove(death)
    return deaths


def _end_idle(watch: Watch) -> int:
    """Kill the workers that run no task, wait for their end, and return their number."""
    idle = [pid for pid, state in watch.states().items() if state is not None and state.phase != RUNNING]
    for pid in idle:
        watch.dismissed.add(pid)
        process = watch.known.get(pid)
        if process is not None and process.exitcode is None:
            process.kill()
    watch.wake()
    while any(pid in watch.known for pid in idle):
        _pause(watch)
    return len(idle)


def _pause(watch: Watch) -> None:
    if watch.over or watch.broken is not None:
        raise Over
    time.sleep(TICK)


def _drain(watch: Watch, takers: list[threading.Thread] | None = None) -> None:
    """Read the queue until it is empty. If nothing can be put now, add a reading thread that may still wait to `takers`, and return."""
    reader = watch.inqueue._reader
    is_pipe = isinstance(reader, Connection)
    while select.select([reader.fileno()], [], [], 0)[0] if is_pipe else reader.poll(0):
        # Read bytes from a pipe, which may begin in the middle of a message. The read may wait if a worker is faster.
        take, args = (os.read, (reader.fileno(), 1 << 16)) if is_pipe else (reader.recv_bytes, ())
        taker = threading.Thread(target=take, args=args, name="maniple-pool-errand", daemon=True)
        taker.start()
        taker.join(0.2)
        if takers is not None:
            takers.append(taker)
            return
        _end_takers(watch, [taker])


def _end_takers(watch: Watch, takers: list[threading.Thread]) -> None:
    for taker in takers:
        while taker.is_alive():
            # Put another item for the thread. If a worker takes it, the worker ends.
            watch.put(None)
            taker.join(0.1)
