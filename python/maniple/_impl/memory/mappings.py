"""The lifetime of mappings: a mapping stays as long as views of it exist."""

from __future__ import annotations

import mmap
import sys
from sys import getrefcount
from weakref import ref

from ..._maniple import stdio_is_open
from ..start.descriptors import MAP_ALONE, FilledStdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["is_exported", "is_held_elsewhere", "map_file", "map_named", "pin"]

#: mappings that stay until a released view of them is collected: id of the weak reference -> (reference, mapping)
_pinned: dict[int, tuple[ref[memoryview], mmap.mmap]] = {}


def map_file(fd: int, size: int) -> Any:
    """Return a mapping of the first `size` bytes of a descriptor's file, as a `mmap.mmap`; on Windows, of a handle's memory.

    Before Python 3.13, a mapping duplicates the descriptor. The duplicate must not be a standard stream: what the program prints would go to
    the file.
    """
    if sys.platform == "win32":
        from ..._maniple import Mapped

        return Mapped(fd, size)
    if MAP_ALONE or stdio_is_open():
        return mmap.mmap(fd, size, **MAP_ALONE)
    with FilledStdio():
        return mmap.mmap(fd, size)


def map_named(name: str, size: int) -> mmap.mmap:
    """Return a mapping of `size` bytes of the memory that Windows has under a name."""
    options: dict[str, Any] = {"tagname": name}
    return mmap.mmap(-1, size, **options)


def pin(view: memoryview, memory: mmap.mmap) -> None:
    """Keep ``memory`` mapped as long as the object ``view`` exists.

    Objects of native code may hold the view and point into the memory without counting as an export.
    """

    def let_go(dead: ref[memoryview], pinned: dict[int, Any] = _pinned) -> None:
        pinned.pop(id(dead), None)

    guard = ref(view, let_go)
    _pinned[id(guard)] = guard, memory


def _references_of_a_local() -> int:
    only_here = memoryview(b"")
    return getrefcount(only_here)


# The number that `getrefcount` returns of an object that one local variable of its caller refers to; it depends on the interpreter.
_ONE = _references_of_a_local()


def is_held_elsewhere(obj: object, references: int) -> bool:
    """Return whether there are more references to `obj` than those so many of the caller. The check is fast, and another thread may make
    it return True.

    An object that exports memory is referred to by each view of the memory, and so is a view by each object that holds it.
    """
    # The parameter is one more local variable.
    return getrefcount(obj) > _ONE + references


def is_exported(memory: mmap.mmap) -> bool:
    """Return whether views of the memory exist that count as exports."""
    try:
        memory.resize(-1)  # fails in any case, but with a BufferError if there are exports
    except BufferError:
        return True
    except (ValueError, OSError, SystemError):
        pass
    return False
