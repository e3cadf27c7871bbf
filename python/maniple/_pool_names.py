"""Helpers of the standard pool which libraries take from `pool` for pools of their own; ours has no use for them."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from itertools import starmap
from types import TracebackType
from typing import Any

from ._payload import RemoteTraceback

__all__ = ["ExceptionWithTraceback", "mapstar", "rebuild_exc", "starmapstar"]


def mapstar(args: tuple[Callable[..., Any], Iterable[Any]]) -> list[Any]:
    """``map`` of a function and items that come as one argument."""
    return list(map(*args))


def starmapstar(args: tuple[Callable[..., Any], Iterable[Iterable[Any]]]) -> list[Any]:
    """The same for items that are the function's arguments each."""
    func, items = args
    return list(starmap(func, items))


class ExceptionWithTraceback:
    """An exception that takes the text of its traceback along when it is pickled."""

    def __init__(self, exc: BaseException, tb: TracebackType | None) -> None:
        lines = traceback.format_exception(type(exc), exc, tb)
        self.exc, self.tb = exc.with_traceback(None), f'\n"""\n{"".join(lines)}"""'

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[BaseException, str]]:
        return rebuild_exc, (self.exc, self.tb)


def rebuild_exc(exc: BaseException, tb: str) -> BaseException:
    """``exc``, caused by an exception that shows the text ``tb``."""
    exc.__cause__ = RemoteTraceback(tb)
    return exc
