"""Pickling of functions and classes by value, for processes that cannot find them by name.

`dump` is based on cloudpickle. It differs in the treatment of the globals that a function uses:

* The reader's own module provides the globals of a function: the `__main__` of the process that reads it, or the reader's module with
  the name of the function's module.  Globals that the reader has are used as they are, so the function sees values that the reader
  has set, and uses the reader's classes.
* Globals of `__main__` that the reader lacks (as `WorkerMain.has` says) are included, and bound in the reader's `__main__`.  A newer
  definition of a function or class replaces an older one, and includes the definitions that use it.  Any other value is bound if the
  reader has no value under that name, or one that came this way before: the reader keeps the values that it had at its start or has
  set itself.  `sent_values` distinguishes new values from old ones, and keeps the pickle of each for all calls of a pool.
* A function or class that came by value has a key.  When it goes back, directly or as the class of an object, the pickle contains the
  key, and the first sender gets its own object (`dump_back`).
* Objects that pickle rejects for a reason, such as an open file, are rejected here too, where cloudpickle copies the content.

A function may name a global that cannot be sent: the reader receives the reason, and adds it to the NameError of a task that uses the
global.

The functions that the pickles call are in `received`.
"""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Iterable
from copyreg import dispatch_table
from functools import _lru_cache_wrapper
from types import CellType, CodeType, FunctionType, MethodType, ModuleType

import cloudpickle

from ... import context, reduction
from ..._maniple import interrupts
from ..pool.worker_main import DEFINITIONS, MAIN_NAMES, OF_MODULES, WorkerMain
from .class_kinds import REDUCERS, mend, of_members, reduce_c_type, reduce_named
from .received import (
    NEWEST,
    KeyedValue,
    Referring,
    bind_names_for,
    bind_names_then,
    fill_class,
    fill_dispatching,
    fill_function,
    hold,
    load_keyed,
    make_cached,
    make_class,
    make_dispatching,
    make_function,
    named,
    registry,
    returned,
    space_key,
)
from .refusals import (
    Stream,
    leave_out,
    no_descriptors,
    reduce_cell,
    referred_to,
    refuse_file,
    refuse_view,
    refuse_what_is_handed_over,
)
from .sent_values import Sized
from .used_globals import UsedGlobals, defines, reached_from, record_uses, used_globals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ByValuePickler", "dump", "dump_back"]

# ---------------------------------------------------------------- going back


class _BackPickler(reduction._standard):
    """A pickler that writes objects which came by value by their keys."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, DEFINITIONS) and (key := registry.known_key(obj)) is not None:
            return returned, (key, obj.__qualname__)
        return NotImplemented


def dump_back(value: Any, buffers: Any = None) -> bytes:
    """Return the pickle of a result whose classes or functions cannot be found by name."""
    stream = io.BytesIO()
    _BackPickler(stream, 5, buffer_callback=buffers).dump(value)
    return stream.getvalue()


# ---------------------------------------------------------------- writing


def _submodules(module: ModuleType, code: CodeType) -> list[str]:
    """Return the loaded submodules of `module` that the code may reach through attributes."""
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


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # has no types
    """A pickler for a process whose `__main__` `main` describes."""

    def __init__(
        self, stream: Any, main: WorkerMain, buffers: Any, verdicts: dict[int, Any] | None = None, root: Any = None
    ) -> None:
        self._main = main
        #: a value that this pickler pickles separately
        self._root = root
        self._sent = main.sent_values()
        # At the second attempt: id of a value -> None if it can be sent, or the reason why not.
        self._verdicts = verdicts
        self._reached: dict[int, dict[str, Any]] = {}
        #: the globals of `__main__` that the pickle contains or names, and that may change later
        self.uses: UsedGlobals = {}
        reduction._look_for_reducers()
        own = {kind: how for kind, how in reduction._standard._extra_reducers.items() if kind is not MethodType}
        # The C pickler reads it only when it is made.
        self.dispatch_table = {
            **cloudpickle.Pickler.dispatch_table,
            **own,
            io.TextIOWrapper: refuse_file,
            memoryview: refuse_view,
            CellType: reduce_cell,
            **REDUCERS,
            **main.reducers,
        }
        super().__init__(stream, 5, buffers)

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType:
            return self._function(obj)
        if issubclass(type(obj), type):
            return self._class(obj)
        if type(obj) is _lru_cache_wrapper and obj.__module__ in MAIN_NAMES:
            return self._cached(obj)
        if type(obj).__module__ == "typing" and obj.__module__ in MAIN_NAMES:
            return self._named(obj)
        return super().reducer_override(obj)

    def _named(self, thing: Any) -> Any:
        """Return how to send an object of `typing` that pickle would send by name."""
        name = getattr(thing, "__name__", "")
        if getattr(sys.modules["__main__"], name, None) is thing and self._main.has(name, thing):
            return NotImplemented
        return reduce_named(thing)

    def _by_name(self, thing: Any) -> Any:
        """Return how to send a function or class by name; None if it is not of `__main__` (cloudpickle decides), False if by value."""
        module = getattr(thing, "__module__", None)
        if module not in MAIN_NAMES:
            return None
        main = sys.modules.get("__main__")
        top, _, _ = thing.__qualname__.partition(".")
        if main is None or _attribute(main, thing.__qualname__) is not thing:
            return False
        definition = getattr(main, top)
        used = {top: definition, **self._uses_of(definition, vars(main))}
        used = {name: value for name, value in used.items() if defines(value)}
        self.uses.update((name, hold(value)) for name, value in used.items())
        lacking = [name for name, value in used.items() if not self._main.has(name, value)]
        if top in lacking:
            return False
        if not lacking:
            return NotImplemented
        # The reader has it, but it uses definitions that are newer than the reader's: include these.
        return named, (thing.__qualname__,), [self._entry(name) for name in lacking], None, None, bind_names_for

    def _entry(self, name: str) -> tuple[str, Any, Any]:
        """Return the entry of a name of `__main__` to include, in the form of a function's globals."""
        value = vars(sys.modules["__main__"])[name]
        self.uses[name] = hold(value)
        key, value, _ = self._as_sent(name, value)
        return name, value, key

    def _uses_of(self, definition: Any, space: dict[str, Any]) -> dict[str, Any]:
        if not self._main.changes:
            return {}
        uses = self._reached.get(id(definition))
        if uses is None:
            uses = self._reached[id(definition)] = reached_from(definition, space)
        return uses

    def _class(self, cls: type) -> Any:
        by_name = self._by_name(cls)
        if by_name is not None and by_name is not False:
            return by_name
        if (made_of := reduce_c_type(cls)) is not None:
            return made_of
        if cls.__module__ == "_ctypes" and (ctypes := sys.modules.get("ctypes")) is not None:
            for base in (ctypes.Structure, ctypes.Union):
                if type(base) is cls:  # a metaclass that no module exports
                    return type, (base,)
        reduced = super().reducer_override(cls)
        if not isinstance(reduced, tuple) or len(reduced) != 6:  # it goes by name
            return reduced
        if (apart := self._shared_class(cls)) is not None:
            return apart
        make, arguments, state, _, _, fill = reduced
        arguments = mend(cls, arguments, state)
        if self._verdicts is not None:
            self._look_at_members(cls, state[0])
        key, how = registry.key_of(cls), dispatch_table.get(cls)
        return (
            make_class,
            (key, make, arguments),
            (fill, state, key, self._name_to_bind(cls), how, of_members(cls)),
            None,
            None,
            fill_class,
        )

    def _shared_class(self, cls: type) -> Any:
        """Return how to send a class that is pickled once for all calls of a pool; None if this pickle contains it."""
        if self._sent is None or cls is self._root or not self._name_to_bind(cls):
            return None
        _, stand_in, uses = self._sent.look_up(f"class {cls.__name__}", cls, self._dump_shared)
        if not issubclass(type(stand_in), KeyedValue):
            return None
        return load_keyed, (stand_in,), [self._entry(name) for name in self._rebound(uses)], None, None, bind_names_for

    def _look_at_members(self, cls: type, content: dict[str, Any]) -> None:
        """At the second attempt, raise TypeError for a member of a class that cannot be sent."""
        for name, member in content.items():
            if not isinstance(member, DEFINITIONS) and (reason := self._reason_against(member)) is not None:
                raise TypeError(
                    f"the class {cls.__qualname__!r} of {cls.__module__} is sent by value, because the process "
                    f"{self._main.why_not()}, "
                    f"and its attribute {name!r} cannot be sent: {reason}"
                )

    def _name_to_bind(self, thing: Any) -> str:
        """Return the name of `thing` at the top level of `__main__`, or ""."""
        name: str = thing.__name__
        return name if thing.__module__ in MAIN_NAMES and getattr(sys.modules["__main__"], name, None) is thing else ""

    def _cached(self, func: Any) -> Any:
        by_name = self._by_name(func)
        if by_name is not None and by_name is not False:
            return by_name
        arguments = registry.key_of(func), func.__wrapped__, func.cache_parameters(), self._name_to_bind(func)
        return make_cached, arguments

    def _function(self, func: FunctionType) -> Any:
        by_name = self._by_name(func)
        if by_name is not None and by_name is not False:
            return by_name
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
            "defaults": func.__defaults__ and tuple(map(referred_to, func.__defaults__)),
            "kwdefaults": func.__kwdefaults__ and {k: referred_to(v) for k, v in func.__kwdefaults__.items()},
            "annotations": self._annotations_of(func),
            "doc": func.__doc__,
            "dict": func.__dict__,
            "type_params": getattr(func, "__type_params__", ()),
            "globals": lacking,
            "missing": missing,
        }
        arguments = home, func.__code__, func.__name__, func.__closure__, registry.key_of(func)
        return make_function, arguments, state, None, None, fill_function

    def _annotations_of(self, func: FunctionType) -> dict[str, Any]:
        try:
            annotations = func.__annotations__
        except Exception as problem:  # Python 3.14 evaluates them at this access
            if interrupts(problem):
                raise
            return {}
        return annotations if self._verdicts is None or self._reason_against(annotations) is None else {}

    def _globals_of(self, func: FunctionType) -> tuple[Any, list[tuple[str, Any, Any]], dict[str, str]]:
        """Return the reader's place for the function's globals, the globals that it lacks, and the reasons why others
        cannot be sent."""
        space, names = func.__globals__, used_globals(func.__code__)
        home: Any = func.__module__
        module = sys.modules.get(home) if isinstance(home, str) else None
        main = sys.modules.get("__main__")
        lacking: list[tuple[str, Any, Any]] = []
        if main is not None and space is vars(main):
            home = "__main__"
            at_start = self._main.values_at_start
            if deleted := {name: at_start[name] for name in names if name in at_start and name not in space}:
                space = {**space, **deleted}
            wanted = self._wanted(names, space)
        elif module is not None and space is vars(module) and self._main.has_module(home):
            return home, [], {}
        else:
            # The reader has no module for this namespace: it makes one namespace for all functions of this one.
            about = {name: space[name] for name in ("__name__", "__package__", "__file__") if name in space}
            home = space_key(space), about
            wanted = [name for name in names if name in space]
        missing: dict[str, str] = {}
        seen: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name in seen:
                continue
            seen.add(name)
            value, key = space[name], NEWEST if self._main.takes_newest or defines(space[name]) else None
            if home == "__main__":
                value = self._main.value_to_send(name, value)
                if value is space[name]:
                    self.uses[name] = hold(value)
                key, value, rebound = self._as_sent(name, value)
                wanted += rebound
            if isinstance(stream := referred_to(value), Stream):
                lacking.append((name, stream, key))
                continue
            if self._verdicts is not None and (reason := self._reason_against(value)) is not None:
                missing[name] = (
                    f"{name!r} of {func.__module__} was not sent, because the process "
                    f"{self._main.why_not()}, and {reason}"
                )
                continue
            lacking.append((name, value, key))
            if issubclass(type(value), ModuleType):
                lacking.extend(("", sys.modules[name], None) for name in _submodules(value, func.__code__))
        return home, lacking, missing

    def _wanted(self, names: Iterable[str], space: dict[str, Any]) -> list[str]:
        """Return the globals of a function that the pickle includes."""
        found = [name for name in names if name in space and name not in OF_MODULES]
        return [name for name in found if not self._main.has(name, space[name])]

    def _as_sent(self, name: str, value: Any) -> tuple[Any, Any, list[str]]:
        """Return the key of a value of `__main__`, the object to pickle for it, and the names that it uses and that were rebound since
        it was pickled."""
        if defines(value):
            return NEWEST, value, []
        if self._sent is None or issubclass(type(value), ModuleType):
            return NEWEST if self._main.takes_newest else None, value, []
        key, value, uses = self._sent.look_up(name, value, self._dump_shared)
        return key, value, self._rebound(uses)

    def _rebound(self, uses: UsedGlobals) -> list[str]:
        """Add the uses of a value that was pickled earlier; return the names that were rebound since then."""
        self.uses.update((name, held) for name, held in uses.items() if name not in self.uses)
        space = vars(sys.modules["__main__"])
        return [name for name, held in uses.items() if name in space and space[name] is not held()]

    def _dump_shared(self, value: Any, stream: Sized) -> UsedGlobals:
        pickler = _SharedValuePickler(stream, self._main, stream.take, {}, value)
        with no_descriptors():
            pickler.dump(value)
        return pickler.uses

    def _reason_against(self, value: Any) -> str | None:
        """Return why `value` cannot be sent, or None. Called only at the second attempt."""
        verdicts: Any = self._verdicts
        if id(value) in verdicts:
            return verdicts[id(value)]  # type: ignore[no-any-return]
        verdicts[id(value)] = None  # during the check, so that a value that refers to itself does not recurse
        with no_descriptors():
            try:
                type(self)(io.BytesIO(), self._main, leave_out, verdicts).dump(value)
            except Exception as refusal:
                if interrupts(refusal):
                    raise
                verdicts[id(value)] = f"it cannot be pickled: {type(refusal).__name__}: {refusal}"
                if "through inheritance" in str(refusal):
                    verdicts[id(value)] += "; pass it in initargs, or as an argument of a Process"
        return verdicts[id(value)]  # type: ignore[no-any-return]


class _ReferringPickler(ByValuePickler):
    """A pickler that writes references for values which were sent to the pool's workers, so that each is a single object in the reader."""

    #: whether the pickle contains such a reference
    refers = False

    def __init__(self, *arguments: Any) -> None:
        #: the names that such values use, and that were rebound since the values were pickled
        self.rebound: set[str] = set()
        super().__init__(*arguments)

    def persistent_id(self, obj: Any) -> Any:
        if self._sent is None or (name := self._sent.name_of(obj)) is None or obj is self._root:
            return None
        _, stand_in, rebound = self._as_sent(name, obj)
        if not issubclass(type(stand_in), KeyedValue):
            return None
        self.refers = True
        self.rebound.update(rebound)
        return stand_in

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is _WithNames:
            return bind_names_then, (obj.value, [self._entry(name) for name in obj.names])
        return super().reducer_override(obj)


class _WithNames:
    """A value, and names of `__main__` to send with it."""

    def __init__(self, value: Any, names: set[str]) -> None:
        self.value, self.names = value, names


class _SharedValuePickler(_ReferringPickler):
    """A pickler for values that any process may read, any number of times."""

    def reducer_override(self, obj: Any) -> Any:
        refuse_what_is_handed_over(obj)
        return super().reducer_override(obj)


def _attribute(of: Any, path: str) -> Any:
    for name in path.split("."):
        of = getattr(of, name, None)
    return of


def dump(value: Any, main: WorkerMain, buffers: Any = None) -> bytes:
    """Return the pickle of `value` for a process whose `__main__` `main` describes.

    `buffers` is called with each buffer that may go out of band, as pickle's `buffer_callback`; it is cleared before a second attempt.
    """
    noted: list[int] = getattr(context.get_spawning_popen(), "_fds", [])
    before = len(noted)
    try:
        return _dump(value, main, buffers, None)
    except Exception as refusal:
        if interrupts(refusal):
            raise
        # A global that a function names cannot be sent: the second attempt leaves it out.
        del noted[before:]
        if (clear := getattr(buffers, "clear", None)) is not None:
            clear()
        return _dump(value, main, buffers, {})


def _dump(value: Any, main: WorkerMain, buffers: Any, verdicts: dict[int, Any] | None) -> bytes:
    sent = main.sent_values()
    kind = _ReferringPickler if sent is not None and sent.look_around() else ByValuePickler
    stream, beside = io.BytesIO(), _RecordingCallback(buffers)
    pickler = kind(stream, main, None if buffers is None else beside, verdicts)
    pickler.dump(value)
    if type(value) is not _WithNames and (rebound := getattr(pickler, "rebound", None)):
        # The pickle refers to values that workers may have already, and these use names that were rebound since: include the names.
        if (clear := getattr(buffers, "clear", None)) is not None:
            clear()
        return _dump(_WithNames(value, rebound), main, buffers, verdicts)
    func = value.value if type(value) is _WithNames else value
    if type(func) is FunctionType:
        record_uses(func, pickler.uses)
    if not getattr(pickler, "refers", False):
        return stream.getvalue()
    whole = io.BytesIO()
    reduction._standard(whole, 5, True, leave_out).dump(Referring(stream.getvalue(), beside.taken))
    return whole.getvalue()


class _RecordingCallback:
    """A `buffer_callback` that calls another one, and records the buffers that it has taken."""

    def __init__(self, ask: Any) -> None:
        self._ask = ask
        self.taken: list[Any] = []

    def __call__(self, buffer: Any) -> Any:
        stays = self._ask(buffer)
        if not stays:
            self.taken.append(buffer)
        return stays
