"""Support for libraries (gevent, eventlet) that replace threads by greenlets.

Greenlets share one thread, and each has to yield to the others.  Most waits of this package are in native code, which does not
yield.  So threads of this package that wait for others are threads of the operating system, or wait in short intervals.
"""

from __future__ import annotations

import _thread
import select
import threading
from collections.abc import Callable
from types import BuiltinFunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SelectPoller", "start_thread", "threads_are_real"]


def threads_are_real() -> bool:
    """Return whether `threading` starts threads of the operating system."""
    return isinstance(_thread.start_new_thread, BuiltinFunctionType)


def _original() -> Any:
    """Return a new instance of the module `_thread`, in which no function is replaced."""
    import _imp
    from importlib.machinery import BuiltinImporter, ModuleSpec

    loader: Any = BuiltinImporter
    module = _imp.create_builtin(ModuleSpec("_thread", loader))
    _imp.exec_builtin(module)
    return module


def start_thread(target: Callable[..., object], *args: object) -> None:
    """Call ``target`` in a daemonic thread of the operating system, also if `threading` starts greenlets."""
    if threads_are_real():
        from ..sync.thread_start import start_assured

        start_assured(threading.Thread(target=target, args=args, daemon=True))
    else:
        _original().start_new_thread(target, args)


class SelectPoller:
    """A substitute for `select.poll`, which eventlet removes. It waits in `select.select`, which yields to other greenlets."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def register(self, descriptor: int, events: int) -> None:
        """Wait for the descriptor to become readable; ``events`` has no effect."""
        self._descriptors.append(descriptor)

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        """Return the readable descriptors, each with ``POLLIN``."""
        ready, _, _ = select.select(self._descriptors, (), (), None if milliseconds is None else milliseconds / 1000)
        return [(descriptor, select.POLLIN) for descriptor in ready]
