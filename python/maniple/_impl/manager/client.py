"""A manager's server as its clients in one process see it: what they hold there, by a *control connection*.

The control connection is made with the first proxy.  The server counts what this process holds by it, and lets go of all when
it ends.  So an object that only a killed process used is freed, and proxies come and go at the price of a message instead of
a connection.  A server of stock CPython does not know of any of this: it refuses `open_session`, and is told about each proxy
in the standard way.

A pickle of a proxy holds a reference, a *passage*, whose number stands behind the object's id, in the token.  So it has the
standard form, and stock CPython can load it: the token goes back to our server, which knows what it means.

Forks: before this process forks, by whatever call, a session for the child is opened at the server, with the same references.  The
child goes on with it, and the parent closes its copy of the descriptor.  A child that has no use for it ends it by ending.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from weakref import WeakSet

from ... import util
from ..._maniple import Hold
from .rpc import RemoteError, convert_to_error, dispatch, is_ours, line_over, over_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Site", "forget_site", "site_at", "tell_server"]

#: seconds that a server may take to open the session of a child that is about to be forked
_BEFORE_FORK = 2.0


def tell_server(connect: Callable[..., Any], address: Any, authkey: bytes, order: str, *args: Any) -> Any:
    """One call to the server itself, over a connection of its own."""
    conn = connect(address, authkey=authkey)
    try:
        return dispatch(conn, None, order, args)
    finally:
        conn.close()


class Site:
    """The server at an address."""

    def __init__(self, address: Any, connect: Callable[..., Any]) -> None:
        self.address, self._connect = address, connect
        self._authkey = b""
        #: whether it is stock CPython's, or to be treated so; None before it was asked
        self._standard: bool | None = None if is_ours(connect) else True
        self._line: Any = None
        self._number = 0
        #: serial numbers of living proxies; empty again wherever it is not known better
        self.proxies: set[int] = set()
        self.managers: WeakSet[Any] = WeakSet()
        # Objects that have lost a proxy here, of which the server is not told yet. Only single steps of the interpreter change the
        # list, so that neither another thread nor a signal handler's exception finds it half-way.
        self._dropped: list[str] = []
        self._close: Callable[[], Any] = _nothing
        self._lock = threading.Lock()
        self._owner: int | None = None
        # What a thread has that is about to fork, by the thread's number.
        self._spare: dict[int, _Spare] = {}
        #: in a forked child: whether it has a session with what its proxies hold
        self.inherited = False
        _living.add(self)

    # ---- the session ----

    @property
    def over(self) -> bool:
        """Whether the server, or our session, has ended."""
        return self._line is not None and bool(self._line.over)

    def opened(self, authkey: bytes) -> bool:
        """Have a session; False where the server does not know such."""
        if self._line is None and not self._standard:
            if self._owner == threading.get_ident():
                return False  # a signal handler, while this very thread opens it
            with Hold(self._lock):
                self._owner = threading.get_ident()
                try:
                    self._assure(authkey)
                finally:
                    self._owner = None
        return not self._standard

    def _assure(self, authkey: bytes) -> None:
        """`opened`, by who has the lock."""
        if self._line is not None or self._standard:
            return
        conn = self._connect(self.address, authkey=authkey)
        try:
            number = dispatch(conn, None, "open_session", (None,))
        except RemoteError as error:
            conn.close()
            if "open_session" not in str(error.args[0]).rstrip().rpartition("\n")[2]:
                raise  # it knows what that is, and lacks something
            self._standard = True
            return
        except BaseException:
            conn.close()
            raise
        self._standard, self._authkey, self._number, self._line = False, authkey, number, line_over(conn)
        self._leave_in_order()
        util.register_after_fork(self, Site._leave_in_order)
        _watch_forks()

    def _leave_in_order(self) -> None:
        """Have the server told that this process ends by itself.  Proxies are dropped earlier at the end of a process."""
        if self._line is not None:
            self._close = util.Finalize(self, _close_session, (self._line,), exitpriority=5)

    def in_session(self, authkey: bytes, order: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        """A call to the server itself, as one of our session."""
        if self.over and self._owner != threading.get_ident():  # the connection, at least
            with Hold(self._lock):
                if self.over:
                    self._close()
                    self._line = None
        return ("in_session", (self._number, order, *args)) if self.opened(authkey) else (order, args)

    def tell(self, authkey: bytes, order: str, *args: Any) -> Any:
        """One call to the server itself, over a connection of its own."""
        conn, result = self.call(self._connect, authkey, order, args)
        conn.close()
        return result

    def call(
        self,
        connect: Callable[..., Any],
        authkey: bytes,
        order: str,
        args: tuple[Any, ...],
        kwds: dict[str, Any] | None = None,
    ) -> tuple[Any, Any]:
        """One call to the server itself, as one of our session, over a new connection; that, and the result.

        The server may have lost the session, for want of memory, say, and we learn of it only now: then it has done nothing yet, and
        is asked once more, in a new one.
        """
        for last_try in (False, True):
            asked, told = self.in_session(authkey, order, args)
            conn = connect(self.address, authkey=authkey)
            try:
                return conn, dispatch(conn, None, asked, told, kwds or {})
            except BaseException as error:
                conn.close()
                if last_try or asked == order or not _is_over(error, told[0]):
                    raise
                self._give_up(told[0])
        raise AssertionError("not reached")

    def _give_up(self, number: int) -> None:
        """Have another session than this, which is over."""
        if self._owner == threading.get_ident():
            return  # a signal handler, while this very thread uses it
        with Hold(self._lock):
            if self._number == number and self._line is not None:
                self._close()
                self._line = None

    def _ask(self, authkey: bytes, order: str, *args: Any) -> Any:
        """One call of our session, which is there or can be opened."""
        me = threading.get_ident()
        if self._owner == me:  # a signal handler, or what a collected object does, in the middle of another call
            return self.tell(authkey, order, *args)
        with Hold(self._lock):
            self._owner = me
            try:
                self._assure(authkey)
                return _answer(*self._line.call_steadily(order, args))
            finally:
                self._owner = None

    # ---- references ----

    def hold(self, ident: str, authkey: bytes) -> None:
        """Count one more proxy here; for one that was unpickled, take over what its pickle held."""
        if not self.opened(authkey):
            tell_server(self._connect, self.address, authkey, "incref", ident)
            return
        try:
            self._ask(authkey, "incref", ident)
        except Exception as error:
            if not self._lost_line():
                if not isinstance(error, RemoteError):  # a signal handler's: the server has counted it all the same
                    self._dropped.append(ident)
                raise
            self._ask(authkey, "incref", ident)  # the connection was lost, and the server may still be there
        except BaseException:
            self._dropped.append(ident)
            raise
        finally:
            self._flush()

    def _lost_line(self) -> bool:
        """Whether the connection is broken; then the next call makes another.  (What signal handlers raise does not break it.)"""
        with Hold(self._lock):
            line = self._line
            if line is None or not line.closed:
                return False
            self._close()
            self._line = None
            return True

    def drop(self, ident: str, authkey: bytes) -> None:
        """Count one proxy less."""
        if self._standard:
            tell_server(self._connect, self.address, authkey, "decref", ident)
        elif self._line is not None:  # otherwise the session is over, and held nothing any more
            self._dropped.append(ident)
            self._flush()

    def _flush(self) -> None:
        """Tell the server what was dropped. A thread that holds the lock tells it instead."""
        taken = True
        while self._dropped and taken:
            with Hold(self._lock, 0) as taken:
                if taken and not self._tell_dropped():
                    return

    def _tell_dropped(self) -> bool:
        """`_flush`, with the lock held. Returns whether the server was told."""
        self._owner, line = threading.get_ident(), self._line
        try:
            number = len(self._dropped)
            try:
                if line is not None:  # otherwise the session that held them is over
                    _answer(*line.call_steadily("decref_all", (self._dropped[:number],)))
            finally:
                # The server does what it was asked, also when a signal handler raises while we wait for its answer.
                del self._dropped[:number]
        except Exception as error:
            if not line.closed and not isinstance(error, RemoteError):
                raise  # a signal handler's
            util.debug("decref failed: %s", error)  # the server is gone, and so is all that was held
            return False
        finally:
            self._owner = None
        return True

    def send(self, ident: str) -> str:
        """A proxy is being pickled: what to write as its id."""
        if self._line is not None:
            try:
                sent: str = self._ask(self._authkey, "send_proxy", ident)
                return sent
            except Exception as error:
                if not isinstance(error, RemoteError) and not self._lost_line():
                    raise  # a signal handler's
                util.debug("%r is pickled without a reference: %s", ident, error)
            finally:
                self._flush()
        return ident

    def rest(self) -> None:
        """The last proxy here is gone: end the session, unless it still counts for something."""
        if self._line is None or self.proxies or len(self.managers):
            return
        with Hold(self._lock, 0) as taken:
            if not taken:
                return
            self._owner = threading.get_ident()
            try:
                if self._line is not None and not self.proxies and not self._dropped:
                    if self._line.over or not _answer(*self._line.call_steadily("under_way", ())):
                        self._line = None
                        self._close()
            except Exception as error:
                util.debug("the session cannot be ended: %s", error)
            finally:
                self._owner = None
        self._flush()

    def close(self) -> None:
        """End the session."""
        if self._line is not None:
            self._close()

    # ---- forks ----

    def before_fork(self) -> None:
        """Open a session for a child; nothing is changed at the server until `after_fork`."""
        if self._line is None or not self.proxies or self._owner == threading.get_ident() or self.over:
            return
        # Kept before the lock is acquired, so that `after_fork` finds the lock whatever interrupts this.
        mine = self._spare[threading.get_ident()] = _Spare(self._lock)
        if not mine.hold.__enter__():
            return
        conn = None
        try:
            conn = over_wire(self.address, self._authkey, _BEFORE_FORK)
            conn.send((None, "open_session", (self._number,), {}))
            if not conn.poll(_BEFORE_FORK):
                raise TimeoutError("the server does not answer")
            mine.number, mine.conn = _answer(*conn.recv()), conn
        except Exception as error:
            util.info("no session for a child that is forked: %s", error)
            if conn is not None:
                conn.close()

    def after_fork(self) -> None:
        """In the parent: close what the child has."""
        mine = self._spare.pop(threading.get_ident(), None)
        if mine is not None:
            if mine.conn is not None:
                mine.conn.close()
            mine.hold.__exit__(None, None, None)
            self._flush()

    def begin_in_child(self) -> None:
        """In the child: go on with the session that was opened for it."""
        mine = self._spare.pop(threading.get_ident(), None)
        for other in self._spare.values():
            if other.conn is not None:
                other.conn.close()
        self._spare.clear()
        self._lock, self._owner = threading.Lock(), None
        spare, number = (None, 0) if mine is None else (mine.conn, mine.number)
        if self._line is None:
            return
        self._line, self._number, self.inherited = None, number, spare is not None
        if spare is not None:
            self._line = line_over(spare)
        else:
            self._standard = None
            self._dropped.clear()


class _Spare:
    """For a thread that forks: the lock that it holds meanwhile, and the child's session."""

    def __init__(self, lock: threading.Lock) -> None:
        self.hold = Hold(lock, _BEFORE_FORK)
        self.conn: Any = None
        self.number = 0


def _nothing() -> None:
    pass


def _answer(kind: str, result: Any) -> Any:
    if kind == "#RETURN":
        return result
    raise convert_to_error(kind, result)


def _is_over(error: BaseException, number: int) -> bool:
    """Whether the server said that it does not know the session of that number."""
    return isinstance(error, RemoteError) and f"KeyError: {number}\n" in str(error.args[0])


def _close_session(line: Any) -> None:
    try:
        line.call_steadily("leave", ())
    except Exception as error:
        util.debug("the server is gone before us: %s", error)
    line.close()


#: all that any proxy has, also those whose server is gone
_living: WeakSet[Site] = WeakSet()
_sites: dict[Any, Site] = {}
_mutex = threading.Lock()


def site_at(address: Any, connect: Callable[..., Any]) -> Site:
    """The server that is at `address` now."""
    site = _sites.get(address)
    if site is None or site.over:
        with Hold(_mutex):
            site = _sites.get(address)
            if site is None or site.over:
                site = _sites[address] = Site(address, connect)
    return site


def forget_site(address: Any) -> None:
    """The server at `address` is gone."""
    site = _sites.pop(address, None)
    if site is not None:
        site.close()


_watching = False


def _watch_forks() -> None:
    global _watching
    if not _watching and hasattr(os, "register_at_fork"):
        _watching = True
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork)
        util._first_in_child.append(_in_child)


def _before_fork() -> None:
    for site in [*_sites.values()]:
        site.before_fork()


def _after_fork() -> None:
    for site in [*_sites.values()]:
        site.after_fork()


def _in_child() -> None:
    global _mutex
    _mutex = threading.Lock()
    # One whose server is gone, too: another thread of the parent may have had its lock, and its proxies are told of the fork.
    for site in list(_living):
        site.begin_in_child()
