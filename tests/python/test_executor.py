"""`maniple.ProcessPoolExecutor`: the interface of `concurrent.futures`, and what happens to futures when something fails."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import gc
import inspect
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import nothing_left
from pools import METHODS, add, fail, identity, in_thread, interrupted, pid, sleep, square, store, stored, wait_for_file

NewExecutor = Callable[..., Any]
LONG = 600.0


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, warmed_up: Callable[[str], None]) -> str:
    warmed_up(request.param)
    found: str = request.param
    return found


@pytest.fixture
def new_executor(request: pytest.FixtureRequest, mp: ModuleType, method: str) -> Iterator[NewExecutor]:
    """Makes executors that end with the test and leave nothing behind."""
    made: list[Any] = []

    def new(workers: int = 2, **options: Any) -> Any:
        executor = mp.ProcessPoolExecutor(workers, mp_context=mp.get_context(method), **options)
        made.append(weakref.ref(executor))
        return executor

    with nothing_left(request.config):
        yield new
        for executor in made:
            if (left := executor()) is not None:
                left.kill_workers()
                left.shutdown()


@pytest.fixture
def executor(new_executor: NewExecutor) -> Any:
    return new_executor()


@pytest.fixture
def quick(mp: ModuleType) -> Iterator[Any]:
    """An executor for what does not depend on the start method."""
    with mp.ProcessPoolExecutor(2, mp_context=mp.get_context("fork")) as executor:
        yield executor


def kill_self(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def touch_and_wait(path: str) -> None:
    Path(path).touch()
    time.sleep(LONG)


def touch(path: str) -> None:
    Path(path).touch()


def wait_until(path: str) -> bool:
    return wait_for_file(path)


def fail_to_begin() -> None:
    raise LookupError("this initializer fails")


def pair(one: object, two: object) -> tuple[object, object]:
    return one, two


class Unpicklable:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError("cannot be pickled")


class Unreadable:
    def __reduce__(self) -> Any:
        return fail, (ZeroDivisionError("cannot be unpickled"),)


class Exiting:
    """Its unpickling ends the program in the process that reads it."""

    def __reduce__(self) -> Any:
        return sys.exit, (7,)


def make(kind: type) -> object:
    return kind()


def hold(executor: Any, tmp_path: Path, workers: int = 2) -> list[Any]:
    """Keep all workers busy, and return the futures of their calls, which never end."""
    files = [str(tmp_path / f"begun{number}") for number in range(workers)]
    running = [executor.submit(touch_and_wait, file) for file in files]
    assert all(wait_for_file(file) for file in files)
    return running


# -- the interface


def test_submit_returns_a_future_of_concurrent_futures(executor: Any) -> None:
    future = executor.submit(add, 1, two=2, more=3)
    assert isinstance(future, cf.Future)
    assert future.result() == 6
    assert future.done() and not future.running() and not future.cancelled()
    assert future.exception() is None
    assert repr(future).endswith("state=finished returned int>")


def test_the_executor_is_one_of_concurrent_futures(quick: Any) -> None:
    assert isinstance(quick, cf.Executor)


def test_the_parameters_are_those_of_the_standard_executor(mp: ModuleType) -> None:
    ours, theirs = mp.ProcessPoolExecutor, cf.ProcessPoolExecutor
    for name in ("__init__", "submit", "map", "shutdown"):
        expected = inspect.signature(getattr(theirs, name)).parameters
        assert {*expected} <= {*inspect.signature(getattr(ours, name)).parameters}, name


def test_map_returns_results_in_order(executor: Any) -> None:
    assert list(executor.map(square, range(100))) == [number * number for number in range(100)]
    assert list(executor.map(pow, range(50), range(50), chunksize=7)) == [number**number for number in range(50)]
    assert list(executor.map(add, range(5), range(100))) == [0, 2, 4, 6, 8]
    assert list(executor.map(square, [])) == []


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_with_a_buffersize_reads_an_endless_iterable(executor: Any, chunksize: int) -> None:
    results = executor.map(square, itertools.count(), buffersize=4, chunksize=chunksize)
    assert list(itertools.islice(results, 20)) == [number * number for number in range(20)]
    results.close()


def test_buffersize_limits_what_is_read(quick: Any) -> None:
    read = []

    def items() -> Iterator[int]:
        for number in range(10):
            read.append(number)
            yield number

    results = quick.map(square, items(), buffersize=3)
    assert read == [0, 1, 2]
    assert next(results) == 0
    assert read == [0, 1, 2, 3]
    assert list(results) == [number * number for number in range(1, 10)]


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"chunksize": 0}, ValueError, "chunksize must be >= 1"),
        ({"buffersize": 0}, ValueError, "buffersize must be None or > 0"),
        ({"buffersize": 1.5}, TypeError, "buffersize must be an integer or None"),
    ],
)
def test_wrong_arguments_of_map(quick: Any, options: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        quick.map(square, [1], **options)


@pytest.mark.parametrize("chunksize", [1, 2])
def test_map_raises_the_exception_of_a_call_and_ends(executor: Any, chunksize: int) -> None:
    results = executor.map(fail, [ValueError(1), ValueError(2), ValueError(3)], chunksize=chunksize)
    with pytest.raises(ValueError, match="1"):
        next(results)
    assert list(results) == []


def test_map_raises_when_its_time_is_over(executor: Any) -> None:
    executor.submit(sleep, 0.0).result()  # the start of a worker is not what the limit is about
    results = executor.map(sleep, [0.0, LONG], timeout=1)
    assert next(results) == 0.0
    with pytest.raises(TimeoutError):
        next(results)
    executor.kill_workers()


def test_map_that_is_left_early_cancels_what_has_not_begun(new_executor: NewExecutor, tmp_path: Path) -> None:
    executor = new_executor(1)
    files = [str(tmp_path / f"file{number}") for number in range(50)]
    results = executor.map(wait_until, [files[0], *files])
    touch(files[0])
    assert next(results) is True
    results.close()
    executor.kill_workers()
    executor.shutdown()


@pytest.mark.parametrize("workers", [0, -1])
def test_number_of_workers_below_one(mp: ModuleType, workers: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        mp.ProcessPoolExecutor(workers)


def test_wrong_arguments_of_the_constructor(mp: ModuleType) -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        mp.ProcessPoolExecutor(1, initializer=3)
    with pytest.raises(TypeError, match="max_tasks_per_child must be an integer"):
        mp.ProcessPoolExecutor(1, max_tasks_per_child="2")
    with pytest.raises(ValueError, match="max_tasks_per_child must be >= 1"):
        mp.ProcessPoolExecutor(1, max_tasks_per_child=0)
    with pytest.raises(ValueError, match="incompatible with the 'fork'"):
        mp.ProcessPoolExecutor(1, mp.get_context("fork"), max_tasks_per_child=1)


def test_the_context_of_the_standard_package_names_the_start_method(mp: ModuleType, method: str) -> None:
    import multiprocessing

    with mp.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as executor:
        assert executor.submit(square, 3).result() == 9


def test_the_constructor_starts_no_process(mp: ModuleType) -> None:
    executor = mp.ProcessPoolExecutor(2)
    assert mp.active_children() == []
    executor.shutdown()


def test_workers_that_are_not_forked_start_when_there_are_tasks_for_them(mp: ModuleType, tmp_path: Path) -> None:
    with mp.ProcessPoolExecutor(3, mp.get_context("spawn")) as executor:
        for number in range(5):
            assert executor.submit(square, number).result() == number * number
        assert len(mp.active_children()) == 1
        hold(executor, tmp_path, 3)
        assert len(mp.active_children()) == 3
        executor.kill_workers()


def test_max_tasks_per_child_replaces_workers(mp: ModuleType) -> None:
    for method in ("spawn", "forkserver"):
        with mp.ProcessPoolExecutor(1, mp.get_context(method), max_tasks_per_child=2) as executor:
            pids = [executor.submit(pid).result() for _ in range(6)]
        assert [len(set(pids[at : at + 2])) for at in (0, 2, 4)] == [1, 1, 1]
        assert len(set(pids)) == 3


@pytest.mark.parametrize("is_shut", [False, True])
@pytest.mark.parametrize("is_dropped", [False, True])
def test_workers_are_replaced_until_the_last_call_has_run(mp: ModuleType, is_shut: bool, is_dropped: bool) -> None:
    executor = mp.ProcessPoolExecutor(1, mp.get_context("spawn"), max_tasks_per_child=1)
    futures = [executor.submit(pid) for _ in range(3)]
    if is_shut:
        executor.shutdown(wait=False)
    if is_dropped:
        del executor
        gc.collect()
    assert len({future.result() for future in futures}) == 3


def test_initializer_runs_in_each_worker(new_executor: NewExecutor) -> None:
    executor = new_executor(2, initializer=store, initargs=("state",))
    assert set(executor.map(stored, range(10))) == {"state"}


def test_lambdas_and_local_functions_are_sent_by_value(executor: Any) -> None:
    offset = 5
    assert executor.submit(lambda number: number + offset, 1).result() == 6
    assert list(executor.map(lambda number: number * 2, range(10), chunksize=3)) == list(range(0, 20, 2))


def test_large_results_arrive(executor: Any) -> None:
    data = os.urandom(3_000_000)
    futures = [executor.submit(identity, data) for _ in range(6)]
    assert all(future.result() == data for future in futures)


# -- futures


def test_wait_and_as_completed(executor: Any) -> None:
    futures = [executor.submit(square, number) for number in range(300)]
    done, waiting = cf.wait(futures)
    assert len(done) == 300 and not waiting
    futures = [executor.submit(square, number) for number in range(300)]
    assert sorted(future.result() for future in cf.as_completed(futures)) == [number**2 for number in range(300)]


def test_wait_for_the_first(executor: Any, tmp_path: Path) -> None:
    slow = executor.submit(touch_and_wait, str(tmp_path / "begun"))
    fast = executor.submit(square, 2)
    done, waiting = cf.wait([slow, fast], return_when=cf.FIRST_COMPLETED)
    assert done == {fast} and waiting == {slow}
    executor.kill_workers()


def test_callbacks_run_once_each_and_in_their_order(executor: Any) -> None:
    told: list[Any] = []
    all_told = threading.Event()
    future = executor.submit(sleep, 0.05)
    future.add_done_callback(lambda done: told.append(("first", done.result())))
    future.add_done_callback(lambda done: (told.append(("second", done.result())), all_told.set()))
    assert future.result() == 0.05
    assert all_told.wait(20)
    future.add_done_callback(lambda done: told.append("late"))
    assert told == [("first", 0.05), ("second", 0.05), "late"]


def test_a_callback_that_raises_is_logged_and_harms_nothing(executor: Any, caplog: pytest.LogCaptureFixture) -> None:
    called = threading.Event()
    future = executor.submit(sleep, 0.05)
    future.add_done_callback(lambda done: 1 / 0)
    future.add_done_callback(lambda done: called.set())
    assert called.wait(20)
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()  # its record refers to the frames of the pool's keeper
    assert executor.submit(square, 3).result() == 9


def test_a_callback_that_exits_harms_nothing(quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    future = quick.submit(sleep, 0.05)
    future.add_done_callback(lambda done: sys.exit(1))
    assert cf.wait([future]).done == {future}
    assert quick.submit(sleep, 0.01).result() == 0.01
    assert told in ([SystemExit], [])  # the callback may not have run yet


def test_a_callback_may_wait_for_another_future(executor: Any) -> None:
    other = executor.submit(sleep, 0.1)
    answers: list[float] = []
    called = threading.Event()
    first = executor.submit(sleep, 0.02)
    first.add_done_callback(lambda done: (answers.append(other.result()), called.set()))
    assert called.wait(20)
    assert answers == [0.1]


def test_result_raises_timeout_error_and_can_be_called_again(executor: Any, tmp_path: Path) -> None:
    file = str(tmp_path / "go")
    future = executor.submit(wait_until, file)
    with pytest.raises(cf.TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(cf.TimeoutError):
        future.exception(timeout=0)
    touch(file)
    assert future.result(timeout=60) is True


def test_asyncio_runs_calls_in_the_executor(executor: Any) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, square, number) for number in range(200)))

    assert asyncio.run(main()) == [number * number for number in range(200)]


def test_cancelling_an_asyncio_task_withdraws_its_call(quick: Any, tmp_path: Path) -> None:
    hold(quick, tmp_path)

    async def main() -> None:
        waiting = asyncio.get_running_loop().run_in_executor(quick, touch, str(tmp_path / "never"))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    quick.kill_workers()
    quick.shutdown()
    assert not (tmp_path / "never").exists()


def test_the_futures_complete_although_nothing_waits_for_them(executor: Any) -> None:
    last = threading.Event()
    futures = [executor.submit(square, number) for number in range(500)]
    futures[-1].add_done_callback(lambda done: last.set())
    assert last.wait(60)
    deadline = time.monotonic() + 60
    while not all(future.done() for future in futures):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [future.result(timeout=0) for future in futures] == [number**2 for number in range(500)]


def test_a_waiting_thread_does_not_keep_the_futures_of_others(executor: Any, tmp_path: Path) -> None:
    file = str(tmp_path / "go")
    slow = executor.submit(wait_until, file)
    answers: list[Any] = []
    waiter = threading.Thread(target=lambda: answers.append(slow.result()))
    waiter.start()
    others = [executor.submit(square, number) for number in range(100)]
    assert cf.wait(others).done == set(others)
    assert not answers
    touch(file)
    waiter.join(60)
    assert answers == [True]


def test_many_threads_submit_and_wait(executor: Any) -> None:
    answers: dict[int, list[int]] = {}

    def use(number: int) -> None:
        one_by_one = [executor.submit(square, item).result() for item in range(50)]
        futures = [executor.submit(square, item) for item in range(200)]
        answers[number] = one_by_one + [future.result() for future in futures]

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    expected = [item**2 for item in range(50)] + [item**2 for item in range(200)]
    assert answers == dict.fromkeys(range(6), expected)


def test_several_threads_wait_for_one_future(executor: Any, tmp_path: Path) -> None:
    file = str(tmp_path / "go")
    future = executor.submit(wait_until, file)
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(future.result())) for _ in range(5)]
    for thread in threads:
        thread.start()
    touch(file)
    for thread in threads:
        thread.join(60)
    assert answers == [True] * 5


def test_a_result_is_freed_with_its_future(quick: Any) -> None:
    class Own:
        pass

    future = quick.submit(make, Own)
    found = weakref.ref(future.result())
    assert found() is not None
    del future
    gc.collect()
    assert found() is None


# -- cancel


def test_cancel_before_the_call_begins(executor: Any, tmp_path: Path) -> None:
    hold(executor, tmp_path)
    never = str(tmp_path / "never")
    waiting = [executor.submit(touch, never) for _ in range(20)]
    told: list[bool] = []
    waiting[0].add_done_callback(lambda done: told.append(done.cancelled()))
    assert all(future.cancel() for future in reversed(waiting))
    assert told == [True]
    assert all(future.cancel() and future.cancelled() and future.done() for future in waiting)
    with pytest.raises(cf.CancelledError):
        waiting[3].result()
    assert cf.wait(waiting).done == set(waiting)
    executor.kill_workers()
    executor.shutdown()
    assert not Path(never).exists()


def test_cancel_while_the_call_runs(executor: Any, tmp_path: Path) -> None:
    running = hold(executor, tmp_path)
    assert [future.running() for future in running] == [True, True]
    assert [future.cancel() for future in running] == [False, False]
    waiting = executor.submit(square, 1)
    assert not waiting.running()
    assert waiting.cancel()
    executor.kill_workers()


def test_cancel_after_the_call_has_ended(executor: Any) -> None:
    future = executor.submit(square, 4)
    assert future.result() == 16
    assert not future.cancel() and not future.cancelled()
    assert future.result() == 16


def test_a_cancelled_future_wakes_those_that_wait_for_it(executor: Any, tmp_path: Path) -> None:
    hold(executor, tmp_path)
    waiting = executor.submit(square, 1)
    raised: list[type[BaseException]] = []

    def wait() -> None:
        try:
            waiting.result()
        except BaseException as error:
            raised.append(type(error))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    assert waiting.cancel()
    for thread in threads:
        thread.join(60)
    assert raised == [cf.CancelledError] * 3
    executor.kill_workers()


def test_cancelled_tasks_make_room_for_others(executor: Any, tmp_path: Path) -> None:
    file = str(tmp_path / "go")
    running = [executor.submit(wait_until, file) for _ in range(2)]
    futures = [executor.submit(square, number) for number in range(200)]
    cancelled = [future for number, future in enumerate(futures) if number % 2 and future.cancel()]
    touch(file)
    assert all(future.result() for future in running)
    assert len(cancelled) == 100
    assert [future.result() for future in futures[::2]] == [number**2 for number in range(0, 200, 2)]


# -- failures


def test_the_exception_of_a_call_has_the_workers_traceback_as_its_cause(executor: Any) -> None:
    future = executor.submit(fail, KeyError("lost"))
    with pytest.raises(KeyError, match="lost") as caught:
        future.result()
    assert "in fail" in str(caught.value.__cause__)
    assert future.exception() is caught.value


def test_a_killed_worker_fails_its_own_task_alone(mp: ModuleType, executor: Any) -> None:
    before = [executor.submit(square, number) for number in range(50)]
    dying = executor.submit(kill_self)
    after = [executor.submit(square, number) for number in range(50)]
    with pytest.raises(mp.WorkerLostError, match="it was running kill_self") as caught:
        dying.result()
    assert caught.value.signal == signal.SIGKILL
    assert [future.result() for future in before + after] == [number**2 for number in range(50)] * 2
    assert executor.submit(square, 7).result() == 49


def test_a_lost_worker_is_no_broken_pool(mp: ModuleType, quick: Any) -> None:
    error = quick.submit(kill_self).exception()
    assert isinstance(error, mp.WorkerLostError)
    assert not isinstance(error, BrokenProcessPool)


def test_map_continues_on_other_workers_when_one_is_killed(mp: ModuleType, executor: Any) -> None:
    futures = [executor.submit(kill_self if number == 5 else square, number) for number in range(40)]
    lost = [number for number, future in enumerate(futures) if isinstance(future.exception(), mp.WorkerLostError)]
    assert lost == [5]


def test_an_initializer_that_fails_fails_each_task(mp: ModuleType, new_executor: NewExecutor) -> None:
    executor = new_executor(2, initializer=fail_to_begin)
    futures = [executor.submit(square, number) for number in range(5)]
    for future in futures:
        with pytest.raises(mp.WorkerLostError, match="its initializer raised LookupError: this initializer fails"):
            future.result()
    later = executor.submit(square, 1)
    assert isinstance(later.exception(), mp.WorkerLostError)
    assert isinstance(later.exception().__cause__, LookupError)
    executor.shutdown()


def test_an_argument_that_cannot_be_pickled_fails_its_task(executor: Any) -> None:
    future = executor.submit(identity, Unpicklable())
    with pytest.raises(ZeroDivisionError, match="cannot be pickled"):
        future.result()
    chunked = executor.map(pair, [Unpicklable(), 1], [2, 3], chunksize=2)
    with pytest.raises(ZeroDivisionError, match="cannot be pickled"):
        list(chunked)
    assert executor.submit(square, 2).result() == 4


def test_a_result_that_cannot_be_pickled_fails_its_task(executor: Any) -> None:
    future = executor.submit(make, Unpicklable)
    with pytest.raises(ZeroDivisionError, match="cannot be pickled"):
        future.result()
    assert executor.submit(square, 2).result() == 4


def test_a_result_that_cannot_be_unpickled_fails_its_task(mp: ModuleType, executor: Any) -> None:
    future = executor.submit(make, Unreadable)
    with pytest.raises(mp.ResultDecodeError, match="cannot be unpickled"):
        future.result()
    assert executor.submit(square, 2).result() == 4


def test_a_result_whose_unpickling_exits_harms_no_other(mp: ModuleType, executor: Any, tmp_path: Path) -> None:
    file = str(tmp_path / "go")
    slow = executor.submit(wait_until, file)
    exiting = executor.submit(make, Exiting)
    exiting.add_done_callback(lambda done: touch(file))
    assert slow.result() is True
    with pytest.raises(mp.ResultDecodeError):
        exiting.result()
    assert executor.submit(square, 2).result() == 4


def test_an_argument_whose_unpickling_exits_fails_its_task(executor: Any) -> None:
    future = executor.submit(identity, Exiting())
    with pytest.raises(SystemExit):
        future.result()
    assert executor.submit(square, 2).result() == 4


def test_a_handler_that_raises_while_a_thread_waits_loses_nothing(executor: Any, tmp_path: Path) -> None:
    file = str(tmp_path / "go")
    slow = executor.submit(wait_until, file)
    others = [executor.submit(square, number) for number in range(100)]
    with interrupted(), pytest.raises(KeyboardInterrupt):
        slow.result()
    touch(file)
    assert slow.result() is True
    assert [future.result() for future in others] == [number**2 for number in range(100)]


# The interpreter reports an exception of a handler in a finalizer or a weak reference's callback, and continues.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_frequent_handlers_lose_no_result(executor: Any) -> None:
    class Rung(Exception):
        pass

    rings = 0
    list(executor.map(sleep, [0.05] * 6))  # Python drops what a handler raises while it forks workers

    def ring(*_: object) -> None:
        nonlocal rings
        rings += 1
        raise Rung

    before = signal.signal(signal.SIGALRM, ring)
    futures: list[Any] = []
    try:
        for number in range(30):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.003)
                while rings <= number:
                    futures.append(executor.submit(identity, {"a": [len(futures)]}))
                    futures[len(futures) // 2].result()
            except Rung:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    for future in futures:
        assert isinstance(future.result(timeout=60)["a"][0], int)


# -- shutdown


def test_no_call_after_shutdown(executor: Any) -> None:
    assert executor.submit(square, 1).result() == 1
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(square, 1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(square, [1])
    executor.shutdown()


def test_shutdown_without_a_call(executor: Any) -> None:
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)


def test_shutdown_waits_for_all_calls(mp: ModuleType, executor: Any) -> None:
    futures = [executor.submit(sleep, 0.02) for _ in range(10)]
    executor.shutdown()
    assert [future.result(timeout=0) for future in futures] == [0.02] * 10
    assert mp.active_children() == []


def test_shutdown_without_waiting_lets_all_calls_end(executor: Any) -> None:
    futures = [executor.submit(sleep, 0.02) for _ in range(10)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    assert [future.result() for future in futures] == [0.02] * 10
    executor.shutdown()


def test_shutdown_cancels_what_waits(executor: Any, tmp_path: Path) -> None:
    file = str(tmp_path / "go")
    begun = [str(tmp_path / f"begun{number}") for number in range(2)]
    running = [executor.submit(touch_then_wait, name, file) for name in begun]
    assert all(wait_for_file(name) for name in begun)
    waiting = [executor.submit(square, number) for number in range(2000)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert cf.wait(waiting).done == set(waiting)
    assert all(future.cancelled() for future in waiting)
    touch(file)
    assert [future.result() for future in running] == [True, True]
    executor.shutdown()


def touch_then_wait(begun: str, file: str) -> bool:
    touch(begun)
    return wait_for_file(file)


def test_shutdown_counts_calls_that_free_workers_are_about_to_run_as_begun(new_executor: NewExecutor) -> None:
    executor = new_executor(2)
    futures = [executor.submit(square, number) for number in range(50)]
    executor.shutdown(cancel_futures=True)
    assert futures[0].result() == 0
    assert all(future.done() for future in futures)
    # The second worker may have begun any call.
    begun = [(number, future.result()) for number, future in enumerate(futures) if not future.cancelled()]
    assert len(begun) >= 2
    assert all(square(number) == result for number, result in begun)


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_the_end_of_the_workers_at_once(mp: ModuleType, executor: Any, tmp_path: Path, how: str) -> None:
    running = hold(executor, tmp_path)
    waiting = [executor.submit(square, number) for number in range(50)]
    getattr(executor, how)()
    for future in running:
        with pytest.raises(mp.WorkerLostError) as caught:
            future.result()
        assert caught.value.signal == (signal.SIGTERM if how == "terminate_workers" else signal.SIGKILL)
    assert all(future.cancelled() for future in waiting)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)
    executor.shutdown()
    assert mp.active_children() == []


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_the_end_of_workers_that_never_started(executor: Any, how: str) -> None:
    getattr(executor, how)()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(square, 1)


def test_the_end_of_the_block_waits(mp: ModuleType, method: str) -> None:
    with mp.ProcessPoolExecutor(2, mp.get_context(method)) as executor:
        futures = [executor.submit(sleep, 0.02) for _ in range(6)]
    assert [future.result(timeout=0) for future in futures] == [0.02] * 6


def test_an_executor_that_is_collected_ends_after_its_calls(mp: ModuleType, new_executor: NewExecutor) -> None:
    executor = new_executor()
    futures = [executor.submit(sleep, 0.05) for _ in range(6)]
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    assert [future.result() for future in futures] == [0.05] * 6
    deadline = time.monotonic() + 60
    while mp.active_children():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_map_keeps_its_executor(new_executor: NewExecutor) -> None:
    results = new_executor().map(square, iter(range(30)), buffersize=2)
    gc.collect()
    assert list(results) == [number**2 for number in range(30)]


# -- the program, its threads and its children

PROGRAM = """
import sys, time, threading
from pools import square, sleep
import maniple

def tell(future):
    print("told", future.result(), flush=True)

if __name__ == "__main__":
    executor = maniple.ProcessPoolExecutor(2, maniple.get_context({method!r}))
    {body}
"""


def run_program(method: str, body: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    text = PROGRAM.format(method=method, body=body.replace("\n", "\n    "))
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=100, env=environment, check=False
    )


def test_the_end_of_the_program_waits_for_all_calls(method: str) -> None:
    done = run_program(
        method,
        """
for number in range(4):
    executor.submit(sleep, number / 8).add_done_callback(tell)
""",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == ["0.0", "0.125", "0.25", "0.375", *["told"] * 4]


def test_the_end_of_the_program_after_shutdown_without_waiting(method: str) -> None:
    done = run_program(
        method,
        """
executor.submit(sleep, 0.2).add_done_callback(tell)
executor.shutdown(wait=False)
""",
    )
    assert (done.stdout, done.stderr) == ("told 0.2\n", "")


def test_a_thread_that_submits_while_the_program_ends_is_refused(method: str) -> None:
    done = run_program(
        method,
        """
def late():
    threading.main_thread().join()
    while True:
        try:
            executor.submit(square, 2)
        except RuntimeError as error:
            print(error, flush=True)
            return
        time.sleep(0.01)

executor.submit(square, 1).result()
threading.Thread(target=late).start()
""",
    )
    assert done.stdout == "cannot schedule new futures after interpreter shutdown\n", done.stderr


def test_a_start_method_is_no_context(mp: ModuleType) -> None:
    with pytest.raises(TypeError, match="mp_context must be a context, such as"):
        mp.ProcessPoolExecutor(2, mp_context="spawn")


def test_a_first_call_at_exit_is_refused(method: str) -> None:
    done = run_program(method, "import atexit\natexit.register(lambda: executor.submit(square, 2))")
    assert "cannot schedule new futures after interpreter shutdown" in done.stderr
    assert "can't register atexit" not in done.stderr


def test_the_import_of_the_package_imports_no_futures() -> None:
    text = "import sys, maniple; print('concurrent.futures' in sys.modules, 'ProcessPoolExecutor' in dir(maniple))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_an_executor_made_by_a_thread(mp: ModuleType, method: str) -> None:
    answers: list[Any] = []

    def use() -> None:
        with mp.ProcessPoolExecutor(2, mp.get_context(method)) as executor:
            answers.extend(executor.map(square, range(20)))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(100)
    assert answers == [number**2 for number in range(20)]


def test_the_program_forks_in_a_thread_while_the_executor_works(quick: Any) -> None:
    codes: list[int] = []
    futures = [quick.submit(sleep, 0.001) for _ in range(200)]

    def fork() -> None:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                try:
                    quick.submit(square, 1)
                except RuntimeError:
                    os._exit(3)  # the workers belong to the parent
                finally:
                    os._exit(4)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    thread = threading.Thread(target=fork)
    thread.start()
    assert [future.result() for future in futures] == [0.001] * 200
    thread.join(60)
    assert codes == [3] * 10


def use_an_executor(method: str, connection: Any) -> None:
    import maniple

    executor = maniple.ProcessPoolExecutor(2, maniple.get_context(method))
    futures = [executor.submit(sleep, 0.1) for _ in range(4)]
    for future in futures:
        future.add_done_callback(lambda done: connection.send(done.result()))


def test_a_child_that_ends_waits_for_the_calls_of_its_executor(mp: ModuleType, method: str) -> None:
    ours, theirs = mp.Pipe(duplex=False)
    child = mp.get_context(method).Process(target=use_an_executor, args=(method, theirs))
    child.start()
    theirs.close()
    assert [ours.recv() for _ in range(4)] == [0.1] * 4
    child.join(60)
    assert child.exitcode == 0


def test_executors_within_workers(mp: ModuleType, executor: Any) -> None:
    assert executor.submit(sum_by_executor, 10).result() == sum(number**2 for number in range(10))


def sum_by_executor(count: int) -> int:
    import maniple

    with maniple.ProcessPoolExecutor(2, maniple.get_context("fork")) as executor:
        return sum(executor.map(square, range(count)))


# ---------------------------------------------------------------- signal handlers


def in_other_thread(call: Callable[[], Any]) -> Any:
    thread, values = in_thread(call)
    thread.join()
    return values[0]


WAITS: dict[str, Callable[[Any, Any], Any]] = {
    "result": lambda _, future: future.result(),
    "exception": lambda _, future: future.exception() or 0.6,
    "map": lambda executor, _: next(executor.map(sleep, [0.6])),
}
HANDLERS: dict[str, Callable[[Any], Any]] = {
    "result": lambda executor: executor.submit(square, 3).result(20) == 9,
    "map": lambda executor: list(executor.map(square, [2, 3], timeout=20)) == [4, 9],
    "a thread's result": lambda executor: in_other_thread(lambda: executor.submit(square, 3).result(20)) == 9,
    "shutdown": lambda executor: executor.shutdown(cancel_futures=True) is None,
}


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("wait", WAITS)
def test_a_signal_handler_waits_for_the_executor_that_it_interrupts(mp: ModuleType, wait: str, handler: str) -> None:
    executor = mp.ProcessPoolExecutor(2, mp_context=mp.get_context("fork"))
    done: list[bool] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: done.append(HANDLERS[handler](executor)))
    try:
        assert list(executor.map(square, range(4))) == [0, 1, 4, 9]
        future = executor.submit(sleep, 0.6)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert WAITS[wait](executor, future) == 0.6
        limit = time.monotonic() + 30
        while not done and time.monotonic() < limit:  # a busy machine sends the signal late
            time.sleep(0.01)
        assert done == [True]
    finally:
        executor.shutdown()
        signal.signal(signal.SIGUSR1, before)
