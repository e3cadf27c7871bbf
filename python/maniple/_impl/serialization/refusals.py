"""The objects that are never sent by value, and the objects of which the reader uses its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CellType, FunctionType, MethodType

from ... import context, reduction
from .. import PACKAGE
from .received import KeyedValue, fill_cell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Stream",
    "leave_out",
    "no_descriptors",
    "reduce_cell",
    "referred_to",
    "refuse_file",
    "refuse_view",
    "refuse_what_is_handed_over",
]


class Stream:
    """Replaces a standard stream that a function refers to: it is unpickled as the reader's stream."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> Any:
        return getattr, (sys, self._name)


def referred_to(value: Any) -> Any:
    """Return the object to pickle for an object that a function refers to by a global, a default or its closure."""
    for name in ("stdin", "stdout", "stderr"):
        if value is getattr(sys, name) and value is not None:
            return Stream(name)
    return value


def refuse_file(file: Any) -> Any:
    raise TypeError(
        f"cannot pickle {type(file).__name__!r} object: an open file cannot be sent to another process; open it there by its name"
    )


def refuse_view(view: memoryview) -> Any:
    raise TypeError("cannot pickle 'memoryview' object: send bytes(...) of it")


def reduce_cell(cell: CellType) -> Any:
    try:
        content = cell.cell_contents
    except ValueError:  # not bound yet
        return CellType, ()
    return CellType, (), (referred_to(content),), None, None, fill_cell


def refuse_what_is_handed_over(obj: Any) -> None:
    """Raise TypeError for an object that may go to only one process at a time: a lock, a connection, or another object with a descriptor."""
    kind = type(obj)
    package, _, _ = kind.__module__.partition(".")
    if package in (PACKAGE, "multiprocessing") or kind in reduction._standard._extra_reducers:
        if not issubclass(kind, (type, FunctionType, MethodType, KeyedValue, Stream)):
            raise TypeError(f"{kind.__name__!r} object can be sent to one process at a time")


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Discard the descriptors that pickling in the block adds for a child that is being started; the pickle itself is discarded."""
    noted: list[int] = getattr(context.get_spawning_popen(), "_fds", [])
    before = len(noted)
    try:
        yield
    finally:
        del noted[before:]


def leave_out(buffer: Any) -> bool:
    """Drop a large buffer: a `buffer_callback` for checks whether a value can be pickled."""
    return False
