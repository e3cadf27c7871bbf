"""The start of the stream of a call of `imap`, and of the thread that feeds the stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from ..start.descriptors import explain_shortage
from ..sync.thread_start import start_steadily
from .inputs import iterator_over
from .results import stay_if_program_ends

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["open_stream"]


def open_stream(
    workers: Any,
    func: Callable[[Any], Any],
    iterable: Iterable[Any],
    external: bool,
    chunksize: int,
    window: int,
    ordered: bool,
    terms: Any = None,
) -> Any:
    """Return the stream of a call of `imap`, after the start of its feeder.

    Args:
        workers: the workers of the pool.
        func: the function to call.
        iterable: its arguments.
        external: whether a separate thread reads `iterable`, because reading it runs code of the program.
        chunksize: the number of items of a task.
        window: the number of items that may be in progress or wait to be taken.
        ordered: whether the results come in the order of the items.
        terms: the limits and retries of the tasks.
    """
    if not external:
        return _new_stream(workers, func, iterable, external, chunksize, window, ordered, terms)
    me = threading.get_ident()
    workers.opening.append(me)
    try:
        return _fed_stream(workers, func, iterable, chunksize, window, ordered, terms)
    finally:
        workers.opening.remove(me)


def _new_stream(
    workers: Any, func: Any, iterable: Any, external: bool, chunksize: int, window: int, ordered: bool, terms: Any
) -> Any:
    more = () if terms is None else (terms,)
    try:
        return workers.hub.stream(func, iterable, external, False, chunksize, window, ordered, *more)
    except ValueError:
        stay_if_program_ends()
        raise


def _fed_stream(workers: Any, func: Any, iterable: Any, chunksize: int, window: int, ordered: bool, terms: Any) -> Any:
    stream: Any = None
    try:
        stream = _new_stream(workers, func, iterable, True, chunksize, window, ordered, terms)
        more = () if terms is None else (terms,)
        feeder = workers.feeder(stream.job, iterator_over(iterable), *more)
        if feeder is not None:
            try:
                start_steadily(feeder)
            except (MemoryError, RuntimeError) as problem:
                explain_shortage(
                    problem, "no thread can be started to read the input (a list, a tuple or a range needs none)"
                )
                raise
        # If a signal handler raises before this call, its exception cancels the stream.
        stream.fed()
        return stream
    except BaseException:
        # Without the thread the stream would wait for items forever. The exception may be kept, and the stream with it.
        if stream is not None:
            stream.cancel()
        raise
