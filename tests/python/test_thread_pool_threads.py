"""The threads of a `ThreadPool` live as long as the pool, and calls fail if no thread is left."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest

LIMIT = 20


def fail(*_: object) -> None:
    raise ValueError("the program's own")


def end(pool: Any) -> None:
    """End `pool` after its threads have reported their exceptions: pytest counts a later one as an error of the next test."""
    pool.close()
    pool.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.better_than_standard("the first such callback ends the thread that handles results")
def test_callbacks_that_raise_leave_all_threads_running(pool_module: ModuleType) -> None:
    with pool_module.ThreadPool(2) as pool:
        for number in range(6):
            assert pool.apply_async(abs, (number,), callback=fail).get(LIMIT) == number
            with pytest.raises(TypeError):
                pool.apply_async(abs, ("text",), error_callback=fail).get(LIMIT)
        assert pool.map_async(abs, [-1, -2, -3]).get(LIMIT) == [1, 2, 3]
        end(pool)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.better_than_standard("the callers wait for ever")
def test_calls_fail_if_the_initializer_fails_in_all_threads(pool_module: ModuleType) -> None:
    told: list[BaseException] = []
    with pool_module.ThreadPool(2, initializer=fail) as pool:
        for _ in range(3):
            with pytest.raises(RuntimeError, match="initializer raised ValueError: the program's own"):
                pool.map_async(abs, [1, 2, 3], error_callback=told.append).get(LIMIT)
            with pytest.raises(RuntimeError, match="initializer raised"):
                next(pool.imap(abs, map(int, [1])))
        end(pool)
    assert len(told) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.better_than_standard("it starts another thread, whose initializer fails, without end")
def test_a_pool_of_threads_works_with_those_whose_initializer_succeeds(pool_module: ModuleType) -> None:
    left = deque([1])

    def once() -> None:
        left.pop()

    with pool_module.ThreadPool(2, initializer=once) as pool:
        assert pool.map_async(abs, [-1, -2, -3]).get(LIMIT) == [1, 2, 3]
        end(pool)


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
    """Has no memory for every second item that is appended."""

    def __init__(self, items: Any = ()) -> None:
        super().__init__(items)
        self.short = Short(super().append, MemoryError())

    def append(self, item: Any) -> None:
        self.short(item)


class ShortDict(dict[Any, Any]):
    """Has no memory for every second item that is stored."""

    def __init__(self) -> None:
        self.short = Short(super().__setitem__, MemoryError())

    def __setitem__(self, key: Any, item: Any) -> None:
        self.short(key, item)


class ShortQueue:
    """Has no memory in every second call; in those of the main thread, which reports the error to the caller, it has."""

    def __init__(self) -> None:
        self.queue: Any = SimpleQueue()
        self.error: BaseException = MemoryError()
        self.short_put = Short(self.queue.put, self.error)
        self.short_get = Short(self.queue.get, RuntimeError("can't allocate lock"))
        self.get_nowait = self.queue.get_nowait

    def put(self, item: Any) -> None:
        is_callers = threading.current_thread() is threading.main_thread() or item[0] is None
        (self.queue.put if is_callers else self.short_put)(item)

    def get(self) -> Any:
        return self.short_get()


def negative(number: int) -> int:
    if number % 5 == 0:
        raise ValueError(number)
    return -number


def outcome_of(step: Any) -> Any:
    try:
        return step()
    except ValueError as error:
        return error.args[0]


@pytest.mark.parametrize("chunksize", [1, 2])
@pytest.mark.parametrize("step", ["queue", "outcomes", "failures", "ring", "room"])
def test_threads_without_memory_for_a_step_repeat_it(
    step: str, chunksize: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    from maniple._impl.pool import thread_hub, thread_jobs, thread_stream_jobs

    shorts: list[Any] = []

    class StreamJob(thread_stream_jobs.StreamJob):
        def __init__(self, *args: Any, **kwds: Any) -> None:
            super().__init__(*args, **kwds)
            if step == "outcomes":
                self.outcomes, self.arrivals, self.open = ShortDict(), ShortDeque(), ShortDeque()
                shorts.extend(made.short for made in (self.outcomes, self.arrivals, self.open))

    class MapCall(thread_jobs.MapCall):
        def __init__(self, *args: Any, **kwds: Any) -> None:
            super().__init__(*args, **kwds)
            if step == "failures":
                self.failures = ShortDict()
                shorts.append(self.failures.short)

    def queue_without_memory() -> Any:
        made = ShortQueue()
        shorts.extend([made.short_put, made.short_get])
        return made

    monkeypatch.setattr(thread_hub, "StreamJob", StreamJob)
    monkeypatch.setattr(thread_hub, "MapCall", MapCall)
    if step == "queue":
        monkeypatch.setattr(thread_hub, "new_queue", queue_without_memory)
    with pool_module.ThreadPool(2) as pool:
        hub = pool._workers.hub
        own = threading.current_thread()
        for name, error in {"ring": MemoryError(), "wait_until": RuntimeError("can't allocate lock")}.items():
            if name.startswith(step) or (step, name) == ("room", "wait_until"):
                step_itself = getattr(hub, name)
                short = Short(step_itself, error)
                shorts.append(short)
                monkeypatch.setattr(
                    hub,
                    name,
                    lambda *args, short=short, own_step=step_itself: (
                        own_step if threading.current_thread() is own else short
                    )(*args),
                )
        numbers = [number for number in range(1, 40) if number % 5]
        assert pool.map_async(negative, numbers, chunksize).get(LIMIT) == [-number for number in numbers]
        with pytest.raises(ValueError, match="^5$"):
            pool.map_async(negative, range(1, 40), chunksize).get(LIMIT)
        for method in (pool.imap, pool.imap_unordered):
            stream = method(negative, iter(numbers), chunksize, buffersize=4)
            found = [stream.next(LIMIT) for _ in numbers]
            assert sorted(found) == sorted(-number for number in numbers)
            with pytest.raises(StopIteration):
                stream.next(LIMIT)
        stream = pool.imap(negative, [4, 5], chunksize, buffersize=1)
        if chunksize == 1:
            assert [outcome_of(lambda: stream.next(LIMIT)) for _ in range(2)] == [-4, 5]
        else:
            assert outcome_of(lambda: stream.next(LIMIT)) == 5
        assert pool.apply_async(negative, (3,)).get(LIMIT) == -3
        with pytest.raises(ValueError, match="^5$"):
            pool.apply_async(negative, (5,)).get(LIMIT)
    assert all(short.calls > 1 for short in shorts if short.calls) and any(short.calls for short in shorts)


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


@pytest.mark.parametrize("items", [[-1, -2], map(int, [-1, -2])], ids=["list", "iterator"])
@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_a_stream_that_begins_beside_close_fails_at_once(
    method: str, items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    pool = pool_module.ThreadPool(2)
    hub = pool._workers.hub
    stream = hub.stream
    monkeypatch.setattr(hub, "stream", lambda *args: (pool.close(), stream(*args))[1])
    with pytest.raises(ValueError, match="not running"):
        getattr(pool, method)(abs, items)
    pool.join()


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_a_stream_that_has_begun_before_close_has_all_its_results(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    pool = pool_module.ThreadPool(2)
    workers = pool._workers
    feeder = workers.feeder
    # A feeder that is free finds the mark of the end before the input.
    list(pool.imap(abs, map(int, [-1])))
    monkeypatch.setattr(workers, "feeder", lambda *args: (pool.close(), feeder(*args))[1])
    results = getattr(pool, method)(abs, map(int, [-1, -2]))
    assert sorted(results.next(LIMIT) for _ in range(2)) == [1, 2]
    pool.join()


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_tasks_that_a_terminated_pool_cancels_have_the_pools_error(method: str) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    goes_on, began = threading.Event(), threading.Event()

    def work(number: int) -> int:
        if number == 2:
            began.set()
            goes_on.wait(LIMIT)
        return number

    pool = pool_module.ThreadPool(1)
    results = getattr(pool, method)(work, map(int, range(1, 6)))
    assert results.next(LIMIT) == 1 and began.wait(LIMIT)
    pool.terminate()
    goes_on.set()
    pool.join()
    errors = []
    with pytest.raises(StopIteration):
        while True:
            try:
                results.next(LIMIT)
            except ValueError as error:
                errors.append(error)
    assert errors and all("terminated" in str(error) for error in errors)


@pytest.mark.parametrize("chunksize", [1, 7])
@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
@pytest.mark.parametrize("kind", ["ThreadPool", "Pool"])
def test_several_threads_take_each_result_of_a_stream_once(kind: str, method: str, chunksize: int) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with getattr(pool_module, kind)(2) as pool:
            for _ in range(60):
                results, taken = getattr(pool, method)(abs, range(200), chunksize), []

                def take(results: Any = results, taken: list[int] = taken) -> None:
                    while True:
                        try:
                            taken.append(results.next(LIMIT))
                        except StopIteration:
                            return

                threads = [threading.Thread(target=take) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert sorted(taken) == list(range(200))
    finally:
        sys.setswitchinterval(before)


# -- references and ends


class Held:
    """An object that a test follows by a weak reference."""


def fail_with(item: Any) -> None:
    raise LookupError(type(item).__name__)


@pytest.mark.parametrize("call", ["apply", "map", "map in chunks", "imap", "imap in chunks", "imap_unordered"])
def test_a_failed_call_makes_no_cycle_of_references(call: str) -> None:
    pool_module = pytest.importorskip("maniple.pool")

    def ended(result: Any) -> None:
        result.wait(LIMIT)
        assert not result.successful()

    def fails(stream: Any) -> None:
        try:
            stream.next(LIMIT)
        except LookupError:
            return
        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        with pool_module.ThreadPool(2) as pool:
            item = Held()
            reference = weakref.ref(item)
            calls = {
                "apply": lambda item: ended(pool.apply_async(fail_with, (item,))),
                "map": lambda item: ended(pool.map_async(fail_with, [item], 1)),
                "map in chunks": lambda item: ended(pool.map_async(fail_with, [item, item], 2)),
                "imap": lambda item: fails(pool.imap(fail_with, [item])),
                "imap in chunks": lambda item: fails(pool.imap(fail_with, [item, item], 2)),
                "imap_unordered": lambda item: fails(pool.imap_unordered(fail_with, [item])),
            }
            calls[call](item)
            del item
            # The thread that ran the task drops its references after the result has been stored.
            wait_until(lambda: reference() is None)
    finally:
        gc.enable()


def wait_until(found: Any) -> None:
    """Wait until `found` returns True; the time limit of the test ends the wait otherwise."""
    while not found():
        threading.Event().wait(0.005)


@pytest.mark.better_than_standard("the results that have not been taken are lost, and the caller waits for ever")
def test_a_stream_gives_its_results_and_then_the_end_of_its_pool(pool_module: ModuleType) -> None:
    goes_on, began = threading.Event(), threading.Event()

    def work(number: int) -> int:
        if number == 3:
            began.set()
            goes_on.wait(LIMIT)
        return number

    pool = pool_module.ThreadPool(1)
    results = pool.imap(work, [1, 2, 3, 4])
    assert results.next(LIMIT) == 1 and began.wait(LIMIT)
    pool.terminate()
    assert results.next(LIMIT) == 2
    with pytest.raises(ValueError, match="terminated"):
        results.next(LIMIT)
    with pytest.raises(StopIteration):
        results.next(LIMIT)
    goes_on.set()
    pool.join()


def test_close_lets_the_calls_of_an_open_input_end(pool_module: ModuleType) -> None:
    goes_on = threading.Event()

    def numbers() -> Any:
        yield 1
        goes_on.wait(LIMIT)
        yield from range(2, 3000)

    pool = pool_module.ThreadPool(2)
    results = pool.imap(abs, numbers())
    last = pool.apply_async(abs, (-5,))
    assert results.next(LIMIT) == 1
    pool.close()
    goes_on.set()
    assert last.get(LIMIT) == 5
    pool.join()
    assert list(results) == list(range(2, 3000))


@pytest.mark.parametrize("number", [1, 2, 7])
@pytest.mark.parametrize("chunksize", [1, 3])
def test_the_window_limits_the_items_that_are_read(number: int, chunksize: int) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    read: list[int] = []

    def numbers() -> Any:
        for item in range(60):
            read.append(item)
            yield item

    with pool_module.ThreadPool(2) as pool:
        for method in (pool.imap, pool.imap_unordered):
            read.clear()
            taken = 0
            for _ in method(abs, numbers(), chunksize, buffersize=number):
                taken += 1
                # The feeder reads a whole task, and one item more while a task waits for the hub.
                assert len(read) <= taken + max(number, chunksize) + chunksize
            assert taken == 60


@pytest.mark.parametrize("items", [list, iter], ids=["list", "iterator"])
def test_threads_that_share_a_stream_get_each_result_once(items: Any) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    with pool_module.ThreadPool(2) as pool, pool_module.ThreadPool(3) as callers:
        for _ in range(300):
            stream = pool.imap(abs, items([-number for number in range(5)]))
            parts = [callers.apply_async(list, (stream,)) for _ in range(3)]
            found = [number for part in parts for number in part.get(LIMIT)]
            assert sorted(found) == list(range(5))


@pytest.mark.parametrize("step", ["apply", "imap", "imap of a list", "imap_unordered in chunks"])
def test_a_handler_waits_for_a_call_while_it_interrupts_another(step: str) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    calls = {
        "apply": lambda: pool.apply(abs, (-1,)) == 1,
        "imap": lambda: list(pool.imap(abs, (number for number in range(300)))) == list(range(300)),
        "imap of a list": lambda: list(pool.imap(abs, range(10))) == list(range(10)),
        "imap_unordered in chunks": lambda: sorted(pool.imap_unordered(abs, iter(range(90)), 4)) == list(range(90)),
    }
    handled = []
    is_busy = False

    def handle(*_: object) -> None:
        nonlocal is_busy
        if not is_busy:
            is_busy = True
            handled.append(pool.apply(abs, (-2,)))
            is_busy = False

    with pool_module.ThreadPool(2) as pool:
        before = signal.signal(signal.SIGALRM, handle)
        until = time.monotonic() + 2
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            while time.monotonic() < until:
                assert calls[step]()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert set(handled) == {2}


@pytest.mark.parametrize("items", ["[-1]", "(n for n in range(3))"])
def test_a_forked_child_is_refused_and_starts_no_feeder(items: str) -> None:
    pytest.importorskip("maniple.pool")
    program = f"""
import os, sys, time
from maniple.pool import ThreadPool
pool = ThreadPool(1)
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
try:
    pool.imap(abs, {items})
except RuntimeError as error:
    time.sleep(0.2)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT)
    assert "a forked child cannot use them" in done.stdout and (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("items", [list, iter], ids=["list", "iterator"])
def test_a_thread_takes_all_results_while_another_takes_the_first(items: Any) -> None:
    pool_module = pytest.importorskip("maniple.pool")
    from maniple._impl.pool.thread_streams import Batch

    with pool_module.ThreadPool(1) as pool:
        source = [-1, -2, -3] if items is list else (-number for number in range(1, 4))
        results = pool.imap(abs, source)
        stream = results._ticket
        while not stream._job.over:
            time.sleep(0.01)
        job, takes_all = stream._job, type(stream._job).all_outcomes

        class Raced(type(job)):  # type: ignore[misc]
            __slots__ = ()

            def all_outcomes(self, length: int) -> Any:
                found = takes_all(self, length)
                # The other thread began before the job was over, and found one outcome.
                first = self.arrived(0, 1)
                stream._begin(Batch(first, deque(first), [], 1, 1))
                return found

        job.__class__ = Raced
        assert list(results) == [1, 2, 3]
