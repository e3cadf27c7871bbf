"""Imports that a signal does not make fail while a child starts.

The interpreter lists the folders of the search path while it looks for a module.  If a signal interrupts the listing, which happens on
network file systems, the import fails with `InterruptedError`: of all calls of an import, the interpreter does not repeat this one.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SteadyFinder"]

#: the number of calls of a finder, in case it raises the error for another reason
_MOST = 100


class SteadyFinder:
    """Asks the interpreter's `PathFinder` again after an interruption. It is in effect in a ``with`` block."""

    def __init__(self) -> None:
        self._asked: Any = vars(sys.modules["_frozen_importlib_external"])["PathFinder"]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec of the module, or None."""
        for _ in range(_MOST):
            try:
                return self._asked.find_spec(name, path, target)
            except InterruptedError:
                pass
        return None  # the next finder is the same `PathFinder`, and raises the error

    def __enter__(self) -> None:
        finders: list[Any] = sys.meta_path
        if self._asked in finders:
            finders.insert(finders.index(self._asked), self)

    def __exit__(self, *exc_info: object) -> None:
        finders: list[Any] = sys.meta_path
        if self in finders:
            finders.remove(self)
