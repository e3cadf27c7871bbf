"""The pool's options that an executor takes, in the form that its pool needs."""

from __future__ import annotations

from ..pool.options import (
    CALL_OPTIONS,
    memory_limit_of,
    name_in_pool,
    own_tasks,
    seeds_of,
    setup_of,
    spares_of,
    terms_of,
    unknown_option,
    worker_limits_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..._maniple import Seeds
    from ..pool.worker_setup import WorkerSetup


__all__ = ["Chosen", "checked_calls"]

_SETUP = ("env", "cwd", "threads_per_worker", "affinity", "accelerators", "finalizer")
_CALLS = tuple(name for name in CALL_OPTIONS if name != "return_exceptions")  # a future has the exception
_KNOWN = (
    *_CALLS, "worker_init_timeout", "memory_limit", "memory_limit_strict", "max_rss_per_worker", "spare_workers", *_SETUP, "finalargs",
    "seed",
)  # fmt: skip


# Parameters of the executor that are no options of a pool.
_OF_EXECUTOR = ("max_workers", "mp_context", "initializer", "initargs", "max_tasks_per_child")


def _unknown(name: str) -> str:
    """Return the message about an option that an executor does not have."""
    of_pool = name_in_pool(name)
    if of_pool is None or of_pool in _KNOWN:
        return unknown_option(name, _KNOWN, "an executor")
    named = "" if of_pool == name else f", which calls it {of_pool}"
    return (
        f"{name!r} is not an option of an executor, but of a maniple.Pool{named}; the options are {', '.join(_KNOWN)}"
    )


def checked_calls(options: dict[str, Any]) -> None:
    """Raise TypeError or ValueError if one of these options of calls is unknown, or has a value that it cannot have."""
    for name in options:
        if name in (*_KNOWN, *_OF_EXECUTOR) and name not in _CALLS:
            raise TypeError(f"{name!r} is an option of an executor, not of its calls: pass it to ProcessPoolExecutor()")
        if name not in _CALLS:
            raise TypeError(unknown_option(name, _CALLS, "an executor's call"))
    terms_of(options, None)


class Chosen:
    """The options of an executor, checked.

    Args:
        options: the options by their names.
        is_forked: whether the workers are forked.

    Raises:
        TypeError, ValueError, OSError: an option is unknown, or has a value that it cannot have.
    """

    def __init__(self, options: dict[str, Any], is_forked: bool) -> None:
        for name in options:
            if name not in _KNOWN:
                raise TypeError(_unknown(name))
        get = options.get
        #: what the processes of the workers get
        self.setup: WorkerSetup | None = setup_of(get("finalargs", ()), **{name: get(name) for name in _SETUP})
        #: the options of calls
        self.calls = {name: options[name] for name in _CALLS if name in options}
        terms_of(self.calls, None)  # raises for what cannot be
        #: the seeds of the calls; None without a seed
        self.seeds: Seeds | None = None if get("seed") is None else seeds_of(get("seed"))
        of_workers = worker_limits_of(
            get("worker_init_timeout"),
            get("memory_limit"),
            get("max_rss_per_worker"),
            get("memory_limit_strict", True),
        )
        self._memory = memory_limit_of(get("memory_limit"))
        gives_each_its_own = self.setup is not None and self.setup.gives_each_its_own
        are_useful = get("task_timeout") is not None and not is_forked
        #: the number of workers that are started in advance
        self.spares = spares_of(get("spare_workers"), are_useful, gives_each_its_own)
        #: the limits of the workers, in the engine's order
        self.limits = *of_workers, None, 0.0, self.spares

    @property
    def of_size(self) -> tuple[int | None, Any]:
        """What the default number of workers depends on."""
        return self._memory, None if self.setup is None else self.setup.accelerators

    def refuse_size(self, processes: int) -> None:
        """Raise ValueError if the options do not suit so many workers."""
        if self.setup is not None:
            self.setup.refuse_size(processes)

    @property
    def is_single(self) -> bool:
        """Whether each call has to be a task of its own. Seeds are those of tasks, and must not depend on `chunksize`."""
        return own_tasks(self.calls) or self.seeds is not None

    def terms(self, main: Any) -> Any:
        """Return the engine's form of the options of calls, or None; `main` is the part of the main module that workers have."""
        return terms_of(self.calls, main, self.seeds) if self.calls or self.seeds is not None else None
