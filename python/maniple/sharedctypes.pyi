# The types of `sharedctypes`: a type code or a ctypes type says what a shared object holds.

import ctypes
from collections.abc import Callable, Iterable
from ctypes import _CData, _SimpleCData
from types import TracebackType
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

from .context import BaseContext

__all__ = ["RawValue", "RawArray", "Value", "Array", "copy", "synchronized"]

_Held = TypeVar("_Held")
_Kind = TypeVar("_Kind", bound=_CData)

_Whole: TypeAlias = Literal["b", "B", "h", "H", "i", "I", "l", "L", "q", "Q"]
_Real: TypeAlias = Literal["f", "d"]
_Locked: TypeAlias = Any  # True, or a lock to be used

@overload
def RawValue(typecode_or_type: type[_Kind], *args: Any) -> _Kind: ...
@overload
def RawValue(typecode_or_type: str, *args: Any) -> Any: ...
@overload
def RawArray(typecode_or_type: type[_Kind], size_or_initializer: int | Iterable[Any]) -> ctypes.Array[_Kind]: ...
@overload
def RawArray(typecode_or_type: str, size_or_initializer: int | Iterable[Any]) -> Any: ...
@overload
def Value(typecode_or_type: type[_Kind], *args: Any, lock: Literal[False], ctx: BaseContext | None = None) -> _Kind: ...
@overload
def Value(typecode_or_type: str, *args: Any, lock: Literal[False], ctx: BaseContext | None = None) -> Any: ...
@overload
def Value(
    typecode_or_type: type[_SimpleCData[_Held]], *args: Any, lock: _Locked = True, ctx: BaseContext | None = None
) -> Synchronized[_Held]: ...
@overload
def Value(
    typecode_or_type: _Whole, *args: Any, lock: _Locked = True, ctx: BaseContext | None = None
) -> Synchronized[int]: ...
@overload
def Value(
    typecode_or_type: _Real, *args: Any, lock: _Locked = True, ctx: BaseContext | None = None
) -> Synchronized[float]: ...
@overload
def Value(
    typecode_or_type: str | type[_CData], *args: Any, lock: Any = True, ctx: BaseContext | None = None
) -> Any: ...
@overload
def Array(
    typecode_or_type: type[_Kind],
    size_or_initializer: int | Iterable[Any],
    *,
    lock: Literal[False],
    ctx: BaseContext | None = None,
) -> ctypes.Array[_Kind]: ...
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
    typecode_or_type: type[ctypes.c_char] | Literal["c"],
    size_or_initializer: int | Iterable[Any],
    *,
    lock: _Locked = True,
    ctx: BaseContext | None = None,
) -> SynchronizedString: ...
@overload
def Array(
    typecode_or_type: type[_SimpleCData[_Held]],
    size_or_initializer: int | Iterable[Any],
    *,
    lock: _Locked = True,
    ctx: BaseContext | None = None,
) -> SynchronizedArray[_Held]: ...
@overload
def Array(
    typecode_or_type: _Whole,
    size_or_initializer: int | Iterable[int],
    *,
    lock: _Locked = True,
    ctx: BaseContext | None = None,
) -> SynchronizedArray[int]: ...
@overload
def Array(
    typecode_or_type: _Real,
    size_or_initializer: int | Iterable[float],
    *,
    lock: _Locked = True,
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
def copy(obj: _Kind) -> _Kind: ...
def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any: ...

class SynchronizedBase:
    acquire: Callable[..., bool]
    release: Callable[[], None]
    def __init__(self, obj: Any, lock: Any = None, ctx: BaseContext | None = None) -> None: ...
    def get_obj(self) -> Any: ...
    def get_lock(self) -> Any: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

class Synchronized(SynchronizedBase, Generic[_Held]):
    value: _Held

class SynchronizedArray(SynchronizedBase, Generic[_Held]):
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, i: int) -> _Held: ...
    @overload
    def __getitem__(self, i: slice) -> list[_Held]: ...
    @overload
    def __setitem__(self, i: int, value: _Held) -> None: ...
    @overload
    def __setitem__(self, i: slice, value: Iterable[_Held]) -> None: ...

class SynchronizedString(SynchronizedArray[bytes]):
    value: bytes
    raw: bytes

template: str
