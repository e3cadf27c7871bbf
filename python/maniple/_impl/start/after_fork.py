"""The first steps of a forked child: this package's own, and the functions of `register_after_fork`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import count
from weakref import WeakValueDictionary

from ... import process
from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["first_in_child", "forked_by_program", "register_after_fork"]

_afterfork_registry: WeakValueDictionary[tuple[int, int, Callable[[Any], object]], Any] = WeakValueDictionary()
_afterfork_counter = count()


def register_after_fork(obj: Any, func: Callable[[Any], object]) -> None:
    """Call ``func(obj)`` in each forked child, in the order of registration. The registration does not keep `obj` alive."""
    _afterfork_registry[next(_afterfork_counter), id(obj), func] = obj


def _is_ours(package: object) -> bool:
    return isinstance(package, str) and f"{package}.".startswith(f"{PACKAGE}.")


def _run_after_forkers(ours_only: bool = False) -> None:
    if not _afterfork_registry.data:  # type: ignore[attr-defined]
        return
    due = sorted(_afterfork_registry.items(), key=lambda entry: entry[0][:2])
    for (_, _, func), obj in due:
        if ours_only and not _is_ours(getattr(func, "__globals__", {}).get("__package__")):
            continue
        try:
            func(obj)
        except Exception as exc:
            from ... import util

            util.info("after forker raised exception %s", exc)


# The functions that every forked child calls first, also a child of the program's own `os.fork`.
first_in_child: list[Callable[[], object]] = []
#: whether the registered functions are called in a child that this package did not start
forked_by_program = False


def _in_forked_child() -> None:
    """Release the objects that a child must not share with its parent; every forked child calls it.

    Of the functions that were registered by `register_after_fork`, it calls only this package's: the program's functions expect a
    process that this package started.  There `_begin_afresh` calls all of them later.
    """
    for act in first_in_child:
        act()
    tracker = sys.modules.get(f"{PACKAGE}.resource_tracker")
    if tracker is not None and getattr(tracker._fork_intent, "share_tracker", False):
        return
    process._children.clear()  # children of the parent: this process neither joins nor terminates them
    process.current_process()._config.pop("tempdir", None)  # the parent removes it at its own end
    global forked_by_program
    forked_by_program = True
    try:
        _run_after_forkers(ours_only=True)
    finally:
        forked_by_program = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
