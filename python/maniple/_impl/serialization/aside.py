"""Work that signals have broken off again and again, done by a thread in which no handler runs.

Handlers run in the first thread only.  One that raises sooner than a value is unpickled there keeps it from ever being whole, so the
value is unpickled by another thread, and the first one waits: what a handler raises ends the waiting, not the work.
"""

from __future__ import annotations

import threading
from _thread import allocate_lock

from ..compat.greenlets import threads_are_real

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Aside"]


class Aside:
    """``make()``, in a thread of its own where one can be had."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make: Callable[[], Any] | None = make
        self._value: Any = None
        self._error: BaseException | None = None
        self.over = False
        self._running = allocate_lock()
        self._running.acquire()
        self._thread: threading.Thread | None = None
        if threads_are_real():
            thread = threading.Thread(target=self._run, name="maniple-decoder", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                pass  # there is none to be had: it is done by whoever asks
            else:
                self._thread = thread

    def _run(self) -> None:
        make, self._make = self._make, None
        try:
            if make is not None:
                self._value = make()
        except BaseException as error:
            self._error = error
        finally:
            del make
            self.over = True
            self._running.release()

    def result(self) -> Any:
        """What came of it, waited for; where a handler raises meanwhile, it can be asked for again."""
        if self._thread is None:
            self.over = True  # what breaks it off has it begun anew
            make: Any = self._make
            return make()
        with self._running:
            pass
        if self._error is not None:
            raise self._error
        return self._value
