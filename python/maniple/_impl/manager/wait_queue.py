"""Waiting calls and held locks in a manager's server whose clients may die.

A call that waits is made in slices, and between two slices the server checks whether the client is connected.  So no thread waits,
acquires a lock or removes an item for a client that has died.  `withdrawals` ends `Condition.wait`, `Barrier.wait` and `Queue.join`,
which are not sliced, because a caller that returns from them loses its place.

The objects that a client held when it died:

====================================  =======================================================================================
`RLock`, `Condition`                  released when the connection of the thread that holds it ends: no other can release it
`Lock`, `BoundedSemaphore`            released when the process ends without reporting its end, as a killed process does
`Semaphore`; clients without session  stays acquired: the count may represent resources that were used up
====================================  =======================================================================================
"""

from __future__ import annotations

import queue
import threading
import time
from weakref import WeakKeyDictionary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .objects import Session, Shared
    from .withdrawals import ServedLine

__all__ = ["ClientGone", "Held", "SLICED", "patient"]

#: seconds of a slice, after which the server checks whether the client is connected
SLICE = 1.0

_Lock, _RLock = type(threading.Lock()), type(threading.RLock())
_LOCK = ("blocking", True), ("timeout", -1)
_SEMAPHORE = ("blocking", True), ("timeout", None)
#: (type, method) -> its parameters with their defaults; they include whether to wait, and how long
SLICED: dict[tuple[Any, str], tuple[tuple[str, Any], ...]] = {
    (_Lock, "acquire"): _LOCK,
    (_RLock, "acquire"): _LOCK,
    (threading.Condition, "acquire"): _LOCK,
    (threading.Semaphore, "acquire"): _SEMAPHORE,
    (threading.BoundedSemaphore, "acquire"): _SEMAPHORE,
    (threading.Event, "wait"): (("timeout", None),),
    (queue.Queue, "get"): (("block", True), ("timeout", None)),
    (queue.Queue, "put"): (("item", None), ("block", True), ("timeout", None)),
}


class ClientGone(Exception):
    """The client of a call has disconnected, or has withdrawn the call."""


def patient(obj: Any, method: str, args: tuple[Any, ...], kwds: dict[str, Any], gone: Callable[[], bool]) -> Any:
    """Return ``obj.method(*args, **kwds)`` for a method of `SLICED`; raise `ClientGone` if `gone` returns True while it waits."""
    function, parameters = getattr(obj, method), SLICED[type(obj), method]
    given = dict(parameters)
    given.update(zip(given, args))
    given.update(kwds)
    timeout = given["timeout"]
    blocks = given.get("blocking", given.get("block", True))
    endless = timeout is None or timeout == -1 and parameters is _LOCK
    if len(args) > len(parameters) or len(given) > len(parameters) or not blocks or not endless and timeout <= SLICE:
        return function(*args, **kwds)
    end = None if endless else time.monotonic() + timeout
    leading = (given["item"],) if "item" in given else ()
    waits = () if method == "wait" else (True,)
    while True:
        left = SLICE if end is None else min(SLICE, max(0.0, end - time.monotonic()))
        try:
            done = function(*leading, *waits, left)
        except (queue.Empty, queue.Full):
            if left < SLICE:
                raise
        else:
            if leading or method == "get" or done or left < SLICE:
                return done
        if gone():
            raise ClientGone


class Held:
    """The sessions that hold locks."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._holders: WeakKeyDictionary[Shared, list[Session | None]] = WeakKeyDictionary()

    def note(self, shared: Shared, method: str, line: ServedLine) -> None:
        """Record that the client of a line has acquired or released an object."""
        kind, session = type(shared.obj), line.session
        if kind is _RLock or kind is threading.Condition:
            times = line.owned.pop(shared, 0) + (1 if method == "acquire" else -1)
            if times > 0:
                line.owned[shared] = times
        elif kind is _Lock or kind is threading.BoundedSemaphore:
            with self._mutex:
                holders = self._holders.setdefault(shared, [])
                if method == "release":
                    if holders:
                        holders.remove(session if session in holders else holders[0])
                    return
                if kind is _Lock:
                    holders.clear()
                if session is None or not session.over or session.in_order:
                    holders.append(session)
                    return
            self._release(shared)  # the session has ended meanwhile

    def undo(self, shared: Shared, method: str, result: Any, line: ServedLine) -> None:
        """Undo a call whose answer cannot be delivered. The thread of the line calls this for a lock that no other can release."""
        obj = shared.obj
        if method == "acquire" and result is True:
            if isinstance(obj, (_Lock, _RLock, threading.Semaphore, threading.Condition)):
                self.note(shared, "release", line)
                self._release(shared)
        elif method == "wait" and result is True and type(obj) is threading.Condition:
            obj.notify()  # for another thread
        elif method == "get" and type(obj) is queue.Queue:
            with obj.mutex:
                obj.queue.appendleft(result)
                obj.not_empty.notify()

    def session_ends(self, session: Session) -> None:
        """Release the locks of a process that was killed."""
        if session.in_order:
            return
        with self._mutex:
            found = [(shared, holders.count(session)) for shared, holders in self._holders.items()]
            for shared, times in found:
                if times:
                    self._holders[shared][:] = [other for other in self._holders[shared] if other is not session]
        for shared, times in found:
            for _ in range(times):
                self._release(shared)

    @staticmethod
    def _release(shared: Shared) -> None:
        try:
            shared.obj.release()
        except (RuntimeError, ValueError):
            pass  # the server's own code has released it
