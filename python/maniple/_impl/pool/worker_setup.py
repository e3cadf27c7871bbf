"""The options of a pool that shape its workers' processes: variables, directory, threads, processors, accelerators, finalizer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from operator import index

from ..._maniple import processors_of, thread_variables
from ..start.surroundings import Surroundings, checked_directory, checked_environment
from .worker_place import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["WorkerSetup", "refusal_of_threads"]

#: the variables that show one accelerator to the libraries of NVIDIA, AMD and Intel
ACCELERATOR_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


class WorkerSetup:
    """The options of one pool. Worker number `n` gets what belongs to the number."""

    def __init__(
        self,
        env: Any,
        cwd: Any,
        threads_per_worker: Any,
        affinity: Any,
        accelerators: Any,
        finalizer: Any,
        finalargs: Iterable[Any],
    ) -> None:
        self._env = {} if env is None else checked_environment(env)
        self._cwd = None if cwd is None else checked_directory(cwd)
        self._threads = None if threads_per_worker is None else _thread_count(threads_per_worker)
        self._cpus = None if affinity is None else _processors(affinity)
        self._spreads = affinity == "spread" if isinstance(affinity, str) else False
        #: the identifiers of the accelerators; None if the pool does not hand out accelerators
        self.accelerators = None if accelerators is None else _accelerators(accelerators)
        if finalizer is not None and not callable(finalizer):
            raise TypeError(f"finalizer must be a callable, not {finalizer!r} of type {type(finalizer).__name__}")
        self._finalizer: Callable[..., object] | None = finalizer
        if not isinstance(finalargs, Iterable):
            raise TypeError(
                f"finalargs must be the arguments of finalizer, such as a tuple, not {finalargs!r} of type {type(finalargs).__name__}"
            )
        self._finalargs = tuple(finalargs)

    @property
    def gives_each_its_own(self) -> bool:
        """Whether each worker has processors or an accelerator of its own."""
        return self._cpus is not None or self.accelerators is not None

    def refuse_size(self, processes: int) -> None:
        """Raise ValueError if there are more workers than accelerators."""
        if self.accelerators is not None and processes > (most := len(self.accelerators)):
            raise ValueError(
                f"{processes} workers cannot have an accelerator each, because there {'is' if most == 1 else 'are'} only {most}: pass processes={most}, "
                "or name an accelerator several times to share it, such as accelerators=[0, 0, 1, 1]"
            )

    def surroundings(self, number: int, count: int) -> Surroundings | None:
        """Return what the process of this worker changes before it begins; None if it changes nothing."""
        env: dict[str, str | None] = {}
        if self._threads is not None:
            env.update(dict.fromkeys(thread_variables(), str(self._threads)))
        if self.accelerators is not None:
            one = self.accelerators[number % len(self.accelerators)]
            env.update(dict.fromkeys(ACCELERATOR_VARIABLES, one), ZE_ENABLE_PCI_ID_DEVICE_ORDER="1")
        env.update(self._env)
        cpus = self._cpus_of(number, count)
        return Surroundings(env, self._cwd, cpus) if env or self._cwd is not None or cpus is not None else None

    def place(self, number: int, count: int) -> Place:
        """Return the place of this worker."""
        return Place(number, count, self._threads, self._finalizer, self._finalargs)

    def _cpus_of(self, number: int, count: int) -> list[int] | None:
        return None if self._cpus is None else processors_of(self._cpus, self._spreads, number, count)


def _thread_count(threads: Any) -> int:
    if isinstance(threads, bool) or not hasattr(threads, "__index__"):
        raise TypeError(f"threads_per_worker must be an int or None, not {threads!r} of type {type(threads).__name__}")
    if (number := index(threads)) < 1:
        raise ValueError(f"threads_per_worker must be 1 or more, not {number}")
    return number


def _processors(affinity: Any) -> list[list[int]]:
    """Return the sets of processors, of which each worker gets one in turn; for "spread", one set that the workers share out."""
    if sys.platform == "win32":
        from ..._maniple import allowed_cores

        allowed = allowed_cores()
    elif hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
    else:
        raise OSError("affinity: this system does not let a process choose its processors")
    if isinstance(affinity, str):
        if affinity != "spread":
            raise ValueError(f'affinity must be "spread", or a list of sets of CPU numbers, not {affinity!r}')
        return [allowed]
    if isinstance(affinity, (set, frozenset, dict)) or not isinstance(affinity, Iterable):
        raise TypeError(
            f'affinity must be "spread", or a list of sets of CPU numbers such as [{{0, 1}}, {{2, 3}}], not {affinity!r}'
        )
    sets = [_processor_set(one, set(allowed)) for one in affinity]
    if not sets:
        raise ValueError("affinity is an empty list: it must have a set of CPU numbers, or be None")
    return sets


def _processor_set(numbers: Any, allowed: set[int]) -> list[int]:
    members = list(numbers) if isinstance(numbers, Iterable) and not isinstance(numbers, str) else [numbers]
    if not members:
        raise ValueError("affinity: a worker needs at least one CPU, but one of the sets is empty")
    for number in members:
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise TypeError(
                f"affinity: the number of a CPU must be an int, not {number!r} of type {type(number).__name__}"
            )
    chosen = sorted({index(number) for number in members})
    if unknown := [number for number in chosen if number not in allowed]:
        raise ValueError(
            f"affinity: this process may not run on CPU {', '.join(map(str, unknown))}, only on {_listed(sorted(allowed))}"
        )
    return chosen


def _listed(numbers: list[int]) -> str:
    """Return numbers as text; neighbours are a range."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


# No machine has so many.
_MOST_ACCELERATORS = 65536


def _accelerators(accelerators: Any) -> list[str]:
    if hasattr(accelerators, "__index__") and not isinstance(accelerators, bool):
        number = index(accelerators)
        if not 0 < number <= _MOST_ACCELERATORS:
            raise ValueError(
                f"accelerators must be a number from 1 to {_MOST_ACCELERATORS}, or a list of identifiers, not {number}"
            )
        return [str(one) for one in range(number)]
    if not isinstance(accelerators, (list, tuple, range)):
        raise TypeError(
            f"accelerators must be their number, or a list of their numbers or identifiers, not {accelerators!r} "
            f"of type {type(accelerators).__name__}"
        )
    if not accelerators:
        raise ValueError("accelerators is an empty list: it must name an accelerator, or be None")
    if len(accelerators) > _MOST_ACCELERATORS:
        raise ValueError(f"accelerators names {len(accelerators)} accelerators; the most are {_MOST_ACCELERATORS}")
    return [_identifier(one) for one in accelerators]


def _identifier(accelerator: Any) -> str:
    if hasattr(accelerator, "__index__") and not isinstance(accelerator, bool):
        if index(accelerator) < 0:
            raise ValueError(f"accelerators: a number must not be negative, as {accelerator} is")
        return str(index(accelerator))
    if not isinstance(accelerator, str):
        raise TypeError(f"accelerators: an identifier must be an int or a str, not {accelerator!r}")
    # The variables of the vendors are lists with commas.
    if not accelerator or not accelerator.isprintable() or "," in accelerator:
        raise ValueError(
            f"accelerators: an identifier must have a printable character and no comma, not {accelerator!r}: each worker gets one"
        )
    return accelerator


_OF_ONE_PROCESS = "all threads of a process share it"
_MEMORY = ("memory_limit", "memory_limit_strict", "max_rss_per_worker")
_RENEWALS = ("maxtasksperchild", "max_tasks_per_child")
_ENDLESS = "because a thread cannot be ended; use a Pool"
_FIXED = "because it starts all its threads at once and keeps them: use a Pool"
_INSTEAD = {
    **{
        name: f"{name}: a ThreadPool has no limits, {_ENDLESS}"
        for name in ("task_timeout", "soft_timeout", "worker_init_timeout")
    },
    **{
        name: f"{name}: a ThreadPool has no limits of memory, because {_OF_ONE_PROCESS}: use a Pool" for name in _MEMORY
    },
    **{
        name: f"a ThreadPool has no {name}, {_FIXED}"
        for name in ("min_processes", "idle_timeout", "spare_workers", *_RENEWALS)
    },
    **{
        name: f"a ThreadPool has no {name}: use a Pool, or a semaphore around apply_async"
        for name in ("max_backlog", "backlog_full")
    },
    "priority": "a ThreadPool has no priority: its threads run the calls in their order; use a Pool",
    "env": f"a ThreadPool has no env, because {_OF_ONE_PROCESS}: use a Pool, or change os.environ",
    "cwd": f"a ThreadPool has no cwd, because {_OF_ONE_PROCESS}: use a Pool, or pass absolute paths",
    "threads_per_worker": "a ThreadPool has no threads_per_worker, because libraries count threads for the whole process: "
    "use a Pool, or threadpoolctl.threadpool_limits in this process",
    "affinity": "a ThreadPool has no affinity: use a Pool, or call os.sched_setaffinity(0, cpus) in its initializer",
    "accelerators": "a ThreadPool has no accelerators, because libraries choose their devices for the whole process: use a Pool",
    "finalizer": "a ThreadPool has no finalizer: use a Pool, or clean up after join()",
    "finalargs": "a ThreadPool has no finalizer: use a Pool, or clean up after join()",
    "seed": "a ThreadPool has no seed, because its threads share the random generators: use a Pool, or pass a random.Random to each call",
}


def refusal_of_threads(options: Iterable[str]) -> Exception:
    """Return the error by which a `ThreadPool` refuses the first of these options of a pool or of a call, with what to do instead."""
    first = next(iter(options))
    if first in _INSTEAD:
        return ValueError(_INSTEAD[first])
    return TypeError(f"{first!r} is not an option of a ThreadPool or of its calls")
