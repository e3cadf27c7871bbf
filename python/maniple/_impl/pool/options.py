"""The options of a pool and of its calls: limits, retries, priority.

A call's options are checked, merged with its pool's, and turned into the engine's `Terms`.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from operator import index

from ..._maniple import Seeds, Terms, memory_of
from .limit_errors import MemoryLimitError, TaskTimeoutError
from .payload import WorkerLostError, dump_in_band

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any, Literal, SupportsIndex, TypedDict

    from .worker_setup import WorkerSetup

    class TaskOptions(TypedDict, total=False):
        """The options of tasks; see `Pool`."""

        task_timeout: float | None
        soft_timeout: float | None
        retries: int | Retries | None
        priority: int | None

    class ThreadOptions(TypedDict, total=False):
        """The options of a pool of threads; see `ThreadPool`."""

        retries: int | Retries | None
        return_exceptions: bool

    class CallOptions(TaskOptions, total=False):
        """The options of a call; see `Pool`."""

        return_exceptions: bool

    class ItemOptions(TaskOptions, total=False):
        """The options of a call for many items, but for `return_exceptions`; see `Pool`."""

        progress: bool | str | Callable[[int, int | None], object] | None

    class ItemCallOptions(CallOptions, ItemOptions, total=False):
        """The options of a call for many items; see `Pool`."""

    class ExecutorOptions(TaskOptions, total=False):
        """The options of a pool that an executor has as well; see `Pool`."""

        worker_init_timeout: float | None
        memory_limit: int | str | None
        memory_limit_strict: bool
        max_rss_per_worker: int | str | None
        spare_workers: int | None
        env: Mapping[str, str | None] | None
        cwd: str | os.PathLike[str] | None
        threads_per_worker: int | None
        affinity: Literal["spread"] | Sequence[Iterable[int]] | None
        accelerators: int | Sequence[int | str] | None
        finalizer: Callable[..., object] | None
        finalargs: Iterable[Any]
        seed: SupportsIndex | None

    class PoolOptions(CallOptions, ExecutorOptions, total=False):
        """The options of a pool; see `Pool`."""

        max_tasks_per_child: int | None
        min_processes: int | None
        idle_timeout: float | None
        max_backlog: int | None
        backlog_full: Literal["block", "raise"]


__all__ = [
    "CALL_OPTIONS",
    "Retries",
    "backlog_of",
    "bytes_of",
    "check_memory_watch",
    "count_of",
    "memory_limit_of",
    "name_in_pool",
    "own_tasks",
    "refuse",
    "seconds_of",
    "seeds_of",
    "setup_of",
    "size_of",
    "spares_of",
    "tasks_of",
    "terms_of",
    "unknown_option",
    "worker_limits_of",
]

# What the engine cannot count.
_TOO_MANY, _TOO_OFTEN = 2**63, 2**16

CALL_OPTIONS = ("task_timeout", "soft_timeout", "retries", "priority", "return_exceptions")


class Retries:
    """When a failed task is tried again.

    Args:
        max_retries: the greatest number of further tries of a task.
        initial_delay: the pause in seconds before the second try.
        backoff_coefficient: the factor by which each pause is longer than the one before.
        max_delay: the longest pause in seconds; at least `initial_delay`.
        on: the classes of exceptions after which a task is tried again, in the place of the default: `WorkerLostError`,
            `TaskTimeoutError`, `MemoryLimitError`. With ordinary exceptions, the function must be safe to call again. Subclasses count:
            `TaskTimeoutError` is a `TimeoutError`, and so an `OSError`.

    Example::

        pool.map(fetch, urls, retries=Retries(3, initial_delay=0.5, on=(ConnectionError, maniple.WorkerLostError)))
    """

    __slots__ = {
        "max_retries": "The greatest number of further tries of a task.",
        "initial_delay": "The pause in seconds before the second try.",
        "backoff_coefficient": "The factor by which each pause is longer than the one before.",
        "max_delay": "The longest pause in seconds.",
        "on": "The classes of exceptions after which a task is tried again; None: lost workers and exceeded limits.",
    }

    def __init__(
        self,
        max_retries: int,
        initial_delay: float = 0.0,
        backoff_coefficient: float = 2.0,
        max_delay: float = 60.0,
        on: type[BaseException] | Collection[type[BaseException]] | None = None,
    ) -> None:
        self.max_retries = _int("max_retries", max_retries)
        if not 0 <= self.max_retries < _TOO_OFTEN:
            raise ValueError(f"max_retries must be between 0 and {_TOO_OFTEN - 1}, not {max_retries}")
        self.backoff_coefficient = _real("backoff_coefficient", backoff_coefficient)
        if not self.backoff_coefficient >= 1.0:
            raise ValueError(f"backoff_coefficient must be 1 or more, not {backoff_coefficient}")
        self.initial_delay, self.max_delay = _pause("initial_delay", initial_delay), _pause("max_delay", max_delay)
        if self.initial_delay > self.max_delay:
            raise ValueError(
                f"initial_delay ({self.initial_delay:g} s) must not be more than max_delay ({self.max_delay:g} s), the longest pause"
            )
        self.on: tuple[type[BaseException], ...] | None = None if on is None else _exceptions(on)

    def __repr__(self) -> str:
        return f"Retries({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Retries) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))


Retries.__module__ = "maniple.pool"


def _int(name: str, value: Any, otherwise: str = "") -> int:
    if not isinstance(value, bool):
        with suppress(TypeError):
            return index(value)
    raise TypeError(f"{name} must be an int{otherwise}, not {value!r:.80} of type {type(value).__name__}")


def _exceptions(on: Any) -> tuple[type[BaseException], ...]:
    kinds = tuple(on) if isinstance(on, tuple | list | set | frozenset) else (on,)
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise TypeError(f"on must be a class of exceptions or a tuple of them; {kind!r} is not one")
    return kinds


def _pause(name: str, value: Any) -> float:
    pause = _real(name, value)
    if not pause >= 0.0:
        raise ValueError(f"{name} must be a number of seconds that is not negative, not {value}")
    return pause


def _real(name: str, value: Any, otherwise: str = "") -> float:
    # Numbers of other libraries can be converted.
    if not isinstance(value, bool | str | bytes | bytearray):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} is too large: it must fit into a float") from None
        except (TypeError, ValueError):
            pass
    raise TypeError(f"{name} must be a number{otherwise}, not {value!r:.80} of type {type(value).__name__}")


def seconds_of(name: str, value: Any, none: str = "no limit") -> float | None:
    """Return a time limit in seconds; `none` says what None means.

    Raises:
        TypeError: it is not a number.
        ValueError: it is not positive.
    """
    if value is None:
        return None
    limit = _real(name, value, " of seconds or None")
    if not limit > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {value}; None means {none}")
    return limit


# A single letter means what it means for docker, systemd and Java.
_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS[f"{_letter}B"] = 1000**_power
    _UNITS[f"{_letter}IB"] = _UNITS[_letter] = 1024**_power


def bytes_of(name: str, value: Any) -> int | None:
    """Return a number of bytes, given as an int or as text such as "4GB" (10**9), "512MiB" or "512M" (2**20).

    Raises:
        TypeError: it is neither.
        ValueError: it is not positive, it does not fit into 63 bits, or the text has another form.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        digits = text.rstrip("BGIKMTbgikmt ")
        unit = text[len(digits) :].strip().upper()
        try:
            amount = float(digits)
            count = int(amount * _UNITS[unit])
        except (KeyError, ValueError, OverflowError):
            raise ValueError(
                f'{name} must be a number of bytes, or text such as "4GB", "4G" or "512MiB", not {value!r}'
            ) from None
    elif isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f'{name} must be a number of bytes, or text such as "4GB", not {type(value).__name__}')
    else:
        count = index(value)
    if count <= 0:
        raise ValueError(f"{name} must be more than 0 bytes, not {value!r}; None means no limit")
    if count >= _TOO_MANY:
        raise ValueError(f"{name} must be less than 2**63 bytes; None means no limit")
    return count


# No limit of memory is less. A worker needs some for each task.
_LEAST_MEMORY = 10**6


def memory_limit_of(value: Any) -> int | None:
    """Return the pool's `memory_limit` in bytes.

    Raises:
        TypeError, ValueError: as `bytes_of`; or it is too small for any task.
    """
    limit = bytes_of("memory_limit", value)
    if limit is not None and limit < _LEAST_MEMORY:
        raise ValueError(f"memory_limit must be 1 MB or more, not {value!r}: no task would end")
    return limit


def count_of(name: str, value: Any, least: int) -> int:
    """Return a number of things.

    Raises:
        TypeError: it is not an int.
        ValueError: it is less than `least`.
    """
    count = _int(name, value)
    if count < least:
        raise ValueError(f"{name} must be {least} or more, not {value}")
    return count


def _engine_s(name: str, value: int) -> int:
    if value >= _TOO_MANY:
        raise ValueError(f"{name} must be less than 2**63")
    return value


def tasks_of(maxtasksperchild: Any, max_tasks_per_child: Any) -> int | None:
    """Return after how many tasks a worker is replaced, of the two names of the parameter."""
    if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
        raise ValueError("maxtasksperchild must be a positive int or None")
    if max_tasks_per_child is None:
        # No worker runs so many.
        return None if maxtasksperchild is None else min(maxtasksperchild, _TOO_MANY - 1)
    if maxtasksperchild is not None:
        raise ValueError("maxtasksperchild and max_tasks_per_child are names of one parameter: pass one of them")
    return _engine_s("max_tasks_per_child", count_of("max_tasks_per_child", max_tasks_per_child, 1))


def backlog_of(max_backlog: Any, backlog_full: Any) -> tuple[int, bool] | None:
    """Return how many calls may wait for a worker, and whether the next call waits for room."""
    if backlog_full not in ("block", "raise"):
        raise ValueError(f'backlog_full must be "block" or "raise", not {backlog_full!r}')
    if max_backlog is None:
        if backlog_full != "block":
            raise ValueError("backlog_full needs max_backlog, the number of calls that may wait")
        return None
    return _engine_s("max_backlog", count_of("max_backlog", max_backlog, 1)), backlog_full == "block"


# Seconds after which an idle worker ends, if its pool may have fewer.
_IDLE = 10.0


def spares_of(spare_workers: Any, are_useful: bool, gives_each_its_own: bool) -> int:
    """Return the number of spare workers.

    Args:
        spare_workers: the option; None means one if they are useful.
        are_useful: whether workers are likely to be ended, and take long to start.
        gives_each_its_own: whether each worker has processors or an accelerator of its own.

    Raises:
        TypeError: it is not an int.
        ValueError: it is negative, or a spare worker could not have what belongs to the worker that it replaces.
    """
    if spare_workers is None:
        return int(are_useful and not gives_each_its_own)
    if count_of("spare_workers", spare_workers, 0) and gives_each_its_own:
        raise ValueError(
            "spare_workers cannot be combined with affinity or accelerators: a spare worker starts before it is known which worker it replaces"
        )
    return int(spare_workers)


def size_of(
    processes: int, min_processes: int | None, idle_timeout: float | None, spare_workers: int
) -> tuple[int | None, float, int]:
    """Return the least number of workers (None: all), the seconds after which an idle worker ends, and the number of spare workers."""
    idle = seconds_of("idle_timeout", idle_timeout, f"{_IDLE:g} seconds")
    if min_processes is None:
        if idle is not None:
            raise ValueError("idle_timeout needs min_processes, the number of workers that stay")
        return None, 0.0, spare_workers
    min_processes = count_of("min_processes", min_processes, 0)
    if min_processes > processes:
        raise ValueError(f"min_processes ({min_processes}) must not be more than processes ({processes})")
    return min_processes, _IDLE if idle is None else idle, 0


def worker_limits_of(
    worker_init_timeout: Any, memory_limit: Any, max_rss_per_worker: Any, memory_limit_strict: bool
) -> tuple[float | None, int | None, int | None]:
    """Return the limits of workers: the seconds until they are ready, the memory that ends them, and that which replaces them.

    Raises:
        TypeError, ValueError: an option has a value that it cannot have.
        OSError: `memory_limit_strict`, and the memory of workers cannot be watched.
    """
    start = seconds_of("worker_init_timeout", worker_init_timeout)
    memory, recycle = memory_limit_of(memory_limit), bytes_of("max_rss_per_worker", max_rss_per_worker)
    if (memory or recycle) and not check_memory_watch(memory_limit_strict):
        return start, None, None
    return start, memory, recycle


def check_memory_watch(strict: bool) -> bool:
    """Return whether the memory of workers can be watched.

    Raises:
        OSError: it cannot, and `strict` is true.
    """
    if memory_of(os.getpid()) is not None:
        return True
    if strict:
        raise OSError(
            "memory_limit cannot be enforced: the system does not tell how much memory a process uses (is /proc mounted?); "
            "memory_limit_strict=False goes on without the limit"
        )
    return False


# What other packages and the standard package call these options.
_NAMES_ELSEWHERE = {
    "max_workers": "processes",
    "n_jobs": "processes",
    "timeout": "task_timeout",
    "deadpool_timeout": "task_timeout",
    "deadpool_priority": "priority",
    "max_tasks": "max_tasks_per_child",
    "max_tasks_active": "max_backlog",
    "max_worker_memory_bytes": "memory_limit",
    "max_memory_per_child": "max_rss_per_worker",
    "min_workers": "min_processes",
    "worker_init": "initializer",
    "worker_exit": "finalizer",
    "cpu_ids": "affinity",
    "inner_max_num_threads": "threads_per_worker",
}


# Arguments of methods that are no options.
_OF_METHODS = {
    "chunksize": "map, imap and their other forms",
    "buffersize": "imap and imap_unordered",
    "progress": "map, imap and their other forms",
    "callback": "the methods that end in _async",
    "error_callback": "the methods that end in _async",
}
# What other packages call the start method.
_CONTEXTS = ("mp_context", "start_method")


def refuse(options: dict[str, Any], of_pool: bool = False) -> None:
    """Raise TypeError if there is an unknown option of a call, or of a pool."""
    for name in options:
        if name not in CALL_OPTIONS:
            raise TypeError(_unknown(name, of_pool))


def _unknown(name: str, of_pool: bool) -> str:
    pools = _names_in_pool()
    if not of_pool and name in pools:
        return f"{name!r} is an option of a pool, not of a call: pass it to Pool()"
    if name in _CONTEXTS:
        return f"{name!r} is not an option of a {'pool' if of_pool else 'call'}; a context decides how workers start: get_context('spawn').Pool()"
    if name in _OF_METHODS:
        return (
            f"{name!r} is not an option of a {'pool' if of_pool else 'call'}; it is an argument of {_OF_METHODS[name]}"
        )
    if of_pool and (meant := _similar(name, [*pools, *_OF_METHODS])) in _OF_METHODS:
        return f"{name!r} is not an option of a pool; did you mean {meant}? It is an argument of {_OF_METHODS[meant]}"
    return unknown_option(name, pools if of_pool else [*CALL_OPTIONS, "progress"], "a pool" if of_pool else "a call")


def unknown_option(name: str, known: Iterable[str], thing: str) -> str:
    """Return the message about an option that `thing` does not have."""
    known = list(known)
    if _NAMES_ELSEWHERE.get(name) in known:
        hint = f"; {_NAMES_ELSEWHERE[name]} is its name here"
    else:
        similar = _similar(name, known)
        hint = f"; did you mean {similar}?" if similar else ""
    return f"{name!r} is not an option of {thing}{hint}; the options are {', '.join(known)}"


def name_in_pool(name: str) -> str | None:
    """Return the name of a pool's option, or of a call's, by its name here or elsewhere; None if there is no such option."""
    known = _names_in_pool()
    return next((one for one in (name, _NAMES_ELSEWHERE.get(name)) if one in known), None)


def _names_in_pool() -> list[str]:
    """Return the names of the parameters and options of a pool."""
    from inspect import signature

    from ...pool import Pool

    return [*list(signature(Pool).parameters)[:-1], *CALL_OPTIONS]  # the last parameter is the options


def _similar(name: str, known: list[str]) -> str:
    """Return the known name that is most similar to a name; "" if none is."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, 1)), "")


def own_tasks(options: dict[str, Any]) -> bool:
    """Return whether each item has to be a task of its own: limits, retries and exceptions count for each item."""
    return any(options.get(name) is not None for name in ("task_timeout", "soft_timeout", "retries")) or bool(
        options.get("return_exceptions")
    )


def setup_of(finalargs: Iterable[Any] = (), **options: Any) -> WorkerSetup | None:
    """Return the setup of a pool's workers; None if no option of it is given.

    Raises:
        TypeError, ValueError, OSError: an option has a value that it cannot have.
    """
    if options["finalizer"] is None and (type(finalargs) is not tuple or finalargs):
        raise ValueError("finalargs needs finalizer, the function that gets these arguments")
    if all(value is None for value in options.values()):
        return None
    from .worker_setup import WorkerSetup  # late: few pools need it

    return WorkerSetup(finalargs=finalargs, **options)


_SEED_BYTES = 16


def seeds_of(seed: Any) -> Seeds:
    """Return the engine's form of a pool's seed.

    Raises:
        TypeError: the seed is not an int.
        ValueError: the seed is negative, or has more than 128 bits.
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an int or None, not {seed!r} of type {type(seed).__name__}")
    number = index(seed)
    if number < 0:
        raise ValueError(f"seed must not be negative, but it is {number}")
    if number.bit_length() > 8 * _SEED_BYTES:
        raise ValueError(f"seed must have at most {8 * _SEED_BYTES} bits, not {number.bit_length()}")
    return Seeds(number.to_bytes(_SEED_BYTES, "little"))


def terms_of(options: dict[str, Any], main: Any, seeds: Seeds | None = None) -> Terms | None:
    """Return the engine's form of a call's options; None if all of them have their default values, and the pool has no seeds.

    Args:
        options: the options of the call and of its pool.
        main: which parts of the main module the workers have; None only checks the options of a pool.

    Raises:
        TypeError, ValueError: an option is unknown, or has a value that it cannot have.
    """
    refuse(options, main is None)
    limit = seconds_of("task_timeout", options.get("task_timeout"))
    soft_limit = seconds_of("soft_timeout", options.get("soft_timeout"))
    if soft_limit is not None and sys.platform == "win32":
        raise OSError(
            "soft_timeout: Windows has no signal that interrupts a task; use task_timeout, which ends the worker"
        )
    if limit is not None and soft_limit is not None and soft_limit >= limit:
        raise ValueError(f"soft_timeout ({soft_limit} s) must be less than task_timeout ({limit} s)")
    given = options.get("priority")
    priority = 0 if given is None else _int("priority", given)
    if not -(2**31) <= priority < 2**31:
        raise ValueError(f"priority must fit into 32 bits, not {priority}")
    returns = bool(options.get("return_exceptions", False))
    retries, on = options.get("retries"), None
    engine_s: tuple[int, float, float, float, bool, bool] | None = None
    if retries is not None:
        if not isinstance(retries, Retries):
            retries = _int("retries", retries, " or Retries")
            if not 0 <= retries < _TOO_OFTEN:
                raise ValueError(f"retries must be between 0 and {_TOO_OFTEN - 1}, not {retries}")
            retries = Retries(retries)
        lost, overdue = True, True
        if retries.on is not None:
            # These are never raised in a worker: the pool finds out that a task has failed so.
            lost = any(issubclass(kind, retries.on) for kind in (WorkerLostError, MemoryLimitError))
            overdue = issubclass(TaskTimeoutError, retries.on)
            on = None if main is None else dump_in_band(retries.on, main)
        if retries.max_retries:
            times = retries.initial_delay, retries.backoff_coefficient, retries.max_delay
            engine_s = (retries.max_retries, *times, lost, overdue)
        else:
            on = None
    if limit is None and soft_limit is None and engine_s is None and not priority and not returns and seeds is None:
        return None
    return Terms(limit, soft_limit, engine_s, on, priority, own_tasks(options), returns, seeds)
