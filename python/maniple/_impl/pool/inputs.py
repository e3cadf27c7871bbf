"""The inputs of a pool: its default size, and the iterables of its calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from operator import length_hint

from ..._maniple import interrupts, memory_of_control_group, usable_cores

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    Item = TypeVar("Item")

__all__ = [
    "check_callbacks", "check_chunksize", "check_function", "copy_of_list", "default_processes", "explain_item", "iterator_over", "keyword_arguments", "length_of",
    "read_at_once",
]  # fmt: skip

# Reading these runs no code of the program, and never waits.
_INERT = frozenset({list, tuple, range, type(iter([])), type(iter(())), type(iter(range(0)))})

_cpu_count = os.cpu_count


def default_processes(memory_limit: int | None = None, accelerators: Sized | None = None) -> int:
    """Return the default number of workers.

    It is the number of accelerators if the pool hands out any, otherwise the number of processors that this process may use.  With
    `memory_limit`, there are at most as many workers as the memory of the control group allows, and at least one.
    """
    number = _processors() if accelerators is None else len(accelerators)
    if memory_limit is not None:
        if (memory := memory_of_control_group()) is not None:
            number = max(1, min(number, memory // memory_limit))
    return number


def _processors() -> int:
    """Return the number of processors that this process may use.

    The affinity and the control group of the process limit the number. `-X cpu_count`, `PYTHON_CPU_COUNT` and a function
    that replaces `os.cpu_count` take precedence.
    """
    if os.cpu_count is not _cpu_count:
        return os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = getattr(os, "process_cpu_count", lambda: None)()
    if told not in (None, allowed):
        return int(told)
    return max(1, min(allowed, usable_cores()))


def iterator_over(iterable: Iterable[Any]) -> Iterator[Any]:
    """Return ``iter(iterable)``. If that raises, return an iterator that raises the error, as the standard package does."""
    try:
        return iter(iterable)
    except Exception as error:
        if interrupts(error):
            raise
        return _raising(error)


def length_of(iterable: Any) -> int | None:
    """Return the number of items, None if it is unknown: a generator does not know it, and some objects know it only at times."""
    if not hasattr(type(iterable), "__len__"):
        return None
    try:
        return len(iterable)
    except Exception as error:
        if interrupts(error):
            raise
        return None


def read_at_once(iterable: Iterable[Item], most: int) -> list[Item] | None:
    """Return the items of a list, a tuple, a range, or an iterator over one of them, if there are at most `most`; otherwise return None."""
    if type(iterable) in _INERT and length_hint(iterable) <= most:
        return list(iterable)
    return None


def _raising(error: Exception) -> Iterator[Any]:
    raise error
    yield  # makes this function a generator, which raises the error at the first item


def copy_of_list(items: Iterable[Item]) -> Iterable[Item]:
    """Return a copy of a list, which the caller may change while its items are sent; return anything else as it is."""
    return items.copy() if type(items) is list else items


def check_function(func: object) -> None:
    """Raise TypeError unless `func` can be called."""
    if not callable(func):
        raise TypeError(f"func must be a function, but {func!r:.80} of type {type(func).__name__} is not callable")


def check_callbacks(**callbacks: object) -> None:
    """Raise TypeError if there is a callback that cannot be called."""
    for name, callback in callbacks.items():
        # The standard package ignores a callback that is false.
        if callback and not callable(callback):
            raise TypeError(f"{name} must be a function, not {callback!r:.80} of type {type(callback).__name__}")


def arguments_of(initializer: object, initargs: Any) -> tuple[Any, ...]:
    """Return the arguments of an initializer; none if there is no initializer.

    Raises:
        TypeError: they are not iterable.
    """
    if initializer is None:
        return ()
    if not hasattr(initargs, "__iter__"):
        raise TypeError(
            f"initargs must be a tuple of the arguments of initializer, not {initargs!r:.80} of type {type(initargs).__name__}"
        )
    return tuple(initargs)


def check_chunksize(chunksize: Any) -> None:
    """Raise an error unless `chunksize` is a number that is 1 or more."""
    if not isinstance(chunksize, float) and not hasattr(chunksize, "__index__"):
        raise TypeError(
            f"chunksize must be an int, not {chunksize!r:.80} of type {type(chunksize).__name__}; a call of a function of several "
            "arguments has one iterable of tuples: starmap(func, zip(first, second))"
        )
    if not chunksize >= 1:
        raise ValueError(f"Chunksize must be 1+, not {chunksize}")


def keyword_arguments(kwds: Any) -> dict[str, Any]:
    """Return the keyword arguments of a call as a dict.

    Raises:
        TypeError: `kwds` is not a mapping.
    """
    if isinstance(kwds, dict):
        return kwds
    if not hasattr(kwds, "keys"):
        raise TypeError(
            f"kwds must be a dict of keyword arguments, not {kwds!r:.80} of type {type(kwds).__name__}; positional arguments are one "
            "tuple: apply(func, (1, 2))"
        )
    return dict(kwds)


def explain_item(error: TypeError, items: Iterable[Any]) -> None:
    """Add a note to an error of `starmap` if an item is not an iterable of arguments."""
    for index, item in enumerate(items):
        try:
            iter(item)
        except TypeError:
            error.add_note(
                f"item {index} of starmap is {item!r:.80} of type {type(item).__name__}, but each item must be a tuple of arguments, "
                "such as (1, 2). map is for a function of one argument."
            )
            return
