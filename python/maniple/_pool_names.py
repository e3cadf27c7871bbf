"""Helpers of the standard pool which libraries take from `pool` for pools of their own; ours has no use for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count, starmap
from types import TracebackType

from ._payload import MaybeEncodingError, RemoteTraceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ExceptionWithTraceback", "job_counter", "mapstar", "rebuild_exc", "starmapstar", "worker"]

#: numbers for the jobs of such pools
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


def worker(
    inqueue: Any,
    outqueue: Any,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasks: int | None = None,
    wrap_exception: bool = False,
) -> None:
    """A worker's loop over two queues: ``(job, place, func, args, kwds)`` comes in, ``(job, place, (succeeded, outcome))`` goes out.

    It ends after `maxtasks` tasks, at None, and when the queue is broken.
    """
    if maxtasks is not None and not (isinstance(maxtasks, int) and maxtasks > 0):
        raise AssertionError(f"Maxtasks {maxtasks!r} is not valid")
    for queue, others in ((inqueue, "_writer"), (outqueue, "_reader")):
        # The ends that are the parent's, or its end would not be seen.
        if hasattr(queue, others):
            getattr(queue, others).close()
    if initializer is not None:
        initializer(*initargs)
    for done in count():
        if done == maxtasks:
            return
        try:
            task = inqueue.get()
        except (EOFError, OSError):
            return
        if task is None:
            return
        job, place, func, args, kwds = task
        try:
            outcome: tuple[bool, Any] = True, func(*args, **kwds)
        except Exception as error:
            outcome = False, ExceptionWithTraceback(error, error.__traceback__) if wrap_exception else error
        try:
            outqueue.put((job, place, outcome))
        except Exception as refusal:
            outqueue.put((job, place, (False, MaybeEncodingError(refusal, outcome[1]))))
        del task, func, args, kwds, outcome  # not kept while waiting for the next
