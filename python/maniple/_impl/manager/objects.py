"""The objects in a manager's server, and the references that keep them alive.

==========================================  =============================================================================
reference                                   until
==========================================  =============================================================================
a count, for the proxies of clients         as many ``decref`` as ``incref`` have come
a `Session`, for the proxies of a process   as many, or the end of the process's control connection
a passage, for a proxy in a pickle          the pickle is loaded; otherwise some time after the end of its maker
a proxy in the server's process             it is collected; a managed list with a proxy of itself is an ordinary cycle
a call                                      it ends
==========================================  =============================================================================

All of them refer to a `Shared`; `Objects.living` finds it by a weak reference.  Clients of the standard package use counts only.

The tables change only under the mutex.  No reference to an object is dropped under it, since a destructor may call this module.
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
#: separates the object's id and the number of a passage in a token's id
MARK = "~"


def plain_id(ident: str) -> str:
    """Return the object's id of a token's id, which may also name a passage."""
    return ident.partition(MARK)[0]


class Shared:
    """An object of the server with its id, its exposed methods, and the methods whose results stay in the server."""

    __slots__ = ("ident", "obj", "exposed", "method_to_typeid", "__weakref__")

    def __init__(self, ident: str, obj: Any) -> None:
        self.ident, self.obj = ident, obj
        self.exposed: Any = ()
        self.method_to_typeid: Any = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.obj, self.exposed, self.method_to_typeid))


class Session:
    """The references of a client process. A session begins and ends with the process's control connection."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts: dict[str, int] = {}
        self.passages: set[int] = set()
        self.over = False
        #: whether the process reported its end before it closed the connection
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
        # Ids are never reused: a client with the id of a freed object gets a KeyError, not another object.
        self._serials = count(int.from_bytes(os.urandom(4), "big"))

    def add(self, obj: Any, exposed: Any, method_to_typeid: Any, session: Session | None) -> str:
        """Add an object, or find it, and return its id. The call counts one reference for the caller."""
        with self.mutex:
            shared = self._by_object.get(id(obj))
            if shared is None:
                shared = Shared(f"{next(self._serials):x}{id(obj):016x}", obj)
                self.living[shared.ident] = self._by_object[id(obj)] = shared
            shared.exposed, shared.method_to_typeid = exposed, method_to_typeid
            self._hold(shared, session)
        return shared.ident

    def find(self, ident: str) -> Shared:
        """Return the object of that id; raise KeyError if it was freed."""
        shared = self.counted.get(ident) or self.living.get(plain_id(ident))
        if shared is None:
            raise KeyError(ident)
        return shared

    # Counts and sessions.

    def _hold(self, shared: Shared, session: Session | None) -> None:
        ident = shared.ident
        if session is not None:
            if session.over:  # the process was killed meanwhile
                return
            session.counts[ident] = session.counts.get(ident, 0) + 1
        self.counted[ident] = shared
        self.counts[ident] = self.counts.get(ident, 0) + 1

    def hold(self, ident: str, session: Session | None) -> None:
        """Count one more proxy. If `ident` names a passage, the proxy takes over its reference."""
        shared = self.claim(ident)
        with self.mutex:
            self._hold(shared, session)

    def _drop(self, ident: str, times: int) -> Shared | None:
        """Decrease a count; return the object if the count becomes zero."""
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
        del last  # outside the mutex

    def begin(self, like: int | None) -> Session:
        """Return a new session. `like` is the number of the session of a process that is about to fork the client: the new session
        gets the same references."""
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
        """Return the session of that number; raise KeyError if it has ended."""
        return self._sessions[number]

    def end(self, session: Session) -> None:
        """Drop the references of the session; its passages expire after `UNCLAIMED` seconds."""
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
        """Make a passage for a proxy that the process of `session` pickles, or that is pickled for it; return the id to write."""
        number = next(self._passage_numbers)
        with self.mutex:
            # A client of the standard package has no session, so its end cannot be detected. It loads a pickle at once, or never.
            until = time.monotonic() + UNCLAIMED if session is None or session.over else None
            self._passages[number] = _Passage(shared, session, until)
            if session is not None and not session.over:
                session.passages.add(number)
        return f"{shared.ident}{MARK}{number:x}"

    def claim(self, ident: str) -> Shared:
        """Return the object of an unpickled proxy; raise KeyError if it was freed.

        The first load takes over the reference of the passage.  Later loads of the same pickle need another reference to the object.
        """
        plain, _, number = ident.partition(MARK)
        passage = self._end_passage(int(number, 16)) if number else None
        if passage is not None and passage.shared.ident == plain:
            return passage.shared
        return self.find(plain)

    def unsend(self, ident: str) -> None:
        """Drop the passage of a pickle that was not sent."""
        self._end_passage(int(ident.partition(MARK)[2], 16))

    def _end_passage(self, number: int) -> _Passage | None:
        with self.mutex:
            passage = self._passages.pop(number, None)
            if passage is not None and passage.session is not None:
                passage.session.passages.discard(number)
        return passage

    def sweep(self) -> None:
        """Drop the passages that have expired."""
        now = time.monotonic()
        if now < self._sweep_at or not self._passages:
            return
        self._sweep_at = now + UNCLAIMED / 20
        with self.mutex:
            late = [number for number, p in self._passages.items() if p.until is not None and p.until < now]
            gone = [self._passages.pop(number) for number in late]
        del gone
