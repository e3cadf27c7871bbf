"""Queues between processes: first in, first out, any number of writers and readers.

A queue lies in shared memory (`_maniple.Log`), which grows with what is in it::

    put() ─────────────▶ shared memory ─▶ get()

So `put` waits for readers only where the queue has a bound, what a process has put stays when the process ends or is killed, and
a process that has put something can be joined before anybody takes it.  Writers and readers may die at any point without harm to
the others, to what is in the queue, or to how much it takes: a bound is compared with what is there, not counted down.

`put` pickles the item in the calling thread.  An item that cannot be pickled is reported to `_on_queue_feeder_error`; where a
subclass overrides that, a thread calls it, as the standard package's feeder does.

A subclass that uses the parts of which the standard queue consists gets them (`_fed_queue`).
"""

from __future__ import annotations

import os
import threading
import types
import weakref
from collections import deque
from queue import Empty, Full  # noqa: F401
from traceback import print_exception

from . import connection, context, reduction  # noqa: F401  # programs look for the first here
from ._fed_queue import FedQueue, takes_part
from ._fed_queue import end_of_feed as _sentinel  # noqa: F401  # loky's feeder imports it
from ._maniple import Log
from ._native_sync import SEM_VALUE_MAX
from ._queue_ends import End
from .synchronize import check_spawning, made_for_fork
from .util import Finalize, debug, register_after_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Queue", "SimpleQueue", "JoinableQueue"]

#: what items are pickled and unpickled by; a program may put another class here
_ForkingPickler = getattr(context.reduction, "ForkingPickler", reduction.ForkingPickler)


def _context_of(by_fork_only: bool) -> Any:
    """A context for parts that are made after the queue."""
    return context._default_context.get_context("fork" if by_fork_only else "spawn")


class _Places:
    """How many more items a queue takes: what the standard package counts down in a semaphore, for those who look."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    @property
    def _semlock(self) -> _Places:
        return self

    @property
    def maxvalue(self) -> int:
        return self._queue._maxsize

    def get_value(self) -> int:
        return max(self._queue._maxsize - len(self._queue._log), 0)

    _get_value = get_value

    def _is_zero(self) -> bool:
        return self._queue._log.full()

    locked = _is_zero

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        raise RuntimeError(
            "this queue compares its bound with what is in it: there is no semaphore to take a place of. "
            "Override Queue.put in a subclass that uses `_sem` to get a queue with one."
        )

    release = acquire


class _Undone:
    """How many items are not reported done, which the standard package counts in a semaphore, for those who look."""

    def __init__(self, log: Log) -> None:
        self.get_value = self._get_value = log.undone

    @property
    def _semlock(self) -> _Undone:
        return self

    def _is_zero(self) -> bool:
        return self.get_value() == 0


class _Nothing(deque[object]):
    """The buffer of a queue that needs none.  It may be looked at and cleared; what was put into it would be lost."""

    def append(self, obj: object) -> None:
        raise RuntimeError(
            "this queue has no feeder that would take an object out of its buffer: call put(). "
            "A subclass of Queue that uses `_buffer` gets a queue with a feeder."
        )

    appendleft = append

    def extend(self, objects: object) -> None:
        self.append(objects)

    extendleft = extend


_no_buffer = _Nothing()


class _Reporter:
    """Tells a subclass's `_on_queue_feeder_error` of items that cannot be pickled, from a thread of its own."""

    def __init__(self) -> None:
        self._untold: deque[tuple[Any, Exception, Any]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self.thread: threading.Thread | None = None
        self._done = False

    def report(self, tell: Any, error: Exception, obj: Any) -> threading.Thread | None:
        """Have ``tell(error, obj)`` called; the thread, where it was started for that."""
        started = None
        with self._changed:
            self._untold.append((tell, error, obj))
            if self.thread is None:
                debug("Queue._start_thread()")
                started = self.thread = threading.Thread(target=self._run, name="QueueFeederThread", daemon=True)
                started.start()
            self._changed.notify_all()
        return started

    def catch_up(self) -> None:
        """Wait until all is told: what is put next is not to be there before.  Not for long, if the one told waits for us."""
        if self._untold and threading.current_thread() is not self.thread:
            with self._changed:
                self._changed.wait_for(lambda: not self._untold, 1.0)

    def close(self) -> None:
        """Let the thread end when all is told."""
        with self._changed:
            self._done = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._untold or self._done)
                if not self._untold:
                    return
                tell, error, obj = self._untold[0]
            try:
                tell(error, obj)
            except Exception as problem:
                print_exception(problem)
            # While the thread waits, it keeps neither the queue nor the object alive.
            del tell, error, obj
            with self._changed:
                self._untold.popleft()
                self._changed.notify_all()


def _join_thread(ref: weakref.ref[threading.Thread]) -> None:
    thread = ref()
    if thread is not None and thread is not threading.current_thread():
        debug("joining queue thread")
        thread.join()


class _Ends:
    """An end of a queue: ours, or one that a program has put in its place."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, queue: Any, owner: type) -> Any:
        if queue is None:
            return self
        try:
            return vars(queue)[self._name]
        except KeyError:
            raise AttributeError(f"{type(queue).__name__!r} object has no attribute {self._name!r}") from None

    def __set__(self, queue: Any, end: Any) -> None:
        vars(queue)[self._name] = end
        if not queue._fed and not isinstance(end, End):
            # The items are to go by way of this object.
            queue._take_up_parts(_context_of(queue._by_fork_only))


def _missing(queue: Any, name: str, parts: tuple[str, ...]) -> AttributeError:
    kind = type(queue).__name__
    if name in parts and not queue._fed:
        return AttributeError(
            f"this {kind} has no {name}: its items lie in shared memory, and no lock is held while they are put or got. "
            f"A subclass of which a method uses {name} gets a queue that has it.",
            name=name,
            obj=queue,
        )
    return AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=queue)


class Queue(FedQueue):
    """A first-in first-out queue that any number of processes put into and get from.

    `maxsize` bounds how many items may be in it (0: no bound but memory).
    """

    #: set by a pool of processes; here a feeder never waits for readers, so it makes no difference
    _ignore_epipe = False
    #: whether items are to be reported done
    _counted = False

    # Nothing in it minds how a child was started. It is refused where its locks would be in the standard package, so that a program
    # that works here works there.
    _by_fork_only = False
    _reader, _writer = _Ends("_reader"), _Ends("_writer")

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        self._by_fork_only = made_for_fork(ctx)
        self._maxsize = SEM_VALUE_MAX if maxsize <= 0 else maxsize
        self._opid = os.getpid()
        if takes_part(type(self), (Queue, JoinableQueue)):
            self._share(Log())
            self._make_parts(ctx)
        else:
            self._share(Log(max(maxsize, 0)))
            self._begin()

    def _share(self, log: Log) -> None:
        """Take up what all processes have in common."""
        self._fed, self._log = False, log
        self._reader, self._writer = End(log, True), End(log, False)

    def _begin(self) -> None:
        """Begin without a feeder."""
        self._reset()
        register_after_fork(self, type(self)._after_fork)

    def _take_up_parts(self, ctx: Any) -> None:
        """From now on work with the parts of the standard package's queue."""
        self._make_parts(ctx)

    def _reset_plain(self) -> None:
        # In a forked child too: what the parent has to report is the parent's to report.
        self._closed = self._joincancelled = self._used = False
        self._thread = self._jointhread = self._close = None
        self._reporter: _Reporter | None = None

    def __getstate__(self) -> tuple[Any, ...]:
        check_spawning(self, self._by_fork_only)
        kept = self._ignore_epipe, self._maxsize, self._opid
        if self._fed:
            return (*kept[:2], self._reader, self._writer, self._rlock, self._wlock, self._sem, self._opid)
        return (*kept, self._log)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) > 4:
            ends, locks = state[2:4], state[4:7]
            self._ignore_epipe, self._maxsize, self._opid = *state[:2], state[7]
            self._fed = True
            self._reader, self._writer = ends
            self._rlock, self._wlock, self._sem = locks
            self._begin_fed()
        else:
            self._ignore_epipe, self._maxsize, self._opid, log = state
            self._share(log)
            self._begin()

    def __getattr__(self, name: str) -> Any:
        # What the standard queue has besides, of one that has no need of it.
        if not self._fed:
            if name == "_sem":
                return _Places(self)
            if name == "_buffer":
                return _no_buffer
            if name == "_notempty":
                made = vars(self)[name] = threading.Condition(threading.Lock())
                return made
            if name in ("_send_bytes", "_recv_bytes", "_poll"):
                return getattr(self._writer if name == "_send_bytes" else self._reader, name[1:])
        raise _missing(self, name, ("_rlock", "_wlock", "_cond"))

    def _refuse(self) -> None:
        raise ValueError(f"Queue {self!r} is closed")

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in.  `queue.Full` when there is no place, at once (not `block`) or after `timeout` seconds.

        An item that cannot be pickled is reported to `_on_queue_feeder_error` and dropped.
        """
        if self._closed:
            self._refuse()
        if self._fed:
            return self._put_fed(obj, block, timeout)
        if not self._used:
            self._used = True
        elif self._reporter is not None:
            self._reporter.catch_up()
        problem = self._log.put(obj, self._counted, block, timeout)
        if problem is not None:
            if problem is False:
                raise Full
            self._report(problem, obj)

    def _report(self, error: Exception, obj: Any) -> None:
        """Say that an item is not put, and why."""
        if type(self)._on_queue_feeder_error is Queue._on_queue_feeder_error:
            print_exception(error)
            return
        reporter = self._reporter
        if reporter is None:
            reporter = self._reporter = _Reporter()
            self._close = Finalize(self, reporter.close, exitpriority=10)
        thread = reporter.report(self._on_queue_feeder_error, error, obj)
        if thread is not None:
            self._thread = thread
            if not self._joincancelled:
                self._jointhread = Finalize(thread, _join_thread, (weakref.ref(thread),), exitpriority=-5)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out.  `queue.Empty` when there is none, at once (not `block`) or after `timeout` seconds."""
        if self._closed:
            self._refuse()
        if self._fed:
            return self._get_fed(block, timeout)
        return self._log.get(block, timeout)

    def put_nowait(self, obj: Any) -> None:
        """``put(obj, False)``."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """``get(False)``."""
        return self.get(block=False)

    def qsize(self) -> int:
        """About how many items there are."""
        if self._fed:
            free: int = self._sem._semlock._get_value()
            return self._maxsize - free
        return self._left if self._closed and self._used else len(self._log)

    def empty(self) -> bool:
        """Whether nothing can be got now.  An item just put may still be on its way."""
        return not (self._poll if self._fed else self._reader.poll)()

    def full(self) -> bool:
        """Whether nothing can be put now."""
        if self._fed:
            return bool(self._sem._semlock._is_zero())
        return self._left >= self._maxsize if self._closed and self._used else self._log.full()

    def close(self) -> None:
        """Say that this process puts and gets no more.  The feeder, where there is one, ends when all is written."""
        if self._fed:
            return self._close_fed()
        if self._closed:
            return
        self._closed = True
        # One that only looked on can still look: programs ask a queue that they have closed whether it is empty.
        if self._used:
            self._left = len(self._log)
            self._reader.close()
            self._writer.close()
            self._let_go()
            if self._close is not None:
                self._close()

    def _let_go(self) -> None:
        self._log.close()

    def join_thread(self) -> None:
        """Wait until all that this process put can be got, and all errors are reported; after `close`.

        A process that put something does this at its exit too, unless `cancel_join_thread` was called.
        """
        debug("Queue.join_thread()")
        assert self._closed, f"Queue {self!r} not closed"
        if self._jointhread:
            self._jointhread()

    def cancel_join_thread(self) -> None:
        """Let the process exit without waiting for a feeder; what it has not written then is lost."""
        debug("Queue.cancel_join_thread()")
        self._joincancelled = True
        if self._jointhread:
            self._jointhread.cancel()

    def _terminate_broken(self) -> None:
        """End the queue although its readers are gone."""
        if self._fed:
            self._reader.close()
        self.close()
        self.join_thread()

    @staticmethod
    def _on_queue_feeder_error(e: Exception, obj: Any) -> None:
        """Called with what went wrong for which item, which is dropped; by default it prints the traceback.

        A subclass may override it; then it is called in a thread of the queue's.
        """
        print_exception(e)

    def __class_getitem__(cls, item: Any) -> types.GenericAlias:
        return types.GenericAlias(cls, item)


class JoinableQueue(Queue):
    """A `Queue` that counts the items which are put but not yet reported done, and lets you wait for them."""

    _counted = True

    def _make_parts(self, ctx: Any) -> None:
        self._unfinished_tasks, self._cond = ctx.Semaphore(0), ctx.Condition()
        super()._make_parts(ctx)

    def __getstate__(self) -> tuple[Any, ...]:
        state = super().__getstate__()
        return (*state, self._cond, self._unfinished_tasks) if self._fed else state

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) > 4:
            *state, self._cond, self._unfinished_tasks = state  # type: ignore[assignment]  # a list, which does as well
        super().__setstate__(state)

    def __getattr__(self, name: str) -> Any:
        if name == "_unfinished_tasks" and not self._fed:
            return _Undone(self._log)
        return super().__getattr__(name)

    def _hand_to_feeder(self, obj: Any) -> None:
        with self._cond:
            super()._hand_to_feeder(obj)
            self._unfinished_tasks.release()

    def _let_go(self) -> None:
        """What is still to be done can be waited for after `close`."""

    def task_done(self) -> None:
        """Report that an item which was got is done; ValueError when that was said more often than items were put."""
        if self._fed:
            with self._cond:
                if not self._unfinished_tasks.acquire(False):
                    raise ValueError("task_done() called too many times")
                if self._unfinished_tasks._semlock._is_zero():
                    self._cond.notify_all()
        elif not self._log.done():
            raise ValueError("task_done() called too many times")

    def join(self) -> None:
        """Wait until every item that was put is reported done."""
        if self._fed:
            with self._cond:
                self._cond.wait_for(self._unfinished_tasks._semlock._is_zero)
        else:
            self._log.join()


class SimpleQueue:
    """A queue without a bound, and with nothing but `put`, `get`, `empty` and `close`."""

    _by_fork_only = False
    _fed = True  # see `FedQueue`; here two locks are all of it
    _reader, _writer = _Ends("_reader"), _Ends("_writer")

    def __init__(self, *, ctx: Any) -> None:
        self._by_fork_only = made_for_fork(ctx)
        self._share(Log())
        if takes_part(type(self), (SimpleQueue,)):
            self._take_up_parts(ctx)

    def _share(self, log: Log) -> None:
        self._fed, self._log = False, log
        self._reader, self._writer = End(log, True), End(log, False)

    def _take_up_parts(self, ctx: Any) -> None:
        if not self._fed:
            self._rlock, self._wlock = ctx.Lock(), ctx.Lock()
            self._fed, self._poll = True, self._reader.poll

    def __getstate__(self) -> tuple[Any, ...]:
        check_spawning(self, self._by_fork_only)
        return (self._reader, self._writer, self._rlock, self._wlock) if self._fed else (self._log,)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) == 1:
            return self._share(*state)
        self._fed = True
        self._reader, self._writer, self._rlock, self._wlock = state
        self._poll = self._reader.poll

    def __getattr__(self, name: str) -> Any:
        if name == "_poll":
            return self._reader.poll
        raise _missing(self, name, ("_rlock", "_wlock"))

    def put(self, obj: Any) -> None:
        """Put an item in."""
        if self._fed:
            pickle = _ForkingPickler.dumps(obj)
            with self._wlock:
                self._writer.send_bytes(pickle)
        elif (problem := self._log.put(obj)) is not None:
            raise problem

    def get(self) -> Any:
        """Take an item out, waiting for one."""
        if not self._fed:
            return self._log.get()
        with self._rlock:
            pickle = self._reader.recv_bytes()
        return _ForkingPickler.loads(pickle)

    def empty(self) -> bool:
        """Whether nothing can be got now."""
        return not self._poll()

    def close(self) -> None:
        """Close both ends in this process."""
        self._reader.close()
        self._writer.close()
        if not self._fed:
            self._log.close()

    __class_getitem__ = classmethod(types.GenericAlias)
