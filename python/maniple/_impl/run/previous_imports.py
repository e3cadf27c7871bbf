"""References to the standard package in modules that were imported before ``multiprocessing`` became this package.

A file of ``site-packages``, `sitecustomize` or a launcher may have imported modules that refer to parts of the standard package, or
that have replaced some of them (coverage does both).  These references are set to this package's parts, and replaced functions are
replaced here, too.  A class that was derived from a class of the standard package keeps its base.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType, MethodType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["hand_over"]

_PACKAGE = "multiprocessing"


def hand_over(theirs: dict[str, ModuleType], ours: dict[str, str]) -> None:
    """Set references to the standard package's parts in all loaded modules to this package's parts.

    Args:
        theirs: the loaded modules of the standard package, by name.
        ours: the names of this package's modules, by the same keys.
    """
    pairs = {name: (their, import_module(ours[name])) for name, their in theirs.items() if find_spec(ours[name])}
    twins = _Twins(pairs)
    modules = [module for pair in pairs.values() for module in pair]
    for holder in list(sys.modules.values()):
        if isinstance(holder, ModuleType) and holder not in modules:
            for name, thing in list(vars(holder).items()):
                if (twin := twins.of(thing)) is not None:
                    setattr(holder, name, twin)
    if getattr(sys, "frozen", False):
        return  # the freezer's replacements support only the standard package's command lines: helpers would run the program
    for their, our in pairs.values():
        _replace_again(their, our, twins, _written_names(their))


class _Twins:
    """Finds this package's counterpart of an object of the standard package."""

    def __init__(self, pairs: dict[str, tuple[ModuleType, ModuleType]]) -> None:
        self._pairs = pairs

    def of(self, thing: Any) -> Any:
        """Return this package's module, class, function or method of the default context; None for other objects."""
        if isinstance(thing, ModuleType):
            their, our = self._pairs.get(thing.__name__, (None, None))
            return our if thing is their else None
        if not isinstance(thing, (type, FunctionType, MethodType)) or not isinstance(thing.__module__, str):
            return None
        their, our = self._pairs.get(thing.__module__, (None, None))
        if isinstance(thing, MethodType):
            their, our = self._pairs[_PACKAGE]
            return getattr(our, thing.__name__, None) if vars(their).get(thing.__name__) == thing else None
        for name in thing.__qualname__.split("."):
            our = getattr(our, name, None)
        return our if our is not thing and isinstance(our, (type, FunctionType)) else None


def _is_foreign(thing: Any) -> bool:
    """Return whether a module outside the standard library has put this function into the standard package."""
    if not isinstance(thing, FunctionType) or not isinstance(thing.__module__, str):
        return False
    return thing.__module__.partition(".")[0] not in sys.stdlib_module_names


def _replace_again(their: Any, our: Any, twins: _Twins, written: frozenset[str] | None) -> None:
    """Replace in this package's module or class the functions that were replaced, or added, in the standard one."""
    for name, thing in list(vars(their).items()):
        if _is_foreign(thing):
            _exchange_closure(thing, twins)
            setattr(our, name, thing)
        elif isinstance(thing, type) and thing.__module__ == getattr(their, "__name__", None):
            if isinstance(vars(our).get(name), type):
                _replace_again(thing, vars(our)[name], twins, None)
        elif (
            written is not None and name not in written and not isinstance(thing, ModuleType) and not hasattr(our, name)
        ):
            setattr(our, name, thing)  # a mark that this was done


def _exchange_closure(function: FunctionType, twins: _Twins) -> None:
    """Set references in the closure of a function to this package's functions."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            if (twin := twins.of(cell.cell_contents)) is not None:
                cell.cell_contents = twin


def _written_names(module: ModuleType) -> frozenset[str] | None:
    """Return the names that the module's code uses; None if the code is unknown."""
    try:
        code = module.__loader__.get_code(module.__name__)  # type: ignore[union-attr]
        return frozenset((*code.co_names, *(name for name in vars(module) if name[:2] == "__")))
    except (AttributeError, ImportError):
        return None
