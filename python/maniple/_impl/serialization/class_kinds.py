"""Kinds of classes, and of class members, for which cloudpickle does not suffice to send them by value."""

from __future__ import annotations

import functools
import sys
from operator import mul

from .received import make_new_type, make_partial_method, make_type_alias

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["REDUCERS", "mend", "of_members", "reduce_c_type", "reduce_named"]


def mend(cls: type, arguments: tuple[Any, ...], state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return corrected arguments for making the empty class; correct its content, the first item of `state`, in place."""
    content = state[0]
    if _is_enumeration(cls):
        # Include the aliases, and the flags that combine several members.
        members = {name: member.value for name, member in cls.__members__.items()}  # type: ignore[attr-defined]
        for name in members:
            content.pop(name, None)
        return *arguments[:3], members, *arguments[4:]
    constructor, name, bases, members, *rest = arguments
    typing = sys.modules.get("typing")
    if typing is not None and typing.NamedTuple in bases:
        # `NamedTuple` would make the class again from its annotations.  The class is a tuple with some attributes.
        bases = tuple(tuple if base is typing.NamedTuple else base for base in bases)
        subscript = getattr(content.get("__class_getitem__"), "__func__", None)
        if subscript is not None and subscript is getattr(typing.Generic.__class_getitem__, "__func__", None):
            del content["__class_getitem__"]  # the class inherits it
    elif typing is not None and constructor is typing._TypedDictMeta:
        bases = tuple(base for base in bases if type(base) is constructor or base is typing.Generic)
    if "__slots__" in vars(cls):
        members["__slots__"] = vars(cls)["__slots__"]  # has no effect if it is set after the class is made
    fields = vars(cls).get("_fields_")
    if isinstance(fields, list | tuple) and (ctypes := sys.modules.get("ctypes")) is not None:
        if issubclass(cls, (ctypes.Structure, ctypes.Union)):
            for field, *_ in fields:
                content.pop(field, None)  # `_fields_` makes them; it comes last because it depends on the rest
            content["_fields_"] = content.pop("_fields_")
    return constructor, name, bases, members, *rest


def _is_enumeration(cls: Any) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and isinstance(cls, enum.EnumMeta)


def of_members(cls: Any) -> dict[str, dict[str, Any]]:
    """Return the attributes that the constructor of an enumeration has set on its members."""
    if not _is_enumeration(cls):
        return {}
    return {
        name: {key: value for key, value in vars(member).items() if not key.startswith("_")}
        for name, member in cls.__members__.items()
    }


def reduce_named(thing: Any) -> Any:
    """Return how to send an object of `typing` that pickle would send by name, for a process that lacks the name."""
    kind = type(thing).__name__
    if kind == "NewType":
        return make_new_type, (thing.__name__, thing.__supertype__, thing.__module__)
    if kind == "TypeAliasType":
        return make_type_alias, (thing.__name__, thing.__value__, thing.__type_params__)
    return NotImplemented


def reduce_c_type(cls: Any) -> Any:
    """Return how to send a type that ctypes has derived from another type (array, pointer, function); None for other
    types."""
    ctypes = sys.modules.get("ctypes")
    if ctypes is None or getattr(ctypes, cls.__name__, None) is cls:
        return None
    kind = type(cls).__name__
    if kind == "PyCArrayType" and cls.__mro__[1] is ctypes.Array:
        return mul, (cls._type_, cls._length_)
    if kind == "PyCPointerType" and cls.__mro__[1] is ctypes._Pointer:
        return ctypes.POINTER, (cls._type_,)
    if kind == "PyCFuncPtrType" and cls.__mro__[1] is ctypes._CFuncPtr:
        options = {"use_errno": bool(cls._flags_ & 8), "use_last_error": bool(cls._flags_ & 16)}
        make = ctypes.PYFUNCTYPE if cls._flags_ & 4 else functools.partial(ctypes.CFUNCTYPE, **options)
        return make, (cls._restype_, *cls._argtypes_)
    return None


def _reduce_dispatching_method(method: Any) -> Any:
    return functools.singledispatchmethod, (method.func,), {"dispatcher": method.dispatcher}


def _reduce_cached_property(prop: functools.cached_property[Any]) -> Any:
    # Up to 3.11 it has a lock, which cannot be pickled.
    return functools.cached_property, (prop.func,), {"attrname": prop.attrname}


def _reduce_partial_method(method: functools.partialmethod[Any]) -> Any:
    return make_partial_method, (method.func, method.args, method.keywords)


REDUCERS: dict[type, Callable[[Any], Any]] = {
    functools.cached_property: _reduce_cached_property,
    functools.partialmethod: _reduce_partial_method,
    functools.singledispatchmethod: _reduce_dispatching_method,
}
