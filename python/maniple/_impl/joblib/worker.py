"""What the workers of the joblib backend do: they prepare the process, and run batches of calls."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable

from ... import reduction
from ..pool import payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Environment", "known_function", "prepare", "run_joblib_batch"]

# The package that limits the threads of libraries that are loaded already.
_LIMITER = "threadpoolctl"


class Environment:
    """What a worker process sets when it unpickles this object, before it unpickles and imports what comes after the object.

    Args:
        variables: environment variables.
        threads: the number of threads that libraries may use.
    """

    def __init__(self, variables: dict[str, str], threads: int) -> None:
        self.variables, self.threads = variables, threads

    def __reduce__(self) -> Any:
        # Proxies of the standard package's managers need its key.
        return _set, (self.variables, self.threads, bytes(multiprocessing.current_process().authkey))


def _set(variables: dict[str, str], threads: int, key: bytes) -> Environment:
    os.environ.update(variables)
    multiprocessing.current_process().authkey = key
    return Environment(variables, threads)


def prepare(environment: Environment, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Prepare a worker process."""
    os.environ.update(environment.variables)
    if "numpy" in sys.modules:
        # A library that was loaded before, for example in a parent that was forked, does not read the variables again.
        try:
            limiter: Any = __import__(_LIMITER)
        except ImportError:
            pass
        else:
            limiter.threadpool_limits(environment.threads)
    from . import backend

    backend.register()
    if initializer is not None:
        initializer(*initargs)


# The functions that came lately by value, by their keys; the oldest goes first.
_functions: dict[bytes, Any] = {}
_MOST_FUNCTIONS = 100


def known_function(key: bytes) -> Any:
    """Return a function that came by value."""
    return _functions[key]


_knows_arrays = False


def run_joblib_batch(stream: bytes, functions: dict[bytes, bytes], *buffers: Any) -> Any:
    """Run a pickled batch of calls, and return the list of their results.

    Args:
        stream: the pickle.
        functions: the pickles of functions to which `stream` refers by keys. Each is read once.
        buffers: the buffers that travel beside the pickle.
    """
    global _knows_arrays
    for key, pickle in functions.items():
        if key not in _functions:
            if len(_functions) >= _MOST_FUNCTIONS:
                del _functions[next(iter(_functions))]
            _functions[key] = payload.load(pickle)
    batch = payload.load(stream, buffers)
    if not _knows_arrays and (numpy := sys.modules.get("numpy")) is not None:
        from .arrays import reduce_result

        reduction.ForkingPickler.register(numpy.memmap, reduce_result)
        _knows_arrays = True
    return batch()
