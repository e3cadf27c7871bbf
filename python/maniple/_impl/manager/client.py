"""The client side of a manager's server: the references that this process holds there, by a *control connection*.

The first proxy opens the control connection, which begins a *session*.  The server counts the references of the session, and drops
them when the connection ends.  So objects that only a killed process used are freed, and a new proxy costs a message instead of a
connection.  A server of the standard package does not support sessions: it rejects `open_session`, and the client reports each
proxy in the standard way.

A pickled proxy holds a reference, a *passage*.  Its number follows the object's id in the token.  So the pickle has the standard
form, and the standard package can load it: it sends the token back to the server, which knows the passage.

Before this process forks, by any call, it opens a session for the child at the server, with the same references.  The child
continues with that session, and the parent closes its copy of the descriptor.  The session ends with the child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from weakref import WeakSet

from ... import util
from ..._maniple import Hold
from ..start.after_fork import first_in_child
from ..start.descriptors import explain_shortage
from .rpc import RemoteError, convert_to_error, dispatch, is_ours, line_over, over_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Site", "forget_site", "request_shutdown", "site_at", "tell_server"]

#: seconds that a server may take to open the session of a child that is about to be forked
_BEFORE_FORK = 2.0
#: seconds that a server may take to withdraw a call; a stopped server delays a handler's exception by this time
_WITHDRAWAL = 2.0


def _reach(connect: Callable[..., Any], address: Any, authkey: bytes, site: Site | None = None) -> Any:
    try:
        return connect(address, authkey=authkey)
    except (ConnectionRefusedError, FileNotFoundError) as problem:
        if site is not None:
            site.say_ended(problem)
        else:
            _add_text(
                problem, f"no manager serves at {address!r}: its server has not started, has ended, or was shut down"
            )
        raise
    except OSError as problem:
        explain_shortage(problem, "this process cannot connect to the manager")
        raise


def _add_text(problem: EOFError | OSError, text: str) -> None:
    """Put `text` before the text of an exception, whose class and number stay the same."""
    if isinstance(problem, OSError) and problem.errno is not None:
        problem.strerror = f"{text} ({problem.strerror})"
        problem.args = (problem.errno, problem.strerror)
    else:
        problem.args = (f"{text} ({problem})" if str(problem) else text,)


def tell_server(connect: Callable[..., Any], address: Any, authkey: bytes, order: str, *args: Any) -> Any:
    """Make one call to the server itself, over a new connection, and return the result."""
    conn = _reach(connect, address, authkey)
    try:
        return dispatch(conn, None, order, args)
    finally:
        conn.close()


def request_shutdown(connect: Callable[..., Any], address: Any, authkey: bytes, timeout: float) -> None:
    """Request the server's shutdown. A server that is stopped answers nothing: no step takes longer than `timeout` seconds.

    Raises:
        TimeoutError: a step took longer. The connections of other kinds than this package's have no time limit.
    """
    if not is_ours(connect):
        tell_server(connect, address, authkey, "shutdown")
        return
    conn = over_wire(address, authkey, timeout)
    try:
        conn.send((None, "shutdown", (), {}))
        if not conn.poll(timeout):
            raise TimeoutError(f"the server has not answered for {timeout} seconds")
        conn.recv()
    finally:
        conn.close()


class Site:
    """The server at an address."""

    def __init__(self, address: Any, connect: Callable[..., Any]) -> None:
        self.address, self._connect = address, connect
        self._authkey = b""
        #: whether the server supports no sessions, like the standard package's; None before the first `open_session`
        self._standard: bool | None = None if is_ours(connect) else True
        self._line: Any = None
        self._number = 0
        #: serial numbers of the living proxies
        self.proxies: set[int] = set()
        self.managers: WeakSet[Any] = WeakSet()
        # The ids of dropped proxies that are not reported yet. Only atomic steps of the interpreter change the list, so that neither
        # another thread nor an exception of a signal handler finds it half changed.
        self._dropped: list[str] = []
        self._close: Callable[[], Any] = _nothing
        # Its owner makes a call. So a signal handler or a finalizer whose own thread owns it does not use the
        # connection.
        self._lock: Any = threading.RLock()
        # thread -> the lock and the child's session of a thread that is about to fork
        self._spare: dict[int, _Spare] = {}
        #: whether this process has shut the server down
        self.shut_down = False
        #: in a forked child: whether its session has the references of its proxies
        self.inherited = False
        _living.add(self)

    # ---- the session ----

    def say_ended(self, problem: EOFError | OSError) -> None:
        """Add to the text of an exception that the server does not run any more."""
        if self.shut_down:
            advice = "was shut down and its objects are gone; use them before shutdown() or the end of `with`"
            _add_text(problem, f"the manager at {self.address!r} {advice}")
        else:
            advice = "has ended or was shut down and its objects are gone; start another manager"
            _add_text(problem, f"the server of the manager at {self.address!r} {advice}")

    @property
    def over(self) -> bool:
        """Whether the server, or the session, has ended."""
        return self._line is not None and bool(self._line.over)

    def opened(self, authkey: bytes) -> bool:
        """Open the session unless it is open; return False if the server does not support sessions."""
        if self._line is None and not self._standard:
            if self._lock._is_owned():
                return False  # a signal handler in the thread that is opening the session
            with Hold(self._lock):
                self._assure(authkey)
        return not self._standard

    def _assure(self, authkey: bytes) -> None:
        """Open the session unless it is open. The caller holds the lock."""
        if self._line is not None or self._standard:
            return
        conn = _reach(self._connect, self.address, authkey, self)
        try:
            number = dispatch(conn, None, "open_session", (None,))
        except RemoteError as error:
            conn.close()
            if "open_session" not in str(error.args[0]).rstrip().rpartition("\n")[2]:
                raise  # the server supports sessions, but opening this one failed
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
        """Register a finalizer that reports the regular end of this process. The finalizers of proxies run earlier."""
        if self._line is not None:
            self._close = util.Finalize(self, _close_session, (self._line,), exitpriority=5)

    def in_session(self, authkey: bytes, order: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        """Return the order and the arguments of a call to the server, wrapped with the session if there is one."""
        if self.over and not self._lock._is_owned():
            with Hold(self._lock):
                if self.over:
                    self._close()
                    self._line = None
        return ("in_session", (self._number, order, *args)) if self.opened(authkey) else (order, args)

    def tell(self, authkey: bytes, order: str, *args: Any) -> Any:
        """Make one call to the server itself, over a new connection, and return the result."""
        conn, result, _ = self.call(self._connect, authkey, order, args)
        conn.close()
        return result

    def call(
        self,
        connect: Callable[..., Any],
        authkey: bytes,
        order: str,
        args: tuple[Any, ...],
        kwds: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, bool]:
        """Make one call to the server itself, over a new connection; return the connection, the result, and whether there is a session.

        If the server has lost the session (for lack of memory, for example), it has not made the call: it is repeated in a new session.
        """
        for last_try in (False, True):
            asked, told = self.in_session(authkey, order, args)
            conn = _reach(connect, self.address, authkey, self)
            try:
                return conn, dispatch(conn, None, asked, told, kwds or {}), asked != order
            except BaseException as error:
                conn.close()
                if last_try or asked == order or not _is_over(error, told[0]):
                    raise
                self._give_up(told[0])
        raise AssertionError("not reached")

    def _give_up(self, number: int) -> None:
        """Drop the session of that number, which is over; the next call opens a new one."""
        if self._lock._is_owned():
            return  # a signal handler in the thread that is using the session
        with Hold(self._lock):
            if self._number == number and self._line is not None:
                self._close()
                self._line = None

    def _ask(self, authkey: bytes, order: str, *args: Any) -> Any:
        """Make one call over the control connection, which is opened if necessary."""
        if self._lock._is_owned():  # a signal handler or a finalizer in the middle of another call
            return self.tell(authkey, order, *args)
        with Hold(self._lock):
            self._assure(authkey)
            return _answer(*self._line.call_steadily(order, args))

    def withdraw(self, line: Any) -> str:
        """Withdraw the last call over `line`, and return the next step for the line (`withdrawals`)."""
        order, args = "withdraw", (line.number, line.asked)
        if self._lock._is_owned():  # a signal handler in the middle of another call
            return str(self.tell(self._authkey, order, *args))
        with Hold(self._lock, _WITHDRAWAL) as taken:
            if not taken:
                raise TimeoutError("another thread waits for the server of the manager")
            return str(_answer(*self._line.call_steadily(order, args, _WITHDRAWAL)))

    # ---- references ----

    def hold(self, ident: str, authkey: bytes) -> None:
        """Count one more proxy of this process; for an unpickled proxy, take over the reference of its pickle."""
        if not self.opened(authkey):
            tell_server(self._connect, self.address, authkey, "incref", ident)
            return
        try:
            self._ask(authkey, "incref", ident)
        except Exception as error:
            if not self._lost_line():
                if not isinstance(error, RemoteError):  # raised by a signal handler: the server has counted the proxy
                    self._dropped.append(ident)
                raise
            self._ask(authkey, "incref", ident)  # the connection is lost, but the server may still run
        except BaseException:
            self._dropped.append(ident)
            raise
        finally:
            self._flush()

    def _lost_line(self) -> bool:
        """Return whether the connection is broken; if so, drop it, and the next call opens another. (Signal handlers do not break it.)"""
        if self._lock._is_owned():
            return False  # a signal handler in the thread that is using the connection
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
        elif self._line is not None:  # otherwise the session is over, and its references are dropped
            self._dropped.append(ident)
            self._flush()

    def _flush(self) -> None:
        """Report the dropped proxies to the server, unless another thread holds the lock: that thread reports them."""
        # A finalizer that interrupts a call leaves the report to the end of the call.
        taken = not self._lock._is_owned()
        while self._dropped and taken:
            with Hold(self._lock, 0) as taken:
                if taken and not self._tell_dropped():
                    return

    def _tell_dropped(self) -> bool:
        """Report the dropped proxies; the caller holds the lock. Return whether the server has answered."""
        line = self._line
        try:
            number = len(self._dropped)
            try:
                if line is not None:  # otherwise the session is over, and its references are dropped
                    _answer(*line.call_steadily("decref_all", (self._dropped[:number],)))
            finally:
                # The server drops them also if a signal handler raises while this thread waits for the answer.
                del self._dropped[:number]
        except Exception as error:
            if not line.closed and not isinstance(error, RemoteError):
                raise  # raised by a signal handler
            util.debug("decref failed: %s", error)  # the server has ended
            return False
        return True

    def send(self, ident: str) -> str:
        """Return the id to write into the pickle of a proxy; it names a passage if there is a session."""
        if self._line is not None:
            try:
                sent: str = self._ask(self._authkey, "send_proxy", ident)
                return sent
            except Exception as error:
                if not isinstance(error, RemoteError) and not self._lost_line():
                    raise  # raised by a signal handler
                util.debug("%r is pickled without a reference: %s", ident, error)
            finally:
                self._flush()
        return ident

    def rest(self) -> None:
        """End the session after the last proxy of this process is gone, unless pickled proxies are under way."""
        if self._line is None or self.proxies or len(self.managers) or self._lock._is_owned():
            return
        with Hold(self._lock, 0) as taken:
            if not taken:
                return
            try:
                if self._line is not None and not self.proxies and not self._dropped:
                    if self._line.over or not _answer(*self._line.call_steadily("under_way", ())):
                        self._line = None
                        self._close()
            except Exception as error:
                util.debug("the session cannot be ended: %s", error)
        self._flush()

    def end(self) -> None:
        """Close the connection to the server, which this process has shut down."""
        self.shut_down = True
        if (line := self._line) is not None:
            if isinstance(self._close, util.Finalize):
                self._close.cancel()
            line.close()

    # ---- forks ----

    def before_fork(self) -> None:
        """Open a session for a child, and hold the lock until `after_fork`, so that the references do not change."""
        if self._line is None or not self.proxies or self._lock._is_owned() or self.over:
            return
        # Stored before the lock is acquired, so that `after_fork` finds the lock also after an interruption.
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
        """In the parent, close the copy of the child's connection, and release the lock."""
        mine = self._spare.pop(threading.get_ident(), None)
        if mine is not None:
            if mine.conn is not None:
                mine.conn.close()
            mine.hold.__exit__(None, None, None)
            self._flush()

    def begin_in_child(self) -> None:
        """In the child, continue with the session that was opened for it."""
        mine = self._spare.pop(threading.get_ident(), None)
        for other in self._spare.values():
            if other.conn is not None:
                other.conn.close()
        self._spare.clear()
        self._lock = threading.RLock()
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
    """The state of a thread during a fork: the lock that it holds, and the child's session."""

    def __init__(self, lock: Any) -> None:
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
    """Return whether the server's error says that it has no session of that number."""
    return isinstance(error, RemoteError) and f"KeyError: {number}\n" in str(error.args[0])


def _close_session(line: Any) -> None:
    try:
        line.call_steadily("leave", ())
    except Exception as error:
        util.debug("the server has ended before this process: %s", error)
    line.close()


#: all sites that proxies refer to, also those whose server has ended
_living: WeakSet[Site] = WeakSet()
_sites: dict[Any, Site] = {}
_mutex = threading.Lock()


def site_at(address: Any, connect: Callable[..., Any]) -> Site:
    """Return the site of the server that runs at `address` now."""
    site = _sites.get(address)
    if site is None or site.over:
        with Hold(_mutex):
            site = _sites.get(address)
            if site is None or site.over:
                site = _sites[address] = Site(address, connect)
    return site


def forget_site(address: Any) -> None:
    """Close and forget the site at `address`, whose server this process has shut down."""
    site = _sites.pop(address, None)
    if site is not None:
        site.end()


_watching = False


def _watch_forks() -> None:
    global _watching
    if not _watching and hasattr(os, "register_at_fork"):
        _watching = True
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork)
        first_in_child.append(_in_child)


def _before_fork() -> None:
    for site in [*_sites.values()]:
        site.before_fork()


def _after_fork() -> None:
    for site in [*_sites.values()]:
        site.after_fork()


def _in_child() -> None:
    global _mutex
    _mutex = threading.Lock()
    # Also sites whose server has ended: another thread of the parent may hold their locks, and their proxies handle the fork.
    for site in list(_living):
        site.begin_in_child()
