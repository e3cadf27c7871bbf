"""Parts of the standard package's queue, shown of a queue that works without them.

Programs look at them: how many places are left, whether something waits for a feeder.  What is shown is true, and what would be without
effect raises an error that says so.
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
    """How many more items a queue takes: what the standard package counts down in a semaphore, for those who look."""

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
            "this queue compares its bound with what is in it: there is no semaphore to take a place of. "
            "Override Queue.put in a subclass that uses `_sem` to get a queue with one."
        )

    release = acquire


class Undone:
    """How many items are not reported done, which the standard package counts in a semaphore, for those who look."""

    def __init__(self, log: Log) -> None:
        self.get_value = self._get_value = log.undone

    @property
    def _semlock(self) -> Undone:
        return self

    def _is_zero(self) -> bool:
        return self.get_value() == 0


class Nothing(deque[object]):
    """The buffer of a queue that needs none.  It may be looked at and cleared; what was put into it would be lost."""

    def append(self, obj: object) -> None:
        raise RuntimeError(
            "this queue has no feeder that would take an object out of its buffer: call put(). "
            "A subclass of Queue that uses `_buffer` gets a queue with a feeder."
        )

    appendleft = append

    def extend(self, objects: object) -> None:
        self.append(objects)

    extendleft = extend


no_buffer = Nothing()


class Part:
    """What is found under the name of a part in a queue that has none: a view of it, or an error.

    A queue that has the part has it among its own attributes, which go before.  (A `__getattr__` of the class would do as well, but
    make each look at an attribute several times as slow.)
    """

    def __init__(self, view: Callable[[Any], Any] | None = None) -> None:
        self._view = view

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, queue: Any, owner: type) -> Any:
        if queue is None:
            raise AttributeError(f"type object {owner.__name__!r} has no attribute {self._name!r}")
        kind, name = type(queue).__name__, self._name
        if queue._fed:  # its class makes the parts, and has not made this one
            raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=queue)
        if self._view is None:
            raise AttributeError(
                f"this {kind} has no {name}: its items lie in shared memory, and no lock is held while they are put or got. "
                f"A subclass of which a method uses {name}, or which sets _uses_parts = True, gets a queue that has it.",
                name=name,
                obj=queue,
            )
        return self._view(queue)


def condition_of(queue: Any) -> threading.Condition:
    """What guards the buffer; the same whenever it is asked for."""
    made = vars(queue)["_notempty"] = threading.Condition(threading.Lock())
    return made
