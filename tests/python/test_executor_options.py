"""The pool's options of `maniple.ProcessPoolExecutor`, and the end of a running call."""

from __future__ import annotations

import asyncio
import concurrent.futures as cf
import importlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import limited
import pytest
from conftest import nothing_left
from pools import METHODS, fail, in_thread, pid, sleep, square, wait_for_file

LIMIT = 0.5
MANY = 10**9

NewExecutor = Callable[..., Any]


@pytest.fixture(params=METHODS)
def new_executor(
    request: pytest.FixtureRequest, mp: ModuleType, warmed_up: Callable[[str], None]
) -> Iterator[NewExecutor]:
    warmed_up(request.param)
    made: list[Any] = []

    def new(workers: int = 2, **options: Any) -> Any:
        # The import of this module is not what limits are about.
        options.setdefault("initializer", ready)
        executor = mp.ProcessPoolExecutor(workers, mp_context=mp.get_context(request.param), **options)
        made.append(executor)
        return executor

    with nothing_left(request.config):
        yield new
        for executor in made:
            executor.kill_workers()
            executor.shutdown()
        made.clear()


def ready() -> None:
    """Import this module in a worker that starts."""


def variable(name: str) -> str | None:
    return os.environ.get(name)


def drawn(number: int) -> tuple[int, float]:
    return number, random.random()


def touch_and_sleep(path: str) -> None:
    Path(path).touch()
    sleep(limited.FOREVER)


def touch(path: str) -> None:
    Path(path).touch()


@pytest.mark.parametrize("endless", limited.ENDLESS, ids=lambda function: function.__name__)
def test_a_call_beyond_its_time_limit_is_ended(
    new_executor: NewExecutor, mp: ModuleType, endless: Callable[[], None]
) -> None:
    executor = new_executor(1, task_timeout=LIMIT)
    future = executor.submit(endless)
    with pytest.raises(mp.TaskTimeoutError, match="0.5 s"):
        future.result()
    assert not future.cancelled()
    assert executor.submit(square, 3).result() == 9


def test_each_call_of_a_map_has_its_own_limit(new_executor: NewExecutor, mp: ModuleType) -> None:
    executor = new_executor(2, task_timeout=3 * LIMIT)
    assert list(executor.map(sleep, [LIMIT] * 8, chunksize=8)) == [LIMIT] * 8
    results = executor.map(sleep, [0.0, limited.FOREVER], chunksize=2)
    assert next(results) == 0.0
    with pytest.raises(mp.TaskTimeoutError):
        next(results)


def test_the_soft_limit_is_raised_in_the_call(new_executor: NewExecutor, mp: ModuleType) -> None:
    executor = new_executor(1, soft_timeout=LIMIT)
    with pytest.raises(mp.SoftTimeoutError):
        executor.submit(sleep, limited.FOREVER).result()


def test_a_call_whose_worker_dies_is_tried_again(new_executor: NewExecutor, mp: ModuleType, tmp_path: Path) -> None:
    executor = new_executor(2, retries=2)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    assert executor.submit(limited.die_at_first, str(tmp_path / "first"), 2).result() == 3
    with pytest.raises(mp.WorkerLostError) as lost:
        executor.submit(limited.die_at_first, str(tmp_path / "second"), 3).result()
    assert len(lost.value.earlier_errors) == 2


def test_a_call_is_tried_again_after_the_exceptions_that_are_named(
    new_executor: NewExecutor, mp: ModuleType, tmp_path: Path
) -> None:
    executor = new_executor(1, retries=mp.Retries(2, on=ConnectionError))
    assert executor.submit(limited.fail_at_first, str(tmp_path), 2).result() == 3
    with pytest.raises(KeyError):
        executor.submit(fail, KeyError("no")).result()


def test_a_worker_beyond_its_memory_limit_is_ended(new_executor: NewExecutor, mp: ModuleType) -> None:
    executor = new_executor(1, memory_limit="300MB")
    with pytest.raises(mp.MemoryLimitError):
        executor.submit(limited.eat_in_steps, MANY).result()
    assert executor.submit(square, 3).result() == 9


def test_workers_have_their_variables_and_folder(new_executor: NewExecutor, tmp_path: Path) -> None:
    executor = new_executor(2, env={"OF_THE_EXECUTOR": "yes"}, cwd=tmp_path, threads_per_worker=1)
    assert list(executor.map(variable, ["OF_THE_EXECUTOR", "OMP_NUM_THREADS"])) == ["yes", "1"]
    assert executor.submit(os.getcwd).result() == str(tmp_path)


def test_processors_are_shared_out_among_all_workers(new_executor: NewExecutor) -> None:
    allowed = os.sched_getaffinity(0)
    executor = new_executor(len(allowed), affinity="spread")
    workers = [executor.submit(sleep, LIMIT) for _ in range(2 * len(allowed))]
    cf.wait(workers)
    assert {len(executor.submit(os.sched_getaffinity, 0).result()) for _ in range(10)} == {1}


def test_a_finalizer_runs_when_the_workers_end(new_executor: NewExecutor, tmp_path: Path) -> None:
    executor = new_executor(1, finalizer=touch, finalargs=[str(tmp_path / "ended")])
    executor.submit(pid).result()
    executor.shutdown()
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize("is_view", [False, True])
def test_a_seed_makes_random_numbers_reproducible(new_executor: NewExecutor, is_view: bool) -> None:
    runs = []
    for workers, chunksize in ((1, 1), (2, 1), (2, 3)):
        executor = new_executor(workers, seed=7)
        calls = executor.options(priority=1) if is_view else executor
        runs.append(list(calls.map(drawn, range(9), chunksize=chunksize)))
        executor.shutdown()
    assert runs[0] == runs[1] == runs[2]
    assert len({number for _, number in runs[0]}) == 9


# ---- the end of a running call ----


def test_a_running_call_is_ended(new_executor: NewExecutor, tmp_path: Path) -> None:
    executor = new_executor(1)
    future = executor.submit(touch_and_sleep, str(tmp_path / "begun"))
    assert wait_for_file(str(tmp_path / "begun"))
    assert not future.cancel()
    assert future.cancel(kill=True)
    assert future.cancelled()
    assert future.done()
    with pytest.raises(cf.CancelledError):
        future.result()
    assert executor.submit(square, 3).result() == 9
    assert future.cancel(kill=True)


def test_whatever_waits_for_an_ended_call_learns_of_it(new_executor: NewExecutor, tmp_path: Path) -> None:
    executor = new_executor(1)
    future = executor.submit(touch_and_sleep, str(tmp_path / "begun"))
    told: list[bool] = []
    future.add_done_callback(lambda ended: told.append(ended.cancelled()))
    waits, outcomes = in_thread(lambda: cf.wait([future]))
    gets, raised = in_thread(lambda: isinstance(_error_of(future), cf.CancelledError))
    assert wait_for_file(str(tmp_path / "begun"))
    assert future.cancel(kill=True)
    for thread in (waits, gets):
        thread.join(limited.FOREVER)
    assert told == [True]
    assert outcomes[0].done == {future}
    assert raised == [True]


def _error_of(future: Any) -> BaseException | None:
    try:
        future.result()
    except BaseException as error:
        return error
    return None


def test_the_end_of_a_call_that_has_ended_changes_nothing(new_executor: NewExecutor) -> None:
    executor = new_executor(1)
    future = executor.submit(square, 3)
    assert future.result() == 9
    assert not future.cancel(kill=True)
    assert future.result() == 9


def test_a_call_that_has_not_begun_is_cancelled_and_no_worker_ends(new_executor: NewExecutor, tmp_path: Path) -> None:
    executor = new_executor(1)
    before = executor.submit(pid).result()
    first = executor.submit(wait_for_file, str(tmp_path / "go on"))
    second = executor.submit(pid)
    assert second.cancel(kill=True)
    touch(str(tmp_path / "go on"))
    assert first.result()
    assert executor.submit(pid).result() == before


def test_many_calls_are_ended_while_they_end(new_executor: NewExecutor) -> None:
    executor = new_executor(2)
    outcomes = []
    for number in range(60):
        future = executor.submit(sleep, 0.001 * (number % 4))
        if number % 3:
            threading.Event().wait(0.001 * (number % 5))
        outcomes.append((future.cancel(kill=True), future))
    for cancelled, future in outcomes:
        cf.wait([future])
        assert future.cancelled() == cancelled
    assert executor.submit(square, 3).result() == 9


def test_an_event_loop_awaits_calls_with_limits(new_executor: NewExecutor, mp: ModuleType) -> None:
    executor = new_executor(2, task_timeout=LIMIT)

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(executor, sleep, seconds) for seconds in (0.0, limited.FOREVER)]
        return await asyncio.gather(*calls, return_exceptions=True)

    first, second = asyncio.run(main())
    assert first == 0.0
    assert isinstance(second, mp.TaskTimeoutError)


# ---- options of single calls ----


def keywords(**given: Any) -> dict[str, Any]:
    return given


def test_a_view_has_options_for_its_calls_alone(new_executor: NewExecutor, mp: ModuleType) -> None:
    executor = new_executor(2)
    limited_calls = executor.options(task_timeout=LIMIT)
    slow, other = limited_calls.submit(sleep, limited.FOREVER), executor.submit(sleep, 2 * LIMIT)
    with pytest.raises(mp.TaskTimeoutError, match="0.5 s"):
        slow.result()
    assert other.result() == 2 * LIMIT
    assert isinstance(slow, cf.Future)
    assert limited_calls.submit(square, 3).result() == 9
    # Keywords of `submit` stay the function's.
    assert executor.submit(keywords, task_timeout=3).result() == {"task_timeout": 3}
    assert limited_calls.submit(keywords, retries=3).result() == {"retries": 3}


def test_a_view_retries_its_calls(new_executor: NewExecutor, mp: ModuleType, tmp_path: Path) -> None:
    executor = new_executor(2)
    assert executor.options(retries=2).submit(limited.die_at_first, str(tmp_path), 2).result() == 3


def test_a_view_maps_each_call_as_a_task_of_its_own(new_executor: NewExecutor, mp: ModuleType) -> None:
    executor = new_executor(2)
    results = executor.options(task_timeout=3 * LIMIT).map(sleep, [0.0, limited.FOREVER], chunksize=2)
    assert next(results) == 0.0
    with pytest.raises(mp.TaskTimeoutError):
        next(results)
    for priority in (1, None):
        view = executor.options(priority=priority)
        assert list(view.map(square, range(9), chunksize=3)) == [n * n for n in range(9)]


def test_a_view_changes_the_options_of_its_executor(new_executor: NewExecutor, mp: ModuleType) -> None:
    executor = new_executor(1, task_timeout=LIMIT, seed=7)
    assert executor.options(task_timeout=None).submit(sleep, 2 * LIMIT).result() == 2 * LIMIT
    with pytest.raises(mp.TaskTimeoutError):
        executor.options(retries=0).submit(sleep, limited.FOREVER).result()
    both = executor.options(retries=1).options(priority=2)
    assert "retries=1, priority=2" in repr(both)
    with pytest.raises(mp.TaskTimeoutError) as raised:
        both.submit(sleep, limited.FOREVER).result()
    assert len(raised.value.earlier_errors) == 1


def test_the_calls_of_a_view_have_the_seed_of_the_executor(new_executor: NewExecutor) -> None:
    executor = new_executor(1, seed=7)
    first = executor.options(priority=1).submit(drawn, 0).result()
    executor.shutdown()
    executor = new_executor(1, seed=7)
    assert executor.submit(drawn, 0).result() == first


def test_an_event_loop_runs_calls_by_a_view(new_executor: NewExecutor, mp: ModuleType) -> None:
    executor = new_executor(2)

    async def main() -> Any:
        return await asyncio.get_running_loop().run_in_executor(
            executor.options(task_timeout=LIMIT), sleep, limited.FOREVER
        )

    with pytest.raises(mp.TaskTimeoutError):
        asyncio.run(main())


def test_a_view_ends_with_its_executor(new_executor: NewExecutor) -> None:
    executor = new_executor(1)
    view = executor.options(priority=1)
    with view:
        assert view.submit(square, 3).result() == 9
    for submit in (view.submit, executor.submit, executor.options(priority=2).submit):
        with pytest.raises(RuntimeError, match="after shutdown"):
            submit(square, 3)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"task_timeout": 0}, ValueError, "task_timeout must be more than 0 seconds"),
        ({"retries": "two"}, TypeError, "retries must be an int or Retries"),
        ({"soft_timeout": 9}, ValueError, "soft_timeout .* must be less than task_timeout"),
        ({"timeout": 1}, TypeError, "not an option of an executor's call; task_timeout is its name here"),
        ({"priorty": 1}, TypeError, "did you mean priority"),
        ({"memory_limit": "1GB"}, TypeError, "an option of an executor, not of its calls"),
        ({"max_tasks_per_child": 3}, TypeError, r"not of its calls: pass it to ProcessPoolExecutor\(\)"),
        ({"return_exceptions": True}, TypeError, "'return_exceptions' is not an option of an executor's call"),
    ],
    ids=str,
)
def test_bad_options_of_a_view(mp: ModuleType, options: dict[str, Any], kind: type[Exception], words: str) -> None:
    executor = mp.ProcessPoolExecutor(2, task_timeout=5)
    with pytest.raises(kind, match=words):
        executor.options(**options)
    with pytest.raises(kind, match=words):
        executor.options(priority=1).options(**options)


def test_a_view_has_a_public_name(mp: ModuleType) -> None:
    with mp.ProcessPoolExecutor(1) as executor:
        view = executor.options(priority=1)
        assert type(view) is importlib.import_module(f"{mp.__name__}.executor").ExecutorView
        assert f"{type(view).__module__}.{type(view).__qualname__}" == f"{mp.__name__}.executor.ExecutorView"
        assert view.submit(square, 3).result() == 9


# ---- what the errors say ----


def wait_or_die(number: int) -> int:
    if number == 4:
        time.sleep(60)
    if number == 5:
        os._exit(3)
    return number


@pytest.mark.parametrize(
    ("options", "items", "chunksize", "named"),
    [
        ({"task_timeout": 0.5}, [0, 1, 2, 3, 4], 1, "item 4"),
        ({}, [0, 1, 2, 5], 1, "item 3"),
        ({}, [0, 1, 2, 3, 5], 3, "items 3 to 4"),
    ],
)
def test_errors_of_map_name_their_items(
    mp: ModuleType, options: dict[str, Any], items: list[int], chunksize: int, named: str
) -> None:
    with mp.ProcessPoolExecutor(2) as executor:
        with pytest.raises((mp.TaskTimeoutError, mp.WorkerLostError)) as raised:
            list(executor.options(**options).map(wait_or_die, items, chunksize=chunksize))
        assert raised.value.__notes__ == [f"The task that failed had {named} of the call."]
        with pytest.raises(mp.WorkerLostError) as alone:
            executor.submit(wait_or_die, 5).result()
        assert not hasattr(alone.value, "__notes__")


async def never_run() -> None:
    pass


def test_errors_of_submit_say_what_to_do(mp: ModuleType) -> None:
    with mp.ProcessPoolExecutor(1) as executor:
        with pytest.raises(TypeError, match="unexpected keyword argument") as raised:
            executor.submit(square, 3, task_timeout=3).result()
        assert "executor.options(task_timeout=...)" in raised.value.__notes__[0]
        with pytest.raises(TypeError, match="coroutine") as raised:
            executor.submit(never_run).result()
        assert "asyncio.run" in raised.value.__notes__[0]


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"task_timeout": 0}, ValueError, "task_timeout must be more than 0 seconds"),
        ({"task_timeout": "1"}, TypeError, "task_timeout must be a number"),
        ({"retries": -1}, ValueError, "retries must be between 0"),
        ({"soft_timeout": 2, "task_timeout": 1}, ValueError, "soft_timeout"),
        (
            {"return_exceptions": True},
            TypeError,
            "'return_exceptions' is not an option of an executor, but of a maniple.Pool",
        ),
        ({"max_backlog": 5}, TypeError, "'max_backlog' is not an option of an executor, but of a maniple.Pool"),
        ({"idle_timeout": 5}, TypeError, "but of a maniple.Pool; the options are task_timeout"),
        ({"options": 1}, TypeError, "not an option of an executor; (did you mean .*; )?the options are"),
        ({"min_workers": 1}, TypeError, "but of a maniple.Pool, which calls it min_processes; the options are"),
        ({"timeout": 1}, TypeError, "task_timeout is its name here"),
        ({"memory_limitt": 1}, TypeError, "did you mean memory_limit"),
        ({"finalargs": (1,)}, ValueError, "finalargs needs finalizer"),
        ({"accelerators": [0]}, ValueError, "2 workers cannot have an accelerator each"),
        ({"spare_workers": -1}, ValueError, "spare_workers"),
    ],
    ids=str,
)
def test_bad_options(mp: ModuleType, options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        mp.ProcessPoolExecutor(2, **options)


def test_arguments_of_the_initializer_that_are_no_tuple(mp: ModuleType) -> None:
    with pytest.raises(TypeError, match="initargs must be a tuple of the arguments of initializer, not 5 of type int"):
        mp.ProcessPoolExecutor(1, initializer=print, initargs=5)


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_the_end_of_all_workers_leaves_no_call_to_its_retries(
    new_executor: NewExecutor, mp: ModuleType, tmp_path: Path, how: str
) -> None:
    executor = new_executor(2, retries=mp.Retries(5, initial_delay=0.01), task_timeout=60)
    begun = [executor.submit(touch_and_sleep, str(tmp_path / str(n))) for n in range(2)]
    waiting = [executor.submit(sleep, 0.01) for _ in range(3)]
    assert all(wait_for_file(str(tmp_path / str(n))) for n in range(2))
    getattr(executor, how)()
    for future in begun:
        with pytest.raises(mp.WorkerLostError):
            future.result(30)
    assert all(future.cancelled() for future in waiting)
    executor.shutdown()
