"""The proxy classes of the types of `SyncManager`."""

# The server's answers have the type `Any`; the annotations name the types that the object's methods return.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, MutableSequence, MutableSet
from types import GenericAlias

from ..compat.public_module import Generic, TypeVar
from ..sync.waiting import wait_for
from .proxies import BaseProxy, MakeProxyType
from .rpc import of_managers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Self, overload

    Kind = TypeVar("Kind", bound=type)

Item = TypeVar("Item")
Key = TypeVar("Key")

__all__ = [
    "AcquirerProxy",
    "ArrayProxy",
    "BarrierProxy",
    "ConditionProxy",
    "DictProxy",
    "EventProxy",
    "IteratorProxy",
    "ListProxy",
    "NamespaceProxy",
    "PoolProxy",
    "SetProxy",
    "ValueProxy",
]


def _attribute(name: str) -> property:
    """Return a property that reads an attribute of the barrier in the server."""
    return property(lambda self: self._callmethod("__getattribute__", (name,)), doc=f"As `threading.Barrier.{name}`.")


def _in_place(*names: str) -> Callable[[Kind], Kind]:
    """Return a class decorator that adds operators which change the object in the server and return the proxy."""

    def adorn(cls: Kind) -> Kind:
        for name in names:

            def operator(self: BaseProxy, value: Any, _name: str = name) -> BaseProxy:
                self._callmethod(_name, (value,))
                return self

            operator.__name__ = name
            setattr(cls, name, operator)
        return cls

    return adorn


@of_managers
class IteratorProxy(BaseProxy):
    """A proxy for an iterator or generator in the server."""

    _exposed_ = ("__next__", "send", "throw", "close")

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self, *args: Any) -> Any:
        return self._callmethod("__next__", args)

    def send(self, *args: Any) -> Any:
        """Do what the generator's method does, in the server."""
        return self._callmethod("send", args)

    def throw(self, *args: Any) -> Any:
        """Do what the generator's method does, in the server."""
        return self._callmethod("throw", args)

    def close(self, *args: Any) -> Any:
        """Do what the generator's method does, in the server."""
        return self._callmethod("close", args)


@of_managers
class AcquirerProxy(BaseProxy):
    """A proxy for a lock or semaphore of `threading` in the server. A lock whose holder was killed becomes free."""

    _exposed_: tuple[str, ...] = ("acquire", "release", "locked")

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Acquire the lock in the server, and return True if that was possible.

        Args:
            blocking: whether to wait for the lock.
            timeout: the time limit in seconds; None means no limit.
        """
        return self._callmethod("acquire", (blocking,) if timeout is None else (blocking, timeout))

    def release(self) -> None:
        """Do what `threading.Lock.release` does, in the server."""
        return self._callmethod("release")

    def locked(self) -> bool:
        """Return True if the lock is held."""
        return self._callmethod("locked")

    def __enter__(self) -> bool:
        return self._callmethod("acquire")

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        return self._callmethod("release")


@of_managers
class ConditionProxy(AcquirerProxy):
    """A proxy for a `threading.Condition` in the server."""

    _exposed_ = AcquirerProxy._exposed_ + ("wait", "notify", "notify_all")

    def wait(self, timeout: float | None = None) -> bool:
        """Do what `threading.Condition.wait` does, in the server."""
        return self._callmethod("wait", (timeout,))

    def notify(self, n: int = 1) -> None:
        """Do what `threading.Condition.notify` does, in the server."""
        return self._callmethod("notify", (n,))

    def notify_all(self) -> None:
        """Do what `threading.Condition.notify_all` does, in the server."""
        return self._callmethod("notify_all")

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()``, which is called in this process, is true; return its last value."""
        return wait_for(self.wait, predicate, timeout)


@of_managers
class EventProxy(BaseProxy):
    """A proxy for a `threading.Event` in the server."""

    _exposed_ = ("is_set", "set", "clear", "wait")

    def is_set(self) -> bool:
        """Do what `threading.Event.is_set` does, in the server."""
        return self._callmethod("is_set")

    def set(self) -> None:
        """Do what `threading.Event.set` does, in the server."""
        return self._callmethod("set")

    def clear(self) -> None:
        """Do what `threading.Event.clear` does, in the server."""
        return self._callmethod("clear")

    def wait(self, timeout: float | None = None) -> bool:
        """Do what `threading.Event.wait` does, in the server."""
        return self._callmethod("wait", (timeout,))


@of_managers
class BarrierProxy(BaseProxy):
    """A proxy for a `threading.Barrier` in the server."""

    _exposed_ = ("__getattribute__", "wait", "abort", "reset")
    parties, n_waiting, broken = map(_attribute, ("parties", "n_waiting", "broken"))

    def wait(self, timeout: float | None = None) -> int:
        """Do what `threading.Barrier.wait` does, in the server."""
        return self._callmethod("wait", (timeout,))

    def abort(self) -> None:
        """Do what `threading.Barrier.abort` does, in the server."""
        return self._callmethod("abort")

    def reset(self) -> None:
        """Do what `threading.Barrier.reset` does, in the server."""
        return self._callmethod("reset")


@of_managers
class NamespaceProxy(BaseProxy):
    """A proxy for a `Namespace` in the server: reading and setting attributes happens there.

    An attribute whose name begins with an underscore belongs to the proxy itself.
    """

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
class ValueProxy(BaseProxy, Generic[Item]):
    """A proxy for a `Value` in the server: the property `value`, and `get` and `set`."""

    _exposed_ = ("get", "set")

    def get(self) -> Item:
        """Return the value."""
        return self._callmethod("get")

    def set(self, value: Item) -> Any:
        """Set the value."""
        return self._callmethod("set", (value,))

    if TYPE_CHECKING:
        value: Item
    else:
        value = property(get, set)


if TYPE_CHECKING:

    class BaseListProxy(BaseProxy, MutableSequence[Item]):
        @overload
        def __getitem__(self, i: int, /) -> Item: ...
        @overload
        def __getitem__(self, i: slice, /) -> list[Item]: ...
        def __getitem__(self, i: Any, /) -> Any: ...
        @overload
        def __setitem__(self, i: int, value: Item, /) -> None: ...
        @overload
        def __setitem__(self, i: slice, value: Iterable[Item], /) -> None: ...
        def __setitem__(self, i: Any, value: Any, /) -> None: ...
        def __delitem__(self, i: int | slice, /) -> None: ...
        def __len__(self) -> int: ...
        def insert(self, index: int, value: Item, /) -> None: ...
        def sort(self, *, key: Callable[[Item], Any] | None = None, reverse: bool = False) -> None: ...
        def copy(self) -> list[Item]: ...
        def __add__(self, value: list[Item], /) -> list[Item]: ...
        def __mul__(self, value: int, /) -> list[Item]: ...
        def __rmul__(self, value: int, /) -> list[Item]: ...
        def __imul__(self, value: int, /) -> Self: ...

else:
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
    BaseListProxy.__class_getitem__ = classmethod(GenericAlias)


@of_managers
@_in_place("__imul__")
class ListProxy(BaseListProxy[Item]):
    """A proxy for a list in the server.

    An item that is a mutable object comes as a copy: assign it again after a change, or make it through the manager.
    """

    def __iadd__(self, value: Iterable[Item]) -> Self:  # type: ignore[override]  # `+` returns a plain list
        self.extend(value)
        return self


if TYPE_CHECKING:

    class _BaseDictProxy(BaseProxy, MutableMapping[Key, Item]):
        def __getitem__(self, key: Key, /) -> Item: ...
        def __setitem__(self, key: Key, value: Item, /) -> None: ...
        def __delitem__(self, key: Key, /) -> None: ...
        def __iter__(self) -> Iterator[Key]: ...
        def __len__(self) -> int: ...
        # Copies; a dictionary returns views.
        def keys(self) -> list[Key]: ...  # type: ignore[override]
        def values(self) -> list[Item]: ...  # type: ignore[override]
        def items(self) -> list[tuple[Key, Item]]: ...  # type: ignore[override]
        def copy(self) -> dict[Key, Item]: ...
        def __ior__(self, value: Mapping[Key, Item] | Iterable[tuple[Key, Item]], /) -> Self: ...

else:
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
    _BaseDictProxy.__class_getitem__ = classmethod(GenericAlias)


@of_managers
@_in_place("__ior__")
class DictProxy(_BaseDictProxy[Key, Item]):
    """A proxy for a dict in the server. `keys`, `values` and `items` return lists.

    A value that is a mutable object comes as a copy: assign it again after a change, or make it through the manager.
    """


if TYPE_CHECKING:

    class _BaseSetProxy(BaseProxy, MutableSet[Item]):
        def __contains__(self, item: object, /) -> bool: ...
        def __iter__(self) -> Iterator[Item]: ...
        def __len__(self) -> int: ...
        def add(self, item: Item, /) -> None: ...
        def discard(self, item: Item, /) -> None: ...

else:
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
    _BaseSetProxy.__class_getitem__ = classmethod(GenericAlias)


@of_managers
@_in_place("__iand__", "__ior__", "__isub__", "__ixor__")
class SetProxy(_BaseSetProxy[Item]):
    """A proxy for a set in the server. The standard package has it from Python 3.14 on."""


MutableSequence.register(BaseListProxy)
MutableMapping.register(_BaseDictProxy)
MutableSet.register(_BaseSetProxy)

if TYPE_CHECKING:

    class ArrayProxy(BaseProxy, Generic[Item]):
        def __len__(self) -> int: ...
        @overload
        def __getitem__(self, i: int, /) -> Item: ...
        @overload
        def __getitem__(self, i: slice, /) -> Sequence[Item]: ...
        def __getitem__(self, i: Any, /) -> Any: ...
        def __setitem__(self, i: int, value: Item, /) -> None: ...

else:
    ArrayProxy = MakeProxyType("ArrayProxy", ("__len__", "__getitem__", "__setitem__"))
    ArrayProxy.__class_getitem__ = classmethod(GenericAlias)

BasePoolProxy: Any = MakeProxyType(
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
class PoolProxy(BasePoolProxy):  # type: ignore[misc]  # made at run time
    """A proxy for a pool in the server; its workers are children of the server. See `maniple.pool.Pool`."""

    def __enter__(self) -> PoolProxy:
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        self.terminate()
