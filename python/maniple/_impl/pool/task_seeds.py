"""The seeds of tasks: in a pool with `seed=`, a worker seeds its random generators before each call.

The seed of a call depends on the pool's seed, the number of the call to the pool, and the index of the item in it, and on nothing else:
neither the worker nor the size of the chunks matters.
"""

from __future__ import annotations

import os
import random
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["end_tasks", "reseed_numpy", "seed_task", "task_seed"]

# NumPy's generator of the old interface uses the algorithm of `random`. Without this word both would return the same numbers.
_NUMPY = 0x4E756D50
_WORD = 0xFFFFFFFF
# The process, the key and the place of the call that the worker makes now.
_now: tuple[int, bytes, int] | None = None


def seed_task(key: bytes, place: int) -> None:
    """In a worker, seed `random` and `numpy.random` for one call.

    Args:
        key: the pool's seed and the number of the call.
        place: the index of the item in the call.
    """
    global _now
    _now = os.getpid(), key, place
    bits = 8 * len(key)
    # The highest bit keeps leading zeros: no two seeds are the same number.
    entropy = (1 << bits | int.from_bytes(key, "little")) << 64 | place
    random.seed(entropy)
    words = [entropy >> shift & _WORD for shift in range(0, bits + 96, 32)]
    if (numpy_random := sys.modules.get("numpy.random")) is None:
        _LATE.words = words
        if _LATE not in sys.meta_path:
            sys.meta_path.insert(0, _LATE)
    else:
        _seed_numpy(numpy_random, words)


def task_seed() -> int:
    """Return the seed of the task that runs, an int of 128 bits, in a worker of a pool or an executor with `seed=`.

    It seeds generators that the program makes itself, such as those of `numpy.random.default_rng`. It depends on the pool's `seed`, the
    number of the call to the pool's methods, and the index of the item alone: so each run has the same seeds, for any number of workers
    and any `chunksize`. All calls of this function in one task, and in all tries of the task, return the same number.

    Raises:
        RuntimeError: no task of a pool with `seed=` runs in this process.

    Example::

        def sample(size):
            return numpy.random.default_rng(maniple.task_seed()).normal(size=size)

        with maniple.Pool(4, seed=1) as pool:
            samples = pool.map(sample, sizes)
    """
    now = _now
    if now is None or now[0] != os.getpid():
        raise RuntimeError(
            "task_seed() returns the seed of a task, but no task of a pool with a seed runs in this process: "
            "pass seed= to the Pool or executor, and call task_seed() in the function that its workers call"
        )
    from _blake2 import blake2b  # `hashlib` loads all other algorithms as well

    _, key, place = now
    return int.from_bytes(blake2b(key + place.to_bytes(8, "little"), digest_size=16).digest(), "little")


# The name of the module from which programs have it.
task_seed.__module__ = "maniple"


def end_tasks() -> None:
    """In a worker, after its last task: no task runs from now on."""
    global _now
    _now = None


class _LateSeed:
    """Seeds `numpy.random` for the present task when the task imports it, which is when the program first uses it."""

    words: list[int]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec that the other finders find, with a loader that seeds the module; None for other modules."""
        if name != "numpy.random":
            return None
        found = (finder.find_spec(name, path, target) for finder in list(sys.meta_path) if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_seed(module: Any) -> None:
                load(module)
                if module.__name__ != name:
                    return  # frozen programs have one loader for all modules
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _seed_numpy(module, self.words)

            spec.loader.exec_module = load_and_seed  # type: ignore[method-assign]
        return spec


_LATE = _LateSeed()


def reseed_numpy(numpy_random: Any) -> None:
    """In a forked worker, seed the global generator of `numpy.random` anew: it is a copy of its parent's.

    The global generator of `random` needs no such step, because the interpreter seeds it in each forked child.
    """
    _seed_numpy(numpy_random, [int.from_bytes(os.urandom(4), "little") for _ in range(8)])


def _seed_numpy(numpy_random: Any, words: list[int]) -> None:
    seed = getattr(numpy_random, "seed", None)
    if seed is not None:  # otherwise another thread was importing the module when this process was forked
        seed([*words, _NUMPY])
