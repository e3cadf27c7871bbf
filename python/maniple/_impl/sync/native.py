"""The native classes below `synchronize`, and their pickling.

`SemLock` is a lock or a counting semaphore that several processes share, with the interface

* ``SemLock(kind, value, maxvalue, name, unlink)``, and ``holder=True`` for a count that serves as a lock: if the process that
  holds it dies, the next waiting process acquires it; ``SemLock._rebuild(handle, kind, maxvalue, name)``;
* ``acquire(block=True, timeout=None)``, ``release()``, ``__enter__``, ``__exit__``, ``locked()``;
* ``_count()`` (depth of the calling process), ``_is_mine()``, ``_get_value()``, ``_is_zero()``, ``_after_fork()``;
* attributes ``handle``, ``kind``, ``maxvalue``, ``name``, and ``abandoned``: whether its previous holder died.

`ConditionCore`, `EventFlag` and `BarrierCore` are the native parts of a condition, an event and a barrier.  Objects of all four classes lie in *arenas*,
nameless shared memory of a thousand objects each, so they need no unlinking and no tracker.  A pickle has the arena's descriptor
and the index of the object in it.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from ... import reduction
from ..._maniple import BarrierCore, ConditionCore, EventFlag, SemLock, SyncArena, sem_unlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class _Sendable(Protocol):
        def _send(self) -> tuple[SyncArena, int]: ...


__all__ = [
    "BarrierCore",
    "ConditionCore",
    "EventFlag",
    "SemLock",
    "sem_unlink",
    "SEM_VALUE_MAX",
    "RECURSIVE_MUTEX",
    "SEMAPHORE",
    "ticket",
]

#: kinds: a mutex that its holder may acquire again, and a counter
RECURSIVE_MUTEX, SEMAPHORE = 0, 1
SEM_VALUE_MAX: int = SemLock.SEM_VALUE_MAX


# There is one object for each arena, so that a pickle with many locks contains the descriptor once.
_arenas: WeakValueDictionary[tuple[int, int], SyncArena] = WeakValueDictionary()


def ticket(native: _Sendable) -> tuple[SyncArena, int]:
    """Return the arena and the index of a native object, which are pickled instead of it."""
    arena, place = native._send()
    return _arenas.setdefault(arena.id, arena), place


def _reduce_arena(arena: SyncArena) -> tuple[Any, ...]:
    return _rebuild_arena, (reduction.DupFd(arena.fd),)


def _rebuild_arena(copy: Any) -> SyncArena:
    arena = SyncArena.adopt(copy.detach())
    return _arenas.setdefault(arena.id, arena)


reduction.register(SyncArena, _reduce_arena)
