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
    more = () if terms is None else (terms,)
    if not external:
        try:
            return workers.hub.stream(func, iterable, False, False, chunksize, window, ordered, *more)
        except ValueError:
            stay_if_program_ends()
            raise
    me = threading.get_ident()
    workers.opening.append(me)
    stream: Any = None
    try:
        stream = workers.hub.stream(func, iterable, True, False, chunksize, window, ordered, *more)
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
    except BaseException as error:
        # Without the thread the stream would wait for items forever. The exception may be kept, and the stream with it.
        if stream is not None:
            stream.cancel()
        elif isinstance(error, ValueError):
            stay_if_program_ends()
        raise
    finally:
        workers.opening.remove(me)
