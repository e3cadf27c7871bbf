"""Unpickling of functions and classes that were sent by value, and of the globals that they need.

`by_value` writes pickles that call the functions of this module.
"""

from __future__ import annotations

import copyreg
import functools
import io
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from itertools import count
from struct import unpack
from types import CellType, CodeType, FunctionType
from weakref import ref

from ..pool.worker_main import MAIN_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "NEWEST",
    "KeyedValue",
    "KeyedFile",
    "Referring",
    "bind_names_for",
    "explain",
    "fill_cell",
    "fill_class",
    "fill_dispatching",
    "fill_function",
    "hold",
    "load_keyed",
    "load_referring",
    "make_cached",
    "make_class",
    "make_dispatching",
    "make_function",
    "make_new_type",
    "make_partial_method",
    "make_type_alias",
    "named",
    "note_inherited",
    "registry",
    "returned",
    "space_key",
    "take",
    "bind_names_then",
]

# ---------------------------------------------------------------- keys


class Registry:
    """The functions and classes that were sent by value, by keys that all processes share.

    The registry keeps nothing alive.  A forked child inherits the table, and so can resolve its parent's keys.
    """

    def __init__(self) -> None:
        self._begin()
        self._entries: dict[int, tuple[ref[Any], tuple[bytes, int]]] = {}
        self._objects: dict[tuple[bytes, int], ref[Any]] = {}

    def _begin(self) -> None:
        # New keys are unique to this process.
        self._process, self._numbers = os.urandom(8), count()

    def new_key(self) -> tuple[bytes, int]:
        """Return a new key."""
        return self._process, next(self._numbers)

    def key_of(self, thing: Any) -> tuple[bytes, int]:
        """Return the key of `thing`; make one if it has none."""
        return self.known_key(thing) or self.note(thing, self.new_key())

    def known_key(self, thing: Any) -> tuple[bytes, int] | None:
        """Return the key of `thing`, or None."""
        entry = self._entries.get(id(thing))
        return entry[1] if entry is not None and entry[0]() is thing else None

    def note(self, thing: Any, key: tuple[bytes, int]) -> tuple[bytes, int]:
        """Register `thing` under `key`, and return the key."""
        number = id(thing)

        def forget(gone: ref[Any]) -> None:
            entry = self._entries.get(number)
            if entry is not None and entry[0] is gone:
                del self._entries[number]
            if self._objects.get(key) is gone:
                del self._objects[key]

        held = ref(thing, forget)
        self._entries[number] = held, key
        self._objects[key] = held
        return key

    def find(self, key: tuple[bytes, int]) -> Any:
        """Return the object with the key; None if there is none, or it was collected."""
        held = self._objects.get(key)
        return None if held is None else held()


registry = Registry()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=registry._begin)


def returned(key: tuple[bytes, int], name: str) -> Any:
    """Return the object that this process had sent by value and that comes back."""
    found = registry.find(key)
    if found is None:
        raise LookupError(f"{name!r} was sent by value and returned, but no longer exists in this process")
    return found


def take(given: dict[str, Any]) -> None:
    """Bind in `__main__` the values that the parent passed at the start of this process."""
    for name, value in given.items():
        _bind(vars(sys.modules["__main__"]), name, value, None)


# ---------------------------------------------------------------- reading

#: key -> the namespace that represents a namespace of another process
_spaces: dict[tuple[bytes, int], dict[str, Any]] = {}
#: id of a namespace of this process -> its key and the namespace, which is kept so that its id stays unique
_own_spaces: dict[int, tuple[tuple[bytes, int], dict[str, Any]]] = {}
#: the largest number of namespaces in each table, for programs that make namespaces without end
_MOST_SPACES = 256
#: name of a missing global -> the reason
_missing: dict[str, str] = {}


def space_key(space: dict[str, Any]) -> tuple[bytes, int]:
    """Return the key of a namespace of this process that is not the namespace of an importable module."""
    entry = _own_spaces.get(id(space))
    if entry is None:
        key = next((known for known, other in _spaces.items() if other is space), None)
        entry = _own_spaces[id(space)] = key or registry.new_key(), space
        _forget_oldest(_own_spaces)
    return entry[0]


def _space(home: Any) -> dict[str, Any]:
    """Return the globals for a received function."""
    if isinstance(home, str):
        return vars(sys.modules["__main__"] if home in MAIN_NAMES else import_module(home))
    key, about = home
    own = next((space for known, space in _own_spaces.values() if known == key), None)
    if own is not None:
        return own
    space = _spaces.get(key)
    if space is None:
        space = _spaces[key] = {"__builtins__": sys.modules["builtins"], **about}
        _forget_oldest(_spaces)
    return space


def _forget_oldest(spaces: dict[Any, Any]) -> None:
    while len(spaces) > _MOST_SPACES:
        with suppress(KeyError, RuntimeError):  # another thread does the same
            del spaces[next(iter(spaces))]


# The functions that the pickles of `by_value` call.


def make_function(
    home: Any, code: CodeType, name: str, closure: tuple[CellType, ...] | None, key: tuple[bytes, int]
) -> FunctionType:
    """Return an empty function. If the function came before, return that function with its state, unless its closure
    may differ."""
    known = registry.find(key)
    if closure is None and isinstance(known, FunctionType):
        return known
    func = FunctionType(code, _space(home), name, None, closure)
    func.__dict__[_EMPTY] = key
    return func


#: the attribute of a function that is not filled yet; its value is the function's key
_EMPTY = "maniple is to fill this function"


def fill_function(func: FunctionType, state: dict[str, Any]) -> None:
    if (key := func.__dict__.pop(_EMPTY, None)) is not None:
        _fill_first(func, state)
        registry.note(func, key)
    for name, value, came in state["globals"]:
        if name:  # entries without a name only had to be imported
            _bind(func.__globals__, name, value, came)
    _missing.update(state["missing"])


def _fill_first(func: FunctionType, state: dict[str, Any]) -> None:
    func.__qualname__, func.__module__ = state["qualname"], state["module"]
    func.__defaults__, func.__kwdefaults__ = state["defaults"], state["kwdefaults"]
    func.__annotations__, func.__doc__ = state["annotations"], state["doc"]
    func.__dict__.update(state["dict"])
    if state["type_params"]:
        func.__type_params__ = state["type_params"]  # type: ignore[attr-defined]  # 3.12


#: key -> function that returns the received value while it exists
_loaded: dict[tuple[bytes, int], Callable[[], Any]] = {}


def _nothing() -> None:
    return None


class _ReferringUnpickler(pickle.Unpickler):
    """An unpickler for pickles that refer to other values by `KeyedValue` objects."""

    def persistent_load(self, place: Any) -> Any:
        return place.load()


def load_referring(stream: bytes, buffers: list[Any]) -> Any:
    return _ReferringUnpickler(io.BytesIO(stream), buffers=buffers).load()


def bind_names_then(value: Any, entries: list[tuple[str, Any, Any]]) -> Any:
    """Bind the names that `value` uses, and return `value`."""
    for name, bound, key in entries:
        _bind(vars(sys.modules["__main__"]), name, bound, key)
    return value


def named(name: str) -> Any:
    """Return the object that this process has under a qualified name in `__main__`."""
    found: Any = sys.modules["__main__"]
    for part in name.split("."):
        found = getattr(found, part)
    return found


def bind_names_for(thing: Any, entries: list[tuple[str, Any, Any]]) -> None:
    bind_names_then(thing, entries)


class Referring:
    """A pickled value whose stream refers to other values by `KeyedValue` objects; `buffers` are its out-of-band buffers."""

    def __init__(self, stream: bytes, buffers: list[Any]) -> None:
        self._stream, self._buffers = stream, buffers

    def __reduce__(self) -> Any:
        return load_referring, (self._stream, self._buffers)


#: the key of functions and classes, of which the newest one is always bound
NEWEST = (b"", 0)
#: name -> function that returns the value of `__main__` that came by value while it exists, and its key
_came: dict[str, tuple[Callable[[], Any], tuple[bytes, int]]] = {}


def note_inherited(names: list[str]) -> None:
    """Allow received values to replace the values that this process inherited under these names of `__main__`."""
    space = vars(sys.modules["__main__"])
    for name in names:
        _came[name] = hold(space[name]), (b"", 1)


def _bind(space: dict[str, Any], name: str, value: Any, key: tuple[bytes, int] | None) -> None:
    """Bind a received global.

    It replaces a value that came before under another key.  Values that this process had at its start, or has set itself, stay.  A
    value inside a pickle that serves all calls may be older than the present one.
    """
    if name in space and (key != NEWEST or KeyedValue.reading):
        came = _came.get(name)
        if came is None or key is None or came[1] == key or came[0]() is not space[name]:
            return
        if KeyedValue.reading and (key == NEWEST or key < came[1]):
            return
        _loaded.pop(came[1], None)
    if isinstance(value, KeyedValue):
        try:
            value = value.load()
        except LookupError:
            if KeyedValue.reading:  # the value was replaced since, and the newer value is sent too
                return
            raise
    space[name] = value
    _missing.pop(name, None)
    if key is not None and key != NEWEST and space is vars(sys.modules["__main__"]):
        _came[name] = hold(value), key
    else:
        _came.pop(name, None)


def hold(value: Any) -> Callable[[], Any]:
    """Return a function that returns the value while it exists: a weak reference if the type supports it."""
    try:
        return ref(value)
    except TypeError:
        return lambda: value


class KeyedValue:
    """A value by its key, with its pickle for a process that does not have it yet."""

    #: the number of values that are being unpickled now
    reading = 0

    def __init__(self, key: tuple[bytes, int], stream: bytes) -> None:
        self._key, self._stream = key, stream

    def __reduce__(self) -> Any:
        return KeyedValue, (self._key, self._stream)

    def load(self) -> Any:
        """Return this process's copy of the value, a single object for all references."""
        value = _loaded.get(self._key, _nothing)()
        if value is None:
            KeyedValue.reading += 1
            try:
                value = self._read()
            finally:
                KeyedValue.reading -= 1
            _loaded[self._key] = hold(value)
        return value

    def _read(self) -> Any:
        return load_referring(self._stream, [])


class KeyedFile(KeyedValue):
    """A value by its key, and the path of its pickle in a nameless file of the process that sent it.

    `identity` is the file's device and inode, `parts` the number of parts (the stream and the buffers), and `constant` says which
    buffers are read-only.
    """

    def __init__(
        self, key: tuple[bytes, int], path: str, identity: tuple[int, int], parts: int, constant: list[bool]
    ) -> None:
        self._key, self._path, self._identity, self._parts, self._constant = key, path, identity, parts, constant

    def __reduce__(self) -> Any:
        return KeyedFile, (self._key, self._path, self._identity, self._parts, self._constant)

    def _read(self) -> Any:
        try:
            file = open(self._path, "rb")
        except OSError as error:
            raise LookupError(f"a value of __main__ that this task uses cannot be read: {error}") from None
        with file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != self._identity:
                raise LookupError(
                    "a value of __main__ that this task uses no longer exists: its pool has ended, or the program has closed "
                    "descriptors of maniple"
                )
            sizes = unpack(f"<{self._parts}Q", file.read(8 * self._parts))
            stream = file.read(sizes[0])
            buffers: list[bytearray | memoryview] = []
            for size, constant in zip(sizes[1:], self._constant, strict=True):
                buffer = bytearray(size)
                file.readinto(buffer)
                buffers.append(memoryview(buffer).toreadonly() if constant else buffer)
        return load_referring(stream, buffers)


def make_class(key: tuple[bytes, int], make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    """Return the class without its content. A class that came before is not made again, since making it may run the program's code."""
    known = registry.find(key)
    return known if isinstance(known, type) else make(*arguments)


def fill_class(cls: Any, state: tuple[Callable[..., Any], Any, tuple[bytes, int], str, Any, dict[str, Any]]) -> None:
    fill, content, key, name, reducer, members = state
    if registry.known_key(cls) != key:  # else the class has its content, which this process may have changed
        fill(cls, content)
        for member, attributes in members.items():
            vars(cls.__members__[member]).update(attributes)
        registry.note(cls, key)
        if reducer is not None:
            copyreg.pickle(cls, reducer)
    if name:
        space = vars(sys.modules["__main__"])
        bound = registry.known_key(space.get(name)) if KeyedValue.reading else None
        if bound is None or bound[0] != key[0] or bound <= key:  # else a newer class has come before
            space[name] = cls
            _missing.pop(name, None)


def load_keyed(known: KeyedValue) -> Any:
    return known.load()


def make_cached(key: tuple[bytes, int], func: FunctionType, parameters: dict[str, Any], name: str) -> Any:
    """Return the function with a cache; all calls in this process share it."""
    known = registry.find(key)
    if known is None:
        known = functools.lru_cache(**parameters)(func)
        registry.note(known, key)
        if name:
            _bind(vars(sys.modules["__main__"]), name, known, NEWEST)
    return known


def make_partial_method(func: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return functools.partialmethod(func, *arguments, **keywords)


def make_new_type(name: str, supertype: Any, module: str) -> Any:
    import typing

    made: Any = vars(sys.modules["__main__"]).get(name)
    if not isinstance(made, typing.NewType):
        make: Any = typing.NewType
        made = make(name, supertype)
        made.__module__ = module
    return made


def make_type_alias(name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    import typing

    made = vars(sys.modules["__main__"]).get(name)
    kind: Any = typing.TypeAliasType  # type: ignore[attr-defined]  # 3.12
    return made if isinstance(made, kind) else kind(name, value, type_params=parameters)


def make_dispatching(func: FunctionType) -> Any:
    return functools.singledispatch(func)


def fill_dispatching(func: Any, implementations: list[tuple[type, Any]]) -> None:
    for kind, implementation in implementations:
        if kind is not object:
            func.register(kind, implementation)


def fill_cell(cell: CellType, state: tuple[Any]) -> None:
    (cell.cell_contents,) = state


def explain(error: NameError) -> None:
    """Add to the error the reason why this process lacks the global that it names."""
    reason = _missing.get(getattr(error, "name", None) or "")
    if reason is not None and error.args:
        error.args = (f"{error.args[0]}: {reason}", *error.args[1:])
