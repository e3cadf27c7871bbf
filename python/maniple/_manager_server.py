"""The server of a manager: a process that owns objects and calls their methods for others.

Every client thread has a connection of its own, and a thread here that serves it; so a method that waits, `Lock.acquire`
say, makes only its caller wait, and who holds a lock is known by the thread.

Objects are counted: each proxy, wherever it is, holds one reference, and the object goes with the last.  An object that
went while a proxy in this very process still names it is kept aside in `id_to_local_proxy_obj`, from where it can be
revived.  The tables change only under `mutex`; the last reference to an object is never dropped under it, since its
destructor may come back to us.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from os import fsdecode, getpid
from traceback import format_exc

from . import connection, process, util
from ._greenlets import start_thread
from ._manager_wire import Token, line_over, listener_client, of_managers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    from . import shared_memory
except ImportError:  # no shared memory here: `managers` then offers no SharedMemoryManager
    shared_memory = None  # type: ignore[assignment]  # not to be made optional for all who can use it

__all__ = ["Server", "SharedMemoryServer", "all_methods", "public_methods"]


@of_managers
def all_methods(obj: Any) -> list[str]:
    """The names of all that can be called on `obj`."""
    return [name for name in dir(obj) if callable(getattr(obj, name))]


@of_managers
def public_methods(obj: Any) -> list[str]:
    """`all_methods` without an underscore in front."""
    return [name for name in all_methods(obj) if not name.startswith("_")]


@of_managers
class Server:
    """Owns objects made by the callables of `registry`, and serves them at `address`.

    `registry` maps a type's name to ``(callable, exposed methods, method -> type's name, proxy type)``.
    """

    #: what a client may ask of the server itself
    public = [
        "shutdown",
        "create",
        "accept_connection",
        "get_methods",
        "debug_info",
        "number_of_objects",
        "dummy",
        "incref",
        "decref",
    ]

    def __init__(self, registry: dict[str, tuple[Any, ...]], address: Any, authkey: bytes, serializer: str) -> None:
        if not isinstance(authkey, bytes):
            raise TypeError(f"Authkey {authkey!r} is type {type(authkey)!s}, not bytes")
        self.registry = registry
        self.authkey = process.AuthenticationString(authkey)
        # no key for the listener: a peer is authenticated in its own thread, so that a silent one stops nobody
        self.listener = listener_client[serializer][0](address=address, backlog=128)
        self.address = self.listener.address
        self.id_to_obj: dict[str, tuple[Any, ...]] = {"0": (None, (), None)}
        self.id_to_refcount: dict[str, int] = {}
        self.id_to_local_proxy_obj: dict[str, tuple[Any, ...]] = {}
        self.mutex = threading.Lock()
        self.stop_event = threading.Event()

    def serve_forever(self) -> None:
        """Serve until a client says `shutdown`; ends with SystemExit."""
        process.current_process()._manager_server = self  # type: ignore[attr-defined]  # for `RebuildProxy`
        self.stop_event.clear()
        try:
            start_thread(self.accepter)
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
        """Give each connection a thread."""
        while not self.stop_event.is_set():
            try:
                conn = self.listener.accept()
            except OSError as error:
                util.info("manager could not accept a connection: %s", error)
                time.sleep(0.01)  # closed, or out of descriptors: do not spin
                continue
            start_thread(self.handle_request, conn)

    # Calls to the server itself: one to a connection.

    def handle_request(self, conn: Any) -> None:
        """Authenticate the peer and do the one thing that it asks for."""
        try:
            self._handle_request(conn)
        except SystemExit:  # a client that accept_connection() served has left
            pass
        finally:
            conn.close()

    def _handle_request(self, c: Any) -> None:
        try:
            connection.deliver_challenge(c, self.authkey)
            connection.answer_challenge(c, self.authkey)
            _, funcname, args, kwds = c.recv()
            assert funcname in self.public, f"{funcname!r} unrecognized"
            answer = "#RETURN", getattr(self, funcname)(c, *args, **kwds)
        except Exception:
            answer = "#TRACEBACK", format_exc()
        try:
            c.send(answer)
        except Exception as error:
            try:
                c.send(("#TRACEBACK", format_exc()))
            except Exception:
                pass  # the usual case: a client which accept_connection() served, or that failed to authenticate, is gone
            util.info("Failure to send message: %r (%r)", answer[0], error)

    def dummy(self, c: Any) -> None:
        """Do nothing: shows that somebody listens."""

    def shutdown(self, c: Any) -> None:
        """Answer, and end the server."""
        try:
            util.debug("manager received shutdown message")
            c.send(("#RETURN", None))
        except Exception:
            util.info("could not answer a shutdown message: %s", format_exc())
        finally:
            self.stop_event.set()

    def create(self, c: Any, typeid: str, /, *args: Any, **kwds: Any) -> tuple[str, tuple[str, ...]]:
        """Make an object; its id and the methods that it exposes.  The caller holds one reference to it."""
        make, exposed, method_to_typeid, _ = self.registry[typeid]
        if make is not None:
            obj = make(*args, **kwds)
        elif kwds or len(args) != 1:
            raise ValueError("Without callable, must have one non-keyword argument")
        else:
            (obj,) = args
        names = list(public_methods(obj) if exposed is None else exposed)
        if method_to_typeid is not None:
            if not isinstance(method_to_typeid, dict):
                raise TypeError(f"Method_to_typeid {method_to_typeid!r}: type {type(method_to_typeid)!s}, not dict")
            names += method_to_typeid
        ident = f"{id(obj):x}"  # is no other object's: the table keeps the object alive
        util.debug("%r callable returned object with id %r", typeid, ident)
        with self.mutex:
            self.id_to_obj[ident] = obj, set(names), method_to_typeid
            self.id_to_refcount[ident] = self.id_to_refcount.get(ident, 0) + 1
        return ident, tuple(names)

    def get_methods(self, c: Any, token: Token) -> tuple[str, ...]:
        """The methods that an object exposes."""
        return tuple(self.id_to_obj[token.id][1])

    def number_of_objects(self, c: Any) -> int:
        """How many objects there are."""
        return len(self.id_to_refcount)

    def debug_info(self, c: Any) -> str:
        """A line of text for each object."""
        with self.mutex:
            rows = [(ident, count, self.id_to_obj[ident][0]) for ident, count in self.id_to_refcount.items()]
        rows.sort(key=lambda row: row[0])
        return "\n".join(f"  {ident}:       refcount={count}\n    {str(obj)[:75]}" for ident, count, obj in rows)

    def incref(self, c: Any, ident: str) -> None:
        """Count one more proxy."""
        with self.mutex:
            if ident not in self.id_to_refcount:
                kept = self.id_to_local_proxy_obj.get(ident)
                if kept is None:
                    raise KeyError(ident)
                self.id_to_obj[ident], self.id_to_refcount[ident] = kept, 0
                util.debug("Server re-enabled tracking & INCREF %r", ident)
            self.id_to_refcount[ident] += 1

    def decref(self, c: Any, ident: str) -> None:
        """Count one proxy less; the object goes with the last."""
        with self.mutex:
            count = self.id_to_refcount.get(ident, 0)
            if not count and ident in self.id_to_local_proxy_obj:
                util.debug("Server DECREF skipping %r", ident)
                return
            if count < 1:
                raise AssertionError(f"Id {ident!s} ({self.id_to_obj.get(ident)!r}) has refcount {count:n}, not 1+")
            if count > 1:
                self.id_to_refcount[ident] = count - 1
                return
            del self.id_to_refcount[ident]
            last = self.id_to_obj.pop(ident)
        util.debug("disposing of object with id %r", ident)
        del last  # here, where the mutex is free

    def accept_connection(self, c: Any, name: str) -> None:
        """Serve a thread of a client, called `name`, from now on."""
        threading.current_thread().name = name
        c.send(("#RETURN", None))
        self.serve_client(c)

    # Calls to objects: any number over one connection.

    def serve_client(self, conn: Any) -> None:
        """Do what a client thread asks for until it hangs up; ends with SystemExit."""
        name = threading.current_thread().name
        util.debug("starting server thread to service %r", name)
        conn = line_over(conn)
        receive, call, send, stopping = conn.recv, self._call, conn.send, self.stop_event.is_set
        while not stopping():
            try:
                answer = call(conn, receive())
            except Exception as error:
                if conn.closed:  # by the client, or by what was no message
                    util.debug("got %s; exiting thread serving %r", type(error).__name__, name)
                    break
                answer = "#TRACEBACK", format_exc()
            try:
                try:
                    send(answer)
                except Exception:
                    if conn.closed:
                        raise
                    send(("#UNSERIALIZABLE", format_exc()))
            except Exception as error:
                util.info("exception in thread serving %r: %r", name, error)
                break
        conn.close()
        sys.exit(0)

    def _call(self, conn: Any, request: tuple[Any, ...]) -> tuple[str, Any]:
        """The answer to a client's request."""
        ident, methodname, args, kwds = request
        entry = self.id_to_obj.get(ident) or self.id_to_local_proxy_obj.get(ident)
        if entry is None:
            raise KeyError(ident)
        obj, exposed, method_to_typeid = entry
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
            result = function(*args, **kwds)
        except Exception as error:
            return "#ERROR", error
        except (SystemExit, KeyboardInterrupt):  # must neither end this thread nor, sent over, the client
            return "#TRACEBACK", format_exc()
        typeid = method_to_typeid and method_to_typeid.get(methodname)
        if not typeid:
            return "#RETURN", result
        new_ident, new_exposed = self.create(conn, typeid, result)
        return "#PROXY", (new_exposed, Token(typeid, self.address, new_ident))

    def fallback_getvalue(self, conn: Any, ident: str, obj: Any) -> Any:
        """A copy of the object."""
        return obj

    def fallback_str(self, conn: Any, ident: str, obj: Any) -> str:
        """``str(obj)``."""
        return str(obj)

    def fallback_repr(self, conn: Any, ident: str, obj: Any) -> str:
        """``repr(obj)``."""
        return repr(obj)

    def fallback_locked(self, conn: Any, ident: str, obj: Any) -> bool:
        """``obj.locked()`` for the locks of `threading` that have none in this version of Python."""
        if getattr(obj, "_is_owned", bool)():
            return True
        taken = obj.acquire(blocking=False)
        if taken:
            obj.release()
        return not taken

    #: methods that an object need not have nor expose
    fallback_mapping: dict[str, Callable[..., Any]] = {
        "__str__": fallback_str,
        "__repr__": fallback_repr,
        "#GETVALUE": fallback_getvalue,
        "locked": fallback_locked,
    }


@of_managers
class _SharedMemoryTracker:
    """The names of the segments that a `SharedMemoryServer` has to remove at its end."""

    def __init__(self, name: str, segment_names: list[str] | None = None) -> None:
        self.shared_memory_context_name = name
        self.segment_names = [] if segment_names is None else segment_names

    def register_segment(self, segment_name: str) -> None:
        """Add one."""
        util.debug("Register segment %r in pid %d", segment_name, getpid())
        self.segment_names.append(segment_name)

    def destroy_segment(self, segment_name: str) -> None:
        """Remove one from the system; it need not be attached anywhere."""
        util.debug("Destroy segment %r in pid %d", segment_name, getpid())
        self.segment_names.remove(segment_name)
        segment = shared_memory.SharedMemory(segment_name)
        segment.close()
        segment.unlink()

    def unlink(self) -> None:
        """Remove all."""
        for segment_name in self.segment_names[:]:
            self.destroy_segment(segment_name)

    def __del__(self) -> None:
        util.debug("Call %s.__del__ in %d", type(self).__name__, getpid())
        self.unlink()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.shared_memory_context_name, self.segment_names

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # its own, or what a subclass pickles


@of_managers
class SharedMemoryServer(Server):
    """A server that also looks after segments of shared memory."""

    public = Server.public + ["track_segment", "release_segment", "list_segments"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        address = fsdecode(self.address) if isinstance(self.address, bytes) else self.address
        self.shared_memory_context = _SharedMemoryTracker(f"shm_{address}_{getpid()}")
        util.debug("SharedMemoryServer started by pid %d", getpid())

    def create(self, c: Any, typeid: str, /, *args: Any, **kwargs: Any) -> tuple[str, tuple[str, ...]]:
        """As `Server.create`; a proxy type that asks for it is given the tracker."""
        if hasattr(self.registry[typeid][-1], "_shared_memory_proxy"):
            kwargs["shared_memory_context"] = self.shared_memory_context
        return super().create(c, typeid, *args, **kwargs)

    def shutdown(self, c: Any) -> None:
        """Remove all segments and end."""
        self.shared_memory_context.unlink()
        return super().shutdown(c)

    def track_segment(self, c: Any, segment_name: str) -> None:
        """Remove this segment at the end."""
        self.shared_memory_context.register_segment(segment_name)

    def release_segment(self, c: Any, segment_name: str) -> None:
        """Remove this segment now."""
        self.shared_memory_context.destroy_segment(segment_name)

    def list_segments(self, c: Any) -> list[str]:
        """The names of the segments."""
        return self.shared_memory_context.segment_names
