"""The seeds of tasks: in a pool with `seed=`, a worker seeds its random generators before each call.

The seed of a call depends on the pool's seed, the number of the call to the pool, and the index of the item in it, and on nothing else:
neither the worker nor the size of the chunks matters.
"""

from __future__ import annotations

import random
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["reseed_numpy", "seed_task"]

# NumPy's generator of the old interface uses the algorithm of `random`. Without this word both would return the same numbers.
_NUMPY = 0x4E756D50
_WORD = 0xFFFFFFFF


def seed_task(key: bytes, place: int) -> None:
    """In a worker, seed `random`, and `numpy.random` if it is imported, for one call.

    Args:
        key: the pool's seed and the number of the call.
        place: the index of the item in the call.
    """
    bits = 8 * len(key)
    # The highest bit keeps leading zeros: no two seeds are the same number.
    entropy = (1 << bits | int.from_bytes(key, "little")) << 64 | place
    random.seed(entropy)
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        words = [entropy >> shift & _WORD for shift in range(0, bits + 64, 32)]
        _seed_numpy(numpy_random, [*words, _NUMPY])


def reseed_numpy(numpy_random: Any) -> None:
    """In a forked worker, seed the global generator of `numpy.random` anew: it is a copy of its parent's.

    The global generator of `random` needs no such step, because the interpreter seeds it in each forked child.
    """
    _seed_numpy(numpy_random, None)


def _seed_numpy(numpy_random: Any, words: list[int] | None) -> None:
    seed = getattr(numpy_random, "seed", None)
    if seed is None:
        return  # another thread was importing the module when this process was forked
    try:
        seed(words)
    except TypeError:
        # The program has replaced the global generator's source, and `seed` knows only the original one.
        source = type(numpy_random.get_bit_generator())
        numpy_random.set_bit_generator(source(words))
