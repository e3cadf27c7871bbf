"""Gets along with libraries (gevent, eventlet) that put greenlets in the place of threads.

Greenlets take turns in one thread, and each has to give way by itself.  What waits in native code, as most of this package
does, gives way to none; so a thread of ours that waits for others has to be a thread of the system's, or to wait in small pieces.
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
    """Tell whether what is started as a thread is one."""
    return isinstance(_thread.start_new_thread, BuiltinFunctionType)


def _original() -> Any:
    """The module `_thread` once more, as the interpreter makes it: nothing in it is replaced."""
    import _imp
    from importlib.machinery import BuiltinImporter, ModuleSpec

    loader: Any = BuiltinImporter
    module = _imp.create_builtin(ModuleSpec("_thread", loader))
    _imp.exec_builtin(module)
    return module


def start_thread(target: Callable[..., object], *args: object) -> None:
    """Call ``target`` in a daemonic thread of the system's, in any case."""
    if threads_are_real():
        threading.Thread(target=target, args=args, daemon=True).start()
    else:
        _original().start_new_thread(target, args)


class SelectPoller:
    """What a program needs of `select.poll` where eventlet has taken it away: it gives way in `select.select`."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def register(self, descriptor: int, events: int) -> None:
        """Wait for the descriptor to become readable, whatever ``events`` are."""
        self._descriptors.append(descriptor)

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        """Return the readable descriptors, each with ``POLLIN``."""
        ready, _, _ = select.select(self._descriptors, (), (), None if milliseconds is None else milliseconds / 1000)
        return [(descriptor, select.POLLIN) for descriptor in ready]
