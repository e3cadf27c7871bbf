"""What `synchronize` stands on, and how that travels to another process.

`SemLock` is a lock or a counting semaphore that several processes share, with the interface

* ``SemLock(kind, value, maxvalue, name, unlink)``, and ``holder=True`` for one that is used as a lock: should the process that
  holds it die, whoever waits gets it; ``SemLock._rebuild(handle, kind, maxvalue, name)``;
* ``acquire(block=True, timeout=None)``, ``release()``, ``__enter__``, ``__exit__``, ``locked()``;
* ``_count()`` (depth of the calling process), ``_is_mine()``, ``_get_value()``, ``_is_zero()``, ``_after_fork()``;
* attributes ``handle``, ``kind``, ``maxvalue``, ``name``, and ``abandoned``: whether it was last acquired from the dead.

`ConditionCore`, `EventFlag` and `BarrierCore` are what their names say.  All of them lie in *arenas*, nameless shared memory of which each holds
a thousand, so nothing has to be unlinked or tracked.  What travels is the arena's descriptor and a place in it.
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

#: kinds: a mutex that its owner may take again, and a plain counter
RECURSIVE_MUTEX, SEMAPHORE = 0, 1
SEM_VALUE_MAX: int = SemLock.SEM_VALUE_MAX


# Of an arena there is one object at a time, so that a pickle that holds many locks takes its descriptor along once.
_arenas: WeakValueDictionary[tuple[int, int], SyncArena] = WeakValueDictionary()


def ticket(native: _Sendable) -> tuple[SyncArena, int]:
    """What a native object is sent as; to be pickled within a `Process`'s arguments."""
    arena, place = native._send()
    return _arenas.setdefault(arena.id, arena), place


def _reduce_arena(arena: SyncArena) -> tuple[Any, ...]:
    return _rebuild_arena, (reduction.DupFd(arena.fd),)


def _rebuild_arena(copy: Any) -> SyncArena:
    arena = SyncArena.adopt(copy.detach())
    return _arenas.setdefault(arena.id, arena)


reduction.register(SyncArena, _reduce_arena)
