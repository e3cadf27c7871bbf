"""The objects in a manager's server, and what keeps each of them alive.

=====================================  ==================================================================================
holder                                 until
=====================================  ==================================================================================
a count, for the proxies of clients    as many ``decref`` as ``incref`` have come
a `Session`, for those of one process  the same, or the process's control connection ends, however the process ended
a passage, for a proxy in a pickle     the pickle is loaded; if it never is, some time after the end of its maker
a proxy in this very process           it is collected; a managed list that contains a proxy of itself is an ordinary cycle
a call that is under way               it ends
=====================================  ==================================================================================

All of them hold a `Shared`; `Objects.living` finds it, and holds nothing.  Stock CPython at the other end has counts only.

The tables change only under the mutex.  No reference to an object is dropped under it, since a destructor may come back to us.
"""

from __future__ import annotations

import os
import threading
import time
from itertools import count
from weakref import WeakValueDictionary

from ... import util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Objects", "Session", "Shared", "plain_id"]

#: seconds for which an object waits for a pickled proxy whose maker has ended
UNCLAIMED = 600.0
#: stands in a token's id between the object's id and the number of a passage
MARK = "~"


def plain_id(ident: str) -> str:
    """An object's id without the passage that a token's id may name."""
    return ident.partition(MARK)[0]


class Shared:
    """An object of the server's, by its id: the object, its exposed methods, and which methods' results stay here."""

    __slots__ = ("ident", "obj", "exposed", "method_to_typeid", "__weakref__")

    def __init__(self, ident: str, obj: Any) -> None:
        self.ident, self.obj = ident, obj
        self.exposed: Any = ()
        self.method_to_typeid: Any = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.obj, self.exposed, self.method_to_typeid))


class Session:
    """What a client process holds.  It begins and ends with the process's control connection."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts: dict[str, int] = {}
        self.passages: set[int] = set()
        self.over = False
        #: whether the process said goodbye before it hung up
        self.in_order = False


class _Passage:
    __slots__ = ("shared", "session", "until")

    def __init__(self, shared: Shared, session: Session | None, until: float | None) -> None:
        self.shared, self.session, self.until = shared, session, until


class Objects:
    """The tables of one server."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.counted: dict[str, Shared] = {"0": Shared("0", None)}
        self.counts: dict[str, int] = {}
        self.living: WeakValueDictionary[str, Shared] = WeakValueDictionary()
        self._by_object: WeakValueDictionary[int, Shared] = WeakValueDictionary()
        self._sessions: dict[int, Session] = {}
        self._passages: dict[int, _Passage] = {}
        self._passage_numbers = count(1)
        self._sweep_at = 0.0
        # An id that was somebody's is never another's: who still has it is told so, and does not reach a wrong object.
        self._serials = count(int.from_bytes(os.urandom(4), "big"))

    def add(self, obj: Any, exposed: Any, method_to_typeid: Any, session: Session | None) -> str:
        """Serve an object; its id.  The caller holds one reference."""
        with self.mutex:
            shared = self._by_object.get(id(obj))
            if shared is None:
                shared = Shared(f"{next(self._serials):x}{id(obj):016x}", obj)
                self.living[shared.ident] = self._by_object[id(obj)] = shared
            shared.exposed, shared.method_to_typeid = exposed, method_to_typeid
            self._hold(shared, session)
        return shared.ident

    def find(self, ident: str) -> Shared:
        """The object of that id; KeyError if it is gone."""
        shared = self.counted.get(ident) or self.living.get(plain_id(ident))
        if shared is None:
            raise KeyError(ident)
        return shared

    # Counts and sessions.

    def _hold(self, shared: Shared, session: Session | None) -> None:
        ident = shared.ident
        if session is not None:
            if session.over:  # its process was killed meanwhile
                return
            session.counts[ident] = session.counts.get(ident, 0) + 1
        self.counted[ident] = shared
        self.counts[ident] = self.counts.get(ident, 0) + 1

    def hold(self, ident: str, session: Session | None) -> None:
        """Count one more proxy; with a passage in `ident`, the proxy that came by it."""
        shared = self.claim(ident)
        with self.mutex:
            self._hold(shared, session)

    def _drop(self, ident: str, times: int) -> Shared | None:
        """Count fewer; what is counted no more."""
        rest = self.counts[ident] - times
        if rest > 0:
            self.counts[ident] = rest
            return None
        del self.counts[ident]
        return self.counted.pop(ident)

    def drop(self, ident: str, session: Session | None) -> None:
        """Count one proxy less."""
        ident = plain_id(ident)
        with self.mutex:
            counts = self.counts if session is None else session.counts
            held = counts.get(ident, 0)
            if held < 1:
                if ident in self.living:
                    return util.debug("Server DECREF skipping %r", ident)
                raise AssertionError(f"Id {ident!s} has refcount {held:n}, not 1+")
            if session is not None:
                if held > 1:
                    session.counts[ident] = held - 1
                else:
                    del session.counts[ident]
            last = self._drop(ident, 1)
        if last is not None:
            util.debug("disposing of object with id %r", ident)
        del last  # here, where the mutex is free

    def begin(self, like: int | None) -> Session:
        """A new session.  `like`: of a process that is about to be forked by that of this other session, whose proxies it will
        have, too."""
        session = Session(int.from_bytes(os.urandom(7), "big"))
        with self.mutex:
            self._sessions[session.number] = session
            model = None if like is None else self._sessions[like]
            if model is not None and not model.over:
                for ident, times in model.counts.items():
                    session.counts[ident] = times
                    self.counts[ident] += times
        return session

    def session(self, number: int) -> Session:
        """The session of that number; KeyError if it is over."""
        return self._sessions[number]

    def end(self, session: Session) -> None:
        """Let go of all that its process held, and in time of what it sent and no process received."""
        with self.mutex:
            session.over = True
            self._sessions.pop(session.number, None)
            gone = [self._drop(ident, times) for ident, times in session.counts.items()]
            session.counts.clear()
            until = time.monotonic() + UNCLAIMED
            for number in session.passages:
                if (passage := self._passages.get(number)) is not None:
                    passage.until = until
            session.passages.clear()
        del gone

    # Passages.

    def send(self, shared: Shared, session: Session | None) -> str:
        """A proxy is being pickled, by or for the process of `session`; what to write as its id."""
        number = next(self._passage_numbers)
        with self.mutex:
            # Stock CPython loads what it receives at once, or never; and it cannot be seen whether it has ended.
            until = time.monotonic() + UNCLAIMED if session is None or session.over else None
            self._passages[number] = _Passage(shared, session, until)
            if session is not None and not session.over:
                session.passages.add(number)
        return f"{shared.ident}{MARK}{number:x}"

    def claim(self, ident: str) -> Shared:
        """The object of a proxy that was unpickled; KeyError if it is gone.

        The first to load a pickle has the reference that travelled.  A process that loads it again needs the object to live otherwise.
        """
        plain, _, number = ident.partition(MARK)
        passage = self._end_passage(int(number, 16)) if number else None
        if passage is not None and passage.shared.ident == plain:
            return passage.shared
        return self.find(plain)

    def unsend(self, ident: str) -> None:
        """What was pickled will not be sent."""
        self._end_passage(int(ident.partition(MARK)[2], 16))

    def _end_passage(self, number: int) -> _Passage | None:
        with self.mutex:
            passage = self._passages.pop(number, None)
            if passage is not None and passage.session is not None:
                passage.session.passages.discard(number)
        return passage

    def sweep(self) -> None:
        """Forget the passages whose time is over."""
        now = time.monotonic()
        if now < self._sweep_at or not self._passages:
            return
        self._sweep_at = now + UNCLAIMED / 20
        with self.mutex:
            late = [number for number, p in self._passages.items() if p.until is not None and p.until < now]
            gone = [self._passages.pop(number) for number in late]
        del gone
