"""Functions of the package that annotations can use as the classes of the objects that they make.

``maniple.Queue`` is a bound method of the default context, as in the standard package, where ``Queue[int]`` or ``Queue | None`` in
an annotation raises a TypeError.  A `Factory` looks like such a method, and also supports annotations.
"""

from __future__ import annotations

from types import GenericAlias, MethodType

from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Factory"]


class _Named(GenericAlias):
    """``maniple.Queue[int]``: it is the generic alias of the class, and a call makes an object of the default context."""

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        from ...context import _default_context

        return getattr(_default_context, self.__origin__.__name__)(*args, **kwds)


class Factory:
    # No docstring here: the property `__doc__` returns that of the method.

    __slots__ = ("__weakref__", "_class_is_in", "_method")

    def __init__(self, method: Callable[..., Any], class_is_in: str) -> None:
        self._method, self._class_is_in = method, class_is_in

    def __call__(self, /, *args: Any, **kwds: Any) -> Any:
        return self._method(*args, **kwds)

    # ------------------------------------------------------------ the class

    def _made(self) -> Any:
        from importlib import import_module

        return getattr(import_module(f"{PACKAGE}.{self._class_is_in}"), self._method.__name__)

    def __getitem__(self, item: Any) -> Any:
        named = self._made()[item]
        return _Named(named.__origin__, named.__args__)

    def __mro_entries__(self, bases: Any) -> Any:
        name = self._method.__name__
        raise TypeError(
            f"{name} is a function that makes objects; the class to inherit from is {self._class_is_in}.{name}"
        )

    def __or__(self, other: Any) -> Any:
        return self._made() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._made()

    def __instancecheck__(self, obj: object) -> bool:
        return isinstance(obj, self._made())

    def __subclasscheck__(self, cls: type) -> bool:
        return issubclass(cls, self._made())

    # ------------------------------------------------------------ the method

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    @property  # type: ignore[misc]  # read-only here
    def __class__(self) -> Any:
        return MethodType

    @property
    def __doc__(self) -> Any:  # type: ignore[override]
        return self._method.__doc__

    @property
    def __module__(self) -> Any:  # type: ignore[override]
        return self._method.__module__

    def __repr__(self) -> str:
        return repr(self._method)

    def __eq__(self, other: object) -> Any:
        return self._method == (other._method if type(other) is Factory else other)

    def __hash__(self) -> int:
        return hash(self._method)

    def __reduce__(self) -> Any:
        return self._method.__reduce__()
