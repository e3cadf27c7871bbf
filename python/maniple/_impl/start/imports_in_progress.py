"""Modules that another thread of the parent was importing at the moment of a fork.

The child has a part of such a module, and the holder of its import lock does not exist there: an import of the module would wait
forever.  So every forked child removes these modules from `sys.modules`, and imports them again when they are needed, also if the
program called `os.fork` itself.  Modules that the forking thread was importing stay: this thread continues in the child.

A pool may be made in a module that is being imported. The importing thread forks the first workers, and a thread of the
pool forks their replacements. Both kinds of workers need the module as far as it is imported: importing it again would
make the pool again. So the pool's thread passes the modules that the pool's maker was importing to `keep`.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["keep", "of_this_thread"]

#: name -> weak reference to the import lock of the module; empty while no module is being imported
_locks: dict[str, Any] = vars(sys.modules["_frozen_importlib"])["_module_locks"]


#: thread -> names of the modules that stay in children which the thread forks
_kept: dict[int, frozenset[str]] = {}


def of_this_thread() -> frozenset[str]:
    """Return the names of the modules that the calling thread is importing."""
    if not _locks:
        return frozenset()
    me = get_ident()
    held = ((name, lock()) for name, lock in list(_locks.items()))
    return frozenset(name for name, lock in held if lock is not None and lock.owner == me)


def keep(names: frozenset[str]) -> None:
    """From now on, keep these modules in children that the calling thread forks."""
    if names:
        _kept[get_ident()] = names
    else:
        _kept.pop(get_ident(), None)


def _forget() -> None:
    """In a forked child, remove the partly imported modules of other threads from `sys.modules`."""
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
    """Finds packages that `_forget` removed, and binds their fully imported submodules to the new package object.

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
    """The loader of a package, for one load that binds the submodules first."""

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


# Registered before all hooks that may import a module.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
