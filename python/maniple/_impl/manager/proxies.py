"""Proxies: objects that forward each call to an object in a manager's server.

The proxies of a process for one server share a connection per thread.  Each proxy holds one reference to its object until it is
collected.  A pickled proxy holds a reference until it is loaded (`client`), and becomes a proxy for the same object.  In the server
itself a proxy refers to the object directly.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable

from ... import context, process, util
from ..start import after_fork
from .client import site_at
from .client import tell_server as tell_server
from .objects import MARK, plain_id
from .rpc import Token, convert_to_error, line_over, listener_client, of_managers
from .withdrawals import CLOSE, KEEP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["BaseProxy", "MakeProxyType", "AutoProxy", "RebuildProxy"]


@of_managers
class ProcessLocalSet(set):  # type: ignore[type-arg]  # a plain base costs least to set up
    """A set that is empty in a forked child and after unpickling."""

    def __init__(self) -> None:
        util.register_after_fork(self, ProcessLocalSet.clear)

    def clear(self) -> None:
        """Remove all items."""
        super().clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


def _stay_if_program_ends() -> None:
    from ..pool.results import stay_if_program_ends

    stay_if_program_ends()


@of_managers
class BaseProxy:
    """An object that forwards calls to an object in the server of a manager. The methods of a manager return proxies.

    A proxy may be pickled and sent to other processes; it refers to the same object there. ``str(proxy)`` returns the
    object's string, and ``copy.deepcopy(proxy)`` returns a copy of the object itself.

    Args:
        token: the name of the object: type, server's address, id.
        serializer: ``'pickle'`` or ``'xmlrpclib'``, as the server.
        manager: the manager, if this process has it.
        authkey: the key of the server; None means the key of the manager, or of this process.
        exposed: the names of the methods that the proxy may call.
        incref: False makes a proxy that does not keep the object alive.
        manager_owned: True, in the server, makes a proxy that needs no reference.
    """

    #: server's address -> (thread-local object with the attribute `connection`, serial numbers of the living proxies)
    _address_to_local: dict[Any, tuple[Any, set[int]]] = {}
    _mutex = util.ForkAwareThreadLock()
    _serials = itertools.count(1)
    #: the methods that the proxy forwards (in most subclasses)
    _exposed_: tuple[str, ...]
    #: True in objects of `AutoProxy`; others do not have it
    _isauto: bool
    _tls: Any
    _idset: set[int]
    #: in the server: the object
    _shared: Any

    def __init__(
        self,
        token: Token,
        serializer: str,
        manager: Any = None,
        authkey: bytes | None = None,
        exposed: Any = None,
        incref: bool = True,
        manager_owned: bool = False,
    ) -> None:
        shared = BaseProxy._address_to_local.get(token.address)
        if shared is None:
            # One atomic step without `_mutex`, which an exception of a signal handler would leave locked.
            new = util.ForkAwareLocal(), ProcessLocalSet()
            shared = BaseProxy._address_to_local.setdefault(token.address, new)
        self._tls, self._idset = shared
        if MARK in token.id:  # unpickled: `_incref` takes over the reference of the pickle
            self._arriving, token.id = token.id, plain_id(token.id)
        self._token, self._id = token, token.id
        self._manager, self._owned_by_manager = manager, manager_owned
        self._serializer, self._Client = serializer, listener_client[serializer][1]
        self._authkey = process.AuthenticationString(_key(manager, authkey))
        self._site = site_at(token.address, self._Client)
        self._site.proxies = self._idset
        if incref:
            self._incref()
        util.register_after_fork(self, BaseProxy._after_fork)

    def _connect(self) -> Any:
        """Return a new connection to the server for the calling thread."""
        util.debug("making connection to manager")
        name, thread = process.current_process().name, threading.current_thread().name
        if thread != "MainThread":
            name = f"{name}|{thread}"
        conn, number, _ = self._site.call(self._Client, self._authkey, "accept_connection", (name,))
        return line_over(conn, number)

    def _other_line(self, line: Any) -> Any:
        """Return a new connection if the calling thread has none, or cannot use it: it is broken, or a signal handler has interrupted
        a call that waits for its answer."""
        new = self._connect()
        if line is None or line.closed:
            self._tls.connection = new
        return new

    def _callmethod(self, methodname: str, args: tuple[Any, ...] = (), kwds: dict[str, Any] = {}) -> Any:
        """Call a method of the object in the server, and return its result, or a proxy for the result.

        Args:
            methodname: the name of the method.
            args: its positional arguments.
            kwds: its keyword arguments.

        Raises:
            What the method raises.
            RemoteError: the server cannot make the call.
        """
        line = getattr(self._tls, "connection", None)
        if line is None or not line.ready:
            line = self._other_line(line)
        asked = line.asked
        try:
            kind, result = line.call(self._id, methodname, args, kwds)
        except BaseException as error:
            if isinstance(error, (EOFError, ConnectionError)):
                _stay_if_program_ends()
                self._site.say_ended(error)
            elif line.asked != asked and not line.closed:
                self._withdraw(line, error)
            raise
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            return self._proxy_for(*result)
        if kind == "#WITHDRAWN":  # another thread has ended the session of this process
            _stay_if_program_ends()
        try:
            raise convert_to_error(kind, result)
        finally:
            del result

    def _withdraw(self, line: Any, error: BaseException) -> None:
        """Withdraw the last call over `line` at the server: a signal handler has raised `error` in it, so its caller
        does not get the result. If the server cannot be reached, or requests it, close the line; this
        withdraws the call later."""
        todo = CLOSE
        try:
            todo = self._site.withdraw(line)
            if todo not in (CLOSE, KEEP):  # a method that only the thread of this line in the server can call
                line.call(self._id, todo, (), {})
        except Exception as other:
            util.debug("the call that %r has interrupted cannot be withdrawn: %r", error, other)
            todo = CLOSE
        finally:
            if todo == CLOSE:
                line.close()

    def _proxy_for(self, exposed: tuple[str, ...], token: Token) -> Any:
        """Return a proxy for an object that the server made for this client, with one reference counted for it."""
        token.address = self._token.address
        manager = self._manager
        if manager is None:  # an unpickled proxy knows only the types of `SyncManager`
            from ...managers import SyncManager as manager
        proxytype = manager._registry[token.typeid][-1]
        proxy = proxytype(token, self._serializer, manager=self._manager, authkey=self._authkey, exposed=exposed)
        self._site.drop(token.id, self._authkey)
        return proxy

    def _getvalue(self) -> Any:
        """Return a copy of the object in the server."""
        return self._callmethod("#GETVALUE")

    def _incref(self) -> None:
        if self._owned_by_manager:
            util.debug("owned_by_manager skipped INCREF of %r", self._token.id)
            return
        self._site.hold(vars(self).pop("_arriving", self._id), self._authkey)
        util.debug("INCREF %r", self._token.id)
        self._holder = os.getpid()
        self._drop_when_collected()

    def _drop_when_collected(self) -> None:
        serial = next(BaseProxy._serials)
        self._idset.add(serial)
        state = self._manager and self._manager._state
        self._close = util.Finalize(
            self,
            BaseProxy._decref,
            (self._token, serial, self._authkey, state, self._tls, self._idset, self._site),
            exitpriority=10,
        )

    @staticmethod
    def _decref(token: Token, serial: int, authkey: bytes, state: Any, tls: Any, idset: set[int], site: Any) -> None:
        idset.discard(serial)
        if state is not None and state.value != state.STARTED:
            util.debug("DECREF %r -- manager already shutdown", token.id)
        else:
            try:
                util.debug("DECREF %r", token.id)
                site.drop(token.id, authkey)
            except Exception as error:
                util.debug("... decref failed: %s", error)
        if not idset and hasattr(tls, "connection"):
            # Not `current_thread()`: in a thread that is already unregistered, that makes an object which remains forever.
            util.debug("the last proxy of thread %d is gone; its connection is closed", threading.get_ident())
            _hang_up(tls)
        if not idset:
            site.rest()

    def _after_fork(self) -> None:
        if self._site.inherited and not self._owned_by_manager or vars(self).get("_holder") == os.getpid():
            self._manager = None
            self._drop_when_collected()  # the finalizer of the parent does not run in this process
            return
        if after_fork.forked_by_program:  # such a child may never use the proxy, and end without its finalizers
            return
        self._manager = None
        try:
            self._incref()
        except Exception as error:  # the server may have ended, and the child may not use the proxy
            util.info("incref failed: %s", error)

    def __reduce__(self) -> tuple[Any, ...]:
        token = Token(self._token.typeid, self._token.address, self._sent_id())
        options: dict[str, Any] = {}
        if context.get_spawning_popen() is not None:
            options["authkey"] = self._authkey
        if getattr(self, "_isauto", False):
            options["exposed"] = self._exposed_
            return RebuildProxy, (AutoProxy, token, self._serializer, options)
        return RebuildProxy, (type(self), token, self._serializer, options)

    def _sent_id(self) -> str:
        """Return the object's id for a pickle; it names a passage if the server supports sessions."""
        if self._owned_by_manager:
            shared, server = vars(self).get("_shared"), _server_here()
            return self._id if shared is None or server is None else str(server.send_own(shared))
        sent: str = self._site.send(self._id)
        return sent

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._getvalue()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object, typeid {self._token.typeid!r} at {id(self):#x}>"

    def __str__(self) -> str:
        try:
            return self._callmethod("__repr__")  # type: ignore[no-any-return]  # a string, there as here
        except Exception:  # the server has ended, or the object has no `__repr__` that works
            return repr(self)[:-1] + "; '__str__()' failed>"


def _key(manager: Any, authkey: bytes | None) -> bytes:
    """Return the given key, or the manager's key, or this process's key."""
    if authkey is not None:
        return authkey
    return process.current_process().authkey if manager is None else manager._authkey


def _hang_up(tls: Any) -> None:
    conn = tls.__dict__.pop("connection", None)
    if conn is not None:
        conn.close()


def _server_here() -> Any:
    """Return the server that runs in this process, or None."""
    return getattr(process.current_process(), "_manager_server", None)


@of_managers
def RebuildProxy(func: Callable[..., Any], token: Token, serializer: str, kwds: dict[str, Any]) -> Any:
    """Unpickle a proxy. In the server itself, the result is a proxy that refers to the object directly."""
    # A child that is being started counts its reference, too: otherwise the object could be freed meanwhile.
    incref = kwds.pop("incref", True)
    server = _server_here()
    if server is None or not server.owns(token):
        return func(token, serializer, incref=incref, **kwds)
    util.debug("Rebuild a proxy owned by manager, token=%r", token)
    shared = server._objects.claim(token.id)
    token.id = shared.ident
    proxy = func(token, serializer, incref=incref, **kwds | {"manager_owned": True})
    proxy._shared = shared
    return proxy


_OF_MADE_TYPES = "A proxy; each method calls the method of the same name of an object in the server of a manager."


def _forwarding(name: str) -> Callable[..., Any]:
    """Return a method that calls the shared object's method of that name."""

    def method(self: BaseProxy, /, *args: Any, **kwds: Any) -> Any:
        """Call the method of this name of the object in the server, and return its result, or a proxy for the result."""
        return self._callmethod(name, args, kwds)

    method.__name__ = name
    return method


@of_managers
def MakeProxyType(name: str, exposed: Iterable[str], _cache: dict[Any, Any] = {}) -> type:
    """Return a class of proxies.

    Args:
        name: the name of the class.
        exposed: the names of the methods that the proxies forward.
    """
    exposed = tuple(exposed)
    made = _cache.get((name, exposed))
    if made is None:
        body: dict[str, Any] = {method: _forwarding(method) for method in exposed}
        body.update(_exposed_=exposed, __module__=BaseProxy.__module__, __doc__=_OF_MADE_TYPES)
        made = _cache[name, exposed] = type(name, (BaseProxy,), body)
    return made


@of_managers
def AutoProxy(
    token: Token,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Any = None,
    incref: bool = True,
    manager_owned: bool = False,
) -> BaseProxy:
    """Return a proxy with the methods `exposed`; None requests the methods that the object exposes from the server.

    The parameters are those of `BaseProxy`.
    """
    authkey = _key(manager, authkey)
    if exposed is None:
        exposed = tell_server(listener_client[serializer][1], token.address, authkey, "get_methods", token)
    kind = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)
    proxy: BaseProxy = kind(
        token, serializer, manager=manager, authkey=authkey, incref=incref, manager_owned=manager_owned
    )
    proxy._isauto = True
    return proxy
