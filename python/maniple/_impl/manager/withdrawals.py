"""Calls that wait in a manager's server, and whose clients withdraw them.

An exception of a signal handler interrupts a client's call. The client then reports the call's number over its control
connection, and the server withdraws the call:

=============================  ==============================================================================================
the call                       what happens
=============================  ==============================================================================================
waits on a condition           its thread wakes at once, and leaves the condition, barrier, semaphore, event or queue
waits for a lock               its thread ends the wait after the present slice (`wait_queue`)
was answered                   the server releases what it acquired; the client releases a lock that only the thread of the line
                               can release, in another call, and passes on a notification likewise
cannot be withdrawn            runs to its end; the client skips the answer
=============================  ==============================================================================================

The line stays open if its thread is free at once.  It also stays open while its thread holds a lock that only this thread can
release: after ``with condition: condition.wait()`` is interrupted, the client releases the condition over the same line.  Otherwise
the client closes the line and uses another.  The end of a session withdraws its calls, too.

To wake one thread of many, the server must know on which waiter of a condition it sleeps. `threading.Condition` appends
a waiter to its list in the waiting thread, under the condition's lock. So the list of a managed object is a `_Waiters`,
which records the append, and raises in a thread whose call is withdrawn.
"""

from __future__ import annotations

import queue
import threading
from collections import deque

from ..compat.greenlets import start_thread
from .wait_queue import SLICED, ClientGone, Held, patient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .objects import Session, Shared

__all__ = ["CLOSE", "KEEP", "ServedLine", "WAITING", "record_waiters"]

# The client's next step for its line after a withdrawal; any other answer is the name of a method that it calls first.
CLOSE, KEEP = "#close", "#keep"

_RLock = type(threading.RLock())
#: type -> the attributes with the conditions on which its methods wait
_CONDITIONS: dict[Any, tuple[str, ...]] = {
    threading.Semaphore: ("_cond",),
    threading.BoundedSemaphore: ("_cond",),
    threading.Event: ("_cond",),
    threading.Barrier: ("_cond",),
    queue.Queue: ("not_empty", "not_full", "all_tasks_done"),
}
#: (type, method) of the calls that can be withdrawn
_WITHDRAWABLE = {
    *SLICED,
    (threading.Condition, "wait"),
    (threading.Barrier, "wait"),
    (queue.Queue, "join"),
}
#: the names of those methods
WAITING = frozenset(method for _, method in _WITHDRAWABLE)

# The line on whose behalf a thread waits: the attribute `line`.
_waiting = threading.local()


class _Waiters(deque):  # type: ignore[type-arg]  # its items are the condition's own
    """The waiters of a condition; the threads of a server record the waiters that they append."""

    def __init__(self, condition: threading.Condition, waiters: Any) -> None:
        super().__init__(waiters)
        self._condition = condition

    def append(self, waiter: Any) -> None:
        """Append the waiter of this thread, unless the client has withdrawn the call of this thread."""
        line: ServedLine | None = getattr(_waiting, "line", None)
        if line is not None:
            line.falls_asleep(self._condition, waiter)
        super().append(waiter)


def record_waiters(obj: Any) -> None:
    """Make the conditions of `obj` record the threads that wait on them."""
    kind = type(obj)
    found: list[Any] = (
        [obj] if kind is threading.Condition else [getattr(obj, name, None) for name in _CONDITIONS.get(kind, ())]
    )
    for condition in found:
        # Another version of Python may keep the waiters in another form: then the calls cannot be withdrawn.
        if type(getattr(condition, "_waiters", None)) is deque and condition.acquire(blocking=False):
            try:
                condition._waiters = _Waiters(condition, condition._waiters)
            finally:
                condition.release()


class ServedLine:
    """The server's state of a client thread's connection: the number of its calls, the present call, the locks of its
    thread."""

    def __init__(self, number: int, session: Session | None, held: Held) -> None:
        self.number, self.session = number, session
        #: calls received so far
        self.calls = 0
        #: the locks that only the thread of this line can release, and the number of its acquisitions of each
        self.owned: dict[Shared, int] = {}
        self._held = held
        self._mutex = threading.Lock()
        self._withdrawn = 0
        self._asleep: tuple[threading.Condition, Any] | None = None
        # The present call, if it has been answered and can be undone. The thread that undoes it takes it from here: a second
        # release would release another client's lock.
        self._answered: tuple[Shared, str] | None = None
        self._woken = False

    @property
    def withdrawn(self) -> bool:
        """Whether the client has withdrawn the present call."""
        return self._withdrawn >= self.calls

    def call(
        self, shared: Shared, method: str, args: tuple[Any, ...], kwds: dict[str, Any], is_over: Callable[[], bool]
    ) -> Any:
        """Make a call that may wait; raise `ClientGone` if the client withdraws it or disconnects."""
        obj = shared.obj
        key = type(obj), method
        if key not in _WITHDRAWABLE:
            return getattr(obj, method)(*args, **kwds)
        if self.withdrawn:
            raise ClientGone
        _waiting.line = self
        try:
            if key in SLICED:
                result = patient(obj, method, args, kwds, lambda: self.withdrawn or is_over())
            else:
                result = getattr(obj, method)(*args, **kwds)
        finally:
            _waiting.line = self._asleep = None
        if method == "acquire" and result:
            self._held.note(shared, method, self)
        with self._mutex:
            withdrawn = self.withdrawn
            if not withdrawn and result is True:
                self._answered = shared, method
        if withdrawn:
            if not (
                self._woken and key == (threading.Condition, "wait")
            ):  # else the result is not another thread's notification
                self._held.undo(shared, method, result, self)
            raise ClientGone
        return result

    def begins(self) -> None:
        """Count a call."""
        with self._mutex:
            self.calls += 1
            self._answered, self._woken = None, False

    def falls_asleep(self, condition: threading.Condition, waiter: Any) -> None:
        """Record that this thread is about to sleep; raise `ClientGone` if the call is withdrawn. It holds the condition's lock."""
        with self._mutex:
            if self.withdrawn:
                raise ClientGone
            self._asleep = condition, waiter

    def withdraw(self, number: int) -> str:
        """Withdraw the call of that number, and return the client's next step. Any thread may call this."""
        with self._mutex:
            self._withdrawn = max(self._withdrawn, number)
            asleep, answered = self._asleep, None
            if number == self.calls:
                answered, self._answered = self._answered, None
        if answered is not None:
            shared, method = answered
            if isinstance(shared.obj, (_RLock, threading.Condition)):
                return "release" if method == "acquire" else "notify"
            self._held.undo(shared, method, True, self)
            return KEEP
        if asleep is not None:
            start_thread(self._wake, *asleep)
            return KEEP
        return KEEP if self.owned else CLOSE

    def take_back(self, shared: Shared, method: str, result: Any) -> None:
        """Undo a call whose answer cannot be sent, unless it was withdrawn and undone meanwhile."""
        if result is True and (type(shared.obj), method) in _WITHDRAWABLE:
            with self._mutex:
                answered, self._answered = self._answered, None
            if answered is None:
                return
        self._held.undo(shared, method, result, self)

    def abandon(self) -> None:
        """Withdraw the present call if it has no answer yet, as the session has ended. Any thread may call this."""
        with self._mutex:
            asleep = None if self._answered is not None else self._asleep
            if asleep is not None:
                self._withdrawn = self.calls
        if asleep is not None:
            start_thread(self._wake, *asleep)

    def _wake(self, condition: threading.Condition, waiter: Any) -> None:
        """Wake the thread of this line from its sleep."""
        with condition:
            waiters = condition._waiters  # type: ignore[attr-defined]
            if waiter in waiters:
                self._woken = True
                waiters.remove(waiter)
                waiters.appendleft(waiter)
                condition.notify()

    def ends(self) -> None:
        """Release the locks that only this thread can release."""
        for shared in self.owned:
            while shared.obj._is_owned():
                shared.obj.release()
        self.owned.clear()
