"""Describes what a package shows: modules, names, signatures, members of classes and of objects, as plain data.

    python tests/cpython/surface.py PACKAGE < '{"": ["Pool"], "pool": []}' > facts.json

The input names the modules and, for each, names to look up that `dir` may not list: those that the other package shows.

The facts are `{path: fact}`. A path is `module:name` or `module:Class.member`; `!` begins what is not a name in a module, such
as `!fork.Lock().acquire`, an attribute of an object. A fact has a `kind` and, by kind, `signature`, `bases`, `value`, `names`.
Two packages are described in two processes, so that neither sees the other.
"""

from __future__ import annotations

import faulthandler
import importlib
import inspect
import json
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

STANDARD = "multiprocessing"
# Seconds until a description that hangs ends itself, with the tracebacks.
LIMIT = 120
# What every class has, or what the language adds to it: no part of what its author offers.
BOOKKEEPING = frozenset(
    """__abstractmethods__ __builtins__ __annotate_func__ __annotations__ __annotations_cache__ __class__ __classdictcell__ __delattr__
    __dict__ __dir__ __doc__ __firstlineno__ __format__ __getattribute__ __getstate__ __hash__ __init_subclass__ __module__
    __new__ __qualname__ __reduce_ex__ __setattr__ __sizeof__ __slots__ __static_attributes__ __subclasshook__ __weakref__
    __class_getitem__ __del__""".split()
)
# Their classes may be the interpreter's own.
SIMPLE = (bool, int, float, str, bytes, type(None))


class Surface:
    def __init__(self, package: str) -> None:
        self.package = package
        self.facts: dict[str, dict[str, Any]] = {}

    # ---- modules

    def module(self, name: str, asked: list[str]) -> None:
        try:
            module = importlib.import_module(f"{self.package}.{name}" if name else self.package)
        except ImportError as error:
            self.facts[f"{name}:"] = {"kind": "missing module", "value": str(error)}
            return
        exported = list(getattr(module, "__all__", []))
        self.facts[f"{name}:"] = {"kind": "module", "names": sorted(exported)}
        for each in sorted({*dir(module), *exported, *asked}):
            if (each.startswith("_") and each not in exported) or not hasattr(module, each):
                continue
            thing = getattr(module, each)
            self.thing(f"{name}:{each}", thing, each in exported or self.is_own(thing))

    def is_own(self, thing: Any) -> bool:
        """Whether a module offers a thing as its own, rather than having imported it for its work."""
        if isinstance(thing, types.ModuleType):
            return thing.__name__.partition(".")[0] == self.package
        origin = getattr(thing, "__module__", None)
        return origin is None or str(origin).partition(".")[0] == self.package

    def thing(self, path: str, thing: Any, own: bool) -> None:
        fact: dict[str, Any] = {"kind": kind_of(thing), "own": own}
        self.facts[path] = fact
        if not own:
            return
        if fact["kind"] == "class":
            fact["bases"] = sorted({base.__name__ for base in thing.__mro__[1:-1]} - {thing.__name__})
            fact["signature"] = self.signature(thing)
            self.members(path, thing)
        elif fact["kind"] == "callable":
            fact["signature"] = self.signature(thing)
        elif isinstance(thing, SIMPLE):
            fact["value"] = self.text(thing)

    # ---- classes

    def members(self, path: str, kind: type) -> None:
        names = {name for base in kind.__mro__ if base is not object for name in vars(base)}
        for name in sorted(names - BOOKKEEPING):
            if name.startswith("_") and not name.endswith("__"):
                continue
            found = inspect.getattr_static(kind, name)
            fact: dict[str, Any] = {"kind": member_kind(found), "own": True}
            if name.startswith("__") and getattr(kind, name, None) is getattr(object, name, self):
                continue  # as every object has it
            if fact["kind"] not in ("attribute", "class"):
                fact["signature"] = self.signature(getattr(kind, name))
            self.facts[f"{path}.{name}"] = fact

    # ---- signatures

    def signature(self, thing: Any) -> list[list[str]] | None:
        """Each parameter as [name, kind, default]; the default is "" where there is none. None: it has no signature."""
        try:
            parameters = inspect.signature(thing).parameters.values()
        except (TypeError, ValueError):
            return None
        return [
            [each.name, each.kind.name, "" if each.default is each.empty else self.text(each.default)]
            for each in parameters
        ]

    def text(self, value: Any) -> str:
        """A value as text that does not say which of the two packages it is of, or where it is in memory."""
        if isinstance(value, dict):
            return "{...}"  # a table that fills while the program runs
        if callable(value) and hasattr(value, "__qualname__"):
            return f"<{value.__qualname__}>"
        return re.sub(rf"\b{re.escape(self.package)}\b", STANDARD, re.sub(r" at 0x[0-9a-f]+", "", repr(value)))

    # ---- objects

    def objects(self) -> None:
        from objects import made

        for label, thing in made(self.package):
            if isinstance(thing, Exception):
                self.facts[f"!{label}"] = {"kind": "error", "value": repr(thing)}
                continue
            self.facts[f"!{label}"] = {"kind": "object"}
            for name in dir(thing):
                # What the program reads as its own; a dunder shows on the class.
                if not name.startswith("_"):
                    self.facts[f"!{label}.{name}"] = {"kind": attribute_kind(thing, name), "own": True}

    def methods(self) -> None:
        """The start methods, and each context's functions."""
        package = importlib.import_module(self.package)
        names = package.get_all_start_methods()
        self.facts["!start methods"] = {"kind": "value", "value": repr(names), "own": True}
        default = package.get_context().get_start_method()
        self.facts["!default start method"] = {"kind": "value", "value": default, "own": True}
        for method in names:
            context = package.get_context(method)
            for name in dir(context):
                if not name.startswith("_"):
                    self.thing(f"!context {method}.{name}", getattr(context, name), own=True)


def kind_of(thing: Any) -> str:
    if isinstance(thing, type):
        return "class"
    if isinstance(thing, types.ModuleType):
        return "module"
    return "callable" if callable(thing) else "value"


def member_kind(found: Any) -> str:
    """How a member behaves; whether Python or native code wrote it makes no difference."""
    if isinstance(found, staticmethod) or isinstance(found, types.BuiltinFunctionType):
        return "static method"
    if isinstance(found, (classmethod, types.ClassMethodDescriptorType)):
        return "class method"
    if isinstance(found, type):
        return "class"
    return "method" if callable(found) else "attribute"


def attribute_kind(thing: Any, name: str) -> str:
    try:
        return "callable" if callable(getattr(thing, name)) else "attribute"
    except Exception:
        return "attribute"  # cannot be read in this state, such as a pid before the start


def standard_modules() -> list[str]:
    """The modules of the installed standard package that this system can import; the package itself is ""."""
    return ["", *sorted(submodules(importlib.import_module(STANDARD)))]


def submodules(package: types.ModuleType) -> Iterator[str]:
    import pkgutil

    for found in pkgutil.walk_packages(package.__path__, f"{STANDARD}."):
        try:
            importlib.import_module(found.name)
        except (ImportError, AttributeError):
            continue  # one for another system, such as `popen_fork` on Windows
        yield found.name.partition(".")[2]


def describe(package: str, modules: dict[str, list[str]]) -> dict[str, dict[str, Any]]:
    surface = Surface(package)
    for name, asked in modules.items():
        surface.module(name, asked)
    if not importlib.import_module(package).__dict__.get("get_all_start_methods"):
        return surface.facts  # a package of a test, with some of the names
    surface.methods()
    surface.objects()
    return surface.facts


if __name__ == "__main__":
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    json.dump(describe(sys.argv[1], json.load(sys.stdin)), sys.stdout)
