"""Queues of classes that use the inner parts of the standard queue: they work as the standard package's queue does.

Libraries build queues from the parts of the standard queue: they override `_feed` or `_start_thread`, acquire `_rlock`, append to
`_buffer`.  `takes_part` recognizes such a class.  Its queues consist of the standard parts, and every method uses them::

    put() ─▶ _sem ─▶ _buffer ─▶ _feed(), in a thread ─▶ _wlock, _writer ─▶ shared memory ─▶ _reader, _rlock ─▶ get()

Only the transport between the two ends differs from the standard package. So the feeder waits for readers only if the
memory is limited (`Log.would_be_limited`), and a process that dies never leaves a part of a message. If the holder of a
lock dies, the next process acquires the lock. The units of `_sem` that a dead process acquired stay acquired.
"""

from __future__ import annotations

import errno
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

from ... import util
from ..._maniple import Hold
from ...util import Finalize, debug, register_after_fork
from ..compat.public_module import Generic, TypeVar
from ..sync.thread_start import ThreadStart
from .queue_errors import empty_error, full_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

Item = TypeVar("Item")

__all__ = ["FedJoinable", "FedQueue", "FedSimpleQueue", "Item", "end_of_feed", "takes_part"]

#: the object in a buffer that ends the feeder; loky imports it by its standard name in `queues`
end_of_feed = object()

#: the inner parts of the standard queues
_PARTS = frozenset(
    "_rlock _wlock _sem _opid _notempty _buffer _thread _jointhread _joincancelled _close _send_bytes _recv_bytes _poll _feed"
    " _start_thread _reset _after_fork _finalize_join _finalize_close _unfinished_tasks _cond".split()
)
#: the parts that are methods
_METHODS = frozenset("_feed _start_thread _reset _after_fork _finalize_join _finalize_close".split())


def _pickler() -> Any:
    from ... import queues

    return vars(queues)["_ForkingPickler"]  # which programs replace


def _mentions_parts(code: CodeType) -> bool:
    if not _PARTS.isdisjoint(code.co_names):
        return True
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            if _mentions_parts(constant):
                return True
        elif isinstance(constant, str) and constant in _PARTS:  # getattr(self, "_rlock")
            return True
    return False


def _code_of(attribute: Any) -> list[CodeType]:
    """Return the code objects of an attribute of a class: of a function, a property, or a decorated function."""
    found = []
    for one in (attribute, getattr(attribute, "fget", None), getattr(attribute, "fset", None)):
        while one is not None:
            function = getattr(one, "__func__", one)
            if (code := getattr(function, "__code__", None)) is not None:
                found.append(code)
            one = getattr(function, "__wrapped__", None)
    return found


def takes_part(cls: type) -> bool:
    """Return whether a class overrides or uses inner parts of the standard queue, or declares it by ``_uses_parts = True``.

    Functions that a program adds to a class of this package count as well.
    """
    for klass in cls.__mro__:
        own = vars(klass)
        if own.get("_has_parts") or klass is object:  # the class that defines the parts
            continue
        if own.get("_uses_parts") or not _METHODS.isdisjoint(own):
            return True
        if not own.get("_is_ours") and any(_mentions_parts(code) for value in own.values() for code in _code_of(value)):
            return True
    return False


def _fitting(queue: Any, name: str, arguments: int) -> Any:
    """Return the queue's method of that name if it accepts that number of arguments, else None."""
    method = getattr(queue, name)
    if getattr(method, "__func__", method) is vars(FedQueue)[name] or method is getattr(FedQueue, name):
        return method
    import inspect

    try:
        inspect.signature(method).bind(*range(arguments))
    except (TypeError, ValueError):
        return None
    return method


class FedQueue(Generic[Item]):
    """The implementation of a `queues.Queue` with the standard parts; its attribute `_fed` is true.

    A queue whose class makes the parts itself, without `queues.Queue.__init__`, uses it as well.
    """

    _has_parts = _fed = True
    _maxsize: int
    _closed: bool
    _ignore_epipe: bool
    _opid: int
    _reader: Any
    _writer: Any
    _rlock: Any
    _wlock: Any
    _sem: Any
    _on_queue_feeder_error: Callable[..., None]
    _reset_plain: Callable[[], None]

    def _take_up_parts(self, ctx: Any) -> None:
        """Make the locks and the semaphore, which the processes share, and start."""
        self._rlock, self._wlock, self._sem = ctx.Lock(), ctx.Lock(), ctx.BoundedSemaphore(self._maxsize)
        self._begin_fed()

    def _begin_fed(self) -> None:
        self._fed = True
        self._reset()
        own = type(self)._after_fork
        register_after_fork(self, own if _fitting(self, "_after_fork", 0) else FedQueue._after_fork)

    def __getstate__(self) -> tuple[Any, ...]:
        locks = self._rlock, self._wlock, self._sem
        return self._ignore_epipe, self._maxsize, self._reader, self._writer, *locks, self._opid

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._ignore_epipe, self._maxsize, *ends, self._rlock, self._wlock, self._sem, self._opid = state
        self._reader, self._writer = ends
        self._begin_fed()

    def _after_fork(self) -> None:
        debug("Queue._after_fork()")
        self._reset(after_fork=True)

    def _reset(self, after_fork: bool = False) -> None:
        """Set the attributes that belong to this process alone."""
        if not self._fed:
            return self._reset_plain()
        if after_fork:
            self._notempty._at_fork_reinit()
        else:
            self._notempty: Any = threading.Condition(threading.Lock())
        self._buffer: deque[Any] = deque()
        self._thread: threading.Thread | None = None
        self._jointhread: Any = None
        self._close: Any = None
        self._closed = self._joincancelled = False
        self._send_bytes, self._recv_bytes, self._poll = (
            self._writer.send_bytes,
            self._reader.recv_bytes,
            self._reader.poll,
        )

    # ------------------------------------------------------------ the public methods

    def put(self, obj: Item, block: bool = True, timeout: float | None = None) -> None:
        """Put an item into the queue: append it to the buffer of the feeder."""
        if not self._sem.acquire(block, timeout):
            raise full_error(self._maxsize, block, timeout)
        with self._notempty:
            self._hand_to_feeder(obj)

    def _hand_to_feeder(self, obj: Item) -> None:
        if self._thread is None:
            self._start_thread()
        self._buffer.append(obj)
        self._notempty.notify()

    def get(self, block: bool = True, timeout: float | None = None) -> Item:
        """Remove the first item and return it."""
        deadline = None
        if block and timeout is not None:
            deadline = time.monotonic() + timeout
        if not self._rlock.acquire(block, timeout):
            raise empty_error(block, timeout)
        try:
            if deadline is not None or not block:
                left = 0.0 if deadline is None else deadline - time.monotonic()
                if not self._poll(max(left, 0.0)):
                    raise empty_error(block, timeout)
            pickle = self._recv_bytes()
            self._sem.release()
        finally:
            self._rlock.release()
        return _pickler().loads(pickle)  # type: ignore[no-any-return]  # by what `put` accepts

    def qsize(self) -> int:
        """Return the number of items in the queue."""
        free: int = self._sem._semlock._get_value()
        return self._maxsize - free

    def empty(self) -> bool:
        """Return True if the queue has no item."""
        return not self._poll()

    def full(self) -> bool:
        """Return True if `put` would wait."""
        return bool(self._sem._semlock._is_zero())

    def close(self) -> None:
        """End the feeder after it has written all items."""
        self._closed, end_feeder, self._close = True, self._close, None
        if end_feeder:
            end_feeder()
        elif self._thread is None and (log := getattr(self, "_log", None)) is not None:
            log.shed()

    # ------------------------------------------------------------ the feeder

    def _start_thread(self) -> None:
        """Start the feeder, and register finalizers that end and join it at exit."""
        debug("Queue._start_thread()")
        self._buffer.clear()
        ends = self._reader.close, self._writer.close
        what = self._buffer, self._notempty, self._send_bytes, self._wlock, *ends
        how = self._ignore_epipe, self._on_queue_feeder_error, self._sem
        # The class may have an unrelated method of this name: the standard package always uses its own.
        feed = _fitting(self, "_feed", len(what + how)) or FedQueue._feed
        feeder = threading.Thread(target=feed, args=what + how, name="QueueFeederThread", daemon=True)
        self._thread = feeder
        start = ThreadStart(feeder)
        try:
            start()
        except BaseException:  # the interpreter is ending, and starts no more threads; or raised by a signal handler
            if start.cancel():
                self._thread = None
            raise
        finally:
            if self._thread is feeder:
                if not self._joincancelled:
                    # Low priority: other finalizers may still put items.
                    self._jointhread = Finalize(feeder, self._finalize_join, (weakref.ref(feeder),), exitpriority=-5)
                self._close = Finalize(self, self._finalize_close, (self._buffer, self._notempty), exitpriority=10)

    @staticmethod
    def _finalize_join(twr: weakref.ref[threading.Thread]) -> None:
        feeder = twr()
        if feeder is not None and feeder is not threading.current_thread():
            debug("joining queue thread")
            feeder.join()

    @staticmethod
    def _finalize_close(buffer: deque[Any], notempty: Any) -> None:
        debug("telling queue thread to quit")
        with notempty:
            buffer.append(end_of_feed)
            notempty.notify()

    @staticmethod
    def _feed(
        buffer: deque[Any],
        notempty: Any,
        send_bytes: Callable[[Any], None],
        writelock: Any,
        reader_close: Callable[[], None],
        writer_close: Callable[[], None],
        ignore_epipe: bool,
        onerror: Callable[[Exception, Any], None],
        queue_sem: Any,
    ) -> None:
        """Run the feeder: pickle and send the objects of the buffer until `end_of_feed` comes."""
        debug("starting thread to feed data to pipe")
        while True:
            with notempty:
                notempty.wait_for(buffer.__len__)
                obj = buffer.popleft()
            if obj is end_of_feed:
                debug("feeder thread got sentinel -- exiting")
                reader_close()
                writer_close()
                return
            try:
                pickle = _pickler().dumps(obj)
                with writelock:
                    send_bytes(pickle)
            except Exception as error:
                if ignore_epipe and getattr(error, "errno", 0) == errno.EPIPE:
                    return
                if util.is_exiting():  # parts of the interpreter may be gone, so the error is only logged
                    util.info("error in queue thread: %s", error)
                    return
                queue_sem.release()
                onerror(error, obj)
            # The feeder must not keep the object alive while it waits for the next.
            obj = pickle = None


class FedJoinable(FedQueue[Item]):
    """The implementation of a `queues.JoinableQueue` with the standard parts."""

    _has_parts = True
    _cond: Any
    _unfinished_tasks: Any

    def _take_up_parts(self, ctx: Any) -> None:
        self._unfinished_tasks, self._cond = ctx.Semaphore(0), ctx.Condition()
        super()._take_up_parts(ctx)

    def __getstate__(self) -> tuple[Any, ...]:
        return *super().__getstate__(), self._cond, self._unfinished_tasks

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        *rest, self._cond, self._unfinished_tasks = state
        super().__setstate__(tuple(rest))

    def _hand_to_feeder(self, obj: Item) -> None:
        with Hold(self._cond):
            super()._hand_to_feeder(obj)
            self._unfinished_tasks.release()

    def task_done(self) -> None:
        """Report an item as done."""
        with Hold(self._cond):
            if not self._unfinished_tasks.acquire(False):
                raise ValueError("task_done() called too many times")
            if self._unfinished_tasks._semlock._is_zero():
                self._cond.notify_all()

    def join(self) -> None:
        """Wait until every item is reported as done."""
        with Hold(self._cond):
            self._cond.wait_for(self._unfinished_tasks._semlock._is_zero)


class FedSimpleQueue(Generic[Item]):
    """The implementation of a `queues.SimpleQueue` with the standard parts: two locks and no feeder."""

    _has_parts = _fed = True
    _reader: Any
    _writer: Any
    _rlock: Any
    _wlock: Any

    def _take_up_parts(self, ctx: Any) -> None:
        self._rlock, self._wlock = ctx.Lock(), ctx.Lock()
        self._fed, self._poll = True, self._reader.poll

    def __getstate__(self) -> tuple[Any, ...]:
        return self._reader, self._writer, self._rlock, self._wlock

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._fed = True
        self._reader, self._writer, self._rlock, self._wlock = state
        self._poll = self._reader.poll

    def put(self, obj: Item) -> None:
        """Put an item into the queue."""
        pickle = _pickler().dumps(obj)
        with self._wlock:
            self._writer.send_bytes(pickle)

    def get(self) -> Item:
        """Remove the first item and return it."""
        with self._rlock:
            pickle = self._reader.recv_bytes()
        return _pickler().loads(pickle)  # type: ignore[no-any-return]  # by what `put` accepts
