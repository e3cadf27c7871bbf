"""The lifetime of mappings: a mapping stays as long as views of it exist."""

from __future__ import annotations

import mmap
from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["is_exported", "pin"]

#: mappings that stay until a released view of them is collected: id of the weak reference -> (reference, mapping)
_pinned: dict[int, tuple[ref[memoryview], mmap.mmap]] = {}


def pin(view: memoryview, memory: mmap.mmap) -> None:
    """Keep ``memory`` mapped as long as the object ``view`` exists.

    Objects of native code may hold the view and point into the memory without counting as an export.
    """

    def let_go(dead: ref[memoryview], pinned: dict[int, Any] = _pinned) -> None:
        pinned.pop(id(dead), None)

    guard = ref(view, let_go)
    _pinned[id(guard)] = guard, memory


def is_exported(memory: mmap.mmap) -> bool:
    """Return whether views of the memory exist that count as exports."""
    try:
        memory.resize(-1)  # fails in any case, but with a BufferError if there are exports
    except BufferError:
        return True
    except (ValueError, OSError, SystemError):
        pass
    return False
