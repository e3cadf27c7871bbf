"""Pickles functions and classes by value, for processes that cannot find them by name.

`dump` stands on cloudpickle and differs from it in what becomes of a name that a function uses:

* A function is given the reader's own module as its globals: the `__main__` of the process that reads it, or the module there by
  the function's module's name.  What the reader has there is used as it is, so that a global that the reader has set is seen, and a
  class is the class that the reader knows.
* What the reader lacks of `__main__` (`WorkerMain.has` says so) goes along, and is bound in the reader's `__main__`.  A newer
  definition of a function or class replaces an older one, and takes those along that use it.  Any other value is bound where the
  reader has nothing under that name, or has what came for it before: it keeps what it had when it began, and what it has set
  itself.  `_sent_values` tells new values from old ones, and keeps large ones for all calls of a pool.
* A function or class that came by value is known by a key.  When it goes back, alone or as the class of an object, it goes as that
  key, and arrives as what the first sender knows (`dump_back`).
* What pickle refuses for a reason, such as an open file, is refused here too, where cloudpickle makes a copy of its text.

A global that cannot be sent does not stop the function that names it: the reader is told why it lacks it, and says so in the
NameError of a task that really uses it.

The functions that the pickles call are in `_arrivals`.
"""

from __future__ import annotations

import dis
import functools
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copyreg import dispatch_table
from functools import _lru_cache_wrapper
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from weakref import WeakKeyDictionary

import cloudpickle

from . import context, reduction
from ._arrivals import (
    NEWEST,
    fill_cell,
    fill_class,
    fill_dispatching,
    fill_function,
    hold,
    make_cached,
    make_class,
    make_dispatching,
    make_function,
    registry,
    returned,
    space_key,
)
from ._maniple import interrupts
from ._sent_values import Sized
from ._worker_main import DEFINITIONS, MAIN_NAMES, WorkerMain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Freshness", "can_be_sent", "definitions", "dump", "dump_back"]

# ---------------------------------------------------------------- going back


class _BackPickler(reduction._standard):
    """Pickles what came by value as what it was."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, DEFINITIONS) and (key := registry.known_key(obj)) is not None:
            return returned, (key, obj.__qualname__)
        return NotImplemented


def dump_back(value: Any, buffers: Any = None) -> bytes:
    """The pickle of a result whose classes or functions are not to be found by name."""
    stream = io.BytesIO()
    _BackPickler(stream, 5, buffer_callback=buffers).dump(value)
    return stream.getvalue()


# ---------------------------------------------------------------- what a function uses

_USES = ("LOAD_GLOBAL", "LOAD_NAME", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS")
_uses: WeakKeyDictionary[CodeType, frozenset[str]] = WeakKeyDictionary()


def used_globals(code: CodeType) -> frozenset[str]:
    """The global names that the code reads, with those of the functions and classes in it."""
    names = _uses.get(code)
    if names is None:
        found = {str(step.argval) for step in dis.get_instructions(code) if step.opname in _USES}
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                found |= used_globals(constant)
        names = _uses[code] = frozenset(found)
    return names


def _submodules(module: ModuleType, code: CodeType) -> list[str]:
    """The loaded submodules of `module` that the code may reach through its attributes."""
    words = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            words |= set(constant.co_names)
    prefix = module.__name__ + "."
    return [
        name
        for name in list(sys.modules)
        if name.startswith(prefix)
        and sys.modules[name] is not None
        and words.issuperset(name[len(prefix) :].split("."))
    ]


# ---------------------------------------------------------------- writing


class _Stream:
    """Stands for a standard stream that a function refers to: the reader has its own."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __reduce__(self) -> Any:
        return getattr, (sys, self._name)


def _referred_to(value: Any) -> Any:
    """What goes for something that a function refers to, by a global, a default or its closure."""
    for name in ("stdin", "stdout", "stderr"):
        if value is getattr(sys, name) and value is not None:
            return _Stream(name)
    return value


def _refuse_file(file: Any) -> Any:
    raise TypeError(
        f"cannot pickle {type(file).__name__!r} object: an open file cannot be sent to another process; open it there by its name"
    )


def _refuse_view(view: memoryview) -> Any:
    raise TypeError("cannot pickle 'memoryview' object: send bytes(...) of it")


def _mend(cls: type, arguments: tuple[Any, ...], state: tuple[Any, ...]) -> None:
    """Put right what cloudpickle makes of some kinds of classes: `arguments` make the empty class, `state` is its content."""
    content = state[0]
    if "__slots__" in vars(cls) and isinstance(arguments[3], dict):
        arguments[3]["__slots__"] = vars(cls)["__slots__"]  # only what a class is made with has an effect
    fields = vars(cls).get("_fields_")
    if isinstance(fields, list | tuple) and (ctypes := sys.modules.get("ctypes")) is not None:
        if issubclass(cls, (ctypes.Structure, ctypes.Union)):
            for name, *_ in fields:
                content.pop(name, None)  # made by `_fields_`, which comes last: it depends on the rest
            content["_fields_"] = content.pop("_fields_")


def _of_members(cls: Any) -> dict[str, dict[str, Any]]:
    """The attributes that an enumeration's own constructor has given its members."""
    enum = sys.modules.get("enum")
    if enum is None or not isinstance(cls, enum.EnumMeta):
        return {}
    return {
        name: {key: value for key, value in vars(member).items() if not key.startswith("_")}
        for name, member in cls.__members__.items()
    }


def _reduce_dispatching_method(method: Any) -> Any:
    return functools.singledispatchmethod, (method.func,), {"dispatcher": method.dispatcher}


def _reduce_cached_property(prop: functools.cached_property[Any]) -> Any:
    # Up to 3.11 it has a lock, which cannot be pickled.
    return functools.cached_property, (prop.func,), {"attrname": prop.attrname}


def _reduce_cell(cell: CellType) -> Any:
    try:
        content = cell.cell_contents
    except ValueError:  # not bound yet
        return CellType, ()
    return CellType, (), (_referred_to(content),), None, None, fill_cell


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # has no types
    """Pickles for a process of which `main` says what it has."""

    def __init__(self, stream: Any, main: WorkerMain, buffers: Any, verdicts: dict[int, Any] | None = None) -> None:
        self._main = main
        self._sent = main.sent_values()
        # On a second try: whether the value by this id can be sent, as None or the reason why not.
        self._verdicts = verdicts
        self._reached: dict[int, dict[str, Any]] = {}
        reduction._look_for_reducers()
        own = {kind: how for kind, how in reduction._standard._extra_reducers.items() if kind is not MethodType}
        # Read when the pickler is made, and only then.
        self.dispatch_table = {
            **cloudpickle.Pickler.dispatch_table,
            **own,
            io.TextIOWrapper: _refuse_file,
            memoryview: _refuse_view,
            CellType: _reduce_cell,
            functools.cached_property: _reduce_cached_property,
            functools.singledispatchmethod: _reduce_dispatching_method,
        }
        super().__init__(stream, 5, buffers)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType:
            return self._function(obj)
        if isinstance(obj, type):
            return self._class(obj)
        if type(obj) is _lru_cache_wrapper and obj.__module__ in MAIN_NAMES:
            return self._cached(obj)
        return super().reducer_override(obj)

    def _goes_by_name(self, thing: Any) -> bool | None:
        """Whether the reader finds this function or class by its name; None: ask cloudpickle."""
        module = getattr(thing, "__module__", None)
        if module not in MAIN_NAMES:
            return None
        main = sys.modules.get("__main__")
        top, _, _ = thing.__qualname__.partition(".")
        if main is None or _attribute(main, thing.__qualname__) is not thing:
            return False
        # Something that has been defined anew since goes along with those that use it.
        definition = getattr(main, top)
        return self._main.has(top, definition) and all(
            self._main.has(name, value)
            for name, value in self._uses_of(definition, vars(main)).items()
            if _defines(value)
        )

    def _uses_of(self, definition: Any, space: dict[str, Any]) -> dict[str, Any]:
        if not self._main.changes:
            return {}
        uses = self._reached.get(id(definition))
        if uses is None:
            uses = self._reached[id(definition)] = reached_from(definition, space)
        return uses

    def _class(self, cls: type) -> Any:
        by_name = self._goes_by_name(cls)
        if by_name:
            return NotImplemented
        if cls.__module__ == "_ctypes" and (ctypes := sys.modules.get("ctypes")) is not None:
            for base in (ctypes.Structure, ctypes.Union):
                if type(base) is cls:  # which no module has by its name
                    return type, (base,)
        reduced = super().reducer_override(cls)
        if not isinstance(reduced, tuple) or len(reduced) != 6:  # by name after all
            return reduced
        make, arguments, state, _, _, fill = reduced
        _mend(cls, arguments, state)
        key, how = registry.key_of(cls), dispatch_table.get(cls)
        return (
            make_class,
            (key, make, arguments),
            (fill, state, key, self._name_to_bind(cls), how, _of_members(cls)),
            None,
            None,
            fill_class,
        )

    def _name_to_bind(self, thing: Any) -> str:
        """The name that `thing` has at the top of `__main__`, if it has one there."""
        name: str = thing.__name__
        return name if thing.__module__ in MAIN_NAMES and getattr(sys.modules["__main__"], name, None) is thing else ""

    def _cached(self, func: Any) -> Any:
        if self._goes_by_name(func):
            return NotImplemented
        arguments = registry.key_of(func), func.__wrapped__, func.cache_parameters(), self._name_to_bind(func)
        return make_cached, arguments

    def _function(self, func: FunctionType) -> Any:
        by_name = self._goes_by_name(func)
        if by_name:
            return NotImplemented
        if by_name is None:
            reduced = super().reducer_override(func)
            if not isinstance(reduced, tuple):
                return reduced
        if func.__globals__ is vars(functools) and hasattr(func, "dispatch") and hasattr(func, "registry"):
            return make_dispatching, (func.registry[object],), list(func.registry.items()), None, None, fill_dispatching
        home, lacking, missing = self._globals_of(func)
        state = {
            "qualname": func.__qualname__,
            "module": func.__module__,
            "defaults": func.__defaults__ and tuple(map(_referred_to, func.__defaults__)),
            "kwdefaults": func.__kwdefaults__ and {k: _referred_to(v) for k, v in func.__kwdefaults__.items()},
            "annotations": self._annotations_of(func),
            "doc": func.__doc__,
            "dict": func.__dict__,
            "type_params": getattr(func, "__type_params__", ()),
            "globals": lacking,
            "missing": missing,
            "key": registry.key_of(func),
        }
        arguments = home, func.__code__, func.__name__, func.__closure__
        return make_function, arguments, state, None, None, fill_function

    def _annotations_of(self, func: FunctionType) -> dict[str, Any]:
        try:
            annotations = func.__annotations__
        except Exception as problem:  # 3.14 evaluates them only now
            if interrupts(problem):
                raise
            return {}
        return annotations if self._verdicts is None or self._reason_against(annotations) is None else {}

    def _globals_of(self, func: FunctionType) -> tuple[Any, list[tuple[str, Any, Any]], dict[str, str]]:
        """Where the reader finds the function's globals, what it lacks of them, and what of that cannot be sent."""
        space, names = func.__globals__, used_globals(func.__code__)
        home: Any = func.__module__
        module = sys.modules.get(home) if isinstance(home, str) else None
        main = sys.modules.get("__main__")
        lacking: list[tuple[str, Any, Any]] = []
        if main is not None and space is vars(main):
            home = "__main__"
            wanted = [name for name in names if name in space and not name.startswith("__")]
            wanted = [name for name in wanted if not self._main.has(name, space[name])]
        elif module is not None and space is vars(module) and self._main.has_module(home):
            return home, [], {}
        else:
            # A namespace that no module of the reader's stands for: one of its own there, for all functions of this one.
            about = {name: space[name] for name in ("__name__", "__package__", "__file__") if name in space}
            home = space_key(space), about
            wanted = [name for name in names if name in space]
        missing: dict[str, str] = {}
        for name in wanted:
            value, key = space[name], NEWEST if _defines(space[name]) else None
            if home == "__main__":
                value = self._main.value_to_send(name, value)
                key, value = self._as_sent(name, value)
            if isinstance(stream := _referred_to(value), _Stream):
                lacking.append((name, stream, key))
                continue
            if self._verdicts is not None and (reason := self._reason_against(value)) is not None:
                missing[name] = (
                    f"{name!r} of {func.__module__} did not come along, since the process {self._main.why_not()}, and {reason}"
                )
                continue
            lacking.append((name, value, key))
            if isinstance(value, ModuleType):
                lacking.extend(("", sys.modules[name], None) for name in _submodules(value, func.__code__))
        return home, lacking, missing

    def _as_sent(self, name: str, value: Any) -> tuple[Any, Any]:
        """The key by which the reader tells this value of `__main__` from others, and what goes in its stead."""
        if _defines(value):
            return NEWEST, value
        if self._sent is None or isinstance(value, ModuleType):
            return None, value
        return self._sent.look_up(name, value, self._dump_apart)

    def _dump_apart(self, value: Any, stream: Sized) -> None:
        with _no_descriptors():
            _ApartPickler(stream, self._main, stream.take, {}).dump(value)

    def _reason_against(self, value: Any) -> str | None:
        """Why `value` cannot be sent; None where it can.  Only asked after a first try has failed."""
        verdicts: Any = self._verdicts
        if id(value) in verdicts:
            return verdicts[id(value)]  # type: ignore[no-any-return]
        verdicts[id(value)] = None  # while it is looked at: what names itself is judged by the rest
        with _no_descriptors():
            try:
                type(self)(io.BytesIO(), self._main, _leave_out, verdicts).dump(value)
            except Exception as refusal:
                if interrupts(refusal):
                    raise
                verdicts[id(value)] = f"it cannot be pickled: {type(refusal).__name__}: {refusal}"
        return verdicts[id(value)]  # type: ignore[no-any-return]


class _ApartPickler(_Pickler):
    """Pickles a value that any process may read, any number of times."""

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        package, _, _ = kind.__module__.partition(".")
        if package in (__package__, "multiprocessing") or kind in reduction._standard._extra_reducers:
            if not isinstance(obj, type | FunctionType | MethodType):
                # A descriptor, say, which is handed over once.
                raise TypeError(f"{kind.__name__!r} object goes to one process at a time")
        return super().reducer_override(obj)


@contextmanager
def _no_descriptors() -> Iterator[None]:
    """Let a child that is being started have no descriptors for what is pickled in the block, which is thrown away."""
    noted: list[int] = getattr(context.get_spawning_popen(), "_fds", [])
    before = len(noted)
    try:
        yield
    finally:
        del noted[before:]


def _leave_out(buffer: Any) -> bool:
    """A `buffer_callback` that drops each large buffer: only whether it can be pickled is asked."""
    return False


def _defines(value: Any) -> bool:
    """Whether it is a function or a class of `__main__`, of which there may be a newer one."""
    return isinstance(value, DEFINITIONS) and value.__module__ in MAIN_NAMES


def _attribute(of: Any, path: str) -> Any:
    for name in path.split("."):
        of = getattr(of, name, None)
    return of


def dump(value: Any, main: WorkerMain, buffers: Any = None) -> bytes:
    """The pickle of `value` for a process that has of `__main__` what `main` says.

    `buffers` is called with each buffer that may go out of band, as pickle's `buffer_callback`; it is cleared before a second try.
    """
    noted: list[int] = getattr(context.get_spawning_popen(), "_fds", [])
    before = len(noted)
    try:
        return _dump(value, main, buffers, None)
    except Exception as refusal:
        if interrupts(refusal):
            raise
        # Something that a function names cannot be sent: look which, and leave it out.
        del noted[before:]
        if (clear := getattr(buffers, "clear", None)) is not None:
            clear()
        return _dump(value, main, buffers, {})


def _dump(value: Any, main: WorkerMain, buffers: Any, verdicts: dict[int, Any] | None) -> bytes:
    stream = io.BytesIO()
    _Pickler(stream, main, buffers, verdicts).dump(value)
    return stream.getvalue()


def definitions(main: WorkerMain) -> dict[str, bytes]:
    """The functions and classes of `__main__` that a process lacks, each by its name as a pickle.

    The process resolves a name when something that it reads asks for it.  Data that they use comes along where it is small.
    """
    pickles = {}
    for name, value in list(vars(sys.modules["__main__"]).items()):
        if _defines(value) and not main.has(name, value):
            with _no_descriptors():
                stream = io.BytesIO()
                try:
                    _Sketcher(stream, main, None, {}).dump(value)
                except Exception as refusal:  # what cannot be sent is missed only by who asks for it
                    if interrupts(refusal):
                        raise
                    continue
                pickles[name] = stream.getvalue()
    return pickles


class _TooLong(Exception):
    """A pickle has more bytes than it may have."""


class _Short:
    """A file that takes so many bytes and forgets them."""

    def __init__(self, most: int) -> None:
        self._left = most

    def write(self, data: Any) -> int:
        size = len(data)
        self._left -= size
        if self._left < 0:
            raise _TooLong
        return size


class _Sketcher(_Pickler):
    """Pickles definitions, and of the data that they use only what is small."""

    _SMALL = 4096

    def _as_sent(self, name: str, value: Any) -> tuple[Any, Any]:
        return NEWEST if _defines(value) else None, value

    def _reason_against(self, value: Any) -> str | None:
        if not _defines(value) and not isinstance(value, ModuleType):
            if getattr(value, "__len__", None) is not None and len(value) > self._SMALL:
                return "it is too large to be sent beforehand"
            try:
                reduction._standard(_Short(self._SMALL), 5).dump(value)
            except _TooLong:
                return "it is too large to be sent beforehand"
            except Exception as refusal:
                if interrupts(refusal):
                    raise
                return f"it cannot be pickled: {type(refusal).__name__}: {refusal}"
            return None
        return super()._reason_against(value)


def can_be_sent(value: Any) -> bool:
    """Whether `value` can be pickled now."""
    with _no_descriptors():
        try:
            reduction._standard(io.BytesIO(), 5, True, _leave_out).dump(value)
        except Exception as refusal:
            if interrupts(refusal):
                raise
            return False
    return True


# ---------------------------------------------------------------- whether it is still the same


class Freshness:
    """Tells whether a function means what it did, with all of `__main__` that it reaches and that `main` says may change."""

    def __init__(self, func: FunctionType, main: WorkerMain) -> None:
        reached = reached_from(func, vars(sys.modules["__main__"]))
        self._seen = {
            name: hold(value)
            for name, value in reached.items()
            if _defines(value) or (not main.has(name, value) and main.value_to_send(name, _ANOTHER) is _ANOTHER)
        }

    def __call__(self) -> bool:
        """Whether nothing has been defined or set anew since."""
        space = vars(sys.modules["__main__"])
        return all(held() is space.get(name) for name, held in self._seen.items())


#: stands for a value that a name may get
_ANOTHER = object()


def reached_from(definition: Any, space: dict[str, Any]) -> dict[str, Any]:
    """The values in the namespace `space` that a function or class reaches by name, by itself or through others there."""
    found: dict[str, Any] = {}
    pending = [definition]
    while pending:
        for code in _codes_of(pending.pop(), space):
            for name in used_globals(code):
                if name in space and name not in found and not name.startswith("__"):
                    found[name] = space[name]
                    pending.append(space[name])
    return found


def _codes_of(thing: Any, space: dict[str, Any]) -> list[CodeType]:
    """The code of a function, or of a class's functions, that has `space` for its globals."""
    members = list(vars(thing).values()) if isinstance(thing, type) else [thing]
    functions = [getattr(member, "__func__", getattr(member, "__wrapped__", member)) for member in members]
    return [func.__code__ for func in functions if isinstance(func, FunctionType) and func.__globals__ is space]
