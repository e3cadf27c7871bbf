"""Coexistence with the standard package in a program that imports both.

Objects of the standard package, such as the queue that `concurrent.futures` makes for every context, may go to a child of this
package, as an argument or by a fork.  They check in their own package whether a child is being started, and they need its hooks
in a forked child and at a child's end.  This module does not import the standard package.
"""

from __future__ import annotations

import sys
from types import ModuleType

from ... import reduction
from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["after_fork", "at_exit", "is_there", "spawning"]


def _loaded(name: str) -> ModuleType | None:
    """Return the standard package's module of this name if it is fully imported, and is not a module of this package."""
    module = sys.modules.get(f"multiprocessing.{name}")
    if module is None or module is sys.modules.get(f"{PACKAGE}.{name}"):
        return None
    return None if getattr(module.__spec__, "_initializing", False) else module


def spawning(popen: Any) -> None:
    """Set the Popen for which this thread pickles in the standard package, too; None means that it pickles no child."""
    theirs = _loaded("context")
    if theirs is None:
        return
    theirs.set_spawning_popen(popen)
    reducers = getattr(getattr(_loaded("reduction"), "ForkingPickler", None), "_extra_reducers", {})
    ours = reduction._standard._extra_reducers
    for kind in reducers.keys() - ours.keys():
        reduction.register(kind, reducers[kind])


def is_there() -> bool:
    """Return whether the standard package is loaded, and may have work to do at the end of this process."""
    return _loaded("util") is not None


def after_fork() -> None:
    """In a forked child, run the hooks of the standard package."""
    if (theirs := _loaded("util")) is not None:
        theirs._finalizer_registry.clear()
        theirs._run_after_forkers()


def at_exit() -> None:
    """At the end of a forked child, run the finalizers of the standard package, which flush its queues."""
    if (theirs := _loaded("util")) is not None:
        theirs._run_finalizers()
