"""The definitions of `__main__` that a process receives at its start, so that it can resolve their names in pickles."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from types import ModuleType

from ... import reduction
from ..._maniple import interrupts
from .by_value import ByValuePickler
from .received import NEWEST
from .refusals import leave_out, no_descriptors, refuse_what_is_handed_over
from .used_globals import defines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..pool.worker_main import WorkerMain

__all__ = ["can_be_sent", "definitions"]


def definitions(main: WorkerMain) -> tuple[frozenset[str], bytes] | None:
    """Return the names of the functions and classes of `__main__` that a process lacks, and one pickle of all; None if there are none.

    The process unpickles them when another pickle refers to one of the names.  Small data that they use is included.
    """
    all_of_them = {
        name: value
        for name, value in list(vars(sys.modules["__main__"]).items())
        if defines(value) and not main.has(name, value)
    }
    if not all_of_them:
        return None
    with no_descriptors():
        try:
            pickled = _pickled(all_of_them, main)
        except Exception as refusal:
            if interrupts(refusal):
                raise
            # Leave out the definitions that cannot be sent: only a pickle that refers to them fails.
            all_of_them = {name: value for name, value in all_of_them.items() if _can_be_pickled(name, value, main)}
            try:
                pickled = _pickled(all_of_them, main)
            except Exception as refusal:
                if interrupts(refusal):
                    raise
                return None
    return frozenset(all_of_them), pickled


def _pickled(definitions: dict[str, Any], main: WorkerMain) -> bytes:
    stream = io.BytesIO()
    _DefinitionsPickler(stream, main, None, {}).dump(definitions)
    return stream.getvalue()


def _can_be_pickled(name: str, value: Any, main: WorkerMain) -> bool:
    try:
        _pickled({name: value}, main)
    except Exception as refusal:
        if interrupts(refusal):
            raise
        return False
    return True


class _TooLong(Exception):
    """A pickle has more bytes than it may have."""


class _LimitedFile:
    """A file that discards the written bytes, and raises `_TooLong` after `most` bytes."""

    def __init__(self, most: int) -> None:
        self._left = most

    def write(self, data: Any) -> int:
        size = len(data)
        self._left -= size
        if self._left < 0:
            raise _TooLong
        return size


class _SendablePickler(reduction._standard):
    """A pickler that rejects objects which only one process may receive."""

    def reducer_override(self, obj: Any) -> Any:
        refuse_what_is_handed_over(obj)
        return NotImplemented


class _DefinitionsPickler(ByValuePickler):
    """A pickler for the definitions of `__main__`, all in one pickle, which includes only small data that they use."""

    _SMALL = 256 * 1024

    def _wanted(self, names: Iterable[str], space: dict[str, Any]) -> list[str]:
        # The pickle contains all definitions by name.
        return [name for name in super()._wanted(names, space) if not defines(space[name])]

    def _as_sent(self, name: str, value: Any) -> tuple[Any, Any, list[str]]:
        return NEWEST if defines(value) else None, value, []

    def _reason_against(self, value: Any) -> str | None:
        if not defines(value) and not issubclass(type(value), ModuleType):
            try:
                _SendablePickler(_LimitedFile(self._SMALL), 5).dump(value)
            except _TooLong:
                return "it is too large to be sent at the start"
            except Exception as refusal:
                if interrupts(refusal):
                    raise
                return f"it cannot be pickled: {type(refusal).__name__}: {refusal}"
            return None
        return super()._reason_against(value)


def can_be_sent(value: Any) -> bool:
    """Return whether `value` can be pickled now."""
    with no_descriptors():
        try:
            reduction._standard(io.BytesIO(), 5, True, leave_out).dump(value)
        except Exception as refusal:
            if interrupts(refusal):
                raise
            return False
    return True
