"""Functions of the standard pool: what pools of queues run (`_queue_pool.py`), and libraries take for pools of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count, starmap
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
    """``map`` of a function and items that come as one argument."""
    return list(map(*args))


def starmapstar(args: tuple[Callable[..., Any], Iterable[Iterable[Any]]]) -> list[Any]:
    """The same for items that are the function's arguments each."""
    func, items = args
    return list(starmap(func, items))


class ExceptionWithTraceback:
    """An exception that takes the text of its traceback along when it is pickled."""

    def __init__(self, exc: BaseException, tb: TracebackType | None) -> None:
        import traceback

        lines = traceback.format_exception(type(exc), exc, tb)
        self.exc, self.tb = exc.with_traceback(None), f'\n"""\n{"".join(lines)}"""'

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[BaseException, str]]:
        return rebuild_exc, (self.exc, self.tb)


def rebuild_exc(exc: BaseException, tb: str) -> BaseException:
    """``exc``, caused by an exception that shows the text ``tb``."""
    exc.__cause__ = RemoteTraceback(tb)
    return exc


def _helper_reraises_exception(ex: BaseException) -> None:
    """The task that stands for an item which could not be had: raises what was raised instead."""
    raise ex


def worker(
    inqueue: Any,
    outqueue: Any,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasks: int | None = None,
    wrap_exception: bool = False,
) -> None:
    """A worker's loop over two queues: ``(job, place, func, args, kwds)`` comes in, ``(job, place, (succeeded, outcome))`` goes out.

    It ends after `maxtasks` tasks, at None, and when the queue is broken. What it does meanwhile it notes on the board that
    `initargs` brings along, where there is one (`_queue_pool_board.py`), so that the pool knows what a worker had that died.
    """
    if maxtasks is not None and not (isinstance(maxtasks, int) and maxtasks > 0):
        raise AssertionError(f"Maxtasks {maxtasks!r} is not valid")
    notes = board.enter() if (board := getattr(initargs, "board", None)) is not None else None
    for queue, others in ((inqueue, "_writer"), (outqueue, "_reader")):
        # The ends that are the parent's, or its end would not be seen.
        if hasattr(queue, others):
            getattr(queue, others).close()
    if initializer is not None:
        initializer(*initargs)
    for done in count():
        if done == maxtasks:
            if notes is not None:
                notes.done()
            return
        if notes is not None:
            notes.waiting()
        try:
            task = inqueue.get()
        except (EOFError, OSError) as error:
            # The pool is gone; or an argument could not be rebuilt.
            if notes is not None:
                notes.unreadable(error)
            return
        except KeyboardInterrupt:
            # The parent got the same Ctrl-C and decides.
            raise SystemExit(1) from None
        except Exception as error:
            if notes is not None:
                notes.unreadable(error)
            raise
        if task is None:
            if notes is not None:
                notes.left()
            return
        job, place, func, args, kwds = task
        if notes is not None:
            notes.running(job, place)
        try:
            outcome: tuple[bool, Any] = True, func(*args, **kwds)
        except BaseException as error:
            wrapped = wrap_exception and func is not _helper_reraises_exception
            outcome = False, ExceptionWithTraceback(error, error.__traceback__) if wrapped else error
        try:
            outqueue.put((job, place, outcome))
        except Exception as refusal:
            outqueue.put((job, place, (False, MaybeEncodingError(refusal, outcome[1]))))
        if notes is not None:
            notes.sent(job, place)
        del task, func, args, kwds, outcome  # not kept while waiting for the next
