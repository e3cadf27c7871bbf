"""What other modules did with the standard package before ``multiprocessing`` came to mean this one.

A file of ``site-packages``, `sitecustomize` or a launcher may have imported modules that hold parts of the standard package, or
that have replaced some of them (coverage does both).  They get ours by the same names, and what they replaced is replaced here.
A class that was derived from one of the standard package's keeps its base.
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
    """Have all loaded modules hold our parts for those of the standard package's modules.

    ``theirs`` are those of its modules that were loaded; ``ours`` says, by the same keys, what the modules are called here.
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
        return  # what the freezer has replaced knows the standard package's command lines alone: its helpers would run the program
    for their, our in pairs.values():
        _replace_again(their, our, twins, _written_names(their))


class _Twins:
    """Finds what is ours in the place of something of the standard package's."""

    def __init__(self, pairs: dict[str, tuple[ModuleType, ModuleType]]) -> None:
        self._pairs = pairs

    def of(self, thing: Any) -> Any:
        """Our module, class, function or method of the default context; None for anything else."""
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
    """Tell whether a function of the standard package's was put there by a module that is no part of Python."""
    if not isinstance(thing, FunctionType) or not isinstance(thing.__module__, str):
        return False
    return thing.__module__.partition(".")[0] not in sys.stdlib_module_names


def _replace_again(their: Any, our: Any, twins: _Twins, written: frozenset[str] | None) -> None:
    """Replace in our module or class what was replaced, or added, in theirs."""
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
    """The function that it calls in turn is ours."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # empty yet
            if (twin := twins.of(cell.cell_contents)) is not None:
                cell.cell_contents = twin


def _written_names(module: ModuleType) -> frozenset[str] | None:
    """The names that the module's own code knows; None where that cannot be told."""
    try:
        code = module.__loader__.get_code(module.__name__)  # type: ignore[union-attr]
        return frozenset((*code.co_names, *(name for name in vars(module) if name[:2] == "__")))
    except (AttributeError, ImportError):
        return None
