"""Modules that another thread of the parent was importing at the moment of a fork.

The child has them half, and the lock under which they are imported has a holder that does not exist there: whatever imports such a
module in the child would wait for ever.  So the child forgets them, and imports them anew when they are wanted.  What the forking
thread itself was importing stays: it is this very thread that goes on in the child.  That is so in each forked child, whether this package
or the program has called `os.fork`.

A pool may be made in a module that is being imported.  Its first workers are forked by the thread that imports, those that replace
them by a thread of the pool's.  Both are to find the module as far as it has come: importing it anew would make the pool once more.
So the pool's thread says, by `keep`, what its maker was importing.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["keep", "of_this_thread"]

#: name -> weak reference to the lock under which the module is imported; empty while nothing is
_locks: dict[str, Any] = vars(sys.modules["_frozen_importlib"])["_module_locks"]


#: thread -> what stays in a child that it forks, as far as it is there
_kept: dict[int, frozenset[str]] = {}


def of_this_thread() -> frozenset[str]:
    """The names of the modules that the calling thread is importing."""
    if not _locks:
        return frozenset()
    me = get_ident()
    held = ((name, lock()) for name, lock in list(_locks.items()))
    return frozenset(name for name, lock in held if lock is not None and lock.owner == me)


def keep(names: frozenset[str]) -> None:
    """From now on, leave these modules as they are in children that the calling thread forks."""
    if names:
        _kept[get_ident()] = names
    else:
        _kept.pop(get_ident(), None)


def _forget() -> None:
    """In a child that was just forked: forget the modules that are there half."""
    if not _locks:
        return
    me = get_ident()
    kept = _kept.get(me, ())
    for name, held in list(_locks.items()):
        lock = held()
        if lock is None or lock.owner == me:
            continue
        _locks.pop(name, None)
        module = sys.modules.get(name)
        if (
            name not in kept
            and lock.owner is not None
            and getattr(getattr(module, "__spec__", None), "_initializing", False)
        ):
            del sys.modules[name]


# Before all hooks that may import something.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
