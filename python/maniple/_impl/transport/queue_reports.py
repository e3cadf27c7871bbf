"""Tells the subclasses of `queues.Queue` that want to know of items which cannot be pickled."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from traceback import print_exception

from ...util import Finalize, debug

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Reporter"]


class Reporter:
    """A thread that calls `_on_queue_feeder_error`, as the standard package's feeder does, and does not know its queue otherwise."""

    def __init__(self) -> None:
        self._untold: deque[tuple[Any, Exception, Any]] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._done = False
        debug("Queue._start_thread()")
        self.thread = threading.Thread(target=self._run, name="QueueFeederThread", daemon=True)
        self.thread.start()

    def finalizers(self, queue: Any, join_at_exit: bool) -> tuple[Finalize | None, Finalize]:
        """What waits for the thread, and what ends it: at exit or, the second, when the queue is gone."""
        join = None
        if join_at_exit:
            # Low priority: by then all else that may still put something at exit is done.
            join = Finalize(self.thread, _join, (weakref.ref(self.thread),), exitpriority=-5)
        return join, Finalize(queue, self.close, exitpriority=10)

    def report(self, tell: Any, error: Exception, obj: Any) -> None:
        """Have ``tell(error, obj)`` called."""
        with self._changed:
            self._untold.append((tell, error, obj))
            self._changed.notify_all()

    def catch_up(self) -> None:
        """Wait until all is told: what is put next is not to be there before.  Not for long: the one told may wait for us."""
        if self._untold and threading.current_thread() is not self.thread:
            with self._changed:
                self._changed.wait_for(lambda: not self._untold, 1.0)

    def close(self) -> None:
        """Let the thread end when all is told."""
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
            # While the thread waits, it keeps neither the queue nor the object alive.
            del tell, error, obj
            with self._changed:
                self._untold.popleft()
                self._changed.notify_all()


def _join(ref: weakref.ref[threading.Thread]) -> None:
    thread = ref()
    if thread is not None and thread is not threading.current_thread():
        debug("joining queue thread")
        thread.join()
