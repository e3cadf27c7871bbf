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
            if hasattr(module, "__path__"):
                _again.names.add(name)
    if _again.names and _again not in sys.meta_path:
        sys.meta_path.insert(0, _again)


class _Again:
    """Finds packages that were forgotten: their submodules that were whole stay, and are the package's attributes again from the beginning.

    Python binds a submodule to its package only when it loads the submodule.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in self.names:
            return None
        self.names.discard(name)
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is not self and find is not None and (spec := find(name, path, target)) is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Rebinding(spec.loader)
                if not self.names:
                    sys.meta_path.remove(self)
                return spec
        return None


class _Rebinding:
    """A package's loader, once."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        prefix = f"{module.__name__}."
        for name, loaded in list(sys.modules.items()):
            rest = name.removeprefix(prefix)
            if name.startswith(prefix) and "." not in rest and loaded is not None:
                setattr(module, rest, loaded)
        self._loader.exec_module(module)


_again = _Again()


# Before all hooks that may import something.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
