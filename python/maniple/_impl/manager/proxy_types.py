"""What the types of `SyncManager` look like from outside: a class of proxies for each."""

# What a proxy returns comes from the server as `Any`; its type is that of the method there.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping, MutableSequence, MutableSet
from types import GenericAlias

from ..compat.late_annotations import Generic, TypeVar
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
    """A property that reads an attribute of the shared object."""
    return property(lambda self: self._callmethod("__getattribute__", (name,)))


def _in_place(*names: str) -> Callable[[Kind], Kind]:
    """Class decorator: operators that change the shared object, and whose result is the proxy."""

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

    _exposed_: tuple[str, ...] = ("acquire", "release", "locked")

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
        return wait_for(self.wait, predicate, timeout)


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
class ValueProxy(BaseProxy, Generic[Item]):
    """A `Value` in the server."""

    _exposed_ = ("get", "set")

    def get(self) -> Item:
        """The value."""
        return self._callmethod("get")

    def set(self, value: Item) -> Any:
        """Change the value."""
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
    """A list in the server."""

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
        # Copies, where those of a dictionary are views.
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
    """A dict in the server."""


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
    """A set in the server."""


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
    """A pool in the server."""

    def __enter__(self) -> PoolProxy:
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        self.terminate()
