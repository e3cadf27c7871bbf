"""Queues between processes.

`Queue` and `JoinableQueue` are a pipe, a lock on each of its ends, and a semaphore that counts the free places:

    put() ─┬──────────────────────────────────▶ pipe ─▶ get()
           └▶ waiting ─▶ feeder thread ────────┘

`put` never waits for a reader.  It pickles the item; where nothing of this process waits already, the pipe's lock is free
and the pipe has room, it writes too, in about the time that waking a thread would take alone.  Otherwise the item is left
to a feeder thread, which is started when it is needed first.

`SimpleQueue` is the pipe and the two locks alone: its `put` waits when the pipe is full.
"""

from __future__ import annotations

import errno
import select
import sys
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import Callable
from queue import Empty, Full
from traceback import print_exc
from typing import Any

from . import connection, context
from ._native_sync import SEM_VALUE_MAX
from .reduction import ForkingPickler
from .util import Finalize, debug, info, is_exiting, register_after_fork

__all__ = ["Queue", "SimpleQueue", "JoinableQueue"]

#: bytes; a pickle up to here fits with its length into a pipe that poll() calls writable, so the write cannot block
_SURELY_FITS = getattr(select, "PIPE_BUF", 512) - 4
_WINDOWS = sys.platform == "win32"
#: loky (inside joblib) imports it for a feeder thread of its own
_sentinel = object()


class _NoLock:
    """In place of the writers' lock where the system itself keeps messages whole (Windows)."""

    def acquire(self, block: bool = True) -> bool:
        return True

    def release(self) -> None:
        pass

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *exc_info: Any) -> None:
        pass


class _Outbox:
    """One process's way into a queue: the items that wait for the pipe, and the thread that feeds it.

    An item leaves `waiting` only after it is written; so while `waiting` is empty, and `changed` is held, nothing can be
    overtaken.  The outbox does not know its queue, which may be collected while the feeder still has work.
    """

    def __init__(self, reader: Any, writer: Any, lock: Any, places: Any) -> None:
        self.ends, self.write, self.lock, self.places = (reader, writer), writer.send_bytes, lock, places
        self.waiting: deque[tuple[Any, Any] | None] = deque()  # (pickle, or None until later; item); None: end
        self.changed = threading.Condition(threading.Lock())
        self.thread: threading.Thread | None = None
        self.used = False
        self.writable: Any = None

    def room(self) -> bool:
        """Whether a small write would not block."""
        if self.writable is None:
            if _WINDOWS:
                return False
            self.writable = select.poll()
            self.writable.register(self.ends[1].fileno(), select.POLLOUT)
        return [event for _, event in self.writable.poll(0)] == [select.POLLOUT]

    def post(self, pickled: Any, item: Any, start_feeder: Callable[[], None]) -> None:
        """Write an item, or leave it to the feeder; where `pickled` is None the feeder is to pickle it too."""
        with self.changed:
            self.used = True
            small = pickled is not None and len(pickled) <= _SURELY_FITS
            if small and not self.waiting and self.lock.acquire(False):
                try:
                    if self.room():
                        return self.write(pickled)
                finally:
                    self.lock.release()
            if self.thread is None:
                start_feeder()
            self.waiting.append((pickled, item))
            self.changed.notify()

    def close(self) -> None:
        """Close the pipe in this process once all is written."""
        with self.changed:
            if self.thread is not None:
                debug("telling queue thread to quit")
                self.waiting.append(None)
                self.changed.notify()
            elif self.used:
                self.close_ends()

    def close_ends(self) -> None:
        for end in self.ends:
            end.close()

    def feed(self, ignore_epipe: bool, on_error: Callable[[Exception, Any], None]) -> None:
        """What the feeder thread runs."""
        debug("starting thread to feed data to pipe")
        while True:
            with self.changed:
                self.changed.wait_for(self.waiting.__len__)
                entry = self.waiting[0]
            if entry is None:
                debug("feeder thread got sentinel -- exiting")
                return self.close_ends()
            try:
                pickled, item = entry
                if pickled is None:
                    pickled = ForkingPickler.dumps(item)
                with self.lock:
                    self.write(pickled)
            except Exception as error:
                if ignore_epipe and getattr(error, "errno", None) == errno.EPIPE:
                    return
                if is_exiting():  # parts of the interpreter may be gone: no noise
                    return info("error in queue thread: %s", error)
                self.places.release()
                on_error(error, item)
            del entry, item, pickled  # while we wait for the next item, the last one is not to be kept alive
            self.waiting.popleft()


def _join_feeder(ref: weakref.ref) -> None:
    feeder = ref()
    if feeder is not None and feeder is not threading.current_thread():
        debug("joining queue thread")
        feeder.join()


class Queue:
    """A first-in first-out queue that any number of processes put into and get from.

    `maxsize` bounds how many items may be in it (0: no bound but the system's).
    """

    #: set by a pool of processes: when nobody reads the pipe any more, the feeder ends without a word
    _ignore_epipe = False

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        places = maxsize if maxsize > 0 else SEM_VALUE_MAX
        self._share(
            places,
            *connection.Pipe(duplex=False),
            ctx.Lock(),
            _NoLock() if _WINDOWS else ctx.Lock(),
            ctx.BoundedSemaphore(places),
        )

    def _share(self, maxsize: int, reader: Any, writer: Any, rlock: Any, wlock: Any, sem: Any) -> None:
        """Take up what all processes have in common, and make what is this process's own."""
        self._maxsize, self._reader, self._writer = maxsize, reader, writer
        self._rlock, self._wlock, self._sem = rlock, wlock, sem
        self._begin_here()
        register_after_fork(self, type(self)._begin_here)

    def _begin_here(self) -> None:
        # In a forked child too: what waits in the parent is the parent's to write, and a thread that is not here may have
        # held the outbox.
        self._outbox = _Outbox(self._reader, self._writer, self._wlock, self._sem)
        self._closed = self._at_exit_forget = False
        self._flush: Any = None

    def __getstate__(self) -> tuple:
        context.assert_spawning(self)
        return (self._ignore_epipe, (self._maxsize, self._reader, self._writer, self._rlock, self._wlock, self._sem))

    def __setstate__(self, state: tuple) -> None:
        self._ignore_epipe, shared = state
        self._share(*shared)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in.  `queue.Full` when there is no place, at once (not `block`) or after `timeout` seconds.

        An item that cannot be pickled is reported to `_on_queue_feeder_error` and dropped.
        """
        self._check_open()
        if self._sem.acquire(block, timeout):
            self._post(obj)
        else:
            raise Full

    def _post(self, obj: Any) -> bool:
        """Send an item on its way; False where it could not be pickled.  A place has been taken for it."""
        if type(self)._on_queue_feeder_error is not Queue._on_queue_feeder_error:
            # whoever watches the feeder's errors expects them in the feeder's thread
            self._outbox.post(None, obj, self._start_feeder)
            return True
        try:
            pickled = ForkingPickler.dumps(obj)
        except BaseException as error:
            self._sem.release()
            if not isinstance(error, Exception):
                raise
            self._on_queue_feeder_error(error, obj)
            return False
        self._outbox.post(pickled, obj, self._start_feeder)
        return True

    def _start_feeder(self) -> None:
        debug("Queue._start_thread()")
        outbox = self._outbox
        thread = threading.Thread(
            target=outbox.feed,
            args=(self._ignore_epipe, self._on_queue_feeder_error),
            name="QueueFeederThread",
            daemon=True,
        )
        thread.start()
        outbox.thread = thread
        if not self._at_exit_forget:
            # Low priority: by then all else that may still put something at exit is done.
            self._flush = Finalize(thread, _join_feeder, (weakref.ref(thread),), exitpriority=-5)
        self._end_feeder = Finalize(self, outbox.close, exitpriority=10)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out.  `queue.Empty` when there is none, at once (not `block`) or after `timeout` seconds."""
        self._check_open()
        deadline = time.monotonic() + timeout if block and timeout is not None else None
        if not self._rlock.acquire(block, timeout):
            raise Empty
        try:
            if deadline is not None:
                ready = self._reader.poll(max(0.0, deadline - time.monotonic()))
            else:
                ready = block or self._reader.poll()
            if not ready:
                raise Empty
            pickled = self._reader.recv_bytes()
        finally:
            self._rlock.release()
        self._sem.release()
        return ForkingPickler.loads(pickled)

    def put_nowait(self, obj: Any) -> None:
        """``put(obj, False)``."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """``get(False)``."""
        return self.get(block=False)

    def qsize(self) -> int:
        """About how many items there are; NotImplementedError on macOS, which cannot tell."""
        return self._maxsize - self._sem.get_value()

    def empty(self) -> bool:
        """Whether nothing can be got now.  An item just put may still be on its way."""
        return not self._reader.poll()

    def full(self) -> bool:
        """Whether nothing can be put now."""
        return self._sem.locked()

    def close(self) -> None:
        """Say that this process puts and gets no more.  The feeder, where there is one, ends when all is written."""
        if not self._closed:
            self._closed = True
            if self._outbox.thread is None:
                self._outbox.close()
            else:
                self._end_feeder()

    def join_thread(self) -> None:
        """Wait until all that this process put is in the pipe; after `close`.

        A process that put something does this at its exit too, unless `cancel_join_thread` was called.
        """
        debug("Queue.join_thread()")
        assert self._closed, f"Queue {self!r} not closed"
        if self._flush is not None:
            self._flush()

    def cancel_join_thread(self) -> None:
        """Let the process exit without waiting for the feeder; what is not written then is lost."""
        debug("Queue.cancel_join_thread()")
        self._at_exit_forget = True
        if self._flush is not None:
            self._flush.cancel()

    def _terminate_broken(self) -> None:
        """End the queue although its readers are gone: a feeder in the middle of a write gets EPIPE and gives up."""
        for end in self._outbox.ends[: 2 if _WINDOWS else 1]:
            end.close()
        self.close()
        self.join_thread()

    @staticmethod
    def _on_queue_feeder_error(e: Exception, obj: Any) -> None:
        """Called with what went wrong for which item, which is dropped; by default it prints the traceback.

        A subclass may override it; then all items are pickled and written by the feeder thread, and it is called there.
        """
        print_exc()

    def __class_getitem__(cls, item: Any) -> types.GenericAlias:
        return types.GenericAlias(cls, item)


class JoinableQueue(Queue):
    """A `Queue` that counts the items which are put but not yet reported done, and lets you wait for them."""

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        super().__init__(maxsize, ctx=ctx)
        self._undone, self._all_done = ctx.Semaphore(0), ctx.Condition()

    def __getstate__(self) -> tuple:
        return super().__getstate__(), self._undone, self._all_done

    def __setstate__(self, state: tuple) -> None:
        inherited, self._undone, self._all_done = state
        super().__setstate__(inherited)

    def _post(self, obj: Any) -> bool:
        with self._all_done:
            self._undone.release()  # counted first: who gets it may be done before we are
        sent = super()._post(obj)
        if not sent:
            self.task_done()
        return sent

    def task_done(self) -> None:
        """Report that an item which was got is done; ValueError when that was said more often than items were put."""
        with self._all_done:
            if not self._undone.acquire(block=False):
                raise ValueError("task_done() called too many times")
            if self._undone.locked():
                self._all_done.notify_all()

    def join(self) -> None:
        """Wait until every item that was put is reported done."""
        with self._all_done:
            self._all_done.wait_for(self._undone.locked)


class SimpleQueue:
    """A locked pipe: no feeder, no bound; `put` waits while the pipe is full."""

    def __init__(self, *, ctx: Any) -> None:
        self.__setstate__((*connection.Pipe(duplex=False), ctx.Lock(), _NoLock() if _WINDOWS else ctx.Lock()))

    def __getstate__(self) -> tuple:
        context.assert_spawning(self)
        return self._reader, self._writer, self._rlock, self._wlock

    def __setstate__(self, state: tuple) -> None:
        self._reader, self._writer, self._rlock, self._wlock = state

    def put(self, obj: Any) -> None:
        """Put an item in."""
        pickled = ForkingPickler.dumps(obj)
        with self._wlock:
            self._writer.send_bytes(pickled)

    def get(self) -> Any:
        """Take an item out, waiting for one."""
        with self._rlock:
            pickled = self._reader.recv_bytes()
        return ForkingPickler.loads(pickled)

    def empty(self) -> bool:
        """Whether nothing can be got now."""
        return not self._reader.poll()

    def close(self) -> None:
        """Close both ends in this process."""
        for end in (self._reader, self._writer):
            end.close()

    __class_getitem__ = classmethod(types.GenericAlias)
