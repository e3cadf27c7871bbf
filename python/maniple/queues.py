"""Queues between processes: first in, first out, any number of writers and readers.

A queue lies in shared memory (`_maniple.Log`), which grows with what is in it::

    put() ─────────────────────────────▶ shared memory ─▶ get()
      └▶ waiting ─▶ feeder thread ──────────┘   (only where a subclass watches the feeder's errors)

So `put` never waits for a reader, what a process has put stays when the process ends or is killed, and a process that has
put something can be joined before anybody takes it out.  Writers and readers may die at any point without harm to the
others or to what is in the queue.

`put` pickles the item in the calling thread.  Where `_on_queue_feeder_error` is overridden, a feeder thread does it instead,
as the standard package's always does: whoever watches its errors expects to be called in its thread.
"""

from __future__ import annotations

import threading
import types
import weakref
from collections import deque
from collections.abc import Callable
from queue import Empty, Full  # noqa: F401
from traceback import print_exc

from . import connection, context, reduction  # noqa: F401  # programs look for the first here
from ._maniple import Log
from ._native_sync import SEM_VALUE_MAX
from .synchronize import check_spawning, made_for_fork
from .util import Finalize, debug, info, is_exiting, register_after_fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Queue", "SimpleQueue", "JoinableQueue"]

#: loky (inside joblib) imports it for a feeder thread of its own
_sentinel = object()


def _pass_log(log: Log) -> tuple[Any, Any]:
    """What takes a log to a child that is being started."""
    return tuple(map(reduction.DupFd, log.descriptors()))


def _receive_log(passed: tuple[Any, Any]) -> Log:
    return Log.adopt(*(end.detach() for end in passed))


class _End:
    """One end of a queue, with what programs use of a connection: objects and bytes, poll(), and a descriptor to wait for."""

    def __init__(self, log: Log, readable: bool) -> None:
        self._log, self.readable, self.writable, self.closed = log, readable, not readable, False

    def __reduce__(self) -> tuple:
        return _End._received, (_pass_log(self._open()), self.readable)

    @classmethod
    def _received(cls, passed: Any, readable: bool) -> _End:
        return cls(_receive_log(passed), readable)

    def _open(self, to_read: bool | None = None) -> Log:
        if self.closed:
            raise OSError("handle is closed")
        if to_read not in (None, self.readable):
            raise OSError("connection is write-only" if to_read else "connection is read-only")
        return self._log

    def send(self, obj: Any) -> None:
        """Put an object in."""
        self._open(False).put(obj)

    def send_bytes(self, buf: Any, offset: int = 0, size: int | None = None) -> None:
        """Put the pickle of an object in."""
        if offset or size is not None:
            buf = memoryview(buf).cast("B")[offset : None if size is None else offset + size]
        self._open(False).put_pickle(buf)

    def recv(self) -> Any:
        """Take an object out, waiting for one."""
        return self._open(True).get()

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Take the pickle of an object out, waiting for one."""
        return self._open(True).get_pickle()

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Whether something can be taken out, waiting for it at most `timeout` seconds; None waits for ever."""
        return self._open(True).poll(timeout)

    def fileno(self) -> int:
        """A descriptor that is readable whenever something can be taken out."""
        return self._open().watch()

    def close(self) -> None:
        """Say that this end is not used any more in this process."""
        self.closed = True

    def __enter__(self) -> _End:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


class _Outbox:
    """The items that wait for the feeder, and the feeder.  It does not know its queue, which may be collected before."""

    def __init__(self, send: Callable[[Any], None], ended: Callable[[], None]) -> None:
        self.send, self.ended = send, ended
        self.waiting: deque[tuple[Any] | None] = deque()  # None: end
        self.changed = threading.Condition(threading.Lock())
        self.thread: threading.Thread | None = None

    def post(self, entry: tuple[Any] | None) -> None:
        with self.changed:
            self.waiting.append(entry)
            self.changed.notify()

    def close(self) -> None:
        debug("telling queue thread to quit")
        self.post(None)

    def feed(self, on_error: Callable[[Exception, Any], None]) -> None:
        """What the feeder thread runs."""
        debug("starting thread to feed data to pipe")
        while True:
            with self.changed:
                self.changed.wait_for(self.waiting.__len__)
                entry = self.waiting[0]
            if entry is None:
                debug("feeder thread got sentinel -- exiting")
                return self.ended()
            try:
                self.send(entry[0])
            except Exception as error:
                if is_exiting():  # parts of the interpreter may be gone: no noise
                    return info("error in queue thread: %s", error)
                on_error(error, entry[0])
            self.waiting.popleft()
            del entry  # while we wait for the next item, the last one is not to be kept alive


def _join_feeder(ref: weakref.ref) -> None:
    feeder = ref()
    if feeder is not None and feeder is not threading.current_thread():
        debug("joining queue thread")
        feeder.join()


class Queue:
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

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        self._by_fork_only = made_for_fork(ctx)
        if maxsize > 0:
            self._share(maxsize, Log(), ctx.BoundedSemaphore(maxsize))
        else:
            self._share(SEM_VALUE_MAX, Log(), None)

    def _share(self, maxsize: int, log: Log, sem: Any) -> None:
        """Take up what all processes have in common, and make what is this process's own."""
        self._maxsize, self._log, self._sem = maxsize, log, sem
        self._reader, self._writer = _End(log, True), _End(log, False)
        self._begin_here()
        register_after_fork(self, type(self)._begin_here)

    def _begin_here(self) -> None:
        # In a forked child too: what waits in the parent is the parent's to write, and its feeder is not here.
        self._closed = self._at_exit_forget = self._used = False
        self._flush: Any = None
        self._feeds = type(self)._on_queue_feeder_error is not Queue._on_queue_feeder_error
        self._outbox = _Outbox(self._log.put, self._give_up(self._log, self._writer))

    @staticmethod
    def _give_up(log: Log, writer: _End) -> Callable[[], None]:
        def ended() -> None:
            writer.close()
            log.close()

        return ended

    def __getstate__(self) -> tuple:
        check_spawning(self, self._by_fork_only)
        return self._ignore_epipe, self._maxsize, _pass_log(self._log), self._sem

    def __setstate__(self, state: tuple) -> None:
        self._ignore_epipe, maxsize, log, sem = state
        self._share(maxsize, _receive_log(log), sem)

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError(f"Queue {self!r} is closed")

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in.  `queue.Full` when there is no place, at once (not `block`) or after `timeout` seconds.

        An item that cannot be pickled is reported to `_on_queue_feeder_error` and dropped.
        """
        if self._closed:
            self._check_open()
        self._used = True
        sem = self._sem
        if sem is not None and not sem.acquire(block, timeout):
            raise Full
        if self._feeds:
            self._leave_to_feeder(obj)
            return
        try:
            self._log.put(obj, self._counted)
        except BaseException as error:
            if sem is not None:
                sem.release()
            if not isinstance(error, Exception):
                raise
            self._on_queue_feeder_error(error, obj)

    def _leave_to_feeder(self, obj: Any) -> None:
        if self._counted:
            self._log.count()  # first: who gets it may be done before we are
        if self._outbox.thread is None:
            self._start_feeder()
        self._outbox.post((obj,))

    def _start_feeder(self) -> None:
        debug("Queue._start_thread()")
        outbox, sem, done = self._outbox, self._sem, self._log.done if self._counted else None
        report = self._on_queue_feeder_error

        def on_error(error: Exception, obj: Any) -> None:
            if sem is not None:
                sem.release()
            if done is not None:
                done()
            report(error, obj)

        thread = threading.Thread(target=outbox.feed, args=(on_error,), name="QueueFeederThread", daemon=True)
        thread.start()
        outbox.thread = thread
        if not self._at_exit_forget:
            # Low priority: by then all else that may still put something at exit is done.
            self._flush = Finalize(thread, _join_feeder, (weakref.ref(thread),), exitpriority=-5)
        self._end_feeder = Finalize(self, outbox.close, exitpriority=10)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take an item out.  `queue.Empty` when there is none, at once (not `block`) or after `timeout` seconds."""
        if self._closed:
            self._check_open()
        sem = self._sem
        return self._log.get(block, timeout, None if sem is None else sem.release)

    def put_nowait(self, obj: Any) -> None:
        """``put(obj, False)``."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """``get(False)``."""
        return self.get(block=False)

    def qsize(self) -> int:
        """About how many items there are."""
        if self._sem is not None:
            return self._maxsize - self._sem.get_value()
        return len(self._outbox.waiting) + len(self._log)

    def empty(self) -> bool:
        """Whether nothing can be got now.  An item just put may still be on its way."""
        return not self._reader.poll()

    def full(self) -> bool:
        """Whether nothing can be put now."""
        return self._sem is not None and self._sem.locked()

    @property
    def _buffer(self) -> deque:
        return self._outbox.waiting

    def close(self) -> None:
        """Say that this process puts and gets no more.  The feeder, where there is one, ends when all is written."""
        if self._closed:
            return
        self._closed = True
        # One that only looked on can still look: programs ask a queue that they have closed whether it is empty.
        if self._used:
            self._reader.close()
            if self._outbox.thread is None:
                self._outbox.ended()
            else:
                self._end_feeder()

    def join_thread(self) -> None:
        """Wait until all that this process put can be got; after `close`.

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
        """End the queue although its readers are gone."""
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

    _counted = True

    @staticmethod
    def _give_up(log: Log, writer: _End) -> Callable[[], None]:
        return writer.close  # what is still to be done can be waited for after close()

    def task_done(self) -> None:
        """Report that an item which was got is done; ValueError when that was said more often than items were put."""
        if not self._log.done():
            raise ValueError("task_done() called too many times")

    def join(self) -> None:
        """Wait until every item that was put is reported done."""
        self._log.join()


class SimpleQueue:
    """A queue without a bound, and with nothing but `put`, `get`, `empty` and `close`."""

    _by_fork_only = False

    def __init__(self, *, ctx: Any) -> None:
        self._by_fork_only = made_for_fork(ctx)
        self._share(Log())

    def _share(self, log: Log) -> None:
        self._log = log
        self._reader, self._writer = _End(log, True), _End(log, False)

    def __getstate__(self) -> Any:
        check_spawning(self, self._by_fork_only)
        return _pass_log(self._log)

    def __setstate__(self, state: Any) -> None:
        self._share(_receive_log(state))

    def put(self, obj: Any) -> None:
        """Put an item in."""
        self._log.put(obj)

    def get(self) -> Any:
        """Take an item out, waiting for one."""
        return self._log.get()

    def empty(self) -> bool:
        """Whether nothing can be got now."""
        return not self._reader.poll()

    def close(self) -> None:
        """Close both ends in this process."""
        self._reader.close()
        self._writer.close()
        self._log.close()

    __class_getitem__ = classmethod(types.GenericAlias)
