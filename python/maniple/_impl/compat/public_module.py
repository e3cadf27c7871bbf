"""The end of each public module: its annotations are removed, and the standard module's imports are found in it.

The annotations are for type checkers, and use names that exist only for these.  `typing.get_type_hints` of a program's subclass
would evaluate them, since it also reads the bases, and raise a NameError.  The standard package has no annotations.
"""

from __future__ import annotations

from importlib import import_module
from types import FunctionType, GenericAlias

from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
    from typing import Generic as Generic
    from typing import TypeVar as TypeVar

    Function = TypeVar("Function", bound=Callable[..., Any])
else:

    class Generic:
        """A base of classes that can be subscripted, instead of `typing.Generic`, for which each child would import `typing`."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)

    def TypeVar(name, **_options):
        """Return the name: at run time a type variable has no effect."""
        return name


__all__ = ["Generic", "TypeVar", "finish", "needs_ctx"]


_OURS = PACKAGE, "multiprocessing"


def finish(content: dict[str, Any], **late: str) -> None:
    """Finish a public module with the namespace `content`; the module calls it last. `late`: the modules of names that few programs use.

    The function removes the annotations of the functions and classes in the namespace, and of their bases. It adds a ``__getattr__``
    that returns what the standard module imports (see `imported_names`).
    """
    module = content["__name__"]

    def __getattr__(name: str) -> object:
        if name.startswith("__"):  # the import system looks up several
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        if name in late:
            return getattr(import_module(f"{PACKAGE}.{late[name]}"), name)
        from .imported_names import find

        return find(module, name)

    for thing in list(content.values()):
        if isinstance(thing, type):
            for base in thing.__mro__:
                if base.__module__.startswith(_OURS):
                    _bare(base)
        elif isinstance(thing, FunctionType) and thing.__module__.startswith(_OURS):
            thing.__annotations__ = {}
    content["__getattr__"] = __getattr__


def needs_ctx(function: Function) -> Function:
    """Remove the default of the parameter ``ctx``, so that a call has to pass the context, as in the standard package.

    The default is for type checkers: they see ``maniple.Queue`` as the class, which programs call without a context.
    """
    defaults: Any = function.__kwdefaults__
    del defaults["ctx"]
    return function


def _bare(kind: Any) -> None:
    if vars(kind).get("__annotations__"):
        del kind.__annotations__  # `help` would show an empty dict
    for member in list(vars(kind).values()):
        for function in (getattr(member, "__func__", member), getattr(member, "fget", None)):
            if isinstance(function, FunctionType):
                function.__annotations__ = {}
