"""What the threads of a pool do if there is no memory for a step: they repeat it, because the pool's callers wait for them.

Any call of a Python function may find no memory for its frame or its arguments. So a thread repeats a step in a loop where the step is,
without a function for the repetition, and each step can be repeated: what it has taken stays where the repetition finds it.
"""

from __future__ import annotations

from time import sleep

__all__ = ["NO_MEMORY", "PAUSE", "pause"]

#: What a step raises that has no memory; a SystemError if the interpreter has none for the frame of a function, and no other exception.
NO_MEMORY = (MemoryError, SystemError)
#: The seconds after which a thread repeats a step.
PAUSE = 0.02


def pause() -> None:
    """Wait until memory may be available again."""
    sleep(PAUSE)
