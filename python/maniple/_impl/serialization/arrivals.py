"""What arrives from other processes by value: functions, classes, and the globals that they need.

`by_value` writes the pickles that call the functions here.
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
    "Known",
    "Place",
    "Referring",
    "bind_along",
    "explain",
    "fill_cell",
    "fill_class",
    "fill_dispatching",
    "fill_function",
    "hold",
    "known_value",
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
    "take_along",
]

# ---------------------------------------------------------------- keys


class Registry:
    """The functions and classes that go between processes by value, each by a key that all of them use.

    Holds nothing alive.  A forked child inherits the table, and with it what its parent's keys mean.
    """

    def __init__(self) -> None:
        self._begin()
        self._entries: dict[int, tuple[ref[Any], tuple[bytes, int]]] = {}
        self._objects: dict[tuple[bytes, int], ref[Any]] = {}

    def _begin(self) -> None:
        # Keys made from now on are this process's own.
        self._process, self._numbers = os.urandom(8), count()

    def new_key(self) -> tuple[bytes, int]:
        """A key that nothing has yet."""
        return self._process, next(self._numbers)

    def key_of(self, thing: Any) -> tuple[bytes, int]:
        """The key of `thing`, a new one if it has none."""
        return self.known_key(thing) or self.note(thing, self.new_key())

    def known_key(self, thing: Any) -> tuple[bytes, int] | None:
        """The key of `thing` if it has one."""
        entry = self._entries.get(id(thing))
        return entry[1] if entry is not None and entry[0]() is thing else None

    def note(self, thing: Any, key: tuple[bytes, int]) -> tuple[bytes, int]:
        """Let `thing` be known by `key`."""
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
        """What is known by `key`; None where it is not there, or not any more."""
        held = self._objects.get(key)
        return None if held is None else held()


registry = Registry()
os.register_at_fork(after_in_child=registry._begin)


def returned(key: tuple[bytes, int], name: str) -> Any:
    """What this process had sent, and what comes back."""
    found = registry.find(key)
    if found is None:
        raise LookupError(f"{name!r} had been sent by value and comes back, but is not there any more")
    return found


def take(given: dict[str, Any]) -> None:
    """Bind in `__main__` what the starter of this process gave it of its own."""
    for name, value in given.items():
        _bind(vars(sys.modules["__main__"]), name, value, None)


# ---------------------------------------------------------------- reading

#: namespaces that stand for those of other processes, by key
_spaces: dict[tuple[bytes, int], dict[str, Any]] = {}
#: the keys of this process's own namespaces; each is held, so that its number stays its own
_own_spaces: dict[int, tuple[tuple[bytes, int], dict[str, Any]]] = {}
#: so many namespaces are remembered, here and there; a program that makes them without end is not to fill memory
_MOST_SPACES = 256
#: why a global is not here: name -> text
_missing: dict[str, str] = {}


def space_key(space: dict[str, Any]) -> tuple[bytes, int]:
    """The key of a namespace of this process's that no module of others stands for."""
    entry = _own_spaces.get(id(space))
    if entry is None:
        key = next((known for known, other in _spaces.items() if other is space), None)
        entry = _own_spaces[id(space)] = key or registry.new_key(), space
        _forget_oldest(_own_spaces)
    return entry[0]


def _space(home: Any) -> dict[str, Any]:
    """The globals for a function that came."""
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


# What pickles call, with what `by_value` has put into them.


def make_function(
    home: Any, code: CodeType, name: str, closure: tuple[CellType, ...] | None, key: tuple[bytes, int]
) -> FunctionType:
    """The function, empty; one that came before stays what it is, with its state, unless its closure may be another now."""
    known = registry.find(key)
    if closure is None and isinstance(known, FunctionType):
        return known
    func = FunctionType(code, _space(home), name, None, closure)
    func.__dict__[_EMPTY] = key
    return func


#: what a function has until it is filled: the key that it will have
_EMPTY = "maniple is to fill this function"


def fill_function(func: FunctionType, state: dict[str, Any]) -> None:
    if (key := func.__dict__.pop(_EMPTY, None)) is not None:
        _fill_first(func, state)
        registry.note(func, key)
    for name, value, came in state["globals"]:
        if name:  # the rest had only to be imported
            _bind(func.__globals__, name, value, came)
    _missing.update(state["missing"])


def _fill_first(func: FunctionType, state: dict[str, Any]) -> None:
    func.__qualname__, func.__module__ = state["qualname"], state["module"]
    func.__defaults__, func.__kwdefaults__ = state["defaults"], state["kwdefaults"]
    func.__annotations__, func.__doc__ = state["annotations"], state["doc"]
    func.__dict__.update(state["dict"])
    if state["type_params"]:
        func.__type_params__ = state["type_params"]  # type: ignore[attr-defined]  # 3.12


#: the values that came by a key of theirs
_loaded: dict[tuple[bytes, int], Callable[[], Any]] = {}


def _nothing() -> None:
    return None


class _ReferringUnpickler(pickle.Unpickler):
    """Reads pickles that name values by their places."""

    def persistent_load(self, place: Any) -> Any:
        return place.load()


def load_referring(stream: bytes, buffers: list[Any]) -> Any:
    return _ReferringUnpickler(io.BytesIO(stream), buffers=buffers).load()


def take_along(value: Any, entries: list[tuple[str, Any, Any]]) -> Any:
    """The value; first the names that it uses are bound."""
    for name, bound, key in entries:
        _bind(vars(sys.modules["__main__"]), name, bound, key)
    return value


def named(name: str) -> Any:
    """What this process has under a name in `__main__`."""
    found: Any = sys.modules["__main__"]
    for part in name.split("."):
        found = getattr(found, part)
    return found


def bind_along(thing: Any, entries: list[tuple[str, Any, Any]]) -> None:
    take_along(thing, entries)


class Referring:
    """Stands for the pickled value: its stream names other values by their places, and `buffers` are those beside it."""

    def __init__(self, stream: bytes, buffers: list[Any]) -> None:
        self._stream, self._buffers = stream, buffers

    def __reduce__(self) -> Any:
        return load_referring, (self._stream, self._buffers)


#: A key for what is always bound: a function or a class, of which the newest counts.
NEWEST = (b"", 0)
#: what has come for `__main__` by value, and by which key: name -> (the value as long as it is there, key)
_came: dict[str, tuple[Callable[[], Any], tuple[bytes, int]]] = {}


def note_inherited(names: list[str]) -> None:
    """Let what this process was forked with under these names of `__main__` be replaced by what comes."""
    space = vars(sys.modules["__main__"])
    for name in names:
        _came[name] = hold(space[name]), (b"", 1)


def _bind(space: dict[str, Any], name: str, value: Any, key: tuple[bytes, int] | None) -> None:
    """Bind a global that has come.

    A value takes the place of one that came before under another key.  What this process has had from its beginning, or has set
    itself, stays.  What stands in a value that was pickled for all calls may be older than what is here.
    """
    if name in space and (key != NEWEST or Known.reading):
        came = _came.get(name)
        if came is None or key is None or came[1] == key or came[0]() is not space[name]:
            return
        if Known.reading and (key == NEWEST or key < came[1]):
            return
        _loaded.pop(came[1], None)
    if isinstance(value, Known):
        try:
            value = value.load()
        except LookupError:
            if Known.reading:  # it has been replaced since, and the newer value goes along
                return
            raise
    space[name] = value
    _missing.pop(name, None)
    if key is not None and key != NEWEST and space is vars(sys.modules["__main__"]):
        _came[name] = hold(value), key
    else:
        _came.pop(name, None)


def hold(value: Any) -> Callable[[], Any]:
    """What returns the value as long as it is there: weakly where that can be."""
    try:
        return ref(value)
    except TypeError:
        return lambda: value


class Known:
    """A value by its key, with its pickle for a process that does not know it yet."""

    #: how many are being read now
    reading = 0

    def __init__(self, key: tuple[bytes, int], stream: bytes) -> None:
        self._key, self._stream = key, stream

    def __reduce__(self) -> Any:
        return Known, (self._key, self._stream)

    def load(self) -> Any:
        """The value: this process's own copy, which is one for all who name it."""
        value = _loaded.get(self._key, _nothing)()
        if value is None:
            Known.reading += 1
            try:
                value = self._read()
            finally:
                Known.reading -= 1
            _loaded[self._key] = hold(value)
        return value

    def _read(self) -> Any:
        return load_referring(self._stream, [])


class Place(Known):
    """A value by its key, and where its pickle stands: in a nameless file of the process that sent it.

    `identity` is the file's device and number, `parts` how many buffers the pickle has, itself included, and `constant` tells which of
    the others are constant.
    """

    def __init__(
        self, key: tuple[bytes, int], path: str, identity: tuple[int, int], parts: int, constant: list[bool]
    ) -> None:
        self._key, self._path, self._identity, self._parts, self._constant = key, path, identity, parts, constant

    def __reduce__(self) -> Any:
        return Place, (self._key, self._path, self._identity, self._parts, self._constant)

    def _read(self) -> Any:
        try:
            file = open(self._path, "rb")
        except OSError as error:
            raise LookupError(f"a value of __main__ that goes with this task cannot be read: {error}") from None
        with file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != self._identity:
                raise LookupError(
                    "a value of __main__ that goes with this task is not there any more: its pool has ended, or the program has closed "
                    "descriptors that are not its own"
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
    """The class, without its content; one that came before is not made again, since making it may run code of the program's."""
    known = registry.find(key)
    return known if isinstance(known, type) else make(*arguments)


def fill_class(cls: Any, state: tuple[Callable[..., Any], Any, tuple[bytes, int], str, Any, dict[str, Any]]) -> None:
    fill, content, key, name, reducer, members = state
    if registry.known_key(cls) != key:  # else it has its content, and what this process has made of that since
        fill(cls, content)
        for member, attributes in members.items():
            vars(cls.__members__[member]).update(attributes)
        registry.note(cls, key)
        if reducer is not None:
            copyreg.pickle(cls, reducer)
    if name:
        space = vars(sys.modules["__main__"])
        bound = registry.known_key(space.get(name)) if Known.reading else None
        if bound is None or bound[0] != key[0] or bound <= key:  # else a newer class has come before
            space[name] = cls
            _missing.pop(name, None)


def known_value(known: Known) -> Any:
    return known.load()


def make_cached(key: tuple[bytes, int], func: FunctionType, parameters: dict[str, Any], name: str) -> Any:
    """A function with a cache, which is one for all calls here."""
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
    """Add to the error why this process has not the global that it is about."""
    reason = _missing.get(getattr(error, "name", None) or "")
    if reason is not None and error.args:
        error.args = (f"{error.args[0]}: {reason}", *error.args[1:])
