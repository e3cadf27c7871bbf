"""Lets ``import multiprocessing`` mean this package, in this process and in all that it starts through us.

`python -m maniple` calls `install`.  What names the standard package from then on, whoever it is
(`concurrent.futures.process` and libraries included), gets the module of ours by the same name: one object under two names,
so that a class has one identity however it was imported.  A forked child inherits that; to a child that begins as a fresh
interpreter it is said on its command line (`preamble`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

__all__ = ["install", "preamble"]

_OURS = __package__
_THEIRS = "multiprocessing"


def _by_our_name(fullname: str) -> str | None:
    """Our name for a module of the standard package's; None for any other module."""
    package, dot, rest = fullname.partition(".")
    return _OURS + dot + rest if package == _THEIRS else None


class _Alias:
    """Finds and loads the standard package's modules: they are ours.

    A meta path finder and a loader by what it can do: importing `importlib.abc`, to say so by a base class, takes 19 ms.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        ours = _by_our_name(fullname)
        if ours is None or find_spec(ours) is None:
            return None
        return ModuleSpec(fullname, self)  # type: ignore[arg-type]  # of no class of importlib.abc

    def create_module(self, spec: ModuleSpec) -> None:
        """The import system's own kind of module will do."""

    def exec_module(self, module: ModuleType) -> None:
        # The import system takes what stands in sys.modules after this for the module that was asked for.
        name = module.__name__
        ours = _by_our_name(name)
        if ours is not None:
            sys.modules[name] = import_module(ours)


_alias = _Alias()


def install() -> None:
    """From now on ``multiprocessing`` means this package.

    Modules of the standard package that were imported before are forgotten; who holds one already keeps it.
    """
    if _alias in sys.meta_path:
        return
    for name in [name for name in sys.modules if _by_our_name(name) is not None]:
        del sys.modules[name]
    sys.meta_path.insert(0, _alias)
    sys.modules[_THEIRS] = sys.modules[_OURS]
    _renew_executor()


def _renew_executor() -> None:
    """`concurrent.futures.process` looks the package up when it is imported: let that happen once more."""
    if sys.modules.pop("concurrent.futures.process", None) is not None:
        renewed = import_module("concurrent.futures.process")
        vars(sys.modules["concurrent.futures"])["ProcessPoolExecutor"] = renewed.ProcessPoolExecutor


def preamble() -> str:
    """What a fresh interpreter has to run so that it is as here; empty where nothing was installed."""
    return f"from {__name__} import install\ninstall()\n" if _alias in sys.meta_path else ""
