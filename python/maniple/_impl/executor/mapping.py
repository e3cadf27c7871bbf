"""The results of an executor's `map`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any

__all__ = ["chunks_of", "results"]


def chunks_of(items: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """Yield lists of `size` items; the last may be shorter."""
    while chunk := list(islice(items, size)):
        yield chunk


def results(
    waiting: deque[Future[Any]], submit_next: Callable[[], Future[Any] | None], limit: float | None, are_chunks: bool
) -> Iterator[Any]:
    """Yield the results of futures in their order.

    Args:
        waiting: the futures.
        submit_next: a function that submits the next task when a result was taken, and returns its future; None if there is none.
        limit: the time (`time.monotonic`) after which waiting raises `TimeoutError`.
        are_chunks: whether each result is a list of results.
    """
    try:
        while waiting:
            future = waiting.popleft()
            try:
                result: Any = future.result(None if limit is None else limit - time.monotonic())
            finally:
                # After a time-out it may still wait.
                future.cancel()
                del future
            if (more := submit_next()) is not None:
                waiting.append(more)
            del more
            if are_chunks:
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
