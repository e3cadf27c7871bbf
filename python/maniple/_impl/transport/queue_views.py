"""Views of a queue that look like the inner parts of the standard package's queue.

Programs read these parts: the number of free places, the items that wait for a feeder. The views return correct values,
and raise an error for operations that would have no effect.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._maniple import Log

__all__ = ["Part", "Places", "Undone", "condition_of", "no_buffer"]


class Places:
    """The number of free places of a queue, which the standard package keeps in a semaphore."""

    def __init__(self, maxsize: int, log: Log) -> None:
        self.maxvalue, self._log = maxsize, log

    @property
    def _semlock(self) -> Places:
        return self

    def get_value(self) -> int:
        """Return the number of items that the queue still accepts."""
        return max(self.maxvalue - len(self._log), 0)

    _get_value = get_value

    def _is_zero(self) -> bool:
        """Return True if the queue is full."""
        return self._log.full()

    locked = _is_zero

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Raise RuntimeError: there is no semaphore."""
        raise RuntimeError(
            "this queue has no semaphore: it compares its bound with the number of its items. "
            "Override Queue.put in a subclass that uses `_sem` to get a queue with a semaphore."
        )

    release = acquire


class Undone:
    """The number of items that are not reported done, which the standard package keeps in a semaphore."""

    def __init__(self, log: Log) -> None:
        self.get_value = self._get_value = log.undone

    @property
    def _semlock(self) -> Undone:
        return self

    def _is_zero(self) -> bool:
        return self.get_value() == 0


class Nothing(deque[object]):
    """The empty buffer of a queue without a feeder. Appending raises RuntimeError, since the object would be lost."""

    def append(self, obj: object) -> None:
        raise RuntimeError(
            "this queue has no feeder that would send an object from its buffer: call put(). "
            "A subclass of Queue that uses `_buffer` gets a queue with a feeder."
        )

    appendleft = append

    def extend(self, objects: object) -> None:
        self.append(objects)

    extendleft = extend


no_buffer = Nothing()


class Part:
    """The attribute for an inner part in a queue without the parts: it returns a view, or raises an error.

    A queue with the part has it as an instance attribute, which takes precedence.  (A `__getattr__` of the class would work as
    well, but would slow down every attribute access several times.)
    """

    def __init__(self, view: Callable[[Any], Any] | None = None) -> None:
        self._view = view

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, queue: Any, owner: type) -> Any:
        if queue is None:
            raise AttributeError(f"type object {owner.__name__!r} has no attribute {self._name!r}")
        kind, name = type(queue).__name__, self._name
        if queue._fed:  # the queue has the parts, but its class did not make this one
            raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=queue)
        if self._view is None:
            raise AttributeError(
                f"this {kind} has no {name}: its items lie in shared memory, and put and get hold no lock. "
                f"A subclass with a method that uses {name}, or with _uses_parts = True, gets a queue that has it.",
                name=name,
                obj=queue,
            )
        return self._view(queue)


def condition_of(queue: Any) -> threading.Condition:
    """Return the condition of the buffer; the first call makes it."""
    made = vars(queue)["_notempty"] = threading.Condition(threading.Lock())
    return made
