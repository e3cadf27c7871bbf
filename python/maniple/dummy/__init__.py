"""The interface of the package for threads: nothing is pickled, and all objects are shared."""

from __future__ import annotations

import array
import queue
import sys
from collections.abc import Callable, Iterable, Mapping
from threading import Barrier, BoundedSemaphore, Condition, Event, Lock, RLock, Semaphore, Thread, current_thread
from weakref import WeakKeyDictionary

from .._impl.compat import public_module
from .._impl.sync.thread_start import start_steadily
from ..process import _NO_KWARGS
from . import connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "Process",
    "current_process",
    "active_children",
    "freeze_support",
    "Lock",
    "RLock",
    "Semaphore",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Barrier",
    "Queue",
    "Manager",
    "Pipe",
    "Pool",
    "JoinableQueue",
]

Pipe, Queue, JoinableQueue = connection.Pipe, queue.Queue, queue.Queue
current_process: Callable[[], Thread] = current_thread
# The "manager" of threads makes the objects themselves, not proxies.
dict = dict
list = list


class DummyProcess(Thread):
    """A thread with the interface of a `Process`."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = _NO_KWARGS,
    ) -> None:
        Thread.__init__(self, group, target, name, args, {**(kwargs or {})})
        self._pid, self._start_called = None, False
        self._children: WeakKeyDictionary[DummyProcess, None] = WeakKeyDictionary()
        self._parent: Thread = current_thread()

    def start(self) -> None:
        """Start the thread. Only the thread that made the object may start it."""
        starter, maker = current_thread(), self._parent
        if starter is not maker:
            raise RuntimeError(f"{maker!r} made this process object, so only it may start it, not {starter!r}")
        self._start_called = True
        siblings = getattr(maker, "_children", None)
        if siblings is not None:
            siblings[self] = None
        start_steadily(super())

    @property
    def exitcode(self) -> int | None:
        """0 if the thread has ended, else None."""
        ended = self._start_called and not self.is_alive()
        return 0 if ended else None


Process = DummyProcess
# `active_children` also reads this attribute of the main thread.
vars(current_thread())["_children"] = WeakKeyDictionary()


def active_children() -> list[DummyProcess]:
    """Return a list of the living children of the current thread."""
    children: WeakKeyDictionary[DummyProcess, None] = vars(current_thread())["_children"]
    for child in [*children]:
        if not child.is_alive():
            children.pop(child, None)
    return [*children]


def freeze_support() -> None:
    """Do nothing."""


class Namespace:
    """An object with the attributes that are set on it."""

    def __init__(self, /, **kwds: Any) -> None:
        vars(self).update(kwds)

    def __repr__(self) -> str:
        shown = sorted(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({', '.join(shown)})"


class Value:
    """An object with one attribute, `value`. `typecode` and `lock` are accepted, and have no effect."""

    def __init__(self, typecode: Any, value: Any, lock: Any = True) -> None:
        self._typecode, self._value = typecode, value

    def _set(self, value: Any) -> None:
        self._value = value

    value = property(lambda self: self._value, _set, doc="The value.")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._typecode!r}, {self._value!r})>"


def Array(typecode: str, sequence: Iterable[Any], lock: Any = True) -> array.array[Any]:
    """Return an `array.array`. `lock` is accepted, and has no effect."""
    return array.array(typecode, sequence)


def Manager() -> Any:
    """Return this module, which has the methods of a manager."""
    return sys.modules[__name__]


def shutdown() -> None:
    """Do nothing."""


def Pool(
    processes: int | None = None, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
) -> Any:
    """Return a `maniple.pool.ThreadPool`; the parameters are the same."""
    from .. import pool

    return pool.ThreadPool(processes, initializer, initargs)


public_module.finish(globals())
