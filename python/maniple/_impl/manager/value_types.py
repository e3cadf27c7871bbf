"""The types of `SyncManager` that only managers have: `Namespace`, `Value` and `Array`, and reducers that managers register."""

from __future__ import annotations

import array
from collections.abc import Iterable

from ... import reduction
from .rpc import of_managers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Array", "Namespace", "Value", "rebuild_as_list", "reduce_array"]


@of_managers
def reduce_array(a: array.array[Any]) -> tuple[Any, ...]:
    """Return the reduced form of an `array.array`: its type code and its bytes."""
    return array.array, (a.typecode, a.tobytes())


@of_managers
def rebuild_as_list(obj: Iterable[Any]) -> tuple[Any, ...]:
    """Return the reduced form of a view of a dict: a list."""
    return list, (list(obj),)


reduction.register(array.array, reduce_array)
for _view in ({}.items(), {}.keys(), {}.values()):  # type: ignore[var-annotated]
    reduction.register(type(_view), rebuild_as_list)
del _view


@of_managers
class Namespace:
    """An object with the attributes that are set on it."""

    def __init__(self, /, **kwds: Any) -> None:
        vars(self).update(kwds)

    if TYPE_CHECKING:  # an attribute of any name

        def __getattr__(self, name: str, /) -> Any: ...
        def __setattr__(self, name: str, value: Any, /) -> None: ...

    def __repr__(self) -> str:
        shown = sorted(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(shown)})"


@of_managers
class Value:
    """An object with one attribute, `value`. `typecode` and `lock` are accepted, and have no effect."""

    def __init__(self, typecode: Any, value: Any, lock: bool = True) -> None:
        self._typecode, self._value = typecode, value

    def get(self) -> Any:
        """Return the value."""
        return self._value

    def set(self, value: Any) -> None:
        """Set the value."""
        self._value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._typecode!r}, {self._value!r})"

    value = property(get, set)


@of_managers
def Array(typecode: str, sequence: Iterable[Any], lock: bool = True) -> array.array[Any]:
    """Return an `array.array`. `lock` is accepted, and has no effect."""
    return array.array(typecode, sequence)
