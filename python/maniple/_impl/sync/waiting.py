"""Waits for a predicate."""

from __future__ import annotations

import time
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["wait_for"]


def wait_for(wait: Callable[[float | None], Any], predicate: Callable[[], Any], timeout: float | None) -> Any:
    """Call a condition's ``wait`` until ``predicate()`` is true, and return its last value.

    The value is false if `timeout` seconds have passed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while not (outcome := predicate()):
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            break
        wait(left)
    return outcome
