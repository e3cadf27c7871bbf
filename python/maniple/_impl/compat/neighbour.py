"""Gets along with the standard package where a program has loaded both.

An object of the standard package's, such as the queue that `concurrent.futures` makes for whatever context it is given, may
go to a child of ours: as an argument, or in the memory that a fork copies.  It asks its own package whether a child is being
started, and relies on it for what is to be done in a forked child and at a child's end.  Nothing here loads that package.
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
    """The standard package's module of this name if it is there to its last line, and is not one of ours by another name."""
    module = sys.modules.get(f"multiprocessing.{name}")
    if module is None or module is sys.modules.get(f"{PACKAGE}.{name}"):
        return None
    return None if getattr(module.__spec__, "_initializing", False) else module


def spawning(popen: Any) -> None:
    """Say over there, too, for which Popen this thread pickles; None: for none."""
    theirs = _loaded("context")
    if theirs is None:
        return
    theirs.set_spawning_popen(popen)
    reducers = getattr(getattr(_loaded("reduction"), "ForkingPickler", None), "_extra_reducers", {})
    ours = reduction._standard._extra_reducers
    for kind in reducers.keys() - ours.keys():
        reduction.register(kind, reducers[kind])


def is_there() -> bool:
    """Tell whether the standard package may have something to do at this process's end."""
    return _loaded("util") is not None


def after_fork() -> None:
    """In a forked child: do there what is done here."""
    if (theirs := _loaded("util")) is not None:
        theirs._finalizer_registry.clear()
        theirs._run_after_forkers()


def at_exit() -> None:
    """At the end of a forked child: flush their queues."""
    if (theirs := _loaded("util")) is not None:
        theirs._run_finalizers()
