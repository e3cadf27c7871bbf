"""Functions of the standard pool, which pools of queues (`queue_pool.py`) and pools of other libraries use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from types import TracebackType

from .payload import MaybeEncodingError, RemoteTraceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "ExceptionWithTraceback",
    "_helper_reraises_exception",
    "job_counter",
    "mapstar",
    "rebuild_exc",
    "starmapstar",
    "worker",
]

#: numbers for jobs that the engine does not number
job_counter = count()


def mapstar(args: tuple[Callable[..., Any], Iterable[Any]]) -> list[Any]:
    """Apply ``map`` to a function and items, which are passed as a pair."""
    # Not `list(map(...))`, for which a StopIteration of the function is the end.
    func, *items = args
    return [func(item) for item in items[0]] if len(items) == 1 else [func(*each) for each in zip(*items)]


def starmapstar(args: tuple[Callable[..., Any], Iterable[Iterable[Any]]]) -> list[Any]:
    """Apply ``starmap`` to a function and tuples of its arguments, which are passed as a pair."""
    func, items = args
    return [func(*item) for item in items]


class ExceptionWithTraceback:
    """An exception whose pickle contains the text of its traceback."""

    def __init__(self, exc: BaseException, tb: TracebackType | None) -> None:
        import traceback

        lines = traceback.format_exception(type(exc), exc, tb)
        self.exc, self.tb = exc.with_traceback(None), f'\n"""\n{"".join(lines)}"""'

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[BaseException, str]]:
        return rebuild_exc, (self.exc, self.tb)


def rebuild_exc(exc: BaseException, tb: str) -> BaseException:
    """Return ``exc`` with a cause that shows the text ``tb``."""
    exc.__cause__ = RemoteTraceback(tb)
    return exc


def _helper_reraises_exception(ex: BaseException) -> None:
    """Raise `ex`: the task for an item that the iterable failed to produce."""
    raise ex


def worker(
    inqueue: Any,
    outqueue: Any,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasks: int | None = None,
    wrap_exception: bool = False,
) -> None:
    """Run a worker's loop: receive ``(job, place, func, args, kwds)`` from `inqueue`, send ``(job, place, (succeeded, outcome))`` to `outqueue`.

    The loop ends after `maxtasks` tasks, at None, and when a queue is broken. If `initargs` has a worker table (`queue_pool_worker_table.py`), the
    worker writes into it which task it runs, so that the pool can determine the task of a worker that dies.
    """
    if maxtasks is not None and not (isinstance(maxtasks, int) and maxtasks > 0):
        raise AssertionError(f"Maxtasks {maxtasks!r} is not valid")
    entry = table.enter() if (table := getattr(initargs, "table", None)) is not None else None
    for queue, others in ((inqueue, "_writer"), (outqueue, "_reader")):
        # Close the parent's ends, so that the worker detects the parent's end.
        if hasattr(queue, others):
            getattr(queue, others).close()
    if initializer is not None:
        initializer(*initargs)
    for done in count():
        if done == maxtasks:
            if entry is not None:
                entry.done()
            return
        if entry is not None:
            entry.waiting()
        try:
            task = inqueue.get()
        except (EOFError, OSError) as error:
            # The pool has ended, or an argument could not be unpickled.
            if entry is not None:
                entry.unreadable(error)
            return
        except KeyboardInterrupt:
            # The parent received the same Ctrl-C and handles it.
            raise SystemExit(1) from None
        except Exception as error:
            if entry is not None:
                entry.unreadable(error)
            raise
        if task is None:
            if entry is not None:
                entry.left()
            return
        job, place, func, args, kwds = task
        if entry is not None:
            entry.running(job, place)
        try:
            outcome: tuple[bool, Any] = True, func(*args, **kwds)
        except BaseException as error:
            wrapped = wrap_exception and func is not _helper_reraises_exception
            outcome = False, ExceptionWithTraceback(error, error.__traceback__) if wrapped else error
        try:
            outqueue.put((job, place, outcome))
        except Exception as refusal:
            outqueue.put((job, place, (False, MaybeEncodingError(refusal, outcome[1]))))
        if entry is not None:
            entry.sent(job, place)
        del task, func, args, kwds, outcome  # the worker must not keep them alive while it waits
