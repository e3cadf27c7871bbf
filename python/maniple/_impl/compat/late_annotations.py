"""Takes the annotations off what programs see of this package.

They are for type checkers, name things that exist only for these, and would become part of what a program's own class is asked
for: `typing.get_type_hints` looks at the bases, too.  The standard package has none.
"""

from __future__ import annotations

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
        """Stands for `typing.Generic`, which a child would import for nothing else: a base of classes that can be subscripted."""

        __slots__ = ()
        __class_getitem__ = classmethod(GenericAlias)

    def TypeVar(name, **_options):
        """Stands for `typing.TypeVar`."""
        return name


__all__ = ["Generic", "TypeVar", "needs_ctx", "take_off"]


_OURS = PACKAGE, "multiprocessing"


def take_off(content: dict[str, Any]) -> None:
    """Take the annotations off the functions and classes in the content of a module of this package, and off their bases."""
    for thing in list(content.values()):
        if isinstance(thing, type):
            for base in thing.__mro__:
                if base.__module__.startswith(_OURS):
                    _bare(base)
        elif isinstance(thing, FunctionType) and thing.__module__.startswith(_OURS):
            thing.__annotations__ = {}


def needs_ctx(function: Function) -> Function:
    """Take the default off the parameter ``ctx``, so that a call has to name the context, as in the standard package.

    The default is for type checkers: to them ``maniple.Queue`` is the class itself, and it is called without a context.
    """
    defaults: Any = function.__kwdefaults__
    del defaults["ctx"]
    return function


def _bare(kind: Any) -> None:
    if vars(kind).get("__annotations__"):
        del kind.__annotations__  # empty ones would show up in `help`
    for member in list(vars(kind).values()):
        for function in (getattr(member, "__func__", member), getattr(member, "fget", None)):
            if isinstance(function, FunctionType):
                function.__annotations__ = {}
