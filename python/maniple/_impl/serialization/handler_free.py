"""Work that signal handlers have interrupted repeatedly, done by a thread in which no handler runs.

Handlers run in the main thread only.  If a handler always raises before the main thread has unpickled a value, the value would never
be complete.  So another thread unpickles it, and the main thread waits: an exception of a handler then ends the waiting, not the work.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from ..compat.greenlets import threads_are_real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["HandlerFreeCall"]


class HandlerFreeCall:
    """The call ``make()`` in a separate thread, if a thread can be started.

    A handler may raise after any step that the main thread does here.  So the owner stores the object before the work begins, and if an
    interrupted call has started a second thread, that thread finds the work taken.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make: Callable[[], Any] | None = make
        self._value: Any = None
        #: what `make` raised
        self.error: BaseException | None = None
        self._over = False
        #: whether there was no thread for it
        self.alone = False
        self._taken = allocate_lock()
        self._running = allocate_lock()
        self._running.acquire()

    def _run(self) -> None:
        if not self._taken.acquire(False):
            return
        make, self._make = self._make, None
        try:
            if make is not None:
                self._value = make()
        except BaseException as error:
            self.error = error
        finally:
            del make
            self._over = True
            self._running.release()

    def result(self) -> Any:
        """Wait for the result and return it, or raise the error. After an exception of a handler it can be called again."""
        if not self._taken.locked():
            try:
                if not threads_are_real():
                    raise RuntimeError
                # Not `threading.Thread`, whose start waits until the thread runs, which is time for the next signal.
                start_new_thread(self._run, ())
            except RuntimeError:  # no thread can be started: the calling thread does the work
                self.alone = True  # after an interruption the owner starts again
                make: Any = self._make
                return make()
        if not self._over:
            with self._running:
                pass
        if self.error is not None:
            raise self.error
        return self._value
