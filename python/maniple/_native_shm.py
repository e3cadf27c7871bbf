"""The one place that says who opens and removes named shared memory.

``shm_open(path, flags, mode=0o777) -> fd`` and ``shm_unlink(path)``, as POSIX has them; errors are `OSError`.  Whoever
replaces the implementation changes this file alone.
"""

from __future__ import annotations

from _posixshmem import shm_open, shm_unlink

__all__ = ["shm_open", "shm_unlink"]
