"""Locks, semaphores, conditions, events and barriers that processes share.

=========================  ============================================================================
`Lock`, `Semaphore`, ...   one word of shared memory each; the classes derive from a native class, so
                           `acquire`, `release` and ``with`` run no Python code
`Condition`                a lock, and a word that counts the waiting and the notified
`Event`                    one word
`Barrier`                  a lock, and one word for each party that waits
=========================  ============================================================================

An object can be sent to a child only by inheritance (fork) or in the arguments of a `Process` (spawn, forkserver), as
in the standard package.

If a process dies while it holds a `Lock` or an `RLock`, the next process that waits for the lock acquires it, and its
attribute `abandoned` is true: the data that the lock guards may be half changed. A semaphore has no holder; the units
that a dead process acquired stay acquired. A process that dies while it waits for a `Condition` or an `Event` does not
disturb the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Barrier as _ThreadBarrier
from threading import BrokenBarrierError, current_thread

from . import context, process, util
from ._impl.compat import public_module
from ._impl.sync.native import RECURSIVE_MUTEX, SEM_VALUE_MAX, SEMAPHORE, BarrierCore, ConditionCore, EventFlag, ticket
from ._impl.sync.native import SemLock as _NativeSemLock
from ._impl.sync.waiting import wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"]


def _me() -> str:
    """Return the name of the calling process for a repr, with the thread's name unless it is the main thread."""
    thread = current_thread().name
    here = process.current_process().name
    return here if thread == "MainThread" else f"{here}|{thread}"


def made_for_fork(ctx: Any) -> bool:
    """Return True if objects of the context `ctx` are sent to forked children only.

    For other contexts the function also checks that a started resource tracker is alive, because the children inherit
    it.
    """
    if (ctx or context._default_context.get_context()).get_start_method() == "fork":
        return True
    module = sys.modules.get(f"{__package__}.resource_tracker")
    tracker = getattr(module, "_resource_tracker", None)  # None also while another thread imports the module
    if tracker is not None and tracker._fd is not None:
        tracker.ensure_running()
    return False


def check_spawning(obj: Any, by_fork_only: bool) -> None:
    """Raise RuntimeError unless this thread pickles a child that may receive `obj`."""
    context.assert_spawning(obj)
    if by_fork_only:
        raise RuntimeError(
            f"A {SemLock.__name__} created in a fork context is being shared with a process in a spawn context. "
            "This is not supported. Please use the same context to create multiprocessing objects and Process."
        )


def _ticket(obj: Any, by_fork_only: bool) -> Any:
    """Check that `obj` may be pickled now, and return the object to pickle for it."""
    check_spawning(obj, by_fork_only)
    return ticket(obj)


class SemLock(_NativeSemLock):
    """The base class of locks and semaphores; `acquire`, `release` and the context manager are native.

    Args:
        kind: `RECURSIVE_MUTEX` or `SEMAPHORE`.
        value: the initial count.
        maxvalue: the largest count.
        ctx: the context that the object belongs to.
        holder: True for a count that serves as a lock: the lock passes on when its holder dies.
    """

    def __init__(self, kind: int, value: int, maxvalue: int, *, ctx: Any, holder: bool = False) -> None:
        super().__init__(kind, value, maxvalue, holder=holder)
        self._by_fork_only = made_for_fork(ctx)
        util.debug("created semlock with handle %s", self.handle)

    @property
    def _semlock(self) -> SemLock:
        """The native object, which is this object itself."""
        return self

    def __getstate__(self) -> tuple[Any, ...]:
        return _ticket(self, self._by_fork_only), self.kind, self.maxvalue, self.name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._fill(*state)
        self._by_fork_only = False
        util.debug("recreated blocker with handle %s", self.handle)

    async def acquire_async(self) -> bool:
        """As `acquire`, in a task of asyncio, trio or anyio: the event loop is not blocked.

        A task that has to wait tries again from time to time: after half a millisecond, then after at most 10 ms.

        Returns:
            True.

        Raises:
            TypeError: the object is an `RLock`. All tasks of an event loop run in one thread, which may acquire it again at any time.
        """
        from ._impl.aio.doors import door

        if self.kind == RECURSIVE_MUTEX:
            raise TypeError("an RLock belongs to a thread, so it does not exclude the tasks of one thread: use a Lock")
        here = door()
        await here.checkpoint()
        pause = 0.0005
        while not self.acquire(False):
            await here.sleep(pause)
            pause = min(2 * pause, 0.01)
        return True

    def _holder(self) -> tuple[str, Any]:
        """Return the name of the holder and the count, for the reprs of the two locks."""
        if self._is_mine():
            return _me(), self._count()
        if not self._is_zero():
            return "None", 0
        return ("SomeOtherThread" if self._count() else "SomeOtherProcess"), "nonzero"


class Semaphore(SemLock):
    """A counter that `acquire` decrements, waiting while it is zero, and `release` increments.

    Args:
        value: the initial count, from 0 to 2,147,483,647.
        ctx: the context that the semaphore belongs to.

    A semaphore has no holder: the units that a dead process had acquired stay acquired.

    Example::

        slots = maniple.Semaphore(3)
        with slots:  # at most three processes at a time
            work()
    """

    @public_module.needs_ctx
    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        super().__init__(SEMAPHORE, value, SEM_VALUE_MAX, ctx=ctx)

    def get_value(self) -> int:
        """Return the count. Other processes may change it at any time."""
        return self._get_value()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self.get_value()})>"


class BoundedSemaphore(Semaphore):
    """A `Semaphore` whose `release` raises ValueError instead of exceeding the initial count.

    Args:
        value: the initial count, which is also the largest.
        ctx: the context that the semaphore belongs to.
    """

    @public_module.needs_ctx
    def __init__(self, value: int = 1, *, ctx: Any = None) -> None:
        SemLock.__init__(self, SEMAPHORE, value, value, ctx=ctx)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self.get_value()}, maxvalue={self.maxvalue})>"


class Lock(SemLock):
    """A lock that any process or thread may release, no matter which one acquired it.

    ``maniple.Lock()`` makes one for the program's start method. If its holder dies, the next process that waits for the
    lock acquires it, and its attribute `abandoned` is True there until the next `acquire`; the data that the lock
    guards may be half changed. In the standard package, all other processes wait forever.

    Example::

        lock = maniple.Lock()
        with lock:
            change_something_shared()
    """

    @public_module.needs_ctx
    def __init__(self, *, ctx: Any = None) -> None:
        super().__init__(SEMAPHORE, 1, 1, ctx=ctx, holder=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(owner={self._holder()[0]})>"


class RLock(SemLock):
    """A lock that the thread which holds it may acquire again; only that thread may release it, as often as it acquired it.

    If its holder dies, the next process that waits for the lock acquires it, and its attribute `abandoned` is True.
    """

    @public_module.needs_ctx
    def __init__(self, *, ctx: Any = None) -> None:
        super().__init__(RECURSIVE_MUTEX, 1, 1, ctx=ctx)

    def __repr__(self) -> str:
        return "<{}({}, {})>".format(type(self).__name__, *self._holder())


class _Gauge:
    """A number that can only be read, by `get_value`."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.get_value = read


class _OfLock:
    """A method that is a native method of the lock of a condition, which `find` returns.

    In a function of Python a signal handler could raise after the acquisition or before the release, and the lock would stay locked.
    """

    def __init__(self, find: Callable[..., Any]) -> None:
        self._find = find

    def __get__(self, condition: Any, owner: type) -> Any:
        return self if condition is None else self._find(condition)

    def __call__(self, condition: Any, *args: Any) -> Any:
        return self._find(condition)(*args)

    @property
    def __signature__(self) -> Any:
        from inspect import signature

        return signature(self._find)


class Condition:
    """A condition variable: a process waits until another process notifies it. The caller of most methods holds the lock.

    Args:
        lock: the `Lock` or `RLock` that belongs to the condition; None makes a new `RLock`.
        ctx: the context that the condition belongs to.

    A process that dies while it waits does not disturb the others.

    Example::

        with condition:
            condition.wait_for(lambda: counter.value > 10, timeout=5)
        # in another process
        with condition:
            counter.value += 1
            condition.notify_all()
    """

    @public_module.needs_ctx
    def __init__(self, lock: SemLock | None = None, *, ctx: Any = None) -> None:
        self._bind(lock or ctx.RLock(), ConditionCore())

    def _bind(self, lock: SemLock, core: ConditionCore) -> None:
        self._lock, self._core = lock, core
        self.acquire: Callable[..., bool] = lock.acquire
        self.release: Callable[[], None] = lock.release

    def __getstate__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return self._lock, ticket(self._core)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        lock, place = state
        self._bind(lock, ConditionCore(place))

    # Programs read these three semaphores of the standard package's conditions.
    @property
    def _sleeping_count(self) -> _Gauge:
        return _Gauge(lambda: sum(self._core.counts()))

    @property
    def _woken_count(self) -> _Gauge:
        return _Gauge(lambda: self._core.counts()[1])

    @property
    def _wait_semaphore(self) -> _Gauge:
        return self._woken_count

    def locked(self) -> bool:
        """Return True if the lock of the condition is held."""
        return self._lock.locked()

    @_OfLock
    def __enter__(self) -> Any:
        return self._lock.__enter__

    @_OfLock
    def __exit__(self, *args: Any) -> Any:
        return self._lock._semlock._leave

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self._lock}, {self._core.counts()[0]})>"

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait for `notify`, and acquire the lock again.

        Args:
            timeout: the time limit in seconds; None means no limit.

        Returns:
            True if the caller was notified, False if the time limit passed.

        Raises:
            AssertionError: the caller does not hold the lock.
        """
        return self._core.wait(self._lock._semlock, timeout)

    def notify(self, n: int = 1) -> None:
        """Wake at most `n` of the processes and threads that wait. They continue when the caller releases the lock.

        Raises:
            AssertionError: the caller does not hold the lock.
        """
        self._core.notify(self._lock._semlock, n)

    def notify_all(self) -> None:
        """Wake all processes and threads that wait.

        Raises:
            AssertionError: the caller does not hold the lock.
        """
        self._core.notify(self._lock._semlock, SEM_VALUE_MAX)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()`` is true. The caller holds the lock, also while the predicate runs.

        Args:
            predicate: a function without arguments.
            timeout: the time limit in seconds; None means no limit.

        Returns:
            The last value of the predicate; it is false if the time limit passed.
        """
        return wait_for(self.wait, predicate, timeout)


def _left_out(reasons: dict[str, str]) -> Callable[[Any, str], Any]:
    """Return a ``__getattr__`` whose error says why an inner attribute of the standard package's class is missing."""

    def look(self: Any, name: str) -> Any:
        reason = f": {reasons[name]}" if name in reasons else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{reason}")

    return look


_ONE_WORD = "an event is one word of shared memory, without a condition and a semaphore; use is_set(), set() and wait()"
_NUMBERS = "the numbers of a barrier are `parties`, `n_waiting` and `broken`"
# The value that `BarrierCore.wait` returns for a barrier that broke because a party died in the action.
_DIED = -2


def _made_with(cls: type, *, ctx: Any) -> Any:
    """Provide the signature of a class; it is never called."""


class Event(EventFlag):
    """A flag that processes wait for. It is false at first.

    `set` wakes all waiting processes, even if `clear` follows at once. A process that dies while it waits does not
    disturb the others.

    Example::

        ready = maniple.Event()
        # in a child
        ready.wait(timeout=10)
        # in the parent
        ready.set()
    """

    def __new__(cls, *args: Any, **kwds: Any) -> Event:
        # A subclass may have another constructor, so its arguments are ignored here.
        return EventFlag.__new__(cls)

    # `inspect.signature` shows this signature for the class.
    vars(__new__)["__wrapped__"] = _made_with

    @public_module.needs_ctx
    def __init__(self, *, ctx: Any = None) -> None:
        self._by_fork_only = made_for_fork(ctx)

    def __reduce__(self) -> tuple[Any, ...]:
        place = _ticket(self, self._by_fork_only)
        return _arrived_event, (type(self), place), {**self.__dict__, "_by_fork_only": False}

    if not TYPE_CHECKING:  # hidden from type checkers, so that they report misspelt names
        __getattr__ = _left_out({"_flag": _ONE_WORD, "_cond": _ONE_WORD})

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} at {id(self):#x} {'set' if self.is_set() else 'unset'}>"


def _arrived_event(cls: type[Event], place: Any) -> Event:
    return EventFlag.__new__(cls, place)


class Barrier(_ThreadBarrier):
    """A point at which a fixed number of processes wait for each other; the interface is that of `threading.Barrier`.

    Args:
        parties: the number of processes that have to call `wait` before all of them continue.
        action: a function that one of the processes calls when all have arrived, before they continue.
        timeout: the default time limit of `wait` in seconds; None means no limit.
        ctx: the context that the barrier belongs to.

    Raises:
        ValueError: `parties` is less than 1.

    A process that is killed after it arrived counts as arrived and does not delay the others. If a process is killed
    while it runs the action, the barrier breaks. In the standard package, the others wait forever.
    """

    @public_module.needs_ctx
    def __init__(
        self, parties: int, action: Callable[[], Any] | None = None, timeout: float | None = None, *, ctx: Any = None
    ) -> None:
        if parties < 1:
            raise ValueError("a barrier needs at least one party")
        self._bind(parties, action, timeout, ctx.Condition(), BarrierCore(int(parties)))

    def _bind(
        self,
        parties: int,
        action: Callable[[], Any] | None,
        timeout: float | None,
        cond: Condition,
        core: BarrierCore,
    ) -> None:
        self._parties, self._action, self._timeout, self._core = parties, action, timeout, core
        # Programs hold it while they read the barrier; this module does not wait for it.
        self._cond = cond

    def __getstate__(self) -> tuple[Any, ...]:
        return self._parties, self._action, self._timeout, self._cond, ticket(self._core)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        parties, action, timeout, cond, place = state
        self._bind(parties, action, timeout, cond, BarrierCore(0, place))

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have called `wait`.

        Args:
            timeout: the time limit in seconds; None means the barrier's own.

        Returns:
            A number from 0 to ``parties - 1``, a different one for each party.

        Raises:
            threading.BrokenBarrierError: the time limit of a party passed, its action failed, or `abort` or `reset` was called.
        """
        place = self._core.wait(self._timeout if timeout is None else timeout, self._action)
        if place == _DIED:
            raise BrokenBarrierError("the party that ran the barrier's action died")
        if place < 0:
            raise BrokenBarrierError(
                "the barrier is broken: a party's time limit passed, its action failed, or abort() or reset() was called"
            )
        return place

    def reset(self) -> None:
        """Make the barrier empty and unbroken again. Parties that wait get `BrokenBarrierError`."""
        self._core.reset()

    def abort(self) -> None:
        """Break the barrier: parties that wait or arrive get `BrokenBarrierError`, until `reset`."""
        self._core.abort()

    @property
    def n_waiting(self) -> int:
        """The number of parties that wait at the barrier."""
        return self._core.waiting()

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken."""
        return self._core.is_broken()

    # The standard package has these numbers in shared memory, and programs read them.
    @property
    def _state(self) -> int:
        return -2 if self.broken else 0

    @property
    def _count(self) -> int:
        return self.n_waiting

    if not TYPE_CHECKING:
        __getattr__ = _left_out({"_array": _NUMBERS, "_wrapper": _NUMBERS})


public_module.finish(globals())
