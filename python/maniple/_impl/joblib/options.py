"""The pool's options that the joblib backend takes: those of batches, which are the tasks of its pool, and those of its workers."""

from __future__ import annotations

from difflib import get_close_matches

from ..pool.options import CALL_OPTIONS, tasks_of, terms_of, worker_limits_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["calls_of", "limits_of", "refuse_others"]

_CALLS = ("task_timeout", "soft_timeout", "retries", "priority")
_WORKERS = ("memory_limit", "memory_limit_strict", "max_rss_per_worker", "max_tasks_per_child")
# What the backend and joblib itself have. joblib may pass other names, so only what resembles an option is refused.
_OF_JOBLIB = (
    "initializer", "initargs", "start_method", "idle_worker_timeout", "inner_max_num_threads", "max_nbytes", "mmap_mode", "temp_folder",
    "prefer", "require", "verbose", "context", "timeout", "n_jobs", "pre_dispatch", "batch_size", "return_as", "backend",
)  # fmt: skip
_INSTEAD = {
    "return_exceptions": "joblib raises the first exception of a call; catch exceptions in the function",
    "threads_per_worker": "inner_max_num_threads of parallel_config sets the number of threads",
    "idle_timeout": "idle_worker_timeout says when unused workers end",
    "processes": "n_jobs of Parallel sets the number of workers",
    "context": "start_method chooses how workers start",
    "seed": "joblib sends several calls at a time; pass a seed to each call",
    "env": "set the variables in an initializer, or in os.environ before the first call",
}


def refuse_others(chosen: dict[str, Any]) -> None:
    """Raise ValueError if one of the arguments is an option of a pool that the backend does not have, or resembles an option."""
    from inspect import signature

    from ...pool import Pool

    # joblib itself passes further arguments, `context` among them.
    of_pools = {*signature(Pool).parameters, *CALL_OPTIONS, "progress"} - {
        *_CALLS,
        *_WORKERS,
        "initializer",
        "initargs",
        "context",
    }
    known = (*_CALLS, *_WORKERS)
    for name in chosen:
        if name in of_pools:
            instead = _INSTEAD.get(name, f"of the options of a pool it takes {', '.join(known)}")
            raise ValueError(f"{name!r} is not an option of the joblib backend: {instead}")
        if name in known or name in _OF_JOBLIB:
            continue
        begun = [one for one in known if one.startswith(name)]
        if similar := begun or get_close_matches(name, (*known, *_OF_JOBLIB), 1):
            raise ValueError(f"{name!r} is not an option of the joblib backend; did you mean {similar[0]}?")


def calls_of(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the options of batches.

    Raises:
        TypeError, ValueError: an option has a value that it cannot have.
    """
    calls = {name: chosen[name] for name in _CALLS if name in chosen}
    terms_of(calls, None)
    return calls


def limits_of(chosen: dict[str, Any]) -> tuple[tuple[int | None, int | None], int | None]:
    """Return the limits of a worker's memory (what ends it, what replaces it after its task), and the number of its tasks.

    Raises:
        TypeError, ValueError: an option has a value that it cannot have.
        OSError: the memory of workers cannot be watched.
    """
    _, memory, recycle = worker_limits_of(
        None, chosen.get("memory_limit"), chosen.get("max_rss_per_worker"), chosen.get("memory_limit_strict", True)
    )
    return (memory, recycle), tasks_of(None, chosen.get("max_tasks_per_child"))
