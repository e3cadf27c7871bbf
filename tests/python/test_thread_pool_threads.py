"""The threads of a `ThreadPool` live as long as the pool, and calls fail if no thread is left."""

from __future__ import annotations

import threading
from collections import deque
from types import ModuleType
from typing import Any

import pytest

LIMIT = 20


def fail(*_: object) -> None:
    raise ValueError("the program's own")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.better_than_standard("the first such callback ends the thread that handles results")
def test_callbacks_that_raise_leave_all_threads_running(pool_module: ModuleType) -> None:
    with pool_module.ThreadPool(2) as pool:
        for number in range(6):
            assert pool.apply_async(abs, (number,), callback=fail).get(LIMIT) == number
            with pytest.raises(TypeError):
                pool.apply_async(abs, ("text",), error_callback=fail).get(LIMIT)
        assert pool.map_async(abs, [-1, -2, -3]).get(LIMIT) == [1, 2, 3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.better_than_standard("the callers wait for ever")
def test_calls_fail_if_the_initializer_fails_in_all_threads(pool_module: ModuleType) -> None:
    told: list[BaseException] = []
    with pool_module.ThreadPool(2, initializer=fail) as pool:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="initializer raised ValueError: the program's own"):
                pool.map_async(abs, [1, 2, 3], error_callback=told.append).get(LIMIT)
            with pytest.raises(RuntimeError, match="initializer raised"):
                next(pool.imap(abs, iter([1])))
    assert len(told) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.better_than_standard("it starts another thread, whose initializer fails, without end")
def test_a_pool_of_threads_works_with_those_whose_initializer_succeeds(pool_module: ModuleType) -> None:
    left = deque([1])

    def once() -> None:
        left.pop()

    with pool_module.ThreadPool(2, initializer=once) as pool:
        assert pool.map_async(abs, [-1, -2, -3]).get(LIMIT) == [1, 2, 3]


class Short:
    """Calls `function`, and raises `error` at every second call."""

    def __init__(self, function: Any, error: BaseException) -> None:
        self.function, self.error, self.calls = function, error, 0

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        self.calls += 1
        if self.calls % 2:
            raise self.error
        return self.function(*args, **kwds)


class ShortDeque(deque[Any]):
    """Has no memory for the first of each `period` items that are appended."""

    calls, period = 0, 2

    def append(self, item: Any) -> None:
        self.calls += 1
        if self.calls % self.period == 1:
            raise MemoryError
        super().append(item)


@pytest.mark.parametrize("step", ["wait", "notify", "arrivals", "tasks"])
def test_threads_without_memory_for_a_step_repeat_it(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    from maniple._impl.pool import thread_hub

    run: list[int] = []

    def note(number: int) -> int:
        run.append(number)
        return -number

    class Job(thread_hub.Job):
        def __init__(self, *args: Any, **kwds: Any) -> None:
            super().__init__(*args, **kwds)
            if step == "arrivals":
                self.arrivals = ShortDeque()

    monkeypatch.setattr(thread_hub, "Job", Job)
    with pool_module.ThreadPool(2) as pool:
        hub = pool._workers.hub
        if step == "wait":
            # As when there is no memory for the lock that a waiting thread makes.
            error = RuntimeError("can't allocate lock")
            monkeypatch.setattr(hub.changed, "wait_for", Short(hub.changed.wait_for, error))
        elif step == "tasks":
            hub.tasks = ShortDeque()
            hub.tasks.period = 100  # the tasks of a list are appended together, some at a time
        own, notify = threading.current_thread(), hub.changed.notify_all
        short = Short(notify, MemoryError())
        if step == "notify":
            monkeypatch.setattr(
                hub.changed, "notify_all", lambda: notify() if threading.current_thread() is own else short()
            )
        numbers = list(range(1, 40))
        assert pool.map_async(note, numbers, 1).get(LIMIT) == [-number for number in numbers]
        stream = pool.imap(note, iter(numbers), 2)
        assert [stream.next(LIMIT) for _ in numbers] == [-number for number in numbers]
        assert sorted(run) == sorted(numbers * 2)


def test_a_dropped_stream_is_forgotten_while_its_input_blocks() -> None:
    pool_module = pytest.importorskip("maniple.pool")
    blocked, goes_on = threading.Event(), threading.Event()

    def numbers() -> Any:
        yield 1
        blocked.set()
        goes_on.wait(LIMIT)
        yield 2

    with pool_module.ThreadPool(2) as pool:
        results = pool.imap(abs, numbers())
        assert results.next(LIMIT) == 1 and blocked.wait(LIMIT)
        hub = pool._workers.hub
        (job,) = hub.jobs.values()
        del results
        assert job.stream() is None and job.cancelled
        goes_on.set()
