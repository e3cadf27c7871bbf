"""Takes the annotations off what programs see of this package.

They are for type checkers, name things that exist only for these, and would become part of what a program's own class is asked
for: `typing.get_type_hints` looks at the bases, too.  The standard package has none.
"""

from __future__ import annotations

from types import FunctionType

from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["take_off"]


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


def _bare(kind: Any) -> None:
    try:
        kind.__annotations__ = {}
    except TypeError:  # a native class
        return
    for member in list(vars(kind).values()):
        for function in (getattr(member, "__func__", member), getattr(member, "fget", None)):
            if isinstance(function, FunctionType):
                function.__annotations__ = {}
