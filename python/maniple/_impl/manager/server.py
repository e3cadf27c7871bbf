"""The server of a manager: a process that owns objects and calls their methods for clients.

Each client thread has its own connection, and a thread of the server serves it. So a method that waits, such as
`Lock.acquire`, delays only its caller, and the thread identifies the holder of a lock.

`objects` describes the references that keep an object alive.  A client of this package has a *session*, which lasts as long as its
control connection; its other connections and calls name the session.  Clients of the standard package have no session, and call
`incref` and `decref`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from os import getpid

from ... import connection, process, util
from ...context import AuthenticationError
from ..compat.greenlets import start_thread
from .objects import Objects, Session, Shared, plain_id
from .rpc import AUTHENTICATING, Token, line_over, listener_client, no_thread, of_managers
from .wait_queue import ClientGone, Held
from .withdrawals import CLOSE, WAITING, ServedLine, record_waiters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Server", "all_methods", "public_methods"]


def _traceback() -> str:
    """Return the traceback of the exception that is being handled, as text."""
    from traceback import format_exc  # late: it imports many modules

    return format_exc()


@of_managers
def all_methods(obj: Any) -> list[str]:
    """Return the names of all callable attributes of `obj`."""
    return [name for name in dir(obj) if callable(getattr(obj, name))]


@of_managers
def public_methods(obj: Any) -> list[str]:
    """Return the names of all callable attributes of `obj` that do not begin with an underscore."""
    return [name for name in all_methods(obj) if not name.startswith("_")]


@of_managers
class Server:
    """The server of a manager: it makes objects and calls their methods for clients.

    Args:
        registry: the types, as `BaseManager.register` stores them: name -> (callable, exposed methods, method -> type, proxy type).
        address: the address to listen at; None chooses one.
        authkey: the key, bytes, that clients must have.
        serializer: ``'pickle'`` or ``'xmlrpclib'``.
    """

    #: the calls of clients to the server itself
    public: list[str] = [
        "shutdown",
        "create",
        "accept_connection",
        "get_methods",
        "debug_info",
        "number_of_objects",
        "dummy",
        "incref",
        "decref",
        # calls of this package's clients
        "open_session",
        "in_session",
    ]
    #: the calls over a control connection
    _in_sessions = frozenset(("incref", "decref_all", "send_proxy", "under_way", "leave", "withdraw"))

    def __init__(self, registry: dict[str, tuple[Any, ...]], address: Any, authkey: bytes, serializer: str) -> None:
        if not isinstance(authkey, bytes):
            raise TypeError(f"Authkey {authkey!r} is type {type(authkey)!s}, not bytes")
        self.registry = registry
        self.authkey: process.AuthenticationString = process.AuthenticationString(authkey)
        self.listener: Any = listener_client[serializer][0](address=address, backlog=128)
        self.address: Any = self.listener.address
        self._objects = Objects()
        self.id_to_obj: dict[str, Shared] = self._objects.counted
        self.id_to_refcount: dict[str, int] = self._objects.counts
        self.id_to_local_proxy_obj: Any = self._objects.living
        self.mutex: Any = self._objects.mutex
        self.stop_event: threading.Event = threading.Event()
        self._process = getpid()
        self._has_begun = False
        self._held = Held()
        self._line_numbers = count(1)
        #: number -> a line of a client with a session
        self._lines: dict[int, ServedLine] = {}
        # The session and the line that the calling thread serves, and the token ids that it has pickled.
        self._here = threading.local()

    def begin(self) -> None:
        """Start to accept clients. `serve_forever` does that if it was not done.

        Raises:
            RuntimeError, MemoryError: there can be no thread for that.
        """
        process.current_process()._manager_server = self  # type: ignore[attr-defined]  # for `RebuildProxy`
        self.stop_event.clear()
        start_thread(self.accepter)
        self._has_begun = True

    def serve_forever(self) -> None:
        """Serve until a client calls `shutdown`; the process exits then."""
        try:
            if not self._has_begun:
                self.begin()
            self._has_begun = False
            try:
                self.stop_event.wait()
            except (KeyboardInterrupt, SystemExit):
                pass
        finally:
            if sys.stdout is not sys.__stdout__:
                util.debug("resetting stdout, stderr")
                sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
            sys.exit(0)

    def accepter(self) -> None:
        """Accept clients, and start a thread for each one that has authenticated."""
        mine, handle = type(self), self.handle_request
        if (
            type(self.listener) in AUTHENTICATING
            and mine.handle_request is Server.handle_request
            and mine._handle_request is Server._handle_request
        ):
            # The listener authenticates all clients side by side: a silent client delays no other, and needs no thread.
            self.listener._authkey, handle = self.authkey, self._serve
        while not self.stop_event.is_set():
            try:
                conn = self.listener.accept()
            except (AuthenticationError, EOFError) as error:
                util.info("a client failed to authenticate: %s", error)
                continue
            except (OSError, MemoryError) as error:
                util.info("manager could not accept a connection: %s", error)
                time.sleep(0.01)  # closed, or out of descriptors: do not spin
                continue
            self._objects.sweep()
            try:
                start_thread(handle, conn)
            except (RuntimeError, MemoryError) as error:  # the thread cannot be started
                util.info("manager could not serve a connection: %s", error)
                with contextlib.suppress(OSError, MemoryError):
                    # The client reads it as the answer to its first request.
                    conn.send(("#ERROR", no_thread(error)))
                conn.close()

    # Calls to the server itself: one to a connection.

    def handle_request(self, conn: Any) -> None:
        """Authenticate the client, and answer its one request."""
        try:
            self._handle_request(conn)
        except SystemExit:  # the end of a connection that accept_connection() served
            pass
        finally:
            conn.close()

    def _handle_request(self, c: Any) -> None:
        try:
            connection.deliver_challenge(c, self.authkey)
            connection.answer_challenge(c, self.authkey)
        except Exception:
            self._reply(c, ("#TRACEBACK", _traceback()))
        else:
            self._answer_once(c)

    def _serve(self, conn: Any) -> None:
        """Answer the one request of an authenticated client."""
        try:
            self._answer_once(conn)
        except SystemExit:  # the end of a connection that accept_connection() served
            pass
        finally:
            conn.close()

    def _answer_once(self, c: Any) -> None:
        funcname: str = ""
        args: tuple[Any, ...] = ()
        try:
            _, funcname, args, kwds = c.recv()
            assert funcname in self.public, f"{funcname!r} unrecognized"
            answer = "#RETURN", getattr(self, funcname)(c, *args, **kwds)
        except Exception:
            answer = "#TRACEBACK", _traceback()
        else:
            if funcname == "shutdown":
                return  # it has answered by itself, and the client may have disconnected
        self._reply(c, answer)
        if funcname == "in_session" and args[1] == "create" and answer[0] == "#RETURN":
            number, (ident, _) = args[0], answer[1]
            if not self._is_taken(c):
                with contextlib.suppress(Exception):  # the session may have ended, and its references with it
                    self.in_session(c, number, "decref", ident)

    @staticmethod
    def _is_taken(c: Any) -> bool:
        """Return whether the client has taken the answer. A signal handler may interrupt it before that."""
        try:
            return bool(c.recv())
        except Exception:
            return False

    def _reply(self, c: Any, answer: tuple[str, Any]) -> None:
        try:
            c.send(answer)
        except Exception as error:
            try:
                c.send(("#TRACEBACK", _traceback()))
            except Exception:
                pass  # usually a client that accept_connection() served, or that failed to authenticate, has disconnected
            util.info("Failure to send message: %r (%r)", answer[0], error)

    def dummy(self, c: Any) -> None:
        """Do nothing; the answer shows that the server runs."""

    def shutdown(self, c: Any) -> None:
        """Answer, and end the server."""
        try:
            util.debug("manager received shutdown message")
            c.send(("#RETURN", None))
        except Exception:
            util.info("could not answer a shutdown message: %s", _traceback())
        finally:
            self.stop_event.set()

    def create(self, c: Any, typeid: str, /, *args: Any, **kwds: Any) -> tuple[str, tuple[str, ...]]:
        """Make an object; return its id and the names of its exposed methods. The caller holds one reference to it."""
        make, exposed, method_to_typeid, _ = self.registry[typeid]
        if make is not None:
            obj = make(*args, **kwds)
        elif kwds or len(args) != 1:
            raise ValueError("Without callable, must have one non-keyword argument")
        else:
            (obj,) = args
        record_waiters(obj)
        names = list(public_methods(obj) if exposed is None else exposed)
        if method_to_typeid is not None:
            if not isinstance(method_to_typeid, dict):
                raise TypeError(f"Method_to_typeid {method_to_typeid!r}: type {type(method_to_typeid)!s}, not dict")
            names += method_to_typeid
        ident = self._objects.add(obj, set(names), method_to_typeid, self._session)
        util.debug("%r callable returned object with id %r", typeid, ident)
        return ident, tuple(names)

    def get_methods(self, c: Any, token: Token) -> tuple[str, ...]:
        """Return the names of the methods that an object exposes."""
        return tuple(self._objects.find(token.id).exposed)

    def number_of_objects(self, c: Any) -> int:
        """Return the number of objects in the server."""
        return len(self.id_to_refcount)

    def debug_info(self, c: Any) -> str:
        """Return a text with a line for each object."""
        with self.mutex:
            rows = [(ident, count, self.id_to_obj[ident].obj) for ident, count in self.id_to_refcount.items()]
        rows.sort(key=lambda row: row[0])
        return "\n".join(f"  {ident}:       refcount={count}\n    {str(obj)[:75]}" for ident, count, obj in rows)

    def incref(self, c: Any, ident: str) -> None:
        """Count one more proxy of an object."""
        self._objects.hold(ident, self._session)

    def decref(self, c: Any, ident: str) -> None:
        """Count one proxy less; the object is dropped with the last."""
        self._objects.drop(ident, self._session)

    def accept_connection(self, c: Any, name: str) -> None:
        """Serve the calls of a client thread, called `name`, over this connection."""
        threading.current_thread().name = name
        line = self._here.line = ServedLine(next(self._line_numbers), self._session, self._held)
        if line.session is not None:
            self._lines[line.number] = line
        try:
            c.send(("#RETURN", None if line.session is None else line.number))
            self.serve_client(c)
        finally:
            self._lines.pop(line.number, None)

    # Sessions.

    @property
    def _session(self) -> Session | None:
        """The session of the client that this thread serves, or None."""
        return getattr(self._here, "session", None)

    def open_session(self, c: Any, like: int | None) -> None:
        """Begin a session, and end it with its connection. `like` is the session of a process that is about to fork the client."""
        session = self._here.session = self._objects.begin(like)
        threading.current_thread().name = f"session {session.number:x}"
        try:
            c.send(("#RETURN", session.number))
            self._keep(line_over(c), session)
        finally:
            self._objects.end(session)
            self._held.session_ends(session)
            for line in [*self._lines.values()]:
                if line.session is session:
                    with contextlib.suppress(RuntimeError, MemoryError):  # no thread can be started
                        line.abandon()
        sys.exit(0)

    def _keep(self, line: Any, session: Session) -> None:
        """Answer the calls over a control connection."""
        while not session.in_order:
            try:
                _, order, args, _ = line.recv()
                assert order in self._in_sessions, f"{order!r} unrecognized"
                answer = "#RETURN", getattr(self, order)(None, *args)
            except Exception:
                answer = "#TRACEBACK", _traceback()
            try:
                line.send(answer)
            except Exception:  # the client has disconnected
                break
        line.close()

    def in_session(self, c: Any, number: int, order: str, /, *args: Any, **kwds: Any) -> Any:
        """Make a call of a client in its session."""
        assert order in self.public or order in self._in_sessions, f"{order!r} unrecognized"
        self._here.session = self._objects.session(number)
        return getattr(self, order)(c, *args, **kwds)

    def decref_all(self, c: Any, idents: list[str]) -> None:
        """Count one proxy less for each of `idents`."""
        for ident in idents:
            self._objects.drop(ident, self._session)

    def send_proxy(self, c: Any, ident: str) -> str:
        """Make a passage for a proxy that the client pickles, and return the id to write."""
        return self._objects.send(self._objects.find(ident), self._session)

    def under_way(self, c: Any) -> int:
        """Return the number of proxies that the client has pickled and that were not loaded yet."""
        session = self._session
        return 0 if session is None else len(session.passages)

    def leave(self, c: Any) -> None:
        """Record that the client ends its session in order: its process exits, or has no more proxies."""
        if (session := self._session) is not None:
            session.in_order = True

    def withdraw(self, c: Any, number: int, call: int) -> str:
        """Withdraw a call over the line of that number; return the client's next step (`withdrawals`)."""
        line = self._lines.get(number)
        return CLOSE if line is None or line.session is not self._session else line.withdraw(call)

    # Proxies in the server's process, usually of a managed object inside another.

    def owns(self, token: Token) -> bool:
        """Return whether `token` names an object of this server, and this process is the server (not a forked child of it)."""
        # A client may write the address in another form; ids are unique to a server.
        known = token.address == self.address or plain_id(token.id) in self._objects.living
        return bool(known) and self._process == getpid()

    def send_own(self, shared: Shared) -> str:
        """Make a passage for such a proxy, which is pickled for the client of this thread, and return the id to write."""
        sent = self._objects.send(shared, self._session)
        if (pickled := getattr(self._here, "pickled", None)) is not None:
            pickled.append(sent)
        return sent

    # Calls to objects: any number over one connection.

    def serve_client(self, conn: Any) -> None:
        """Answer the calls of a client thread until it disconnects; then raise SystemExit."""
        name = threading.current_thread().name
        util.debug("starting server thread to service %r", name)
        conn = line_over(conn)
        pickled: list[str] = []
        self._here.pickled = pickled
        line: ServedLine | None = getattr(self._here, "line", None)
        if line is None:  # the program has called this method
            line = self._here.line = ServedLine(0, self._session, self._held)
        request: Any
        answer: Any
        receive, call, send, stopping = conn.recv, self._call, conn.send, self.stop_event.is_set
        while not stopping():
            request = answer = None  # they must keep no object alive while the thread waits
            try:
                request = receive()
                line.begins()
                answer = call(conn, request)
            except ClientGone:
                if not line.withdrawn:
                    util.debug("the client of %r has disconnected", name)
                    break
                answer = "#WITHDRAWN", None
            except Exception as error:
                if conn.closed:  # the client has closed it, or has sent an invalid message
                    util.debug("got %s; exiting thread serving %r", type(error).__name__, name)
                    break
                answer = "#TRACEBACK", _traceback()
            try:
                try:
                    send(answer)
                except Exception:
                    for sent in pickled:
                        self._objects.unsend(sent)
                    if conn.closed:
                        self._take_back(request, answer)
                        raise
                    send(("#UNSERIALIZABLE", _traceback()))
                pickled.clear()
            except Exception as error:
                util.info("exception in thread serving %r: %r", name, error)
                break
        line.ends()
        conn.close()
        sys.exit(0)

    def _take_back(self, request: Any, answer: tuple[str, Any]) -> None:
        """Undo a call whose client has disconnected before the answer."""
        kind, result = answer
        if kind == "#RETURN" and request[1] in WAITING:
            with contextlib.suppress(KeyError):  # the object was freed with its client
                self._here.line.take_back(self._objects.find(request[0]), request[1], result)

    def _call(self, conn: Any, request: tuple[Any, ...]) -> tuple[str, Any]:
        """Make the call of a client's request, and return the answer."""
        ident, methodname, args, kwds = request
        line: ServedLine = self._here.line
        shared = self.id_to_obj.get(ident) or self._objects.find(ident)
        obj, exposed = shared.obj, shared.exposed
        try:
            if methodname not in exposed:
                raise AttributeError(f"method {methodname!r} of {type(obj)!r} object is not in exposed={exposed!r}")
            function = getattr(obj, methodname)
        except AttributeError:
            fallback = self.fallback_mapping.get(methodname)
            if fallback is None:
                raise
            return "#RETURN", fallback(self, conn, ident, obj, *args, **kwds)
        try:
            if methodname in WAITING:
                result = line.call(shared, methodname, args, kwds, lambda: conn.over)
            else:
                result = function(*args, **kwds)
        except ClientGone:
            raise
        except Exception as error:
            return "#ERROR", error
        except (SystemExit, KeyboardInterrupt):  # they must not end this thread, nor, as an answer, the client
            return "#TRACEBACK", _traceback()
        if methodname == "release":
            self._held.note(shared, methodname, line)
        method_to_typeid = shared.method_to_typeid
        typeid = method_to_typeid and method_to_typeid.get(methodname)
        if not typeid:
            return "#RETURN", result
        new_ident, new_exposed = self.create(conn, typeid, result)
        return "#PROXY", (new_exposed, Token(typeid, self.address, new_ident))

    def fallback_getvalue(self, conn: Any, ident: str, obj: Any) -> Any:
        """Return the object, which the client receives as a copy."""
        return obj

    def fallback_str(self, conn: Any, ident: str, obj: Any) -> str:
        """Return ``str(obj)``."""
        return str(obj)

    def fallback_repr(self, conn: Any, ident: str, obj: Any) -> str:
        """Return ``repr(obj)``."""
        return repr(obj)

    def fallback_locked(self, conn: Any, ident: str, obj: Any) -> bool:
        """Return ``obj.locked()``, also for locks of `threading` without that method in this version of Python."""
        if getattr(obj, "_is_owned", bool)():
            return True
        taken = obj.acquire(blocking=False)
        if taken:
            obj.release()
        return not taken

    #: methods that work without being exposed, also if the object does not have them
    fallback_mapping: dict[str, Callable[..., Any]] = {
        "__str__": fallback_str,
        "__repr__": fallback_repr,
        "#GETVALUE": fallback_getvalue,
        "locked": fallback_locked,
    }
