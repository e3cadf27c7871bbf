"""Proxies: objects that pass each call on to an object in a manager's server.

All proxies of a process for one server share one connection per thread, and each holds one reference to its
object, from its making until it is collected.  A proxy may be pickled; it arrives as a proxy for the same object, except
in the server itself, where it need not be counted.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, MutableMapping, MutableSequence, MutableSet
from types import GenericAlias
from typing import Any

from . import context, process, util
from ._manager_wire import Token, convert_to_error, dispatch, listener_client, of_managers

__all__ = ["BaseProxy", "MakeProxyType", "AutoProxy", "RebuildProxy"]


@of_managers
class ProcessLocalSet(set):
    """A set that is empty again in a forked child, and wherever it is unpickled."""

    def __init__(self) -> None:
        util.register_after_fork(self, set.clear)

    def __reduce__(self) -> tuple:
        return type(self), ()


@of_managers
class BaseProxy:
    """A stand-in for the shared object that `token` names.

    `serializer` and `authkey` are the server's, `manager` is the manager where this process has it.  Without `incref`
    the proxy holds no reference, and with `manager_owned`, in the server, it needs none.
    """

    #: server's address -> (its connection, one per thread, as attribute `connection`; serial numbers of living proxies)
    _address_to_local: dict[Any, tuple[Any, set]] = {}
    _mutex = util.ForkAwareThreadLock()
    _serials = itertools.count(1)

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
        with BaseProxy._mutex:
            shared = BaseProxy._address_to_local.get(token.address)
            if shared is None:
                shared = BaseProxy._address_to_local[token.address] = util.ForkAwareLocal(), ProcessLocalSet()
        self._tls, self._idset = shared
        self._token, self._id = token, token.id
        self._manager, self._owned_by_manager = manager, manager_owned
        self._serializer, self._Client = serializer, listener_client[serializer][1]
        if authkey is None:
            authkey = process.current_process().authkey if manager is None else manager._authkey
        self._authkey = process.AuthenticationString(authkey)
        if incref:
            self._incref()
        util.register_after_fork(self, BaseProxy._after_fork)

    def _connect(self) -> None:
        """Give the calling thread a connection."""
        util.debug("making connection to manager")
        name, thread = process.current_process().name, threading.current_thread().name
        if thread != "MainThread":
            name = f"{name}|{thread}"
        conn = self._Client(self._token.address, authkey=self._authkey)
        dispatch(conn, None, "accept_connection", (name,))
        self._tls.connection = conn

    def _callmethod(self, methodname: str, args: tuple = (), kwds: dict = {}) -> Any:
        """Call a method of the shared object; its result, or a proxy for that.

        Raises what the method raised, or `RemoteError` where the server could not call it.
        """
        if not hasattr(self._tls, "connection"):
            util.debug("thread %r does not own a connection", threading.current_thread().name)
            self._connect()
        conn = self._tls.connection
        try:
            conn.send((self._id, methodname, args, kwds))
            kind, result = conn.recv()
        except BaseException as error:
            # Interrupted, or the server is gone: an answer that still comes would be taken for the next call's.
            if isinstance(error, (EOFError, ConnectionError)) or not isinstance(error, Exception):
                _hang_up(self._tls)
            raise
        if kind == "#RETURN":
            return result
        if kind == "#PROXY":
            return self._proxy_for(*result)
        try:
            raise convert_to_error(kind, result)
        finally:
            del result

    def _proxy_for(self, exposed: tuple, token: Token) -> Any:
        """A proxy for an object that the server made for us, and holds one reference to on our behalf."""
        token.address = self._token.address
        manager = self._manager
        if manager is None:  # we came by pickle: what we know of types is what every manager knows
            from .managers import SyncManager as manager
        proxytype = manager._registry[token.typeid][-1]
        proxy = proxytype(token, self._serializer, manager=self._manager, authkey=self._authkey, exposed=exposed)
        tell_server(self._Client, token.address, self._authkey, "decref", token.id)
        return proxy

    def _getvalue(self) -> Any:
        """A copy of the shared object."""
        return self._callmethod("#GETVALUE")

    def _incref(self) -> None:
        if self._owned_by_manager:
            util.debug("owned_by_manager skipped INCREF of %r", self._token.id)
            return
        tell_server(self._Client, self._token.address, self._authkey, "incref", self._id)
        util.debug("INCREF %r", self._token.id)
        serial = next(BaseProxy._serials)
        self._idset.add(serial)
        state = self._manager and self._manager._state
        self._close = util.Finalize(
            self,
            BaseProxy._decref,
            (self._token, serial, self._authkey, state, self._tls, self._idset, self._Client),
            exitpriority=10,
        )

    @staticmethod
    def _decref(token: Token, serial: int, authkey: bytes, state: Any, tls: Any, idset: set, _Client: Any) -> None:
        idset.discard(serial)
        if state is not None and state.value != state.STARTED:
            util.debug("DECREF %r -- manager already shutdown", token.id)
        else:
            try:
                util.debug("DECREF %r", token.id)
                tell_server(_Client, token.address, authkey, "decref", token.id)
            except Exception as error:
                util.debug("... decref failed: %s", error)
        if not idset and hasattr(tls, "connection"):
            util.debug("thread %r has no more proxies so closing conn", threading.current_thread().name)
            _hang_up(tls)

    def _after_fork(self) -> None:
        self._manager = None
        try:
            self._incref()
        except Exception as error:  # the server may be gone already, and the child may not care
            util.info("incref failed: %s", error)

    def __reduce__(self) -> tuple:
        options: dict[str, Any] = {}
        if context.get_spawning_popen() is not None:
            options["authkey"] = self._authkey
        if getattr(self, "_isauto", False):
            options["exposed"] = self._exposed_
            return RebuildProxy, (AutoProxy, self._token, self._serializer, options)
        return RebuildProxy, (type(self), self._token, self._serializer, options)

    def __deepcopy__(self, memo: dict) -> Any:
        return self._getvalue()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} object, typeid {self._token.typeid!r} at {id(self):#x}>"

    def __str__(self) -> str:
        try:
            return self._callmethod("__repr__")
        except Exception:
            return repr(self)[:-1] + "; '__str__()' failed>"


def _hang_up(tls: Any) -> None:
    conn = tls.__dict__.pop("connection", None)
    if conn is not None:
        conn.close()


def tell_server(connect: Callable[..., Any], address: Any, authkey: bytes, order: str, *args: Any) -> Any:
    """One call to the server itself, over a connection of its own."""
    conn = connect(address, authkey=authkey)
    try:
        return dispatch(conn, None, order, args)
    finally:
        conn.close()


@of_managers
def RebuildProxy(func: Callable[..., Any], token: Token, serializer: str, kwds: dict) -> Any:
    """Unpickle a proxy."""
    me = process.current_process()
    server = getattr(me, "_manager_server", None)
    if server is not None and server.address == token.address:
        util.debug("Rebuild a proxy owned by manager, token=%r", token)
        kwds["manager_owned"] = True
        server.id_to_local_proxy_obj.setdefault(token.id, server.id_to_obj.get(token.id))
    incref = kwds.pop("incref", True) and not getattr(me, "_inheriting", False)
    return func(token, serializer, incref=incref, **kwds)


def _forwarding(name: str) -> Callable[..., Any]:
    """A method that calls the shared object's method of that name."""

    def method(self: BaseProxy, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    method.__name__ = name
    return method


@of_managers
def MakeProxyType(name: str, exposed: Iterable[str], _cache: dict = {}) -> type:
    """A class of proxies that have the methods `exposed`."""
    exposed = tuple(exposed)
    made = _cache.get((name, exposed))
    if made is None:
        body: dict[str, Any] = {method: _forwarding(method) for method in exposed}
        body.update(_exposed_=exposed, __module__=BaseProxy.__module__)
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
    """A proxy with the methods that the shared object exposes; asks the server where `exposed` does not say."""
    if authkey is None:
        authkey = process.current_process().authkey if manager is None else manager._authkey
    if exposed is None:
        exposed = tell_server(listener_client[serializer][1], token.address, authkey, "get_methods", token)
    kind = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)
    proxy = kind(token, serializer, manager=manager, authkey=authkey, incref=incref, manager_owned=manager_owned)
    proxy._isauto = True
    return proxy


def _attribute(name: str) -> property:
    """A property that reads an attribute of the shared object."""
    return property(lambda self: self._callmethod("__getattribute__", (name,)))


def _in_place(*names: str) -> Callable[[type], type]:
    """Class decorator: operators that change the shared object, and whose result is the proxy."""

    def adorn(cls: type) -> type:
        for name in names:

            def operator(self: BaseProxy, value: Any, _name: str = name) -> BaseProxy:
                self._callmethod(_name, (value,))
                return self

            operator.__name__ = name
            setattr(cls, name, operator)
        return cls

    return adorn


# What the types of `SyncManager` look like from outside.


@of_managers
class IteratorProxy(BaseProxy):
    """An iterator or generator in the server."""

    _exposed_ = ("__next__", "send", "throw", "close")

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self, *args: Any) -> Any:
        return self._callmethod("__next__", args)

    def send(self, *args: Any) -> Any:
        """As a generator's."""
        return self._callmethod("send", args)

    def throw(self, *args: Any) -> Any:
        """As a generator's."""
        return self._callmethod("throw", args)

    def close(self, *args: Any) -> Any:
        """As a generator's."""
        return self._callmethod("close", args)


@of_managers
class AcquirerProxy(BaseProxy):
    """A lock or semaphore of `threading` in the server."""

    _exposed_ = ("acquire", "release", "locked")

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """As `threading.Lock.acquire`; no `timeout` waits for ever."""
        return self._callmethod("acquire", (blocking,) if timeout is None else (blocking, timeout))

    def release(self) -> None:
        """As `threading.Lock.release`."""
        return self._callmethod("release")

    def locked(self) -> bool:
        """Whether it is taken."""
        return self._callmethod("locked")

    def __enter__(self) -> bool:
        return self._callmethod("acquire")

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        return self._callmethod("release")


@of_managers
class ConditionProxy(AcquirerProxy):
    """A `threading.Condition` in the server."""

    _exposed_ = AcquirerProxy._exposed_ + ("wait", "notify", "notify_all")

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Condition.wait`."""
        return self._callmethod("wait", (timeout,))

    def notify(self, n: int = 1) -> None:
        """As `threading.Condition.notify`."""
        return self._callmethod("notify", (n,))

    def notify_all(self) -> None:
        """As `threading.Condition.notify_all`."""
        return self._callmethod("notify_all")

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """As `threading.Condition.wait_for`; the predicate is called here, not in the server."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (outcome := predicate()):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return outcome


@of_managers
class EventProxy(BaseProxy):
    """A `threading.Event` in the server."""

    _exposed_ = ("is_set", "set", "clear", "wait")

    def is_set(self) -> bool:
        """As `threading.Event.is_set`."""
        return self._callmethod("is_set")

    def set(self) -> None:
        """As `threading.Event.set`."""
        return self._callmethod("set")

    def clear(self) -> None:
        """As `threading.Event.clear`."""
        return self._callmethod("clear")

    def wait(self, timeout: float | None = None) -> bool:
        """As `threading.Event.wait`."""
        return self._callmethod("wait", (timeout,))


@of_managers
class BarrierProxy(BaseProxy):
    """A `threading.Barrier` in the server."""

    _exposed_ = ("__getattribute__", "wait", "abort", "reset")
    parties, n_waiting, broken = map(_attribute, ("parties", "n_waiting", "broken"))

    def wait(self, timeout: float | None = None) -> int:
        """As `threading.Barrier.wait`."""
        return self._callmethod("wait", (timeout,))

    def abort(self) -> None:
        """As `threading.Barrier.abort`."""
        return self._callmethod("abort")

    def reset(self) -> None:
        """As `threading.Barrier.reset`."""
        return self._callmethod("reset")


@of_managers
class NamespaceProxy(BaseProxy):
    """A `Namespace` in the server.  Attributes with an underscore in front are the proxy's own."""

    _exposed_ = ("__getattribute__", "__setattr__", "__delattr__")

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            return object.__getattribute__(self, key)
        return self._callmethod("__getattribute__", (key,))

    def __setattr__(self, key: str, value: Any) -> Any:
        if key.startswith("_"):
            return object.__setattr__(self, key, value)
        return self._callmethod("__setattr__", (key, value))

    def __delattr__(self, key: str) -> Any:
        if key.startswith("_"):
            return object.__delattr__(self, key)
        return self._callmethod("__delattr__", (key,))


@of_managers
class ValueProxy(BaseProxy):
    """A `Value` in the server."""

    _exposed_ = ("get", "set")
    __class_getitem__ = classmethod(GenericAlias)

    def get(self) -> Any:
        """The value."""
        return self._callmethod("get")

    def set(self, value: Any) -> Any:
        """Change the value."""
        return self._callmethod("set", (value,))

    value = property(get, set)


BaseListProxy = MakeProxyType(
    "BaseListProxy",
    (
        "__add__",
        "__contains__",
        "__delitem__",
        "__getitem__",
        "__imul__",
        "__len__",
        "__mul__",
        "__reversed__",
        "__rmul__",
        "__setitem__",
        "append",
        "clear",
        "copy",
        "count",
        "extend",
        "index",
        "insert",
        "pop",
        "remove",
        "reverse",
        "sort",
    ),
)


@of_managers
@_in_place("__imul__")
class ListProxy(BaseListProxy):
    """A list in the server."""

    __class_getitem__ = classmethod(GenericAlias)

    def __iadd__(self, value: Iterable[Any]) -> ListProxy:
        self.extend(value)
        return self


_BaseDictProxy = MakeProxyType(
    "_BaseDictProxy",
    (
        "__contains__",
        "__delitem__",
        "__getitem__",
        "__ior__",
        "__iter__",
        "__len__",
        "__or__",
        "__reversed__",
        "__ror__",
        "__setitem__",
        "clear",
        "copy",
        "fromkeys",
        "get",
        "items",
        "keys",
        "pop",
        "popitem",
        "setdefault",
        "update",
        "values",
    ),
)
_BaseDictProxy._method_to_typeid_ = {"__iter__": "Iterator"}


@of_managers
@_in_place("__ior__")
class DictProxy(_BaseDictProxy):
    """A dict in the server."""

    __class_getitem__ = classmethod(GenericAlias)


_BaseSetProxy = MakeProxyType(
    "_BaseSetProxy",
    (
        "__and__",
        "__contains__",
        "__iand__",
        "__ior__",
        "__isub__",
        "__iter__",
        "__ixor__",
        "__len__",
        "__or__",
        "__rand__",
        "__ror__",
        "__rsub__",
        "__rxor__",
        "__sub__",
        "__xor__",
        "__ge__",
        "__gt__",
        "__le__",
        "__lt__",
        "add",
        "clear",
        "copy",
        "difference",
        "difference_update",
        "discard",
        "intersection",
        "intersection_update",
        "isdisjoint",
        "issubset",
        "issuperset",
        "pop",
        "remove",
        "symmetric_difference",
        "symmetric_difference_update",
        "union",
        "update",
    ),
)
_BaseSetProxy._method_to_typeid_ = {"__iter__": "Iterator"}


@of_managers
@_in_place("__iand__", "__ior__", "__isub__", "__ixor__")
class SetProxy(_BaseSetProxy):
    """A set in the server."""

    __class_getitem__ = classmethod(GenericAlias)


MutableSequence.register(BaseListProxy)
MutableMapping.register(_BaseDictProxy)
MutableSet.register(_BaseSetProxy)

ArrayProxy = MakeProxyType("ArrayProxy", ("__len__", "__getitem__", "__setitem__"))

BasePoolProxy = MakeProxyType(
    "PoolProxy",
    (
        "apply",
        "apply_async",
        "close",
        "imap",
        "imap_unordered",
        "join",
        "map",
        "map_async",
        "starmap",
        "starmap_async",
        "terminate",
    ),
)
BasePoolProxy._method_to_typeid_ = dict.fromkeys(
    ("apply_async", "map_async", "starmap_async"), "AsyncResult"
) | dict.fromkeys(("imap", "imap_unordered"), "Iterator")


@of_managers
class PoolProxy(BasePoolProxy):
    """A pool in the server."""

    def __enter__(self) -> PoolProxy:
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        self.terminate()
