"""Reports items that cannot be pickled to subclasses of `queues.Queue` that override `_on_queue_feeder_error`."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from traceback import print_exception

from ...util import Finalize, debug
from ..sync.thread_start import start_steadily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Reporter"]


class Reporter:
    """A thread that calls `_on_queue_feeder_error`, as the standard package's feeder does. It has no reference to its queue."""

    def __init__(self) -> None:
        self._untold: deque[tuple[Any, Exception, Any]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._done = False
        debug("Queue._start_thread()")
        self.thread = threading.Thread(target=self._run, name="QueueFeederThread", daemon=True)
        try:
            start_steadily(self.thread)
        except BaseException:
            self.close()  # it may run, for a caller that a signal handler has interrupted
            raise

    def finalizers(self, queue: Any, join_at_exit: bool) -> tuple[Finalize | None, Finalize]:
        """Return the finalizer that joins the thread at exit, or None, and the one that ends it at exit or with the queue."""
        join = None
        if join_at_exit:
            # Low priority: other finalizers may still put items.
            join = Finalize(self.thread, _join, (weakref.ref(self.thread),), exitpriority=-5)
        return join, Finalize(queue, self.close, exitpriority=10)

    def report(self, tell: Any, error: Exception, obj: Any) -> None:
        """Schedule the call ``tell(error, obj)``."""
        with self._changed:
            self._untold.append((tell, error, obj))
            self._changed.notify_all()

    def catch_up(self) -> None:
        """Wait until all errors are reported, so that the next item comes after them.

        The call waits a second at most, since the method that is called may itself wait for this thread.
        """
        if self._untold and threading.current_thread() is not self.thread:
            with self._changed:
                self._changed.wait_for(lambda: not self._untold, 1.0)

    def close(self) -> None:
        """End the thread after it has reported all errors."""
        debug("telling queue thread to quit")
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
            # The thread must keep neither the queue nor the object alive while it waits.
            del tell, error, obj
            with self._changed:
                self._untold.popleft()
                self._changed.notify_all()


def _join(ref: weakref.ref[threading.Thread]) -> None:
    thread = ref()
    if thread is not None and thread is not threading.current_thread():
        debug("joining queue thread")
        thread.join()
