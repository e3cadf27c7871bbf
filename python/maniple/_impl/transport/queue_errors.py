"""The texts of `queue.Empty` and `queue.Full`: what was waited for, and for how long.

The native module raises most `Empty` and `ShutDown` errors itself (``maniple-python/src/queue.rs``), with the same texts.
"""

from __future__ import annotations

from queue import Empty, Full

__all__ = ["empty_error", "full_error"]


def _waited(block: bool, timeout: float | None) -> str | None:
    return f"for {max(0.0, timeout):g} s" if block and timeout is not None else None


def empty_error(block: bool, timeout: float | None) -> Empty:
    """Return the error of a `get` that has waited for an item."""
    waited = _waited(block, timeout)
    return Empty("the queue is empty" if waited is None else f"the queue was empty {waited}")


def full_error(maxsize: int, block: bool, timeout: float | None) -> Full:
    """Return the error of a `put` that has waited for room in a queue of this size."""
    waited = _waited(block, timeout)
    bound = f"the queue (maxsize={maxsize})"
    return Full(f"{bound} is full" if waited is None else f"{bound} had no room {waited}")
