"""Modules of this package that a thread of the parent was importing at the moment of a fork.

The child has them half, and the lock under which they are imported has a holder that does not exist there: whoever wants such a
module in the child would wait for ever.  So the child forgets them, and imports them anew when they are wanted.
"""

from __future__ import annotations

import sys
import threading
from importlib import _bootstrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["forget", "look"]

#: how many modules there were when none was found half
_whole = -1
_PREFIXES = f"{__package__}.", "multiprocessing."


def _half_imported() -> list[str]:
    names = [name for name in list(sys.modules) if name.startswith(_PREFIXES)]
    return [name for name in names if getattr(getattr(sys.modules[name], "__spec__", None), "_initializing", False)]


def look() -> int:
    """What `forget` has to be told, found out just before the fork: 0 if it has nothing to do.

    A program with one thread imports nothing while it forks.  Else a child has to look for itself, unless no import was under way
    and none has begun since.
    """
    global _whole
    threads: Any = threading
    if len(threads._active) < 2:
        return 0
    loaded = len(sys.modules)
    if loaded != _whole:
        if _half_imported():
            return -1
        _whole = loaded
    return loaded


def forget(loaded: int) -> None:
    """In the child: forget the modules that are there half."""
    if loaded in (0, len(sys.modules)):
        return
    for name in _half_imported():
        del sys.modules[name]
        vars(_bootstrap)["_module_locks"].pop(name, None)  # under which it was being imported
