"""The jobs of the calls of `imap` in a pool of threads, which hold the outcomes of their tasks until a stream takes them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import sleep

from ..._maniple import Hold
from ..sync.bells import Bells
from .limit_errors import CancelledError
from .no_memory import NO_MEMORY, PAUSE
from .thread_jobs import WITHDRAWN, Job, function_of_task
from .thread_stats import MOST, next_batch, now

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .thread_hub import ThreadHub
    from .thread_stats import Account, Row
    from .thread_streams import ThreadStream

    # whether the task succeeded, its result or results or exception, and of a failed task of several items their number
    Outcome = tuple[bool, Any] | tuple[bool, Any, int]

__all__ = ["ReadJob", "StreamJob"]

# The outcomes taken at once, at most; and the tasks that the feeder makes between two checks, if no window limits them.
_MOST_AT_ONCE = 256
_DOWN = list(range(_MOST_AT_ONCE - 1, -1, -1))
# Of the jobs whose feeder has never waited for room.
_NO_FEEDER = Bells()


def _failed(error: BaseException | None, task: Any, chunksize: int) -> Outcome:
    return (False, error) if chunksize == 1 else (False, error, len(task))


def _no_stream() -> None:
    return None


class StreamJob(Job):
    """A call of `imap` or `imap_unordered`."""

    __slots__ = (
        "abandoned", "arrivals", "chunksize", "dropped", "failed", "fed", "feeder", "input_open", "is_fed", "length", "most", "open", "ordered", "outcomes",
        "stream", "window",
    )  # fmt: skip

    def __init__(
        self, hub: ThreadHub, func: Callable[..., Any], star: bool, chunksize: int, window: int | None, ordered: bool
    ) -> None:
        # Not `super()`, which costs as much as several attributes before Python 3.12.
        Job.__init__(self, hub, function_of_task(func, star, chunksize), False)
        self.chunksize, self.ordered = chunksize, ordered
        #: the number of items that may be in progress or wait to be taken; None means no limit
        self.window = window
        #: the number of outcomes that a stream takes at once: while the caller takes them, the feeder gets no room
        self.most = _MOST_AT_ONCE if window is None else max(1, min(_MOST_AT_ONCE, window // (4 * chunksize)))
        # The outcomes by task, or, if the results are not ordered, in the order of their arrival.
        self.outcomes: Any = {}
        self.arrivals: Any = () if ordered else deque()
        #: has an element for each task that has not ended
        self.open: list[None] = []
        self.input_open = True
        #: the number of items in tasks
        self.fed = 0
        #: the bell of the feeder while it waits for room
        self.feeder = _NO_FEEDER
        #: whether no caller takes the outcomes
        self.abandoned = False
        #: a weak reference to the stream, and whether a thread feeds it
        self.stream: Callable[[], ThreadStream | None] = _no_stream
        self.is_fed = False
        #: the number of tasks that have failed, and of those that were cancelled before they began; changed with the hub's lock held
        self.failed = self.dropped = 0
        #: the number of outcomes; None as long as it is not known
        self.length: int | None = None

    def run(self, task: Any, index: int, row: Row) -> None:
        self.begun = True
        failure: BaseException | None = None
        outcome: Outcome | None = None  # of a cancelled task
        if not self.cancelled:
            started = row.since = now()
            row.job = self
            try:
                outcome = (True, self.func(task))  # type: ignore[misc]
            except BaseException as error:
                failure = error
            while outcome is None:
                try:
                    outcome = _failed(failure, task, self.chunksize)
                except NO_MEMORY:
                    sleep(PAUSE)
            try:  # as `Row.end`, without a call for each task
                took = now() - started
                row.job = None
                runs = row.new_runs
                runs.append(took)
                if failure is not None or took > row.least_slow or len(runs) >= MOST:
                    row.note(took, self, failure is None)
            except NO_MEMORY:
                row.job = None
        elif self.cancelled is WITHDRAWN:
            while outcome is None:
                try:
                    outcome = self._drop(task)
                except NO_MEMORY:
                    sleep(PAUSE)
        is_counted = failure is None and outcome is not None
        while not is_counted:
            try:
                self._count(outcome is None)
                is_counted = True
            except NO_MEMORY:  # for the call itself
                sleep(PAUSE)
        while outcome is not None and not self.abandoned:
            try:
                if self.ordered:
                    self.outcomes[index] = outcome
                else:
                    self.arrivals.append(outcome)
                break
            except NO_MEMORY:
                sleep(PAUSE)
        while True:
            try:
                self.open.pop()  # a list that becomes shorter may need memory
                break
            except NO_MEMORY:
                sleep(PAUSE)
        while self.bells:
            try:
                self.hub.ring(self.bells)
                break
            except NO_MEMORY:
                sleep(PAUSE)
        # The order matters: `close_input` makes the same checks in the opposite order.
        while not self.open and not self.input_open:
            try:
                self.finish()
                break
            except NO_MEMORY:
                sleep(PAUSE)
        # The traceback of an exception refers to this frame, and the frame would refer to the exception.
        del self, outcome, failure

    def _count(self, is_dropped: bool) -> None:
        """Count a task that has failed, or was cancelled before it began."""
        while True:
            try:
                with self.hub.lock:
                    if is_dropped:
                        self.dropped += 1
                    else:
                        self.failed += 1
                break
            except NO_MEMORY:
                sleep(PAUSE)

    def _drop(self, task: Any) -> Outcome:
        """Count a task that a caller has cancelled before it began, and return its outcome. If it raises MemoryError, it has done nothing."""
        outcome = _failed(self.withdrawal(), task, self.chunksize)
        self._count(True)
        return outcome

    def _store(self, index: int, outcome: Outcome) -> None:
        if self.ordered:
            self.outcomes[index] = outcome
        else:
            self.arrivals.append(outcome)

    def arrived(self, index: int, most: int) -> list[Any]:
        """Return the outcomes that the stream may take, at most `most`. The stream has taken `index` outcomes."""
        found: list[Any]
        if self.ordered:
            outcomes = self.outcomes
            if index not in outcomes:
                return []
            found = list(map(outcomes.get, range(index, index + min(most, len(outcomes)))))
            if None in found:
                del found[found.index(None) :]
            return found
        return list(map(self.arrivals.__getitem__, range(min(most, len(self.arrivals)))))

    def all_outcomes(self, length: int) -> deque[Any] | None:
        """Return the outcomes of an ordered job that is over, if there are `length`, and none was taken."""
        outcomes = self.outcomes
        return deque(map(outcomes.get, range(length))) if len(outcomes) == length else None

    def discard(self, taken: list[Outcome], index: int) -> None:
        """Remove the outcomes `taken`, the last ones of `index` outcomes. Another call continues an interrupted one."""
        # Each removal of several outcomes is one step.
        if self.ordered:
            deque(map(self.outcomes.pop, range(index - len(taken), index), itertools.repeat(None)), maxlen=0)
        else:
            arrivals = self.arrivals
            removals = itertools.starmap(arrivals.popleft, itertools.repeat((), len(taken)))
            # No call of Python code comes between the check and the removal, so no signal handler does.
            if arrivals and arrivals[0] is taken[0]:
                deque(removals, maxlen=0)

    def cancel(self) -> None:
        self.cancelled, self.input_open = True, False
        self.feeder.ring()

    def withdraw(self) -> bool:
        with Hold(self.hub.lock):
            if self.cancelled or self.over or not self._has_unbegun():
                return False
            # The next look of the feeder, and of each thread that takes a task, finds it.
            self.cancelled = WITHDRAWN
            self.feeder.ring()
        if not self.begun:
            self._end_withdrawn()
        return True

    def _has_unbegun(self) -> bool:
        return self.input_open or len(self.open) > self.tasks_running()

    def was_withdrawn(self) -> bool:
        return self.cancelled is WITHDRAWN or isinstance(self.failure, CancelledError)

    def items_done(self) -> int:
        # The last task may have fewer items than the others. It counts as if it ended last.
        return self.fed if self.over else max(0, self.fed - len(self.open) * self.chunksize)

    def account(self) -> Account:
        tasks = -(-self.fed // self.chunksize)
        if not (self.open or self.failed or self.dropped):
            return tasks, tasks, 0, 0, 0, self.fed
        ended = max(0, tasks - len(self.open))
        failed = min(self.failed, ended)
        dropped = min(self.dropped, ended - failed)
        running = self.tasks_running()
        items = min(self.fed, ended * self.chunksize)
        return tasks, ended - failed - dropped, failed, dropped, min(running, tasks - ended), items

    # ---- the input ----

    def room(self) -> int:
        """Return the number of items that tasks may still be made of."""
        # No longer referred to after this call: the input may block, and the caller may drop the stream meanwhile.
        stream = self.stream()
        window = self.window
        if self.hub.closed or window is None or stream is None:
            return _MOST_AT_ONCE * self.chunksize
        return window - (self.fed - stream.given)

    def _may_go_on(self) -> bool:
        return self.room() > 0 or not self.input_open or bool(self.cancelled)

    def feed(self, iterator: Iterator[Any]) -> None:
        """Make tasks of the items of `iterator`, in the feeder's thread, as long as there is room for more."""
        size, put, count = self.chunksize, self.hub.tasks.put, self.open.append
        tasks: Iterable[Any] = iterator if size == 1 else iter(lambda: list(itertools.islice(iterator, size)), [])
        failure: BaseException | None = None
        index = left = 0
        while not left and failure is None:
            if self.cancelled and self.cancelled is not WITHDRAWN:
                return
            try:
                if self.cancelled:
                    failure = self.withdrawal()
                    continue
                # Before the first task there is room for a whole window.
                room = self.room() if index or self.window is None else self.window
                if room <= 0 and self.input_open:
                    if self.feeder is _NO_FEEDER:
                        self.feeder = Bells()
                    self.hub.wait_until(self.feeder, self._may_go_on, None)
                    room = self.room()
                left = max(1, room // size)
            except (*NO_MEMORY, RuntimeError):  # RuntimeError: "can't allocate lock"
                sleep(PAUSE)
                continue
            try:
                for task in itertools.islice(tasks, left):
                    if self.cancelled:
                        left = 0
                        break
                    while True:
                        try:
                            # What needs memory comes before the first step that another thread sees.
                            entry = (self, task, index)
                            following, rest = index + 1, left - 1
                            fed = self.fed + (1 if size == 1 else len(task))
                            count(None)
                            break
                        except NO_MEMORY:
                            sleep(PAUSE)
                    while True:
                        try:
                            put(entry)
                            break
                        except NO_MEMORY:
                            sleep(PAUSE)
                    index, left = following, rest
                    self.fed = fed
                    del task, entry  # the input may block
            except BaseException as error:
                failure = error
        while failure is not None and not self.abandoned:
            try:
                self._store(index, (False, failure))
                break
            except NO_MEMORY:
                sleep(PAUSE)
        while True:
            try:
                self.length = index + (failure is not None)
                with self.hub.lock:  # no signal handler runs in this thread
                    self.close_input()
                break
            except NO_MEMORY:
                sleep(PAUSE)
        # The traceback of the exception refers to this frame.
        del self, failure

    def close_input(self) -> None:
        """Make no more tasks. The caller holds the hub's lock. It repeats the call if a signal handler interrupts it."""
        self.input_open = False
        if not self.open:
            self.over = True
        if self.over:
            self.func = None
            self.hub.leave(self)
            if self.bells:
                self.bells.ring()
        if self.feeder:
            self.feeder.ring()
        if self.hub.closed:
            self.hub.end_if_closed()

    def abandon(self, begun: bool) -> None:
        """Drop the outcomes, which no caller takes any more; if `begun`, also cancel the tasks that have not begun."""
        with Hold(self.hub.lock):
            self.abandoned, self.window = True, None
            self.drop_outcomes()
            if begun:
                self.cancelled = True
                self.close_input()
            else:
                self.feeder.ring()

    def abandon_without_memory(self) -> None:
        """As `abandon`, in steps that need no memory: the outcomes that are there stay until the job ends."""
        with self.hub.lock:
            self.abandoned, self.window = True, None
            self.feeder.ring()

    def drop_outcomes(self) -> None:
        """Drop the outcomes that the stream has not taken."""
        self.outcomes.clear()
        self.arrivals = deque()


class ReadJob(StreamJob):
    """A call whose items were all read at its start. Each entry in the hub's queue lets one more thread take part, until no task is left."""

    __slots__ = ("numbers", "tasks")

    def __init__(
        self, hub: ThreadHub, func: Callable[..., Any], star: bool, chunksize: int, items: list[Any], ordered: bool
    ) -> None:
        StreamJob.__init__(self, hub, func, star, chunksize, None, ordered)
        #: the tasks; None for a task that a thread has taken
        self.tasks: list[Any] = items
        if chunksize > 1:
            self.tasks = [items[first : first + chunksize] for first in range(0, len(items), chunksize)]
        self.length = number = len(self.tasks)
        #: the numbers of the tasks that no thread has taken; the first one is the last element
        self.numbers = _DOWN[-number:] if 0 < number <= _MOST_AT_ONCE else list(range(number - 1, -1, -1))
        self.open = [None] * number
        self.outcomes = self.open.copy() if ordered else []
        self.fed, self.input_open, self.is_fed = len(items), False, True
        self.over = not items

    def run(self, _task: None, _index: int, row: Row) -> None:
        func, tasks, numbers = self.func, self.tasks, self.numbers
        outcome: Outcome | None = None
        failure: BaseException | None = None
        # So many tasks are counted together: short ones, so that counting costs little.
        batch = 1
        while numbers:
            self.begun = True
            left = itertools.repeat(None, batch)
            completed = failed = 0
            started = row.since = now()
            row.job = self
            for _ in left:
                try:
                    index = numbers.pop()
                except IndexError:
                    break  # another thread has taken the last one
                # The job refers to the task no longer.
                task, tasks[index] = tasks[index], None
                outcome = failure = None
                if not self.cancelled:
                    try:
                        outcome = (True, func(task))  # type: ignore[misc]
                        completed += 1
                    except BaseException as error:
                        failure = error
                        failed += 1
                elif self.cancelled is WITHDRAWN:
                    while outcome is None:
                        try:
                            outcome = self._drop(task)
                        except NO_MEMORY:  # the task is taken, and no other thread ends it
                            sleep(PAUSE)
                while failure is not None and outcome is None:
                    try:
                        outcome = _failed(failure, task, self.chunksize)
                    except NO_MEMORY:
                        sleep(PAUSE)
                is_counted = failure is None and outcome is not None
                while not is_counted:
                    try:
                        self._count(outcome is None)
                        is_counted = True
                    except NO_MEMORY:  # for the call itself
                        sleep(PAUSE)
                del task  # it may keep anything alive
                while outcome is not None and not self.abandoned:
                    try:
                        if self.ordered:
                            self.outcomes[index] = outcome
                        else:
                            self.arrivals.append(outcome)
                        break
                    except NO_MEMORY:
                        sleep(PAUSE)
                while True:
                    try:
                        self.open.pop()  # a list that becomes shorter may need memory
                        break
                    except NO_MEMORY:
                        sleep(PAUSE)
                while self.bells:
                    try:
                        self.hub.ring(self.bells)
                        break
                    except NO_MEMORY:
                        sleep(PAUSE)
            took = row.end_several(started, self, completed, failed)
            batch = next_batch(batch, took)
        # If other threads still run tasks, the last one of them comes here after its task.
        while not self.open and not self.over:
            try:
                self.finish()
                break
            except NO_MEMORY:
                sleep(PAUSE)
        # The traceback of an exception refers to this frame, and the frame would refer to the exception.
        del self, func, tasks, outcome, failure

    def _has_unbegun(self) -> bool:
        return bool(self.numbers)

    def arrived(self, index: int, most: int) -> list[Any]:
        if not self.ordered:
            return super().arrived(index, most)
        found: list[Any] = self.outcomes[index : index + most]
        if not all(found):
            del found[found.index(None) :]
        return found

    def all_outcomes(self, length: int) -> deque[Any] | None:
        found = deque(self.outcomes)
        return found if len(found) == length and None not in found else None

    def discard(self, taken: list[Outcome], index: int) -> None:
        if self.ordered:
            self.outcomes[index - len(taken) : index] = [None] * len(taken)
        else:
            super().discard(taken, index)

    def drop_outcomes(self) -> None:
        self.outcomes[:] = [None] * len(self.outcomes)
        self.arrivals = deque()
