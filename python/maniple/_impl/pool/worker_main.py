"""The content of `__main__` in the processes that a program starts.

A pickle names a function or a class of `__main__`, and the process that reads it looks the name up in its own `__main__`.  The start
method decides which names it finds there:

===================  ======================================================================================================
fork                 the names that `__main__` had at the fork, without later definitions
spawn, forkserver    the names that the program's file or module defines outside ``if __name__ == "__main__"``
the same, no file    none: a notebook, an interactive session, ``-c``, a script from the standard input, a folder, an archive or
                     a package's ``__main__``
===================  ======================================================================================================

`worker_main` returns the object that describes this for one pool or process.  `by_value` sends the objects that a process lacks.
"""

from __future__ import annotations

import sys
from functools import _lru_cache_wrapper, cached_property, partial, partialmethod, singledispatchmethod
from types import FunctionType, MethodType, ModuleType
from weakref import ref

from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

    from ..serialization.sent_values import SentValues

__all__ = ["DEFINITIONS", "MAIN_NAMES", "OF_MODULES", "WorkerMain", "by_value", "parts_of", "worker_main"]

#: the types of definitions: functions, classes, functions with a cache
DEFINITIONS = (FunctionType, type, _lru_cache_wrapper)
#: the first part of the file name of code that was typed at a prompt
_PROMPTS = ("<stdin", "<python-input", "<ipython-input", "<console>", "<input>")
#: the names of the main module: children that load it also use the second
MAIN_NAMES = ("__main__", "__mp_main__")
#: the names that every module defines
OF_MODULES = frozenset(
    f"__{name}__"
    for name in (
        "annotate annotations builtins cached conditional_annotations doc file loader name package path spec warningregistry"
    ).split()
)


#: the module `by_value`, once its import has ended
_by_value_module: Any = None


def by_value() -> Any:
    """Return the module `by_value`; the first call imports it.

    A signal handler may call it in the middle of the import, and in the same thread it would find a partly imported module.  So the main
    thread, in which handlers run, makes another thread import it, for which a handler can wait.
    """
    global _by_value_module
    if _by_value_module is None:
        import threading

        from ..compat.greenlets import threads_are_real
        from ..sync.thread_start import start_assured

        if threading.current_thread() is threading.main_thread() and threads_are_real():
            loader = threading.Thread(target=_load_by_value, name="maniple-loader", daemon=True)
            try:
                start_assured(loader)
            except (RuntimeError, MemoryError):
                pass  # no thread can be started
            else:
                loader.join()
        if _by_value_module is None:
            _load_by_value(True)
    return _by_value_module


def _load_by_value(aloud: bool = False) -> None:
    global _by_value_module
    try:
        from ..serialization import by_value as _by_value
    except BaseException:
        if aloud:
            raise
        return  # the waiting thread imports the module again, and gets the error
    _by_value_module = _by_value


def worker_main(method: str | None) -> WorkerMain:
    """Return the description of `__main__` in a process that is started now by this start method."""
    global _loaded
    if method == "fork":
        return ForkedMain()
    if getattr(sys, "frozen", False):
        return FrozenMain()
    from ... import spawn

    if not spawn._main_module_data():
        return NoMain()
    if _loaded is None or not _loaded.is_current():
        _loaded = LoadedMain()
    return _loaded


def _is_interactive(main: ModuleType) -> bool:
    """Return whether definitions may be typed into the main module while the program runs."""
    file = getattr(main, "__file__", None)
    return file is None or file[:1] == "<" or bool(sys.flags.interactive or sys.flags.inspect) or hasattr(sys, "ps1")


# The number of loaded modules, the name of the newest one, and all their names, at the last look.
_seen_modules: tuple[int, str | None, frozenset[str]] = 0, None, frozenset()


def _loaded_modules() -> frozenset[str]:
    """Return the names of the loaded modules. Each forked process costs a copy of each page that is written to here, so the names
    are collected only if modules were loaded since the last look."""
    global _seen_modules
    modules = sys.modules
    seen = _seen_modules
    try:
        count, newest = len(modules), next(reversed(modules), None)
    except RuntimeError:
        return frozenset(modules)  # another thread imports meanwhile
    if seen[:2] != (count, newest):
        _seen_modules = seen = count, newest, frozenset(modules)
    return seen[2]


def _definitions(main: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes that `main` itself defines, with their names there."""
    for name, value in list(vars(main).items()):
        if issubclass(type(value), DEFINITIONS) and value.__module__ in MAIN_NAMES:
            yield name, value


class WorkerMain:
    """The content of `__main__` in a process."""

    #: name -> the value that the process receives, also if the value here changes
    values_at_start: dict[str, Any] = {}
    #: whether each value of `__main__` that a pickle includes replaces the process's own
    takes_newest = False
    #: type -> the function that reduces objects of exactly this type in pickles for the process
    reducers: dict[type, Callable[[Any], Any]] = {}

    def __init__(self) -> None:
        main = sys.modules["__main__"]
        # A weak reference: a strong one would keep the main module's globals alive until all other modules are cleared.
        self._main = ref(main)
        #: whether definitions may be typed into the main module while the program runs
        self.changes = _is_interactive(main)
        # For one pool: a function that says whether no call is under way, and the values that were sent to its workers.
        self._is_idle: Callable[[], bool] | None = None
        self._sent: SentValues | None = None

    def for_pool(self, is_idle: Callable[[], bool]) -> Self:
        """Return a copy for the workers of one pool. `is_idle` returns whether no call of the pool is under way."""
        of_pool = object.__new__(type(self))
        vars(of_pool).update(vars(self), _is_idle=is_idle, _sent=None)
        return of_pool

    def sent_values(self) -> SentValues | None:
        """Return the values that were sent to the workers of the pool; None if this object is for no pool."""
        if self._sent is None and self._is_idle is not None:
            from ..serialization.sent_values import SentValues

            self._sent = SentValues(self, self._is_idle)
        return self._sent

    def end_pool(self) -> None:
        """Forget the values that were sent to the workers, which have ended."""
        self._is_idle, sent, self._sent = None, self._sent, None
        if sent is not None:
            sent.end()

    def is_current(self) -> bool:
        """Return whether the main module is still the same."""
        return sys.modules.get("__main__") is self._main()

    def has(self, name: str, value: Any) -> bool:
        """Return whether the process has the counterpart of `value` under this name in its `__main__`."""
        raise NotImplementedError

    def may_lack(self) -> bool:
        """Return whether the process may lack a function or class of `__main__`. The check is fast, and returns True in case of doubt."""
        raise NotImplementedError

    def has_module(self, name: str) -> bool:
        """Return whether the process can import the module."""
        module = sys.modules.get(name)
        return module is not None and _is_found_by_name(module, name)

    def settle_in(self) -> None:
        """In a forked process, register the names that `__main__` has received since its pool was made."""

    def given_at_start(self) -> dict[str, Any]:
        """Return the values of `__main__` that the process receives at its start, because they can be sent at no other time."""
        return {}

    def value_to_send(self, name: str, value: Any) -> Any:
        """Return the value that the process receives under a name that it lacks; the present value is `value`."""
        return value

    def why_not(self) -> str:
        """Return the reason why a process lacks names, as a text that follows "the process"."""
        raise NotImplementedError


def _keep_namespace_of_program() -> None:
    """Give the namespace of a program that a launcher runs, and that is not the one of `__main__`, its key before the fork.

    `python -m cProfile` is such a launcher. Its functions are sent by value. By the key, a forked worker finds the namespace that it
    has inherited, in which an initializer may have set a variable.
    """
    main = vars(sys.modules["__main__"])
    frame: Any = sys._getframe(1)
    while frame is not None:
        space = frame.f_globals
        if space is not main and space.get("__name__") == "__main__":
            from ..serialization.received import space_key

            space_key(space)
            return
        frame = frame.f_back


class ForkedMain(WorkerMain):
    """A process that is forked from this one now."""

    def __init__(self) -> None:
        super().__init__()
        self._names = frozenset(vars(sys.modules["__main__"]))
        self._modules = _loaded_modules()
        self._size = len(vars(sys.modules["__main__"]))
        # Weak references: they do not keep replaced definitions alive, and do not match new definitions at the same address.
        self._defined = {name: ref(value) for name, value in _definitions(sys.modules["__main__"])}
        _keep_namespace_of_program()

    def has(self, name: str, value: Any) -> bool:
        if not self.is_current():
            return False
        if issubclass(type(value), DEFINITIONS) and value.__module__ in MAIN_NAMES:
            known = self._defined.get(name)
            return known is not None and known() is value
        return name in self._names

    def settle_in(self) -> None:
        main = vars(sys.modules["__main__"])
        if len(main) != self._size:
            from ..serialization.received import note_inherited

            note_inherited([name for name in main if name not in self._names])

    def may_lack(self) -> bool:
        if not self.is_current():
            return True
        if not self.changes and len(vars(sys.modules["__main__"])) == self._size:
            return False
        return any(not self.has(name, value) for name, value in _definitions(sys.modules["__main__"]))

    def has_module(self, name: str) -> bool:
        return name in self._modules or super().has_module(name)

    def why_not(self) -> str:
        return "was forked before it was defined"


class _Source:
    """The text of the program's file, which is read when it is first needed."""

    def __init__(self, file: str | None) -> None:
        self._file = file
        self._text: str | None = None
        self._bound: tuple[frozenset[str] | None, frozenset[str]] | None = None

    def _read(self) -> str:
        if self._text is None:
            self._text = ""
            if self._file is not None and not self._file.endswith(".pyc"):
                try:
                    with open(self._file, encoding="utf-8", errors="replace") as file:
                        self._text = file.read()
                except OSError:
                    pass
        return self._text

    def guard_defines(self) -> bool:
        """Return whether an indented line below a guard looks like a definition.

        Reading lines costs less than a syntax tree, which most programs then do not need.
        """
        guard = -1  # the indentation of the guard above the line
        for line in self._read().splitlines():
            text = line.lstrip()
            if not text or text[0] in "#)]}":
                continue
            indentation = len(line) - len(text)
            if -1 < guard < indentation:
                if text.startswith(("def ", "class ", "async ", "@", "from ", "exec")):
                    return True
            else:
                guard = -1
            if "__name__" in text and text.startswith(("if ", "if(", "elif ")):
                guard = indentation
                if text.partition(":")[2].strip():
                    return True
        return False

    def names_bound(self) -> tuple[frozenset[str] | None, frozenset[str]]:
        """Return the names that loading the file binds (None if they are unknown), and those that only the main program binds."""
        if self._bound is None:
            from ..start.main_source import names_bound

            self._bound = names_bound(self._read())
        return self._bound


class LoadedMain(WorkerMain):
    """A process that loads the program's file or module again."""

    def __init__(self) -> None:
        super().__init__()
        self._source = _Source(getattr(sys.modules["__main__"], "__file__", None))
        self._lacked_at: tuple[int, bool] = -1, False

    def has(self, name: str, value: Any) -> bool:
        if not self.is_current():
            return False
        if self.changes and _is_typed_in(value):
            return False
        loaded, only_main = self._source.names_bound()
        if name in only_main:
            return False
        # The program may make a definition in ways that its text does not show.  Sending other values needlessly does no harm.
        return loaded is None or name in loaded or (issubclass(type(value), DEFINITIONS) and not self.changes)

    def may_lack(self) -> bool:
        if not self.is_current():
            return True
        if not self.changes and not self._source.guard_defines():
            return False
        size = len(vars(sys.modules["__main__"]))
        if self.changes or self._lacked_at[0] != size:
            lacks = any(not self.has(name, value) for name, value in _definitions(sys.modules["__main__"]))
            self._lacked_at = size, lacks
        return self._lacked_at[1]

    def why_not(self) -> str:
        return "loads the program's main module without the code under `if __name__ == '__main__'`"


#: the object for the latest main module, shared by all processes because it caches the file's text
_loaded: LoadedMain | None = None


class FrozenMain(WorkerMain):
    """A process that first runs the frozen program up to its `freeze_support()`."""

    def has(self, name: str, value: Any) -> bool:
        return True

    def may_lack(self) -> bool:
        return False

    def why_not(self) -> str:
        return "runs the frozen program only up to its freeze_support()"


class NoMain(WorkerMain):
    """A process that cannot load the program's main module."""

    def __init__(self) -> None:
        super().__init__()
        # Locks, queues and similar objects, the same for all processes of a pool.
        self._given: dict[str, Any] = {}
        self._given_known = False
        # A process that is started now gets the present values, as a forked process does.
        self.values_at_start = {
            name: value for name, value in list(vars(sys.modules["__main__"]).items()) if name not in OF_MODULES
        }

    def settle_in(self) -> None:
        """In a forked process, register the names that `__main__` has received since its pool was made."""

    def given_at_start(self) -> dict[str, Any]:
        if not self._given_known:
            self._given = {
                name: value for name, value in list(vars(sys.modules["__main__"]).items()) if _goes_at_start_only(value)
            }
            self._given_known = True
        return self._given

    def value_to_send(self, name: str, value: Any) -> Any:
        return value if issubclass(type(value), DEFINITIONS) else self.values_at_start.get(name, value)

    def has(self, name: str, value: Any) -> bool:
        return self._given.get(name, self) is value

    def may_lack(self) -> bool:
        return True

    def why_not(self) -> str:
        return "cannot load the program's main module, which is not a file that can be imported"


#: modules whose objects may be pickled only while a process is being started
_AT_START = ("synchronize", "queues", "sharedctypes")


def _goes_at_start_only(value: Any) -> bool:
    """Return whether `value` is a lock, a queue, a shared value or a similar object that the process being started may receive."""
    own = {f"{PACKAGE}.{name}" for name in _AT_START} | {f"multiprocessing.{name}" for name in _AT_START}
    kinds = type(value).__mro__
    if issubclass(type(value), type) or not (
        _has_own(value, "_wrapper") or any(kind.__module__ in own for kind in kinds)
    ):
        return False
    from ..serialization.main_definitions import can_be_sent

    return can_be_sent(value)


def _is_typed_in(value: Any) -> bool:
    """Return whether a function or class was defined at a prompt, not in the program's file."""
    members = list(vars(value).values()) if isinstance(value, type) else [value]
    for member in members:
        for part in (member, *parts_of(member)):
            if type(part) is FunctionType and part.__code__.co_filename.startswith(_PROMPTS):
                return True
    return False


#: types, and the attributes by which their objects refer to functions
_PARTS = (
    (MethodType, ("__func__",)),
    (classmethod, ("__func__",)),
    (staticmethod, ("__func__",)),
    (property, ("fget", "fset", "fdel")),
    (partial, ("func",)),
    (partialmethod, ("func",)),
    (cached_property, ("func",)),
    (singledispatchmethod, ("func",)),
    (_lru_cache_wrapper, ("__wrapped__",)),
)


def parts_of(thing: Any) -> list[Any]:
    """Return the functions behind a method, a property or a similar object. For other objects, return an empty list."""
    for kind, names in _PARTS:
        if issubclass(type(thing), kind):
            return [getattr(thing, name, None) for name in names]
    return []


def _has_own(value: Any, name: str) -> bool:
    """Return whether the object's `__dict__` has the attribute; attributes that the class computes do not count."""
    try:
        return name in object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return False


def _is_found_by_name(module: ModuleType, name: str) -> bool:
    """Return whether an import of `name` in another process with the same search path finds the same module."""
    spec = getattr(module, "__spec__", None)
    if spec is None or spec.loader is None:
        return False
    package = sys.modules.get(name.rpartition(".")[0])
    path = getattr(package, "__path__", None) if "." in name else None
    for finder in sys.meta_path:
        try:
            found = finder.find_spec(name, path)
        except Exception:  # the finder fails: let the other process try
            return True
        if found is not None:
            return bool(found.origin == spec.origin)
    return False
