"""The functions that the native module calls for pickling, and the exceptions that report a task's failure."""

from __future__ import annotations

import copyreg
import io
import sys
from _pickle import PicklingError, dumps, loads
from collections.abc import Callable
from itertools import groupby
from signal import Signals
from types import CoroutineType

from ... import reduction
from ..._maniple import exceeded_soft_limit, interrupts, interrupts_decoding
from ...context import ManipleError, TimeoutError
from ...reduction import _standard
from .. import PACKAGE
from .limit_errors import CancelledError, MemoryLimitError, SoftTimeoutError, TaskTimeoutError, seconds
from .worker_main import MAIN_NAMES, WorkerMain, by_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # What `report` returns.
    Told = tuple[str, str, str | None, bytes, int | None]

__all__ = ["MaybeEncodingError", "RemoteTraceback", "ResultDecodeError", "TimeoutError", "WorkerLostError"]


def load(stream: bytes, buffers: Any = None) -> Any:
    own = _program_s_pickler("loads")
    return loads(stream, buffers=buffers) if own is None else own.loads(stream)


def _program_s_pickler(function: str) -> Any:
    """Return the pickler with which a program has replaced the pickler of the standard pool's queues; None if it has
    not."""
    queues = sys.modules.get(f"{PACKAGE}.queues")
    if queues is not None:
        return reduction._program_s_pickler(queues, function)
    return None if reduction.ForkingPickler is _standard else reduction.ForkingPickler


def dump(value: Any, buffers: Any) -> bytes:
    """Pickle `value`; `buffers` is called with each large buffer, and returns False if it takes the buffer out of band."""
    if (own := _program_s_pickler("dumps")) is not None:
        return bytes(own.dumps(value))
    stream = io.BytesIO()
    _standard(stream, 5, True, buffers).dump(value)
    return stream.getvalue()


# The exceptions of pickle for objects that it cannot pickle.
_REFUSALS = (PicklingError, AttributeError, TypeError)


def _of_by_value(name: str) -> Callable[..., bytes]:
    """Return a function of the module `by_value`."""
    try:
        module = by_value()
    except ImportError:
        # The import in another thread failed by a shortage, and this thread, which waited for it, gets only an ImportError.
        module = by_value()
    found: Callable[..., bytes] = getattr(module, name)
    return found


def dump_for(value: Any, buffers: Any, main: WorkerMain) -> bytes:
    """Pickle `value` as `dump` does, for a worker whose `__main__` `main` describes.

    Objects that pickle rejects (lambdas, closures), and objects that the worker could not find by name, go by value.
    """
    try:
        data = dump(value, buffers)
    except _REFUSALS as refusal:
        if interrupts(refusal):
            raise
        dump_by_value = _of_by_value("dump")
        buffers.clear()
        try:
            return dump_by_value(value, main, buffers)
        except Exception as problem:
            if interrupts(problem):
                raise
            if str(problem) != str(refusal):
                refusal.add_note(f"It cannot be sent by value either: {type(problem).__name__}: {problem}")
            raise refusal from None
    if b"_main__" not in data or not main.may_lack() or _program_s_pickler("dumps") is not None:
        return data
    buffers.clear()
    return _of_by_value("dump")(value, main, buffers)


def dump_in_band(value: Any, main: WorkerMain) -> bytes:
    """Pickle `value` as `dump_for` does, with all its buffers."""
    return dump_for(value, _InBand(), main)


def note_unsent_arguments(error: BaseException, args: object, kwds: dict[str, Any], main: WorkerMain) -> None:
    """Add a note to the error of a call that could not be pickled: which argument pickle refuses."""
    if isinstance(error, MemoryError) or interrupts(error) or not isinstance(args, tuple | list):
        return
    for name, value in [*enumerate(args), *kwds.items()]:
        try:
            dump_for(value, _InBand(), main)
        except Exception as problem:
            if interrupts(problem):
                raise
            note(error, f"Argument {name!r} of the call, of type {_type_name(value)}, cannot be pickled.")
            return


def note_unsent(error: BaseException, items: list[Any], first: int, main: WorkerMain) -> None:
    """Add a note to the error of a task that could not be pickled: which item pickle refuses. `first` is the index of `items[0]`."""
    if isinstance(error, MemoryError):
        return
    for index, item in enumerate(items, first):
        if len(items) > 1:
            try:
                dump_for(item, _InBand(), main)
                continue
            except Exception as problem:
                if interrupts(problem):
                    raise
        note(error, f"Item {index} of the call, of type {_type_name(item)}, cannot be pickled.")
        return


def _type_name(thing: object) -> str:
    kind = type(thing)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def note(error: BaseException, text: str) -> None:
    # The same exception may come again: pickle raises an exception of the program's own code.
    try:
        if text not in getattr(error, "__notes__", ()):
            error.add_note(text)
    except Exception as problem:
        # The class of the exception has a method of its own, or the notes are no list.
        if interrupts(problem):
            raise


def _items(first: int, items: int) -> str:
    return f"item {first}" if items == 1 else f"items {first} to {first + items - 1}"


def note_items(error: BaseException, first: int, items: int) -> None:
    """Add a note to the error of a task of an executor's `map`: which items it had."""
    if not isinstance(error, WorkerLostError) or error.task:  # else no worker gets ready
        note(error, f"The task that failed had {_items(first, items)} of the call.")


def freshness(func: Any, main: WorkerMain) -> Callable[[], bool] | None:
    """Return a function that returns whether the workers' copy of `func` is up to date; None means that it always
    is."""
    if getattr(func, "__module__", None) not in MAIN_NAMES or not (main.changes or main.may_lack()):
        return None
    from ..serialization.used_globals import Freshness

    return Freshness(func)


# ---- in the worker ----


def dump_result(value: Any, buffers: Any) -> bytes:
    """Pickle a result as `dump` does; a class or function that came by value goes back by its key, and becomes the
    caller's own object."""
    try:
        return dump(value, buffers)
    except _REFUSALS as refusal:
        if f"{PACKAGE}._impl.serialization.received" not in sys.modules or interrupts(
            refusal
        ):  # no object came by value
            raise
        dump_back = _of_by_value("dump_back")
        buffers.clear()
        return dump_back(value, buffers)


def _dump_error(error: object) -> bytes:
    return dump_result(error, _InBand())


class _InBand:
    """A `buffer_callback` that leaves every buffer in the pickle."""

    def __call__(self, buffer: Any) -> bool:
        return True

    def clear(self) -> None:
        """Do nothing: there are no buffers."""


def is_among(error: BaseException, pickled: bytes) -> bool:
    """Return whether an exception is of one of the pickled classes."""
    return issubclass(type(error), loads(pickled))


def handle_soft_limits(number: int) -> None:
    """Install the handler of the signal that interrupts a task at its soft limit."""
    import signal

    signal.signal(number, _raise_at_soft_limit)


def _raise_at_soft_limit(number: int, frame: object) -> None:
    # The signal may arrive when the task has ended.
    limit = exceeded_soft_limit()
    if limit is not None:
        raise SoftTimeoutError(limit)


class MaybeEncodingError(ManipleError):
    """A worker could not pickle the result of a task, or the exception that the task raised.

    Attributes:
        exc: the `repr` of the error that pickling raised.
        value: the `repr` of the result, or of the exception that the task raised.
        exception_type: if the task raised an exception, the name of its class with its module, such as "urllib.error.HTTPError";
            otherwise None.
        exception_text: the text of that exception (its `str`); otherwise None.

    Example::

        try:
            page = pool.apply(fetch, (url,))
        except maniple.pool.MaybeEncodingError as error:
            if error.exception_type != "urllib.error.HTTPError":
                raise
            print(error.exception_text)  # HTTP Error 404: Not Found
    """

    exception_type: str | None = None
    exception_text: str | None = None

    def __init__(self, exc: object, value: object) -> None:
        self.exc: str = _text(exc)
        self.value: str = _text(value)
        super().__init__(self.exc, self.value)

    def __reduce__(self) -> Any:
        # By its texts, since the constructor would quote them again.  The form also suits the standard package's class.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return f"Error sending result: '{self.value}'. Reason: '{self.exc}'"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"


def _text(thing: object) -> str:
    try:
        return repr(thing)
    except Exception:
        return object.__repr__(thing)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as problem:
        if interrupts_decoding(problem):
            raise
        return "(its __str__ failed)"


def _trace(error: BaseException) -> str:
    """Return the traceback of an exception as text; without source lines if it cannot be formatted."""
    try:
        from traceback import format_exception  # late: most workers never fail

        return "".join(format_exception(type(error), error, error.__traceback__))
    except Exception as failure:
        # A parser's SyntaxError may have attributes that `traceback` does not support; or there is no memory.
        if interrupts(failure):
            raise
        lines = ["Traceback (most recent call last):\n"]
        place = error.__traceback__
        while place is not None:
            code = place.tb_frame.f_code
            lines.append(f'  File "{code.co_filename}", line {place.tb_lineno}, in {code.co_name}\n')
            place = place.tb_next
        lines.append(f"{type(error).__qualname__} (its traceback could not be formatted: {_text(failure)})\n")
        return "".join(lines)


_NOTHING_LEFT = "the worker had no memory to report the outcome of its task"
# Made while there is memory.
_PICKLED_SHORTAGE = dumps(MemoryError(_NOTHING_LEFT))


#: whether the error of pickling a result becomes a `MaybeEncodingError`, as in the standard pool
wraps_refusals = True

# The last note of an exception that unpickling raised in a worker; the caller's process adds the items.
_UNREAD = "It was raised while the worker unpickled the arguments of the task"


def _refused_result(value: Any, stage: str) -> tuple[int, str]:
    """Return the place of the result that cannot be pickled among the results of its task, and its type."""
    if stage == "writing many":
        for place, one in enumerate(value):
            try:
                _dump_error(one)
            except Exception as problem:
                if interrupts(problem):
                    raise
                return place, _type_name(one)
    return 0, _type_name(value)


def _explain_coroutine(value: Any, error: BaseException) -> None:
    if isinstance(value, CoroutineType):
        value.close()  # otherwise Python warns that it was never awaited
        note(error, "The function is a coroutine function. Pass a function that runs it, for example with asyncio.run.")


def _explain_option(error: TypeError) -> None:
    """Add a note if a function got an option of calls as an argument."""
    name = str(error).partition("unexpected keyword argument '")[2].partition("'")[0]
    if name in ("task_timeout", "soft_timeout", "retries", "priority"):
        text = f"{name} is an option of calls. An executor's submit passes all keyword arguments to the function; "
        note(error, f"{text}executor.options({name}=...).submit(...) sets the option.")


def report(
    error: BaseException, unsendable: bool, value: object, stage: str = "running", place: int | None = None
) -> Told:
    """Return a failure in a form that can always be sent: type, message, traceback or None, pickle, `place`.

    Args:
        error: the exception.
        unsendable: whether `value` is a result that cannot be pickled.
        value: the result, or the list of the results.
        stage: the stage of the task: "reading" its items, "running", "writing one" result, or "writing many".
        place: the place, among the items of the task, of the item whose call raised the exception.
    """
    try:
        return _report(error, unsendable, value, stage, place)
    except Exception as failure:
        if unsendable or isinstance(failure, MemoryError) or interrupts(failure):
            raise
        # Methods of the exception raise.
        odd = MaybeEncodingError(failure, _type_name(error))
        odd.exception_type, odd.exception_text = _type_name(error), ""
        return _report(odd, False, None, stage, place)


def _report(error: BaseException, unsendable: bool, value: object, stage: str, place: int | None) -> Told:
    trace: str | None
    if (
        isinstance(error, NameError)
        and (received := sys.modules.get(f"{PACKAGE}._impl.serialization.received")) is not None
    ):
        received.explain(error)
    if unsendable and wraps_refusals:
        refused = _refused_result(value, stage)
        error, trace = MaybeEncodingError(error, value), None
        vars(error)["_refused"] = ("result", *refused)
        _explain_coroutine(value[refused[0]] if isinstance(value, list) and stage == "writing many" else value, error)
    else:
        if stage == "reading":
            note(error, _UNREAD)
        if unsendable:
            _explain_coroutine(value, error)
        elif isinstance(error, TypeError):
            _explain_option(error)
        trace = _trace(error)
    try:
        error.__traceback__ = None
        pickled = _dump_error(error)
    except Exception as failure:
        refused_error = ("exception", place, _type_name(error))
        of_task = _type_name(error), _message(error)
        error = MaybeEncodingError(failure, error)
        vars(error)["_refused"] = refused_error
        if not unsendable:
            error.exception_type, error.exception_text = of_task
        try:
            pickled = _dump_error(error)
        except Exception as failure:
            # Nothing can be pickled, not even text: memory is short, and an import needs it.
            if interrupts(failure):
                raise
            error, pickled = MemoryError(_NOTHING_LEFT), _PICKLED_SHORTAGE
    message = _message(error)
    return _type_name(error), message, trace, pickled, place


# ---- in the parent ----

# A class of the program may refuse the attribute.
_set_cause = vars(BaseException)["__cause__"].__set__


class RemoteTraceback(ManipleError):
    """The traceback, as text, of an exception that a task raised in a worker.

    It is the `__cause__` of the exception that the pool raises again in the calling process.

    Attributes:
        tb: the formatted traceback.
    """

    def __init__(self, tb: str) -> None:
        super().__init__(tb)
        self.tb = tb

    def __str__(self) -> str:
        return self.tb


class ResultDecodeError(ManipleError):
    """The calling process cannot unpickle the result of a task, or the exception that the task raised.

    Only the task with this result fails; the pool continues. `__cause__` is the error that unpickling raised, or the traceback of the
    exception in the worker. The standard package does not have this exception: there, the pool hangs.

    Attributes:
        exception_type: if the task raised an exception, the name of its class with its module; otherwise None.
        exception_text: the text of that exception (its `str`); otherwise None.
    """

    exception_type: str | None = None
    exception_text: str | None = None


class WorkerLostError(ManipleError, RuntimeError):
    """The worker that ran a task died, or no worker could be started.

    Only the task of that worker fails; the pool starts another worker and continues. If no worker at all can be
    started, every open task fails. The standard package does not have this exception: there, the caller waits forever.

    Attributes:
        pid: the process id of the worker; 0 if no process was started.
        exitcode: the exit code as in `Process.exitcode`; None if it is not known.
        signal: the `signal.Signals` member that killed the worker; None if it was not killed by a signal.
        task: the function, and the indexes of the items, that the worker was running; "" if none.
        stderr_tail: the last lines that the worker wrote to its standard error.

    Example::

        try:
            pool.map(work, jobs)
        except maniple.WorkerLostError as lost:
            print(f"worker {lost.pid} died ({lost.signal or lost.exitcode}) while it ran {lost.task}")
    """

    def __init__(self, message: str, pid: int, exitcode: int | None, task: str, stderr_tail: str) -> None:
        super().__init__(message, pid, exitcode, task, stderr_tail)
        self.pid = pid
        self.exitcode = exitcode
        self.task = task
        self.stderr_tail = stderr_tail

    def __reduce__(self) -> Any:
        return type(self), self.args

    @property
    def signal(self) -> Signals | None:
        """The signal that killed the worker; None if no signal did, or if Python has no name for it."""
        if self.exitcode is None or self.exitcode >= 0:
            return None
        try:
            return Signals(-self.exitcode)
        except ValueError:
            return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __str__(self) -> str:
        text = str(self.args[0])
        if self.task:
            text += f"; it was running {self.task}"
        if self.stderr_tail:
            text += f"\nThe end of its standard error:\n{self.stderr_tail}"
        return text


def raised(told: Told, first: int | None = None, items: int = 1) -> BaseException:
    """Return the exception that a worker reported; its cause has the worker's traceback.

    `first` is the index of the task's first item in the call, if the call counts items; `items` is their number.
    """
    kind, message, trace, pickled, at = told
    error: BaseException | None = None
    why = ""
    try:
        error = loads(pickled)
        if not isinstance(error, BaseException):
            why, error = f"its pickle contains {_text(error)}, which is not an exception", None
    except BaseException as failure:
        if interrupts_decoding(failure):
            raise
        why = f"{type(failure).__name__}: {failure} (does its class pass all arguments to super().__init__(), or define __reduce__?)"
    if error is None:
        error = ResultDecodeError(
            f"the task raised {kind}: {message}; the exception itself cannot be unpickled here: {why}"
        )
        error.exception_type, error.exception_text = kind, message
    if trace is not None:
        _set_cause(error, RemoteTraceback(f'\n"""\n{trace}"""'))
    if type(error) is MaybeEncodingError and (refused := vars(error).pop("_refused", None)) is not None:
        what, place, kind = refused
        of = "" if first is None else f" of {_items(first, items) if place is None else f'item {first + place}'}"
        note(error, f"The {what}{of}, of type {kind}, cannot be pickled.")
    elif first is not None and at is not None and not issubclass(type(error), MemoryError):
        note(error, f"Item {first + at} of the call raised it.")
    elif first is not None and (notes := getattr(error, "__notes__", None)) and notes[-1] == _UNREAD:
        notes[-1] += f", {_items(first, items)} of the call"
    return error


def unreadable(failure: BaseException, place: tuple[int, int] | None = None) -> BaseException:
    """Return the exception for a result that cannot be unpickled. `place`: the index of the task's first item, and their number."""
    error = ResultDecodeError(f"the task's result cannot be unpickled here: {type(failure).__name__}: {failure}")
    error.__cause__ = failure
    if place is not None:
        error.add_note(f"It is {'' if place[1] == 1 else 'in '}the result of {_items(*place)} of the call.")
    return error


def _ending(exitcode: int | None) -> str:
    if exitcode is None:
        return "ended with an unknown exit code"
    if exitcode >= 0:
        return f"exited with code {exitcode}"
    try:
        return f"was killed by signal {-exitcode} ({Signals(-exitcode).name})"
    except ValueError:
        return f"was killed by signal {-exitcode}"


def text_of_task(name: str, first: int | None, items: int) -> str:
    """Return the name of a task's function, and the indexes of its items in the call, if the call counts items."""
    if first is None:
        return name
    return f"{name}, item {first}" if items == 1 else f"{name}, items {first} to {first + items - 1}"


def overdue(pid: int, limit: float, ran: float, name: str, first: int | None, items: int) -> TaskTimeoutError:
    """Return the exception for a task that has exceeded its time limit."""
    return TaskTimeoutError(text_of_task(name, first, items), limit, ran, pid)


def too_large(pid: int, limit: int, peak: int, name: str, first: int | None, items: int) -> MemoryLimitError:
    """Return the exception for a task whose worker has exceeded the memory limit."""
    return MemoryLimitError(text_of_task(name, first, items), limit, peak, pid)


def renamed(error: WorkerLostError | TaskTimeoutError | MemoryLimitError, task: str) -> BaseException:
    """Return a copy of the error of a lost task, with another text for the task."""
    kind, values = error.__reduce__()[:2]
    place = values.index(error.task)
    new: BaseException = kind(*values[:place], task, *values[place + 1 :])
    vars(new).update({name: value for name, value in vars(error).items() if name != "task"})
    _set_cause(new, error.__cause__)
    return new


#: the number of SIGKILL, which Windows has no name for
_KILL = 9


def unready(pid: int, limit: float, stderr_tail: str) -> WorkerLostError:
    """Return the exception for calls of a pool whose workers do not become ready in time."""
    message = f"no worker process gets ready, so the pool has failed; the last, {pid}, was ended after its worker_init_timeout of "
    return WorkerLostError(f"{message}{seconds(limit)}", pid, -_KILL, "", stderr_tail)


def withdrawn(name: str, first: int | None, items: int) -> CancelledError:
    """Return the exception for a call that was cancelled."""
    return CancelledError(f"the call was cancelled: {text_of_task(name, first, items)}")


def after_tries(error: BaseException, earlier: list[BaseException]) -> None:
    """Add the exceptions of a task's earlier tries to that of its last."""
    number = 1
    for text, same in groupby(f"failed with {type(before).__name__}: {_message(before)}" for before in earlier):
        last = number + len(list(same)) - 1
        note(error, f"try {number} {text}" if last == number else f"tries {number} to {last} {text}")
        number = last + 1
    try:
        error.earlier_errors = tuple(earlier)  # type: ignore[attr-defined]
    except Exception as problem:
        # Its class has no room for attributes, or refuses them.
        if interrupts(problem):
            raise


def lost(
    pid: int,
    exitcode: int | None,
    stderr_tail: str,
    was_ready: bool,
    told: Told | None,
    name: str,
    first: int | None,
    items: int,
    starved: bool = False,
) -> WorkerLostError:
    """Return the exception for a task of the function `name` whose worker died."""
    if was_ready:
        message = f"worker process {pid} {_ending(exitcode)}"
        if starved:
            message += ", probably by the kernel, which has ended a process because memory ran out (see `dmesg`)"
        return WorkerLostError(message, pid, exitcode, text_of_task(name, first, items), stderr_tail)
    if pid == 0:
        message = "no worker process can be started"
        return WorkerLostError(f"{message}: {stderr_tail}" if stderr_tail else message, pid, exitcode, "", "")
    from ..start import unguarded

    message = "no worker process gets ready, so the pool has failed"
    if told is None and exitcode == unguarded.EXIT_CODE:
        message += ": each worker loads the program's main module, which starts processes or sets the start method."
        return WorkerLostError(message + "\n" + unguarded.advice().rstrip(), pid, exitcode, "", "")
    message += "; "
    message += f"the last, {pid}, {_ending(exitcode)} while it started"
    if told is None:
        frozen = getattr(sys, "frozen", False)
        hint = "does the frozen program call freeze_support() before it reads its arguments?"
        message += f" ({hint})" if frozen else " (could it import the main module, and did its initializer return?)"
    else:
        message += f", because its initializer raised {told[0]}: {told[1]}"
    error = WorkerLostError(message, pid, exitcode, "", stderr_tail)
    if told is not None:
        error.__cause__ = raised(told)
    return error


def cancelled() -> BaseException:
    """Return the exception for a call that its pool's termination has ended."""
    return ValueError("Pool not running: it was terminated before this task ended")


for _error in (MaybeEncodingError, RemoteTraceback, ResultDecodeError, WorkerLostError):
    _error.__module__ = "maniple.pool"
del _error
