"""The globals that functions and classes of `__main__` use, and whether these are unchanged since the functions were pickled."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from types import CellType, CodeType, FunctionType
from weakref import WeakKeyDictionary, ref

from ..pool.worker_main import DEFINITIONS, MAIN_NAMES, OF_MODULES, parts_of
from .received import hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Freshness", "UsedGlobals", "defines", "record_uses", "reached_from", "used_globals"]

#: the globals of `__main__` that a pickle contains or names: name -> function that returns the value while it exists
UsedGlobals = dict[str, Callable[[], "Any"]]

_USES = ("LOAD_GLOBAL", "LOAD_NAME", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
_uses: WeakKeyDictionary[CodeType, frozenset[str]] = WeakKeyDictionary()


def used_globals(code: CodeType) -> frozenset[str]:
    """Return the global names that the code reads, including the names in nested functions and classes."""
    names = _uses.get(code)
    if names is None:
        found = {str(step.argval) for step in dis.get_instructions(code) if step.opname in _USES}
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                found |= used_globals(constant)
        names = _uses[code] = frozenset(found)
    return names


def defines(value: Any) -> bool:
    """Return whether the value is a function or a class of `__main__`, which may be redefined."""
    return issubclass(type(value), DEFINITIONS) and value.__module__ in MAIN_NAMES


#: the last function that this thread has pickled, as a weak reference because it may refer to large objects, and its uses
_latest = threading.local()


def record_uses(func: FunctionType, uses: UsedGlobals) -> None:
    """Store the uses of a function that this thread has pickled."""
    _latest.dumped = ref(func), uses


class Freshness:
    """Checks whether a function that this thread has just pickled, and the globals of `__main__` that it reaches, are unchanged."""

    def __init__(self, func: FunctionType) -> None:
        reached = reached_from(func, vars(sys.modules["__main__"]))
        self._seen = {name: hold(value) for name, value in reached.items() if defines(value)}
        pickled, uses = vars(_latest).pop("dumped", (None, {}))
        if pickled is not None and pickled() is func:
            self._seen.update(uses)

    def __call__(self) -> bool:
        """Return True if none of the globals was redefined or set since."""
        space = vars(sys.modules["__main__"])
        return all(held() is space.get(name) for name, held in self._seen.items())


def reached_from(definition: Any, space: dict[str, Any]) -> dict[str, Any]:
    """Return the values in the namespace `space` that a function or class reaches by name, directly or through other values."""
    found: dict[str, Any] = {}
    pending = [definition]
    while pending:
        for code in _codes_of(pending.pop(), space):
            for name in used_globals(code):
                if name in space and name not in found and name not in OF_MODULES:
                    found[name] = space[name]
                    pending.append(space[name])
    return found


def _codes_of(thing: Any, space: dict[str, Any], depth: int = 0) -> list[CodeType]:
    """Return the code of the functions with the globals `space` that `thing` is or refers to: by its class, bases, wrapped or contained objects."""
    kind = type(thing)
    if kind is FunctionType:
        codes = [thing.__code__] if thing.__globals__ is space else []
        held = [
            *(thing.__defaults__ or ()),
            *(thing.__kwdefaults__ or {}).values(),
            *_contents(thing.__closure__ or ()),
        ]
        held.append(vars(thing).get("__wrapped__"))
    elif issubclass(kind, type):
        codes = []
        held = [*vars(thing).values(), *thing.__bases__] if thing.__module__ in MAIN_NAMES else []
    elif kind is dict:
        codes, held = [], list(islice(thing.values(), _FEW))
    elif kind in (tuple, list, set, frozenset):
        codes, held = [], list(islice(thing, _FEW))
    else:
        codes, held = [], [*parts_of(thing)]
        if type(thing).__module__ in MAIN_NAMES:
            held.append(type(thing))
    if depth < _DEEP:
        for part in held:
            if part is not None and type(part) not in (str, bytes, int, float):
                codes += _codes_of(part, space, depth + 1)
    return codes


#: the depth, and the number of members of a container, up to which `_codes_of` follows references
_DEEP, _FEW = 4, 100


def _contents(cells: tuple[CellType, ...]) -> Iterator[Any]:
    for cell in cells:
        with suppress(ValueError):  # not bound yet
            yield cell.cell_contents
