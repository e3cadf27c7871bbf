"""ctypes objects in shared memory, bare (`RawValue`, `RawArray`) or wrapped with a lock (`Value`, `Array`)."""

from __future__ import annotations

import ctypes as c
from weakref import WeakKeyDictionary

from . import context, heap
from ._impl.compat import public_module
from ._maniple import Guarded, LockedField
from .context import assert_spawning, reduction
from .reduction import ForkingPickler as _StandardPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from ctypes import _CData, _SimpleCData
    from typing import Any, Literal, TypeVar, overload

    from .context import BaseContext

    Kind = TypeVar("Kind", bound=_CData)
    # The type codes, and the ctypes type of text, by the type of the value.
    Whole = Literal["b", "B", "h", "H", "i", "I", "l", "L", "q", "Q"]
    Real = Literal["f", "d"]
    Text = type[c.c_char] | Literal["c"]

_Held = public_module.TypeVar("_Held")


__all__ = ["RawValue", "RawArray", "Value", "Array", "copy", "synchronized"]

get_context = context._default_context.get_context
#: the class with which the reducer of ctypes objects is registered; a program may replace it
_ForkingPickler = getattr(reduction, "ForkingPickler", _StandardPickler)

typecode_to_type: dict[str, type] = dict(
    zip(
        "cubBhHiIlLqQfd",
        (
            c.c_char,
            c.c_wchar,
            c.c_byte,
            c.c_ubyte,
            c.c_short,
            c.c_ushort,
            c.c_int,
            c.c_uint,
            c.c_long,
            c.c_ulong,
            c.c_longlong,
            c.c_ulonglong,
            c.c_float,
            c.c_double,
        ),
    )
)


def _kind(typecode_or_type: str | type) -> Any:
    if not isinstance(typecode_or_type, str):
        return typecode_or_type
    try:
        return typecode_to_type[typecode_or_type]
    except KeyError:
        raise TypeError(f"bad typecode: {typecode_or_type!r} is not one of {''.join(typecode_to_type)}") from None


def _placed(kind: Any, memory: heap.BufferWrapper) -> Any:
    """Return a ctypes object of type `kind` at the start of `memory`; the object keeps the memory alive."""
    _ForkingPickler.register(kind, reduce_ctype)
    obj = kind.from_buffer(memory.create_memoryview())
    obj._wrapper = memory
    return obj


def _new_value(type_: type) -> Any:
    """Return a ctypes object in shared memory, not initialized."""
    return _placed(type_, heap.BufferWrapper(c.sizeof(type_)))


def _zeroed(kind: type) -> Any:
    obj = _new_value(kind)
    c.memset(c.byref(obj), 0, c.sizeof(kind))  # the block may have been used before
    return obj


def _array_of(kind: type, length: int) -> type:
    """Return the type of an array. `ctypes` names the module that first makes it; set the public module's name."""
    made: Any = kind * length  # type: ignore[operator]  # ctypes' types can be multiplied
    if getattr(made, "__module__", None) == __name__:
        made.__module__ = SynchronizedBase.__module__
    return made  # type: ignore[no-any-return]


if TYPE_CHECKING:

    @overload
    def RawValue(typecode_or_type: type[Kind], *args: Any) -> Kind: ...

    @overload
    def RawValue(typecode_or_type: str, *args: Any) -> Any: ...


def RawValue(typecode_or_type: str | type, *args: Any) -> Any:
    """Return a new ctypes object in shared memory, without a lock. The parameters are those of `maniple.RawValue`."""
    kind = _kind(typecode_or_type)
    fresh = _zeroed(kind)
    kind.__init__(fresh, *args)
    return fresh


if TYPE_CHECKING:

    @overload
    def RawArray(typecode_or_type: type[Kind], size_or_initializer: int | Iterable[Any]) -> c.Array[Kind]: ...

    @overload
    def RawArray(typecode_or_type: str, size_or_initializer: int | Iterable[Any]) -> Any: ...


def RawArray(typecode_or_type: str | type, size_or_initializer: Any) -> Any:
    """Return a new ctypes array in shared memory, without a lock. The parameters are those of `maniple.RawArray`."""
    kind = _kind(typecode_or_type)
    items = size_or_initializer
    if isinstance(items, int):
        return _zeroed(_array_of(kind, items))
    filled = _new_value(_array_of(kind, len(items)))
    filled.__init__(*items)
    return filled


def _with_lock(obj: Any, lock: Any, ctx: Any) -> Any:
    """Return `obj` itself if `lock` is False, otherwise its wrapper with `lock` (True or None: with a new RLock)."""
    if lock in (True, None):
        return synchronized(obj, None, ctx)
    if lock is not False and not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock) if lock is not False else obj


if TYPE_CHECKING:

    @overload
    def Value(
        typecode_or_type: type[Kind], *args: Any, lock: Literal[False], ctx: BaseContext | None = None
    ) -> Kind: ...

    @overload
    def Value(typecode_or_type: str, *args: Any, lock: Literal[False], ctx: BaseContext | None = None) -> Any: ...

    @overload
    def Value(
        typecode_or_type: type[_SimpleCData[_Held]], *args: Any, lock: Any = True, ctx: BaseContext | None = None
    ) -> Synchronized[_Held]: ...

    @overload
    def Value(
        typecode_or_type: Whole, *args: Any, lock: Any = True, ctx: BaseContext | None = None
    ) -> Synchronized[int]: ...

    @overload
    def Value(
        typecode_or_type: Real, *args: Any, lock: Any = True, ctx: BaseContext | None = None
    ) -> Synchronized[float]: ...

    @overload
    def Value(
        typecode_or_type: str | type[_CData], *args: Any, lock: Any = True, ctx: BaseContext | None = None
    ) -> Any: ...


def Value(typecode_or_type: str | type, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """Return a new ctypes object in shared memory, wrapped with a lock (see `Synchronized`).

    The parameters are those of `maniple.Value`, and `ctx`, the context that a new lock belongs to.
    """
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


if TYPE_CHECKING:

    @overload
    def Array(
        typecode_or_type: type[Kind],
        size_or_initializer: int | Iterable[Any],
        *,
        lock: Literal[False],
        ctx: BaseContext | None = None,
    ) -> c.Array[Kind]: ...

    @overload
    def Array(
        typecode_or_type: str,
        size_or_initializer: int | Iterable[Any],
        *,
        lock: Literal[False],
        ctx: BaseContext | None = None,
    ) -> Any: ...

    @overload
    def Array(
        typecode_or_type: Text,
        size_or_initializer: int | Iterable[Any],
        *,
        lock: Any = True,
        ctx: BaseContext | None = None,
    ) -> SynchronizedString: ...

    @overload
    def Array(
        typecode_or_type: type[_SimpleCData[_Held]],
        size_or_initializer: int | Iterable[Any],
        *,
        lock: Any = True,
        ctx: BaseContext | None = None,
    ) -> SynchronizedArray[_Held]: ...

    @overload
    def Array(
        typecode_or_type: Whole,
        size_or_initializer: int | Iterable[int],
        *,
        lock: Any = True,
        ctx: BaseContext | None = None,
    ) -> SynchronizedArray[int]: ...

    @overload
    def Array(
        typecode_or_type: Real,
        size_or_initializer: int | Iterable[float],
        *,
        lock: Any = True,
        ctx: BaseContext | None = None,
    ) -> SynchronizedArray[float]: ...

    @overload
    def Array(
        typecode_or_type: str | type[_CData],
        size_or_initializer: int | Iterable[Any],
        *,
        lock: Any = True,
        ctx: BaseContext | None = None,
    ) -> Any: ...


def Array(typecode_or_type: str | type, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None) -> Any:
    """Return a new ctypes array in shared memory, wrapped with a lock (see `SynchronizedArray`).

    The parameters are those of `maniple.Array`, and `ctx`, the context that a new lock belongs to.
    """
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def copy(obj: Kind) -> Kind:
    """Return a copy, in shared memory, of the ctypes object `obj`."""
    twin: Kind = _new_value(type(obj))
    c.memmove(c.addressof(twin), c.addressof(obj), c.sizeof(obj))
    return twin


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """Return a wrapper of the ctypes object `obj` that holds a lock during each access.

    Args:
        obj: a ctypes object in shared memory.
        lock: the lock; None makes a new `RLock`.
        ctx: the context that the new lock belongs to.
    """
    assert not isinstance(obj, SynchronizedBase), "object already synchronized"
    return _wrapper_class(type(obj))(obj, lock, ctx)


def _wrapper_class(kind: Any) -> type:
    if issubclass(kind, c._SimpleCData):
        return Synchronized
    if issubclass(kind, c.Array):
        return SynchronizedString if kind._type_ is c.c_char else SynchronizedArray
    made = class_cache.get(kind)
    if made is None:
        fields: dict[str, Any] = {
            name: make_property(name) for cls in reversed(kind.__mro__) for name, *_ in cls.__dict__.get("_fields_", ())
        }
        fields.setdefault("__module__", SynchronizedBase.__module__)
        made = class_cache[kind] = type("Synchronized" + kind.__name__, (SynchronizedBase,), fields)
    return made


def reduce_ctype(obj: Any) -> tuple[Any, ...]:
    """Return the reduced form of the ctypes object `obj` in shared memory: its type and its memory."""
    assert_spawning(obj)
    # The receiver makes an array's type again, because no module has it under a name.
    kind, length = (obj._type_, obj._length_) if isinstance(obj, c.Array) else (type(obj), None)
    return rebuild_ctype, (kind, obj._wrapper, length)


def rebuild_ctype(type_: type, wrapper: heap.BufferWrapper, length: int | None) -> Any:
    """Unpickle what `reduce_ctype` returned; `length` is None for an object that is not an array."""
    return _placed(type_ if length is None else _array_of(type_, length), wrapper)


def make_property(name: str) -> Any:
    """Return a property for the attribute `name` of a wrapped object; each access holds the lock."""
    return prop_cache.setdefault(name, LockedField(name))


#: the source of such a property, for programs that format it (with the attribute's name seven times)
template = """
def get_%s(wrapper):
    with wrapper:
        return wrapper._obj.%s
def set_%s(wrapper, value):
    with wrapper:
        wrapper._obj.%s = value
%s = property(get_%s, set_%s)
"""

prop_cache: dict[str, LockedField] = {}
#: ctypes structure -> its wrapper class
class_cache: WeakKeyDictionary[type, type] = WeakKeyDictionary()


class SynchronizedBase(Guarded, public_module.Generic[_Held]):
    """A ctypes object in shared memory and its lock.

    ``with wrapper:`` holds the lock over several steps. `acquire` and `release` are those of the lock, `get_lock` returns the
    lock, and `get_obj` returns the ctypes object itself.
    """

    def __init__(self, obj: Any, lock: Any = None, ctx: Any = None) -> None:
        if lock is None:
            lock = (ctx or get_context()).RLock()
        super().__init__(obj, lock)
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release

    def __reduce__(self) -> tuple[Any, ...]:
        assert_spawning(self)
        return synchronized, (self.get_obj(), self.get_lock())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} wrapper for {self._obj}>"


class Synchronized(SynchronizedBase[_Held]):
    """A number or character in shared memory: each access to the attribute `value` holds the lock."""

    value: _Held = make_property("value")


class SynchronizedArray(SynchronizedBase[_Held]):
    """An array in shared memory: each access by index or slice holds the lock."""

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, i: int) -> _Held: ...
        @overload
        def __getitem__(self, i: slice) -> list[_Held]: ...
        def __getitem__(self, i: Any) -> Any: ...

        @overload
        def __setitem__(self, i: int, value: _Held) -> None: ...
        @overload
        def __setitem__(self, i: slice, value: Iterable[_Held]) -> None: ...
        def __setitem__(self, i: Any, value: Any) -> None: ...

    else:
        __getitem__, __setitem__ = Guarded._get_item, Guarded._set_item

    def __len__(self) -> int:
        return len(self._obj)

    def __getslice__(self, start: int, stop: int) -> Any:
        return self[start:stop]

    def __setslice__(self, start: int, stop: int, values: Any) -> None:
        self[start:stop] = values


class SynchronizedString(SynchronizedArray[bytes]):
    """An array of bytes in shared memory.

    Attributes:
        value: the bytes before the first NUL.
        raw: all bytes.
    """

    value: bytes = make_property("value")
    raw: bytes = make_property("raw")


public_module.finish(globals())
