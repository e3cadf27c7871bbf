"""Waits of event loops for handles, on Windows: no event loop there watches every kind of handle.

A door has one thread, which waits for the handles of the door's tasks, and has the loop call a function for each that
is ready. The thread ends within a second after its loop.
"""

from __future__ import annotations

import threading

from ..._maniple import Hold, Mailbox, wait_for_handles
from ..sync.thread_start import start_steadily

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HandleWatch"]

# Seconds after which the thread looks whether its loop has ended.
_SLICE = 1.0


class HandleWatch:
    """The handles that one event loop watches.

    Args:
        post: a function that has the loop call a function soon; it raises RuntimeError if the loop has ended.
        is_over: a function that returns whether the loop has ended.
    """

    def __init__(self, post: Callable[[Callable[[], None]], object], is_over: Callable[[], bool]) -> None:
        self._post, self._is_over = post, is_over
        self._lock = threading.RLock()
        self._calls: dict[int, Callable[[], None]] = {}
        self._news = Mailbox()
        self._is_running = False

    def once(self, handle: int, call: Callable[[], None]) -> None:
        """Have the loop call `call` once, when `handle` is ready or closed."""
        with Hold(self._lock):
            self._calls[handle] = call
            self._news.post(0)
            if not self._is_running:
                start_steadily(threading.Thread(target=self._run, name="maniple-handles", daemon=True))
                self._is_running = True

    def always(self, handle: int, call: Callable[[], None]) -> None:
        """Have the loop call `call` whenever `handle` is ready; the call makes it not ready."""

        def again() -> None:
            call()
            self.once(handle, again)

        self.once(handle, again)

    def _run(self) -> None:
        news = self._news.fileno()
        try:
            while not self._is_over():
                with self._lock:
                    handles = list(self._calls)
                ready = _ready([news, *handles])
                if news in ready:
                    self._news.take()
                for handle in ready:
                    with self._lock:
                        call = self._calls.pop(handle, None) if handle != news else None
                    if call is not None:
                        self._post(call)
        except RuntimeError:
            pass  # the loop has ended
        finally:
            self._calls.clear()  # they refer to the loop


def _ready(handles: list[int]) -> list[int]:
    """Wait for a moment until a handle is ready, and return those that are ready or closed."""
    try:
        return [handles[place] for place in wait_for_handles(handles, _SLICE)]
    except OSError:
        return [handle for handle in handles if _is_ready(handle)]


def _is_ready(handle: int) -> bool:
    try:
        return bool(wait_for_handles([handle], 0))
    except OSError:
        return True
