"""Work that signals have broken off again and again, done by a thread in which no handler runs.

Handlers run in the first thread only.  One that raises sooner than a value is unpickled there keeps it from ever being whole, so the
value is unpickled by another thread, and the first one waits: what a handler raises ends the waiting, not the work.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

from ..compat.greenlets import threads_are_real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Aside"]


class Aside:
    """``make()``, in a thread of its own where one can be had.

    A handler may raise after any step of what is done here by the first thread.  So the object is kept by its owner before anything is
    begun, and a thread too many, begun by a call that was broken off, finds that the work is another's.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make: Callable[[], Any] | None = make
        self._value: Any = None
        #: what `make` raised
        self.error: BaseException | None = None
        self.over = False
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
            self.over = True
            self._running.release()

    def result(self) -> Any:
        """What came of it, waited for; where a handler raises meanwhile, it can be asked for again."""
        if not self._taken.locked():
            try:
                if not threads_are_real():
                    raise RuntimeError
                # Not `threading.Thread`, whose start waits until the thread says that it runs: time enough for the next signal.
                start_new_thread(self._run, ())
            except RuntimeError:  # there is none to be had: it is done by whoever asks
                self.over = True  # what breaks it off has it begun anew
                make: Any = self._make
                return make()
        if not self.over:
            with self._running:
                pass
        if self.error is not None:
            raise self.error
        return self._value
