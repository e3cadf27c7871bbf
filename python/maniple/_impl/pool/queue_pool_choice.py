"""The choice between a pool on the engine and a pool of queues, and the choice of the class's methods in the latter.

The standard package calls some of the pool's inner methods on `Pool` itself, so that a program can replace them there, but a
subclass cannot override them. Here the override of a subclass is called, if it accepts the arguments of the standard method.
"""

from __future__ import annotations

import warnings

from ...context import BaseContext
from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["STANDARD", "fitting", "is_standard", "overrides_inner_parts", "warn_of_misfits"]

#: the pool classes -> their attributes at import
STANDARD: dict[type, dict[str, Any]] = {}

INNER = (
    "_check_running",
    "_get_sentinels",
    "_get_tasks",
    "_get_worker_sentinels",
    "_guarded_task_generation",
    "_handle_results",
    "_handle_tasks",
    "_handle_workers",
    "_help_stuff_finish",
    "_join_exited_workers",
    "_maintain_pool",
    "_repopulate_pool",
    "_repopulate_pool_static",
    "_setup_queues",
    "_terminate_pool",
    "_wait_for_updates",
    "_wrap_exception",
)


# The standard attributes of a class that is no standard pool class; also in place of an attribute that is missing.
_NONE: dict[str, Any] = {}


def definition(cls: type, name: str) -> tuple[type, Any]:
    """Return the class in the MRO of `cls` that defines `name`, and its definition."""
    return next((base, vars(base)[name]) for base in cls.__mro__ if name in vars(base))


def is_standard(cls: type, name: str) -> bool:
    """Return whether `cls` has the attribute `name` that the pool classes had at import."""
    owner, found = definition(cls, name)
    return owner in STANDARD and STANDARD[owner].get(name) is found


def overrides_inner_parts(pool: Any, threads: bool) -> bool:
    """Return whether the class of `pool`, or its context, overrides how items are sent or how workers are made."""
    cls = type(pool)
    own, definitions = pool.__dict__, [(vars(base), STANDARD.get(base, _NONE)) for base in cls.__mro__]
    for name in INNER:
        if name in own:
            return True
        for present, standard in definitions:
            if name in present:
                if standard.get(name, _NONE) is not present[name]:
                    return True
                break
    # The standard package's pool uses the queue of the context.
    queue = getattr(pool._ctx, "SimpleQueue", None)
    own = queue is not None and getattr(queue, "__func__", queue) is not BaseContext.SimpleQueue
    return own and not threads


def fitting(cls: type, name: str, arguments: int) -> Any:
    """Return the method of `cls` for a name that the standard package calls on `Pool` itself; the original if it does not accept the arguments."""
    owner, found = definition(cls, name)
    if isinstance(found, staticmethod | classmethod) or owner in STANDARD:
        override = getattr(cls, name)
        if _takes(override, arguments):
            return override
    return _original(cls, name)


def _original(cls: type, name: str) -> Any:
    return next(getattr(base, name) for base in reversed(cls.__mro__) if name in vars(base))


def _takes(function: Any, arguments: int) -> bool:
    import inspect

    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:
        pass  # native code without a signature
    return True


CALLED_ON_POOL = {
    "_get_worker_sentinels": 1,
    "_join_exited_workers": 1,
    "_maintain_pool": 10,
    "_wait_for_updates": 2,
    "_handle_workers": 14,
    "_handle_tasks": 5,
    "_handle_results": 3,
}


# The packages that this package's classes name: the second under `python -m maniple`.
_OUR_NAMES = (PACKAGE, "multiprocessing")


def warn_of_misfits(cls: type) -> None:
    for name, arguments in CALLED_ON_POOL.items():
        standard, chosen = _original(cls, name), fitting(cls, name, arguments)
        if getattr(chosen, "__func__", chosen) is getattr(standard, "__func__", standard) and any(
            name in vars(base) for base in cls.__mro__ if base.__module__.partition(".")[0] not in _OUR_NAMES
        ):
            warnings.warn(
                f"{cls.__qualname__}.{name} is not called: since Python 3.8 it is a static method of {arguments} arguments",
                RuntimeWarning,
                stacklevel=4,
            )
