"""Modules that another thread of the parent was importing at the moment of a fork.

The child has them half, and the lock under which they are imported has a holder that does not exist there: whatever imports such a
module in the child would wait for ever.  So the child forgets them, and imports them anew when they are wanted.  What the forking
thread itself was importing stays: it is this very thread that goes on in the child.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from importlib import _bootstrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["forget"]

#: name -> weak reference to the lock under which the module is imported; empty while nothing is
_locks: dict[str, Any] = vars(_bootstrap)["_module_locks"]


def forget() -> None:
    """In a child that was just forked: forget the modules that are there half."""
    if not _locks:
        return
    me = get_ident()
    for name, held in list(_locks.items()):
        lock = held()
        if lock is None or lock.owner == me:
            continue
        _locks.pop(name, None)
        module = sys.modules.get(name)
        if lock.owner is not None and getattr(getattr(module, "__spec__", None), "_initializing", False):
            del sys.modules[name]
