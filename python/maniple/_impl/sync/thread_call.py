"""A call that another thread makes, so that no signal handler interrupts it.

Handlers run in the main thread only. An exception of a handler then ends the wait for the call, and not the call.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from ..._maniple import assured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["ThreadCall"]


class ThreadCall:
    """The call ``make()``, which runs once, in the thread that `begin` starts.

    A handler may raise after any step that the main thread does here.  So the owner stores the object before the work begins, and if an
    interrupted call has started a second thread, that thread finds the work taken.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make: Callable[[], Any] | None = make
        self._value: Any = None
        #: the exception that `make` raised
        self.error: BaseException | None = None
        self._over = False
        self._taken = allocate_lock()
        self._running = allocate_lock()
        self._running.acquire()

    def begin(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: no thread can be started.
        """
        # If the thread has no memory to begin with `_run`, `_taken` and `_running` change as there, and `error` is set.
        start_new_thread(assured(self._run, vars(self), (self._taken, self._running)), ())

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

    def _result(self) -> Any:
        """Wait for the result and return it, or raise the error. After an exception of a handler it can be called again."""
        self._wait()
        if self.error is not None:
            raise self.error
        return self._value

    def _wait(self) -> None:
        if not self._over:
            with self._running:
                self._over = True
