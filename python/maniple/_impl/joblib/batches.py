"""Pickling of the batches of calls that joblib submits."""

from __future__ import annotations

import io
import sys
from _pickle import PicklingError
from types import FunctionType, ModuleType
from uuid import uuid4

from ... import reduction
from ..._maniple import interrupts
from ..pool.worker_main import MAIN_NAMES, NoMain, WorkerMain, by_value
from .arrays import SharedArrays
from .worker import known_function

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["AloneMain", "Batches"]

# Buffers from this size on travel beside the pickle.
_APART_FROM = 16 * 1024


class AloneMain(NoMain):
    """A process that does not load the program's main module: functions and classes of it go by value, with their present globals."""

    takes_newest = True

    def __init__(self) -> None:
        WorkerMain.__init__(self)
        self.changes = True
        self._given, self._given_known = {}, True

    def value_to_send(self, name: str, value: Any) -> Any:
        return value

    def has(self, name: str, value: Any) -> bool:
        return False

    def has_module(self, name: str) -> bool:
        # A function that goes by value brings its globals along, as with cloudpickle: they may have changed since their import.
        return False

    def why_not(self) -> str:
        return "does not load the program's main module"


class _Buffers:
    """A `buffer_callback` that collects large buffers as arrays of bytes."""

    def __init__(self) -> None:
        self.taken: list[Any] = []

    def __call__(self, buffer: Any) -> bool:
        # Only NumPy's arrays have such buffers, and objects that consist of arrays.
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return True
        raw = buffer.raw()
        if raw.nbytes < _APART_FROM:
            return True
        self.taken.append(numpy.frombuffer(raw, numpy.uint8))
        return False

    def clear(self) -> None:
        self.taken.clear()


_ATOMS = (int, float, complex, str, bytes, bool, type(None))


def _parts(func: FunctionType, parts: list[Any]) -> bool:
    """Collect the objects of which the by-value pickle of a function consists; return False if some of them may change in place."""
    from ..serialization.used_globals import used_globals

    if func in parts:
        return True
    parts += (func, func.__code__)
    if func.__dict__ or getattr(func, "__type_params__", None) or func.__globals__ is not vars(sys.modules["__main__"]):
        return False
    values = [*(func.__defaults__ or ()), *(func.__kwdefaults__ or {}).values()]
    try:
        values += [cell.cell_contents for cell in func.__closure__ or ()]
    except ValueError:
        return False  # the cell is empty yet
    values += [func.__globals__[name] for name in used_globals(func.__code__) if name in func.__globals__]
    for value in values:
        if type(value) is FunctionType and value.__module__ in MAIN_NAMES:
            if not _parts(value, parts):
                return False
        elif type(value) in _ATOMS or type(value) is ModuleType:
            parts.append(value)
        else:
            return False
    return True


class _Pickler(reduction._standard):
    """A pickler that writes simple functions of the main module as keys, with a pickle by value beside that is made once."""

    main: WorkerMain
    #: the functions of the call, as in `Batches`
    functions: dict[int, tuple[list[Any], bytes, bytes]]
    #: the functions of this batch: key -> pickle
    used: dict[bytes, bytes]

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not FunctionType or obj.__module__ not in MAIN_NAMES:
            return NotImplemented
        parts: list[Any] = []
        if not _parts(obj, parts):
            return NotImplemented
        known = self.functions.get(id(obj))
        if known is None or len(known[0]) != len(parts) or not all(map(_is, known[0], parts)):
            known = self.functions[id(obj)] = parts, uuid4().bytes, by_value().dump(obj, self.main)
        _, key, pickle = known
        self.used[key] = pickle
        return known_function, (key,)


def _is(one: object, other: object) -> bool:
    return one is other


class Batches:
    """Pickles the batches of one call of `joblib.Parallel`.

    Args:
        main: what the workers have in `__main__`.
        arrays: the shared arrays of the call.
    """

    def __init__(self, main: WorkerMain, arrays: SharedArrays) -> None:
        self._main, self._arrays = main, arrays
        # By the id of the function: the objects of which its pickle consists, which keep the id valid; its key and its pickle.
        self._functions: dict[int, tuple[list[Any], bytes, bytes]] = {}

    def pickled(self, batch: Any) -> tuple[bytes, dict[bytes, bytes], list[Any]]:
        """Return the pickle of a batch, the functions to which it refers by keys, and the buffers that travel beside it.

        Raises:
            PicklingError: the batch cannot be pickled. Its cause is the error that pickling raised.
        """
        try:
            return self._pickled(batch)
        except Exception as problem:
            if interrupts(problem):
                raise
            raise PicklingError("Could not pickle the task to send to the workers.") from problem

    def _pickled(self, batch: Any) -> tuple[bytes, dict[bytes, bytes], list[Any]]:
        buffers, main = _Buffers(), self._main
        functions: dict[bytes, bytes] = {}
        reducers = main.reducers = self._arrays.reducers()
        refusal: Exception | None = None
        try:
            stream = io.BytesIO()
            if main.takes_newest:
                pickler: Any = _Pickler(stream, 5, True, buffers)
                pickler.main, pickler.functions, pickler.used = main, self._functions, functions
            else:
                pickler = reduction._standard(stream, 5, True, buffers)
            if reducers:
                pickler.dispatch_table = {**pickler.dispatch_table, **reducers}
            pickler.dump(batch)
            data = stream.getvalue()
            if b"_main__" not in data or not main.may_lack():
                return data, functions, buffers.taken
        except (PicklingError, AttributeError, TypeError) as problem:
            if interrupts(problem):
                raise
            refusal = problem
        buffers.clear()
        try:
            return by_value().dump(batch, main, buffers), {}, buffers.taken
        except Exception as problem:
            if refusal is None or interrupts(problem):
                raise
            if str(problem) != str(refusal):
                refusal.add_note(f"It cannot be sent by value either: {type(problem).__name__}: {problem}")
            raise refusal from None
