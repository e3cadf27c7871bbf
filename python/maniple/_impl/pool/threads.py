"""The threads of a pool of threads: the counterpart of `Workers`.

Threads cannot be killed, so a task that runs when the pool is terminated runs to its end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from ..._maniple import Hold
from ..start.descriptors import explain_shortage
from ..sync.thread_start import start_assured
from .external_tasks import ExternalTasks
from .no_memory import NO_MEMORY, pause
from .payload import cancelled
from .pending_callbacks import PendingCallbacks
from .results import complete
from .thread_hub import ThreadHub
from .thread_stats import Row, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ThreadWorkers"]


class ThreadWorkers:
    """The threads of one pool."""

    def __init__(
        self,
        count: int,
        make_thread: Callable[..., Any],
        initializer: Callable[..., object] | None,
        initargs: Iterable[Any],
    ) -> None:
        self.hub = ThreadHub(self)
        self.lock = threading.RLock()
        self.results = PendingCallbacks(self._complete_late)
        self.external = ExternalTasks(self.hub, self.results)
        self.make_process = make_thread
        self.initializer, self.initargs, self.maxtasksperchild = initializer, tuple(initargs), None
        self.count = count
        self.processes: list[Any] = []
        #: what the threads have counted, and the most of them that were busy when that was read
        self.rows: list[Row] = []
        self.most_busy = 0
        #: the threads that have served their last task
        self.ended: set[Any] = set()
        #: whether all of the threads have started
        self.is_started = False
        #: the threads that are opening streams of `imap`
        self.opening: list[int] = []
        # Whether `terminate` has done all of its work.
        self.is_over = False

    def start(self) -> None:
        """Start the first threads, all or none."""
        try:
            self.repopulate(self.count)
            self.is_started = True
        except BaseException as problem:
            self.hub.close()
            explain_shortage(problem, f"thread {len(self.processes) + 1} of {self.count} cannot be started")
            raise

    def threads(self) -> list[Any]:
        """Return the list of the threads."""
        return list(self.processes)

    def set_max_tasks(self, tasks: int | None) -> None:
        """Raise AttributeError unless `tasks` is None: threads are not replaced."""
        if tasks is not None:
            raise AttributeError("_maxtasksperchild cannot be set: a pool of threads does not replace its threads")

    def completed(self, number: int) -> None:
        """Complete the handle of the call `number`, which has ended."""
        # If it raises MemoryError, the thread calls this method again.
        result = self.results.ended(number)
        while True:
            try:
                complete(result)
                return
            except NO_MEMORY:
                pause()

    def _complete_late(self) -> None:
        while (result := self.results.one_entered_late()) is not None:
            while True:
                try:
                    complete(result)
                    break
                except NO_MEMORY:
                    pause()

    def explain_unsent(self, error: Exception, args: Any, kwds: dict[str, Any]) -> None:
        """Do nothing: no argument is pickled."""

    def repopulate(self, processes: int) -> None:
        """Start threads until there are `processes` threads. Threads never have to be replaced."""
        with Hold(self.lock):
            while len(self.processes) < processes:
                row = Row(now())
                thread = self.make_process(target=_run, args=(self, self.initializer, self.initargs, row))
                thread.daemon = True
                start_assured(thread)
                self.processes.append(thread)
                self.rows.append(row)

    def end_thread(self, why: str) -> None:
        """Record the end of the calling thread. If it was the pool's last one, all calls fail; `why` says why it ended."""
        with self.hub.lock:
            self.ended.add(threading.current_thread())
            is_lost = len(self.ended) == self.count
            self.hub.bells.ring()
        if is_lost:
            self.hub.lose(f"no thread of the pool is left, because {why}")

    def feeder(self, job: int, iterator: Iterator[Any], _terms: object = None) -> threading.Thread | None:
        """Have a thread feed the stream of `job`; return it if the caller has to start it."""
        return self.hub.feeders.take(job, iterator)

    def close(self) -> None:
        """Accept no more calls."""
        self.external.close()

    def terminate(self) -> None:
        """Drop the calls that have not ended."""
        self.hub.terminate()
        self.external.end(cancelled())
        self.is_over = True

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the threads have ended, or until the time limit; return whether they have ended."""
        until = None if timeout is None else time.monotonic() + timeout
        mine = threading.current_thread()
        others = {thread for thread in self.processes if thread is not mine}
        # `Thread.join` is not enough: before Python 3.13, a thread counts as ended once an exception of a signal handler has interrupted
        # a `join`.
        if not self.hub.is_elsewhere:
            while not self.hub.wait_until(self.hub.bells, lambda: others <= self.ended, _left(until, 1.0)):
                if until is not None and time.monotonic() >= until:
                    return False
                if not any(thread.is_alive() for thread in others - self.ended):
                    break  # a thread that has never run
        for thread in (*others, *self.hub.feeders.free):
            thread.join(_left(until))
        return not any(thread.is_alive() for thread in others)


def _left(until: float | None, most: float | None = None) -> float | None:
    """Return the time in seconds until `until`, at most `most`; None means no limit."""
    if until is None:
        return most
    left = max(0.0, until - time.monotonic())
    return left if most is None else min(left, most)


def _run(
    workers: ThreadWorkers, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], row: Row
) -> None:
    why = "an exception from outside ended the last"
    try:
        if initializer is not None:
            try:
                initializer(*initargs)
            except BaseException as error:
                why = f"its initializer raised {type(error).__name__}: {error}"
                raise
        row.ready = now()
        workers.hub.serve(row)
    finally:
        while True:
            try:
                workers.end_thread(why)
                break
            except NO_MEMORY:
                pause()
