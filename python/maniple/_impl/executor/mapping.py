"""An executor's `map`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from ..pool.payload import note_items

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any

__all__ = ["mapped"]


def mapped(
    submit: Callable[..., Future[Any]],
    submit_chunk: Callable[[Callable[..., Any], list[tuple[Any, ...]]], Future[Any]],
    is_single: bool,
    fn: Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    chunksize: int,
    buffersize: int | None,
) -> Iterator[Any]:
    """Submit the calls of an executor's `map`, and return the iterator over their results.

    Args:
        submit, submit_chunk: the functions that submit a call, and a list of calls.
        is_single: whether each call has to be a task of its own.
        fn, iterables, timeout, chunksize, buffersize: the arguments of `map`.
    """
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and not isinstance(buffersize, int):
        raise TypeError("buffersize must be an integer or None")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    if is_single:
        chunksize = 1
    limit = None if timeout is None else time.monotonic() + timeout
    items = zip(*iterables)
    submissions: Iterator[Future[Any]]
    sizes: deque[int] | None = None
    if chunksize == 1:
        submissions = (submit(fn, *each) for each in items)
    else:
        sizes = deque()
        submissions = (submit_chunk(fn, chunk) for chunk in _chunks_of(items, chunksize, sizes))
    waiting: deque[Future[Any]] = deque()
    try:
        for future in submissions:
            waiting.append(future)
            if len(waiting) == buffersize:
                break
    except BaseException:
        for future in waiting:
            future.cancel()
        raise
    return _results(waiting, lambda: next(submissions, None), limit, sizes)


def _chunks_of(items: Iterator[tuple[Any, ...]], size: int, sizes: deque[int]) -> Iterator[list[tuple[Any, ...]]]:
    """Yield lists of `size` items, and append the size of each to `sizes`; the last may be shorter."""
    while chunk := list(islice(items, size)):
        sizes.append(len(chunk))
        yield chunk


def _results(
    waiting: deque[Future[Any]],
    submit_next: Callable[[], Future[Any] | None],
    limit: float | None,
    sizes: deque[int] | None,
) -> Iterator[Any]:
    """Yield the results of futures in their order.

    Args:
        waiting: the futures.
        submit_next: a function that submits the next task when a result was taken, and returns its future; None if there is none.
        limit: the time (`time.monotonic`) after which waiting raises `TimeoutError`.
        sizes: the numbers of calls of the tasks whose results are lists; None if each task is one call.
    """
    first = 0
    try:
        while waiting:
            future, size = waiting.popleft(), 1 if sizes is None else sizes.popleft()
            try:
                result: Any = future.result(None if limit is None else limit - time.monotonic())
            except Exception as error:
                if future.done() and not future.cancelled():
                    note_items(error, first, size)
                raise
            finally:
                # After a time-out it may still wait.
                future.cancel()
                del future
            if (more := submit_next()) is not None:
                waiting.append(more)
            del more
            first += size
            if sizes is not None:
                result.reverse()
                while result:
                    yield result.pop()
            else:
                # The generator keeps no result.
                holder = [result]
                result = None
                yield holder.pop()
    finally:
        for future in waiting:
            future.cancel()
