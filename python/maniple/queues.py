"""Queues between processes: first in, first out, any number of writers and readers.

A queue lies in shared memory (`_maniple.Log`), which grows with its content::

    put() ─────────────▶ shared memory ─▶ get()

So `put` waits for readers only if the queue has a bound. An item stays in the queue when the process that put it ends
or is killed, and that process can be joined before another process takes the item. The death of a writer or reader at
any point harms neither other processes, nor the content, nor the bound, which is compared with the number of items.

`put` pickles the item in the calling thread. An item that cannot be pickled is reported to `_on_queue_feeder_error`; if a
subclass overrides that, a thread calls it, as the standard package's feeder does.

A subclass that uses the inner parts of the standard queue is implemented with these parts (`fed_queue`). So is every queue that is
made while file sizes are limited (``ulimit -f``): shared memory counts as a file and cannot exceed that limit, so a feeder has to
wait for room.
"""

from __future__ import annotations

import os
import sys
from queue import Empty as Empty
from queue import Full as Full

from . import connection, context, reduction  # noqa: F401  # programs use `queues.connection`
from ._impl.compat import public_module
from ._impl.sync.native import SEM_VALUE_MAX
from ._impl.transport.fed_queue import FedJoinable, FedQueue, FedSimpleQueue, takes_part
from ._impl.transport.fed_queue import Item as _Item
from ._impl.transport.fed_queue import end_of_feed as _sentinel  # noqa: F401  # loky's feeder imports it
from ._impl.transport.queue_ends import End as _End
from ._impl.transport.queue_ends import EndSlot as _EndSlot
from ._impl.transport.queue_ends import closing_wakes
from ._impl.transport.queue_errors import empty_error, full_error
from ._impl.transport.queue_extras import QueueExtras, SimpleQueueExtras, name_methods
from ._impl.transport.queue_extras import ShutDown as ShutDown
from ._impl.transport.queue_views import Part, Places, Undone, condition_of, no_buffer
from ._maniple import Log
from .synchronize import check_spawning, made_for_fork
from .util import Finalize, debug, info, is_exiting, register_after_fork  # noqa: F401  # programs use these here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from ._impl.transport.queue_reports import Reporter

__all__ = ["Queue", "SimpleQueue", "JoinableQueue", "ShutDown"]

#: the class that pickles and unpickles items; a program may replace it
_ForkingPickler = getattr(context.reduction, "ForkingPickler", reduction.ForkingPickler)


class Queue(FedQueue[_Item], QueueExtras[_Item]):
    """A first-in, first-out queue in shared memory that any number of processes put into and get from.

    ``maniple.Queue()`` makes one for the program's start method. ``Queue[int]`` is the type of a queue of int.

    Args:
        maxsize: the number of items at which `put` waits; 0 or less means no limit but memory.
        ctx: the context that the queue belongs to.

    What differs from the standard package: `put` pickles the item itself and writes it into the queue, without a feeder
    thread. An item stays in the queue when the process that put it exits or is killed. A reader or a writer that dies does
    not harm the queue.

    Example::

        queue = maniple.Queue(maxsize=100)
        queue.put("item", timeout=5)  # raises queue.Full if there is no room for 5 seconds
        print(queue.get())
    """

    _is_ours = True
    #: set by `concurrent.futures`; it has no effect here, since no feeder writes to a pipe
    _ignore_epipe = False
    #: whether a queue of this class counts the items that are not reported done
    _is_joinable = False

    # The queue would work with every start method. It raises where the locks of the standard package's queue raise, so that
    # programs which work here work there.
    _by_fork_only = False
    _reader, _writer = _EndSlot(), _EndSlot()

    # The inner parts of the standard queue, computed from the log.
    _rlock, _wlock = Part(), Part()
    _sem = Part(lambda queue: Places(queue._maxsize, queue._log))
    _buffer = Part(lambda queue: no_buffer)
    _notempty = Part(condition_of)
    _send_bytes = Part(lambda queue: queue._writer.send_bytes)
    _recv_bytes = Part(lambda queue: queue._reader.recv_bytes)
    _poll = Part(lambda queue: queue._reader.poll)

    @public_module.needs_ctx
    def __init__(self, maxsize: int = 0, *, ctx: Any = None) -> None:
        if not hasattr(maxsize, "__index__"):
            raise TypeError(f"maxsize must be an int, not {maxsize!r:.80} of type {type(maxsize).__name__}")
        self._by_fork_only = made_for_fork(ctx)
        self._maxsize = SEM_VALUE_MAX if maxsize <= 0 else maxsize
        self._opid = os.getpid()
        if takes_part(type(self)) or Log.would_be_limited():
            self._share(Log())
            self._take_up_parts(ctx)
        else:
            self._share(Log(max(maxsize, 0)))
            self._begin()

    def _share(self, log: Log) -> None:
        """Set the log and the ends of the queue, which all processes share."""
        self._fed, self._log = False, log
        self._reader, self._writer = _End(log, True), _End(log, False)

    def _begin(self) -> None:
        self._reset()
        register_after_fork(self, type(self)._after_fork)

    def _reset_plain(self) -> None:
        # In a forked child, too: the parent reports its own errors.
        self._closed = self._joincancelled = self._used = False
        # An attribute of the instance, which `put` finds more quickly.
        self._counted = self._is_joinable
        self._thread = self._jointhread = self._close = None
        self._reporter: Reporter | None = None
        self._room = None

    def __getstate__(self) -> tuple[Any, ...]:
        check_spawning(self, self._by_fork_only)
        return super().__getstate__() if self._fed else (self._ignore_epipe, self._maxsize, self._opid, self._log)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) > 4:
            return super().__setstate__(state)
        self._ignore_epipe, self._maxsize, self._opid, log = state
        self._share(log)
        self._begin()

    def _refuse(self) -> None:
        raise ValueError(f"Queue {self!r} is closed")

    # For the methods that the standard package does not have.

    def _is_overridden(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(Queue, name)

    def _check_open(self) -> None:
        if self._closed:
            self._refuse()

    def _get_one(self, block: bool, timeout: float | None) -> _Item:
        return self.get(block, timeout)

    def _put_one(self, item: _Item, block: bool, timeout: float | None) -> None:
        self.put(item, block, timeout)

    def _before_put(self) -> None:
        if not self._used:
            self._first_put()
        if self._reporter is not None:
            self._reporter.catch_up()

    def put(self, obj: _Item, block: bool = True, timeout: float | None = None) -> None:
        """Put an item into the queue.

        Args:
            obj: the item. If it cannot be pickled, the traceback is printed and the item is dropped, as in the standard
                package: a subclass may override `_on_queue_feeder_error`.
            block: whether to wait while the queue is full.
            timeout: the time limit for that in seconds; None means no limit.

        Raises:
            queue.Full: the queue is full (after `timeout` seconds, or at once if `block` is false).
            ShutDown: the queue is shut down.
            ValueError: this process has closed the queue.
            OSError, MemoryError: the system has no memory or no descriptor for the item, which is not in the queue.
        """
        if self._closed:
            self._refuse()
        if self._fed:
            return super().put(obj, block, timeout)
        if not self._used:
            self._first_put()
        if self._reporter is not None:
            self._reporter.catch_up()
        try:
            problem = self._log.put(obj, self._counted, block, timeout)
        except OSError:
            self._check_open()
            raise
        if problem is None:
            return
        if problem is False:
            raise full_error(self._maxsize, block, timeout)
        self._report(problem, obj, sys._getframe(1))

    def _report(self, problem: Exception, obj: Any, caller: FrameType) -> None:
        """Report an item that cannot be pickled, with the line that has put it."""
        if self._reporter is None:
            from traceback import print_exception
            from types import TracebackType

            # Like a traceback of an exception that `put` raises: the lines of all callers, the outermost first.
            frame, lines = caller, problem.__traceback__
            while frame is not None:
                lines = TracebackType(lines, frame, frame.f_lasti, frame.f_lineno)
                frame = frame.f_back  # type: ignore[assignment]  # the outermost frame has none
            print_exception(type(problem), problem, lines)
        else:
            # A note, because the frames would keep the caller's objects.
            problem.add_note(f"the item was put by {caller.f_code.co_filename}, line {caller.f_lineno}")
            self._reporter.report(self._on_queue_feeder_error, problem, obj)

    def _first_put(self) -> None:
        if type(self)._on_queue_feeder_error is not Queue._on_queue_feeder_error:
            from ._impl.transport.queue_reports import Reporter

            reporter = Reporter()
            self._thread = reporter.thread
            self._jointhread, self._close = reporter.finalizers(self, not self._joincancelled)
            self._reporter = reporter
        self._used = True

    def get(self, block: bool = True, timeout: float | None = None) -> _Item:
        """Remove the first item from the queue and return it.

        Args:
            block: whether to wait while the queue is empty.
            timeout: the time limit for that in seconds; None means no limit.

        Raises:
            queue.Empty: the queue is empty (after `timeout` seconds, or at once if `block` is false).
            ShutDown: the queue is empty and shut down, or is shut down at once.
            ValueError: this process has closed the queue.
            The exception that unpickling the item raises.
        """
        if self._closed:
            self._refuse()
        if self._fed:
            return super().get(block, timeout)
        try:
            return self._log[block, timeout]  # type: ignore[no-any-return]  # by what `put` accepts
        except OSError:
            self._check_open()  # another thread, or a signal handler, may have closed the queue during the wait
            raise

    def put_nowait(self, obj: _Item) -> None:
        """Put an item into the queue without waiting: ``put(obj, False)``.

        Raises:
            queue.Full: the queue is full.
        """
        self.put(obj, False)

    def get_nowait(self) -> _Item:
        """Remove the first item and return it without waiting: ``get(False)``.

        Raises:
            queue.Empty: the queue is empty.
        """
        if self._fed or self._closed or type(self).get is not Queue.get:
            return self.get(block=False)
        return self._log[False, None]  # type: ignore[no-any-return]

    def qsize(self) -> int:
        """Return the number of items in the queue. Other processes may change it at any time."""
        if self._fed:
            return super().qsize()
        return self._left if self._closed and self._used else len(self._log)

    def empty(self) -> bool:
        """Return True if the queue has no item at the moment. Other processes may change that at any time."""
        return super().empty() if self._fed else not self._reader.poll()

    def full(self) -> bool:
        """Return True if `put` would wait at the moment. Other processes may change that at any time."""
        if self._fed:
            return super().full()
        return self._left >= self._maxsize if self._closed and self._used else self._log.full()

    def close(self) -> None:
        """Release the queue in this process, which can no longer put or get. Other processes keep their access."""
        if self._fed:
            return super().close()
        if self._closed:
            return
        waking = closing_wakes(self._log)
        self._closed = True
        # A process that never put an item can still read the state: programs call `empty` on a queue that they have closed.
        if self._used:
            self._left = len(self._log)
            self._reader.close()
            self._writer.close()
            self._let_go()
            if self._close is not None:
                self._close()
        else:
            self._log.shed()
        waking()

    def _let_go(self) -> None:
        self._log.close()

    def join_thread(self) -> None:
        """Wait until this process's items are in the queue and its errors are reported. Call `close` first.

        Items are in the queue when `put` returns, so the call waits only for subclasses that have a thread.

        Raises:
            AssertionError: the queue is not closed.
        """
        debug("Queue.join_thread()")
        assert self._closed, f"Queue {self!r} not closed"
        if self._jointhread:
            self._jointhread()

    def cancel_join_thread(self) -> None:
        """Let the process exit without waiting for the thread of a subclass; items that it has not written are lost."""
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
        """Print the traceback of an item that cannot be pickled; the item is dropped.

        If a subclass overrides the method, a thread of the queue calls it.
        """
        from traceback import print_exception

        print_exception(e)


class JoinableQueue(Queue[_Item], FedJoinable[_Item]):
    """A `Queue` that counts the items that have been put and are not reported as done.

    Example::

        def work(jobs):
            while True:
                handle(jobs.get())
                jobs.task_done()

        jobs.put(job)
        jobs.join()  # waits until all jobs are handled
    """

    _is_ours = _is_joinable = True

    _unfinished_tasks = Part(lambda queue: Undone(queue._log))
    _cond = Part()

    def _let_go(self) -> None:
        """Release the queue; `join` and `task_done` still work."""
        self._log.shed()

    def task_done(self) -> None:
        """Report that the work on an item is done. Call it once for each item that `get` returned.

        Raises:
            ValueError: it was called more often than items were put.
        """
        if self._fed:
            super().task_done()
        elif not self._log.done():
            raise ValueError("task_done() called too many times")

    def join(self) -> None:
        """Wait until `task_done` has been called for every item that was put."""
        if self._fed:
            super().join()
        else:
            self._log.join()


class SimpleQueue(FedSimpleQueue[_Item], SimpleQueueExtras[_Item]):
    """A queue without a size limit and without time limits: `put`, `get`, `empty`, `close`.

    ``maniple.SimpleQueue()`` makes one for the program's start method. ``SimpleQueue[int]`` is the type of a queue of int. `put`
    does not wait for a reader; in the standard package it waits when the pipe is full.
    """

    _is_ours, _by_fork_only = True, False
    _reader, _writer = _EndSlot(), _EndSlot()
    _rlock, _wlock = Part(), Part()
    _poll = Part(lambda queue: queue._reader.poll)

    @public_module.needs_ctx
    def __init__(self, *, ctx: Any = None) -> None:
        self._by_fork_only = made_for_fork(ctx)
        self._share(Log())
        if takes_part(type(self)) or Log.would_be_limited():
            self._take_up_parts(ctx)

    def _share(self, log: Log) -> None:
        self._fed, self._log = False, log
        self._reader, self._writer = _End(log, True), _End(log, False)

    # For the methods that the standard package does not have.

    def _is_overridden(self, name: str) -> bool:
        return getattr(type(self), name) is not getattr(SimpleQueue, name)

    def _check_open(self) -> None:
        if isinstance(self._reader, _End):
            self._reader._open()

    def _get_one(self, block: bool, timeout: float | None) -> _Item:
        if self._fed or self._is_overridden("get"):
            if not block and self.empty():
                raise empty_error(block, timeout)
            return self.get()
        return self._log[block, timeout]  # type: ignore[no-any-return]

    def _put_one(self, item: _Item, block: bool, timeout: float | None) -> None:
        self.put(item)

    def _before_put(self) -> None:
        pass

    def _report(self, problem: Exception, obj: Any, caller: FrameType) -> None:
        raise problem

    def __getstate__(self) -> tuple[Any, ...]:
        check_spawning(self, self._by_fork_only)
        return super().__getstate__() if self._fed else (self._log,)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) > 1:
            super().__setstate__(state)
        else:
            self._share(*state)

    def put(self, obj: _Item) -> None:
        """Put an item into the queue.

        Raises:
            The exception that pickling the item raises.
            OSError, MemoryError: the system has no memory for the item, which is not in the queue.
        """
        if self._fed:
            super().put(obj)
        elif (problem := self._log.put(obj)) is not None:
            raise problem

    def get(self) -> _Item:
        """Remove the first item from the queue and return it; wait while the queue is empty."""
        if self._fed:
            return super().get()
        return self._log[True, None]  # type: ignore[no-any-return]

    def empty(self) -> bool:
        """Return True if the queue has no item at the moment."""
        return not self._poll()

    def close(self) -> None:
        """Release the queue in this process. Other processes keep their access."""
        waking = closing_wakes(self._log)
        for end in (self._reader, self._writer):
            end.close()
        if not self._fed:
            self._log.close()
        waking()


for _queue, _extras in ((Queue, QueueExtras), (SimpleQueue, SimpleQueueExtras)):
    name_methods(_queue, _extras)
del _queue, _extras

public_module.finish(globals())
