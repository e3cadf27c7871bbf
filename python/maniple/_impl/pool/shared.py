"""The pool that all parts of a program share: `shared_pool`."""

from __future__ import annotations

import os
import threading
from _pickle import dumps

from .inputs import default_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Unpack

    from ...pool import Pool
    from .options import PoolOptions

__all__ = ["shared_pool"]

_lock = threading.RLock()
_pool: Any = None
# The process that made the pool, the start method and the options of its workers.
_made_with: Any = None


def shared_pool(processes: int | None = None, *, context: Any = None, **options: Unpack[PoolOptions]) -> Pool:
    """Return the pool that all parts of this process share; make it, or give it another size, if necessary.

    The pool starts workers when there is work, and ends workers that were idle for `idle_timeout` (10 seconds). It ends with the
    program. Do not use it as a context manager: the end of the block would end it for all.

    Args:
        processes: the greatest number of workers. None leaves the size of an existing pool, and is the number of processors that this
            process may use for a new one.
        context: the context whose start method starts the workers; None means the program's.
        options: the options of `Pool`. If they differ from those of the existing pool, that pool is closed, which lets its calls end,
            and a new pool takes its place.

    Raises: what `Pool` raises.

    Example::

        def total(paths):
            return sum(maniple.shared_pool().imap_unordered(size, paths))
    """
    global _pool, _made_with
    from ... import get_context
    from ...pool import RUN, Pool

    chosen = context or get_context()
    wanted: dict[str, Any] = {"min_processes": 0, **options}
    made_with = os.getpid(), chosen.get_start_method(), wanted
    with _lock:
        pool = _pool
        if pool is None or pool._state != RUN or not _are_equal(made_with, _made_with):
            if pool is not None and pool._state == RUN and _made_with[0] == os.getpid():
                pool.close()
                pool._why_closed = (
                    ": another part of the program called shared_pool with other options, and a new pool took the place of this one; "
                    "call shared_pool each time, and do not keep what it returns"
                )
            if (size := processes) is None:
                size = pool._processes if pool is not None else default_processes()
            pool = Pool(size, context=chosen, **wanted)
            _pool, _made_with = pool, made_with
        elif processes is not None and processes != pool._processes:
            pool.resize(processes)
        return pool  # type: ignore[no-any-return]


if not TYPE_CHECKING:
    # They name types that only type checkers import.
    shared_pool.__annotations__.clear()


def _are_equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:
        pass  # arrays, for example, have no single truth value
    try:
        return dumps(one) == dumps(other)
    except Exception:
        return False


def _forget() -> None:
    """In a forked child: the pool is the parent's."""
    global _lock, _pool, _made_with
    _lock = threading.RLock()
    _pool = _made_with = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
