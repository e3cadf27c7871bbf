"""What the threads of a pool do if there is no memory for a step: they repeat it, because the pool's callers wait for them.

Any call of a Python function may find no memory for its frame or its arguments. So a thread repeats a step in a loop where the step is,
without a function for the repetition, and each step can be repeated: what it has taken stays where the repetition finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["NO_MEMORY", "PAUSE", "pause", "repeat_without_memory"]

#: What a step raises that has no memory; a SystemError if the interpreter has none for the frame of a function, and no other exception.
NO_MEMORY = (MemoryError, SystemError)
#: The seconds after which a thread repeats a step.
PAUSE = 0.02


def pause() -> None:
    """Wait until memory may be available again."""
    sleep(PAUSE)


def repeat_without_memory(step: Callable[..., Any], *args: Any) -> Any:
    """Call ``step(*args)`` until there is memory for it, and return its result. There must be memory for this call."""
    while True:
        try:
            return step(*args)
        except NO_MEMORY:
            sleep(PAUSE)
