"""The one place that says which native semaphore the package stands on.

Every lock, semaphore and condition of `synchronize` is built on a `SemLock`: a counting semaphore that several processes
can open, with the interface

* ``SemLock(kind, value, maxvalue, name, unlink)`` and ``SemLock._rebuild(handle, kind, maxvalue, name)``;
* ``acquire(block=True, timeout=None)``, ``release()``, ``__enter__``, ``__exit__``;
* ``_count()`` (depth of the calling process), ``_is_mine()``, ``_get_value()``, ``_is_zero()``, ``_after_fork()``;
* attributes ``handle``, ``kind``, ``maxvalue``, ``name``.

Whoever replaces the implementation changes this file alone.
"""

from __future__ import annotations

try:
    from _multiprocessing import SemLock, sem_unlink
except ImportError:
    raise ImportError(
        "this Python was built without working semaphores (sem_open), so locks and queues between "
        "processes are not available"
    ) from None

__all__ = ["SemLock", "sem_unlink", "SEM_VALUE_MAX", "RECURSIVE_MUTEX", "SEMAPHORE"]

#: kinds: a mutex that its owner may take again, and a plain counter
RECURSIVE_MUTEX, SEMAPHORE = 0, 1
SEM_VALUE_MAX: int = SemLock.SEM_VALUE_MAX
