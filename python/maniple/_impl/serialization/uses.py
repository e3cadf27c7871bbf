"""What functions and classes of `__main__` lead to, and whether it still is what it was when they were pickled."""

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
from .arrivals import hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Freshness", "Uses", "defines", "note_uses", "reached_from", "used_globals"]

#: globals of `__main__` that a pickle took along or names: name -> what returns the value as long as it is there
Uses = dict[str, Callable[[], "Any"]]

_USES = ("LOAD_GLOBAL", "LOAD_NAME", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
_uses: WeakKeyDictionary[CodeType, frozenset[str]] = WeakKeyDictionary()


def used_globals(code: CodeType) -> frozenset[str]:
    """The global names that the code reads, with those of the functions and classes in it."""
    names = _uses.get(code)
    if names is None:
        found = {str(step.argval) for step in dis.get_instructions(code) if step.opname in _USES}
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                found |= used_globals(constant)
        names = _uses[code] = frozenset(found)
    return names


def defines(value: Any) -> bool:
    """Whether it is a function or a class of `__main__`, of which there may be a newer one."""
    return issubclass(type(value), DEFINITIONS) and value.__module__ in MAIN_NAMES


#: the function that this thread has pickled last, held weakly, for what it holds may be large; and what it uses
_latest = threading.local()


def note_uses(func: FunctionType, uses: Uses) -> None:
    """Note what the function uses that this thread has pickled."""
    _latest.dumped = ref(func), uses


class Freshness:
    """Tells whether a function that this thread has just pickled means what it did, with all of `__main__` that it reaches."""

    def __init__(self, func: FunctionType) -> None:
        reached = reached_from(func, vars(sys.modules["__main__"]))
        self._seen = {name: hold(value) for name, value in reached.items() if defines(value)}
        pickled, uses = vars(_latest).pop("dumped", (None, {}))
        if pickled is not None and pickled() is func:
            self._seen.update(uses)

    def __call__(self) -> bool:
        """Whether nothing has been defined or set anew since."""
        space = vars(sys.modules["__main__"])
        return all(held() is space.get(name) for name, held in self._seen.items())


def reached_from(definition: Any, space: dict[str, Any]) -> dict[str, Any]:
    """The values in the namespace `space` that a function or class reaches by name, by itself or through others there."""
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
    """The code of the functions with the globals `space` that `thing` is or leads to: by its class, its bases, what it wraps or holds."""
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


#: so far, and among so many members of a container, it is looked what a function leads to
_DEEP, _FEW = 4, 100


def _contents(cells: tuple[CellType, ...]) -> Iterator[Any]:
    for cell in cells:
        with suppress(ValueError):  # not bound yet
            yield cell.cell_contents
