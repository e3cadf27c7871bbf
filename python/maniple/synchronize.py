"""Locks, semaphores, conditions, events and barriers that processes share.

All of them are made of one thing, a counting semaphore that several processes can open (`_native_sync`):

========================  =============================================================================
`Lock`, `Semaphore`, ...  one semaphore
`Condition`               a lock and three counters: who went to sleep, who came back, wake-up tokens
`Event`                   a condition and a semaphore used as a flag (0 unset, 1 set)
`Barrier`                 `threading.Barrier`'s algorithm, its two numbers in shared memory
========================  =============================================================================

An object travels to a child by inheritance (fork) or inside the arguments of a `Process` (spawn, forkserver), and in no
other way: a semaphore that arrives through a queue would have no owner to remove its name.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable
from struct import Struct
from threading import Barrier as _ThreadBarrier
from threading import current_thread
from typing import Any

from . import context, process, util
from ._native_sync import RECURSIVE_MUTEX, SEM_VALUE_MAX, SEMAPHORE, sem_unlink
from ._native_sync import SemLock as _NativeSemLock

__all__ = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"]

#: so often a name is drawn anew before we give up; a clash of two random names is already a sign of trouble
_NAME_TRIES = 100


def _me() -> str:
    """How the calling thread is named in a repr: its process, and its thread where that is not the main one."""
    thread = current_thread().name
    here = process.current_process().name
    return here if thread == "MainThread" else f"{here}|{thread}"


class SemLock:
    """Base of everything here that is a single semaphore.

    ``acquire`` and ``release`` are the native object's own bound methods, put on the instance: a call costs no Python frame.
    """

    def __init__(self, kind: int, value: int, maxvalue: int, *, ctx: Any) -> None:
        method = (ctx or context._default_context.get_context()).get_start_method()
        # A forked child has the open semaphore itself, so its name can go at once; a spawned one opens it by name.
        self._by_fork_only = method == "fork"
        nameless = self._by_fork_only or sys.platform == "win32"
        native = self._adopt(self._open_fresh(kind, value, maxvalue, nameless))
        util.debug(f"created semlock with handle {native.handle}")
        if native.name is not None:
            from . import resource_tracker as tracker

            tracker.register(native.name, "semaphore")
            util.Finalize(self, SemLock._cleanup, (native.name,), exitpriority=0)

    @classmethod
    def _open_fresh(cls, kind: int, value: int, maxvalue: int, unlink: bool) -> Any:
        for _ in range(_NAME_TRIES):
            try:
                return _NativeSemLock(kind, value, maxvalue, cls._make_name(), unlink)
            except FileExistsError:
                continue
        raise FileExistsError(
            f"no free name for a semaphore after {_NAME_TRIES} tries; remove stale ones (/dev/shm/sem.* on Linux)"
        )

    def _adopt(self, native: Any) -> Any:
        """Make `native` this object's semaphore."""
        self._semlock = native
        self.acquire: Callable[..., bool] = native.acquire
        self.release: Callable[[], None] = native.release
        if sys.platform != "win32":
            util.register_after_fork(self, SemLock._forget_owner)
        return native

    def _forget_owner(self) -> None:
        # The thread that held it in the parent does not exist in a forked child.
        self._semlock._after_fork()

    @staticmethod
    def _cleanup(name: str) -> None:
        """Remove the semaphore's name; run once, in the process that made it."""
        from . import resource_tracker as tracker

        try:
            sem_unlink(name)
        finally:
            tracker.unregister(name, "semaphore")

    @staticmethod
    def _make_name() -> str:
        prefix = process.current_process()._config.get("semprefix", "/mp")
        return f"{prefix}-{secrets.token_hex(5)}"

    def locked(self) -> bool:
        """Whether an ``acquire(block=False)`` of another process would fail now."""
        return self._semlock._is_zero()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *args: Any) -> None:
        self.release()

    def __getstate__(self) -> tuple:
        context.assert_spawning(self)
        native, handle = self._semlock, self._semlock.handle
        if sys.platform == "win32":
            handle = context.get_spawning_popen().duplicate_for_child(handle)
        elif self._by_fork_only:
            raise RuntimeError(
                "A SemLock created in a fork context is being shared with a process in a spawn context. "
                "This is not supported. Please use the same context to create multiprocessing objects "
                "and Process."
            )
        return handle, native.kind, native.maxvalue, native.name

    def __setstate__(self, state: tuple) -> None:
        self._by_fork_only = False
        native = self._adopt(_NativeSemLock._rebuild(*state))
        util.debug(f"recreated blocker with handle {native.handle!r}")

    def _holder(self) -> tuple[str, Any]:
        """(who holds it, how often) for the reprs of the two mutexes."""
        native = self._semlock
        if native._is_mine():
            return _me(), native._count()
        if not native._is_zero():
            return "None", 0
        return ("SomeOtherThread" if native._count() else "SomeOtherProcess"), "nonzero"


def _described(obj: SemLock, describe: Callable[[], str]) -> str:
    """``<Class(details)>``; a repr must work even where the platform cannot tell a semaphore's value."""
    try:
        details = describe()
    except Exception:
        details = "unknown"
    return f"<{type(obj).__name__}({details})>"


class Semaphore(SemLock):
    """A counter that `acquire` lowers, waiting while it is zero, and `release` raises."""

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        super().__init__(SEMAPHORE, value, SEM_VALUE_MAX, ctx=ctx)

    def get_value(self) -> int:
        """The count now.  NotImplementedError on macOS, which cannot tell."""
        return self._semlock._get_value()

    def __repr__(self) -> str:
        return _described(self, lambda: f"value={self.get_value()}")


class BoundedSemaphore(Semaphore):
    """A semaphore that never rises above its first value: ``ValueError`` from the `release` that would."""

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        SemLock.__init__(self, SEMAPHORE, value, value, ctx=ctx)

    def __repr__(self) -> str:
        return _described(self, lambda: f"value={self.get_value()}, maxvalue={self._semlock.maxvalue}")


class Lock(SemLock):
    """A lock that is not tied to its taker: any process or thread may release it."""

    def __init__(self, *, ctx: Any) -> None:
        super().__init__(SEMAPHORE, 1, 1, ctx=ctx)

    def __repr__(self) -> str:
        return _described(self, lambda: f"owner={self._holder()[0]}")


class RLock(SemLock):
    """A lock that its owner, one thread of one process, may take again; only the owner may release it."""

    def __init__(self, *, ctx: Any) -> None:
        super().__init__(RECURSIVE_MUTEX, 1, 1, ctx=ctx)

    def __repr__(self) -> str:
        return _described(self, lambda: "{}, {}".format(*self._holder()))


class Condition:
    """A place to wait until another process says that something changed.

    Three counters carry it, all read and written only with the lock held, except by a sleeper on its way in and out:

    * ``_sleeping_count``: raised by each `wait` before it lets go of the lock;
    * ``_woken_count``: raised by each sleeper that comes back, woken or timed out;
    * ``_wait_semaphore``: the wake-up tokens that sleepers wait for.

    So ``sleeping - woken`` is the number of sleepers, and it is settled lazily, by the next `notify`.
    """

    def __init__(self, lock: Any = None, *, ctx: Any) -> None:
        self._bind(lock or ctx.RLock(), ctx.Semaphore(0), ctx.Semaphore(0), ctx.Semaphore(0))

    def _bind(self, lock: Any, asleep: Semaphore, back: Semaphore, tokens: Semaphore) -> None:
        self._lock, self._wait_semaphore = lock, tokens
        self._sleeping_count, self._woken_count = asleep, back
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release

    def __getstate__(self) -> tuple:
        context.assert_spawning(self)
        return self._lock, self._sleeping_count, self._woken_count, self._wait_semaphore

    def __setstate__(self, state: tuple) -> None:
        self._bind(*state)

    def locked(self) -> bool:
        """Whether the condition's lock is taken."""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *args: Any) -> None:
        self.release()

    def __repr__(self) -> str:
        try:
            sleepers: Any = self._sleeping_count.get_value() - self._woken_count.get_value()
        except Exception:
            sleepers = "unknown"
        return f"<{type(self).__name__}({self._lock}, {sleepers})>"

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock, sleep until notified or `timeout` seconds have passed, and take the lock again.

        True when notified, False when time ran out.
        """
        mutex = self._lock._semlock
        assert mutex._is_mine(), "must acquire() condition before using wait()"
        asleep, back, tokens = self._sleeping_count, self._woken_count, self._wait_semaphore
        asleep.release()
        depth = mutex._count()
        for _ in range(depth):
            mutex.release()
        try:
            return tokens.acquire(True, timeout)
        finally:
            # A token that came between our time-out and this line is taken back by the notifier, which waits for us.
            back.release()
            for _ in range(depth):
                mutex.acquire()

    def notify(self, n: int = 1) -> None:
        """Wake at most `n` sleepers, and return when they are awake (they then queue for the lock, which we hold)."""
        assert self._lock._semlock._is_mine(), "lock is not owned"
        asleep, back, tokens = self._sleeping_count, self._woken_count, self._wait_semaphore
        assert not tokens.acquire(False), "a wake-up token was left over from an earlier notify()"
        while back.acquire(False):  # settle the account of those who timed out since the last notify
            settled = asleep.acquire(False)
            assert settled, "more sleepers came back than had gone to sleep"
        called = 0
        while called < n and asleep.acquire(False):
            tokens.release()
            called += 1
        for _ in range(called):
            back.acquire()
        if called:
            while tokens.acquire(False):  # a called sleeper timed out at the same moment and left its token
                pass

    def notify_all(self) -> None:
        """Wake all sleepers."""
        self.notify(sys.maxsize)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """`wait` until ``predicate()`` is true; its last value, which is false when `timeout` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (outcome := predicate()):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return outcome


class Event:
    """A flag that processes can wait for.

    `set` and `clear` work under the condition's lock, and `set` never lets the flag's semaphore dip to zero, so a set flag
    can be seen without the lock.
    """

    def __init__(self, *, ctx: Any) -> None:
        self._cond, self._flag = ctx.Condition(ctx.Lock()), ctx.Semaphore(0)

    def is_set(self) -> bool:
        """Whether the flag is set."""
        if not self._flag.locked():
            return True
        if sys.platform == "linux":
            return False
        with self._cond:  # where the value is found out by taking and giving back, another reader may have it just now
            return not self._flag.locked()

    def set(self) -> None:
        """Raise the flag and wake all who wait for it."""
        with self._cond:
            if self._flag.locked():
                self._flag.release()
            self._cond.notify_all()

    def clear(self) -> None:
        """Lower the flag."""
        with self._cond:
            self._flag.acquire(False)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set or `timeout` seconds have passed; whether it is set."""
        if not self._flag.locked():
            return True
        with self._cond:
            if self._flag.locked():
                self._cond.wait(timeout)
            return not self._flag.locked()

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} at {id(self):#x} {'set' if self.is_set() else 'unset'}>"


def _shared_number(place: int) -> property:
    """An attribute that is kept in `Barrier._numbers`."""

    def read(self: Barrier) -> int:
        return self._numbers[place]

    def write(self: Barrier, number: int) -> None:
        self._numbers[place] = number

    return property(read, write)


class Barrier(_ThreadBarrier):
    """`threading.Barrier` over processes: its condition is a `Condition`, its state and count lie in shared memory."""

    #: two C ints: state (0 filling, 1 draining, -1 resetting, -2 broken) and the number of those waiting
    _SHARED = Struct("ii")

    def __init__(
        self, parties: int, action: Callable[[], Any] | None = None, timeout: float | None = None, *, ctx: Any
    ) -> None:
        from .heap import BufferWrapper  # brings in mmap and tempfile: only a barrier needs them

        block = BufferWrapper(self._SHARED.size)
        self.__setstate__((parties, action, timeout, ctx.Condition(), block))
        self._numbers[0] = self._numbers[1] = 0

    def __getstate__(self) -> tuple:
        return self._parties, self._action, self._timeout, self._cond, self._wrapper

    def __setstate__(self, state: tuple) -> None:
        self._parties, self._action, self._timeout, self._cond, self._wrapper = state
        self._numbers = self._wrapper.create_memoryview().cast("i")

    _state, _count = _shared_number(0), _shared_number(1)
