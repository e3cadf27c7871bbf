"""Limits of tasks and workers, cancelling, retries: what exceeds a limit ends alone, and the pool continues."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import limited
import psutil
import pytest
from pools import METHODS, identity, pid, sleep, square, wait_for_file

NewPool = Callable[..., Any]

every_method = pytest.mark.parametrize("kind", METHODS, indirect=True)
quick = pytest.mark.parametrize("kind", ["fork"], indirect=True)

SHORT = 0.3
LONG = 60.0


@pytest.fixture
def new_pool(new_pool: NewPool) -> NewPool:
    """As elsewhere, but a worker imports the functions as it starts: the limit of its first task would include that."""

    def new(processes: int | None = 2, **options: Any) -> Any:
        return new_pool(processes, **{"initializer": limited.ready, **options})

    return new


def wait_until(condition: Callable[[], bool], patience: float = 20.0) -> bool:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def has_ended(number: int) -> bool:
    try:
        return bool(psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# -- deadlines


@every_method
@pytest.mark.parametrize("endless", limited.ENDLESS)
def test_a_task_beyond_its_limit_ends_with_its_worker(new_pool: NewPool, mp: ModuleType, endless: Any) -> None:
    pool = new_pool(2)
    before = set(pool.map(pid, range(50), chunksize=1))
    with pytest.raises(mp.TaskTimeoutError, match=endless.__name__) as caught:
        pool.apply(endless, task_timeout=SHORT)
    error = caught.value
    assert isinstance(error, TimeoutError) and isinstance(error, mp.ManipleError)
    assert error.limit == SHORT and error.elapsed >= SHORT and error.task == endless.__name__
    assert wait_until(lambda: has_ended(error.pid))
    assert error.pid in before or before
    assert pool.map(square, range(20)) == [number * number for number in range(20)]
    assert error.pid not in pool.map(pid, range(50), chunksize=1)


@every_method
def test_the_processes_of_a_task_end_with_it(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(1)
    result = pool.apply_async(limited.start_a_family, (str(tmp_path),), task_timeout=1.0)
    with pytest.raises(mp.TaskTimeoutError):
        result.get()
    family = [int((tmp_path / name).read_text()) for name in ("child", "grandchild")]
    assert all(wait_until(lambda number=number: has_ended(number)) for number in family)  # type: ignore[misc]


@every_method
@pytest.mark.parametrize("call", ["map", "imap", "imap_unordered", "map_async", "imap of a generator", "starmap"])
def test_a_limit_counts_for_each_item(new_pool: NewPool, mp: ModuleType, call: str) -> None:
    pool = new_pool(2)
    jobs = [(item, 3) for item in range(8)]
    options = {"task_timeout": SHORT, "return_exceptions": True}
    if call == "map_async":
        got = pool.map_async(limited.endless_at, jobs, 4, **options).get()
    elif call == "imap of a generator":
        got = list(pool.imap(limited.endless_at, (job for job in jobs), 4, **options))
    elif call == "starmap":
        got = pool.starmap(limited.endless_at, [(job,) for job in jobs], 4, **options)
    else:
        got = list(getattr(pool, call)(limited.endless_at, jobs, 4, **options))
    errors = [value for value in got if isinstance(value, mp.TaskTimeoutError)]
    assert len(errors) == 1 and errors[0].task == "endless_at, item 3"
    assert sorted(value for value in got if isinstance(value, int)) == [0, 1, 2, 4, 5, 6, 7]
    if call != "imap_unordered":
        assert got[3] is errors[0]


@every_method
def test_a_limit_begins_with_the_task(new_pool: NewPool) -> None:
    # All but the first two wait longer than the limit.
    assert new_pool(2).map(sleep, [0.2] * 8, task_timeout=LONG / 60) == [0.2] * 8


@every_method
def test_the_pool_s_limit_is_the_default(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(1, task_timeout=SHORT)
    with pytest.raises(mp.TaskTimeoutError):
        pool.apply(sleep, (LONG,))
    with pytest.raises(mp.TaskTimeoutError):
        pool.map(sleep, [LONG])
    assert pool.apply(sleep, (2 * SHORT,), task_timeout=None) == 2 * SHORT
    assert pool.apply(sleep, (2 * SHORT,), task_timeout=LONG) == 2 * SHORT


@every_method
def test_the_time_that_the_caller_waits_is_another_limit(new_pool: NewPool, mp: ModuleType) -> None:
    result = new_pool(1).apply_async(sleep, (SHORT,), task_timeout=LONG)
    with pytest.raises(mp.TimeoutError) as caught:
        result.get(timeout=0.001)
    assert not isinstance(caught.value, mp.TaskTimeoutError)
    assert result.get() == SHORT


@every_method
def test_a_time_out_of_the_program_is_not_the_pool_s(new_pool: NewPool, mp: ModuleType) -> None:
    with pytest.raises(TimeoutError, match="of the program itself") as caught:
        new_pool(1).apply(limited.raise_timeout, task_timeout=LONG)
    assert not isinstance(caught.value, mp.TaskTimeoutError)


@every_method
def test_a_limit_holds_while_no_caller_waits(new_pool: NewPool, mp: ModuleType) -> None:
    ended: list[BaseException] = []
    told = threading.Event()

    def record(error: BaseException) -> None:
        ended.append(error)
        told.set()

    new_pool(1).apply_async(sleep, (LONG,), error_callback=record, task_timeout=SHORT)
    assert told.wait(20) and isinstance(ended[0], mp.TaskTimeoutError)


@every_method
def test_a_soft_limit_is_raised_in_the_task(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(1)
    worker = pool.apply(pid)
    told = pool.apply(limited.clean_up, (str(tmp_path),), soft_timeout=SHORT, task_timeout=LONG)
    assert told == "the task exceeded its soft_timeout of 0.3 s" and (tmp_path / "cleaned").exists()
    with pytest.raises(mp.SoftTimeoutError, match="soft_timeout"):
        pool.apply(sleep, (LONG,), soft_timeout=SHORT)
    assert pool.apply(pid) == worker
    # A task that catches it has the other limit.
    with pytest.raises(mp.TaskTimeoutError):
        pool.apply(limited.catch_everything, soft_timeout=SHORT / 3, task_timeout=SHORT)


@every_method
def test_a_soft_limit_holds_while_the_result_is_pickled(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(1)
    for result in (limited.SlowToPickle(), [1, limited.SlowToPickle()]):
        with pytest.raises(mp.SoftTimeoutError, match="soft_timeout of 0.3 s"):
            pool.apply(limited.same, (limited.Maker(result),), soft_timeout=SHORT, task_timeout=LONG)
    ended = pool.map(
        limited.same, [1, limited.Maker(limited.SlowToPickle())], soft_timeout=SHORT, return_exceptions=True
    )
    assert ended[0] == 1 and isinstance(ended[1], mp.SoftTimeoutError)
    assert pool.apply(sleep, (2 * SHORT,)) == 2 * SHORT


@every_method
def test_a_soft_limit_does_not_reach_the_next_task(new_pool: NewPool) -> None:
    pool = new_pool(1)
    results = [pool.apply_async(sleep, (0.01,), soft_timeout=0.0101) for _ in range(100)]
    assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    for result in results:
        result.wait()
    assert pool.apply(sleep, (0.2,)) == 0.2


@every_method
def test_workers_that_do_not_become_ready(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(1, initializer=sleep, initargs=(LONG,), worker_init_timeout=SHORT)
    with pytest.raises(mp.WorkerLostError, match="worker_init_timeout of 0.3 s"):
        pool.apply(pid)


@every_method
@pytest.mark.parametrize("begins", ["at once", "after a failed call"])
def test_the_limit_of_the_start_holds_while_the_pool_closes(new_pool: NewPool, mp: ModuleType, begins: str) -> None:
    pool = new_pool(2, initializer=sleep, initargs=(LONG,), worker_init_timeout=0.5)
    if begins != "at once":
        with pytest.raises(mp.WorkerLostError, match="worker_init_timeout"):
            pool.apply(square, (1,))
    pool.close()
    assert pool.join(timeout=LONG / 2)


@every_method
def test_a_slow_initializer_within_its_limit(new_pool: NewPool) -> None:
    assert new_pool(1, initializer=sleep, initargs=(SHORT,), worker_init_timeout=LONG).apply(square, (3,)) == 9


# -- cancelling


@every_method
def test_cancel_before_during_and_after(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(1)
    running = pool.apply_async(limited.tell_and_wait, (str(tmp_path), 1))
    assert wait_for_file(str(tmp_path / "begun 1"))
    waiting = pool.apply_async(limited.tell_and_wait, (str(tmp_path), 2))
    assert running.running() and not waiting.running() and not waiting.done()
    assert waiting.cancel() and not running.cancel()
    assert waiting.cancelled() and waiting.done() and not running.cancelled()
    with pytest.raises(mp.CancelledError, match="tell_and_wait"):
        waiting.get()
    (tmp_path / "go").touch()
    assert running.get() == 1 and running.done() and not running.running()
    assert not running.cancel(kill=True) and not running.cancelled()
    assert not (tmp_path / "begun 2").exists()


@every_method
def test_cancel_ends_a_running_task(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(2)
    result = pool.apply_async(limited.tell_and_wait, (str(tmp_path), 1))
    others = [pool.apply_async(square, (number,)) for number in range(50)]
    assert wait_for_file(str(tmp_path / "begun 1"))
    assert result.cancel(kill=True)
    with pytest.raises(mp.CancelledError):
        result.get(timeout=20)
    assert result.cancelled()
    assert [other.get() for other in others] == [number * number for number in range(50)]


@every_method
def test_cancel_a_map(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(2)
    result = pool.starmap_async(limited.tell_and_wait, [(str(tmp_path), number) for number in range(20)], 1)
    assert wait_for_file(str(tmp_path / "begun 0")) and wait_for_file(str(tmp_path / "begun 1"))
    assert result.cancel()
    (tmp_path / "go").touch()
    with pytest.raises(mp.CancelledError):
        result.get(timeout=20)
    assert result.cancelled() and pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    assert len(list(tmp_path.glob("begun *"))) == 2


@every_method
def test_cancel_an_imap(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(1)
    results = pool.imap(sleep, [0.0, LONG, 0.0, 0.0], chunksize=1)
    assert next(results) == 0.0
    assert results.cancel(kill=True)
    ends: list[BaseException] = []
    while not ends or not isinstance(ends[-1], StopIteration):
        with pytest.raises((mp.CancelledError, StopIteration)) as caught:
            results.next(timeout=20)
        ends.append(caught.value)
    # Calls that were not even made when the iterator was cancelled count as one.
    assert 2 <= len(ends) <= 4


@every_method
@pytest.mark.parametrize("kill", [False, True])
def test_cancel_all(new_pool: NewPool, mp: ModuleType, tmp_path: Path, kill: bool) -> None:
    pool = new_pool(1)
    results = [pool.apply_async(limited.tell_and_wait, (str(tmp_path), number)) for number in range(5)]
    assert wait_for_file(str(tmp_path / "begun 0"))
    pool.cancel_all(kill=kill)
    (tmp_path / "go").touch()
    for result in results[0 if kill else 1 :]:
        with pytest.raises(mp.CancelledError):
            result.get(timeout=20)
    if not kill:
        assert results[0].get() == 0
    assert pool.apply(square, (5,)) == 25


@every_method
def test_join_with_a_time_limit(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1)
    pool.apply_async(limited.tell_and_wait, (str(tmp_path), 0))
    pool.close()
    assert pool.join(timeout=0.1) is False
    (tmp_path / "go").touch()
    assert pool.join(timeout=60) is True and pool.join() is None


# -- retries


@every_method
@pytest.mark.parametrize("failing", ["die", "hang", "eat"])
def test_retries_after_each_kind_of_loss(new_pool: NewPool, mp: ModuleType, tmp_path: Path, failing: str) -> None:
    pool = new_pool(1, memory_limit="500MB")
    function = getattr(limited, f"{failing}_at_first")
    options = {"task_timeout": SHORT} if failing == "hang" else {}
    assert pool.apply(function, (str(tmp_path), 2), retries=2, **options) == 3
    kind = {"die": mp.WorkerLostError, "hang": mp.TaskTimeoutError, "eat": mp.MemoryLimitError}[failing]
    with pytest.raises(kind) as caught:
        pool.apply(function, (str(tmp_path), 100), retries=1, **options)
    assert limited.tries(str(tmp_path)) == 6
    (before,) = caught.value.earlier_errors
    assert type(before) is kind
    (note,) = caught.value.__notes__
    assert note.startswith(f"try 1 failed with {kind.__name__}: ")


@every_method
def test_no_retries_by_default(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(mp.WorkerLostError):
        new_pool(1).apply(limited.die_at_first, (str(tmp_path), 1))
    assert limited.tries(str(tmp_path)) == 2


@every_method
def test_an_ordinary_exception_is_tried_again_only_if_it_is_named(
    new_pool: NewPool, mp: ModuleType, tmp_path: Path
) -> None:
    pool = new_pool(1, retries=5)
    with pytest.raises(ConnectionError, match="try 1"):
        pool.apply(limited.fail_at_first, (str(tmp_path), 1))
    (tmp_path / "tries").unlink()
    retries = mp.Retries(3, initial_delay=0.01, on=(OSError,))
    assert pool.apply(limited.fail_at_first, (str(tmp_path), 2), retries=retries) == 3
    (tmp_path / "tries").unlink()
    with pytest.raises(ConnectionError, match="try 4") as caught:
        pool.apply(limited.fail_at_first, (str(tmp_path), 9), retries=retries)
    assert [str(error) for error in caught.value.earlier_errors] == ["try 1", "try 2", "try 3"]
    (tmp_path / "tries").unlink()
    # With `on`, a lost worker has to be named as well.
    with pytest.raises(mp.WorkerLostError):
        pool.apply(limited.die_at_first, (str(tmp_path), 1), retries=retries)
    both = mp.Retries(3, on=(OSError, mp.WorkerLostError))
    assert pool.apply(limited.die_at_first, (str(tmp_path), 2), retries=both) == 3


@every_method
def test_a_map_tries_only_what_failed_again(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(2)
    folders = [tmp_path / str(number) for number in range(6)]
    for folder in folders:
        folder.mkdir()
    jobs = [(str(folder), 1 if folder.name == "3" else 0) for folder in folders]
    assert pool.starmap(limited.die_at_first, jobs, 6, retries=3) == [1, 1, 1, 2, 1, 1]
    assert [limited.tries(str(folder)) for folder in folders] == [2, 2, 2, 3, 2, 2]


@quick
def test_pauses_between_tries_do_not_keep_a_pool_from_closing(
    new_pool: NewPool, mp: ModuleType, tmp_path: Path
) -> None:
    pool = new_pool(1)
    retries = mp.Retries(2, initial_delay=0.2, on=(OSError,))
    result = pool.apply_async(limited.fail_at_first, (str(tmp_path), 2), retries=retries)
    pool.close()
    assert pool.join(60) and result.get() == 3


# -- memory


@every_method
@pytest.mark.parametrize("eat", [limited.eat_in_steps, limited.eat_at_once])
def test_a_memory_limit(new_pool: NewPool, mp: ModuleType, eat: Any) -> None:
    pool = new_pool(2, memory_limit="300 MB")
    with pytest.raises(mp.MemoryLimitError, match="memory_limit of 300 MB") as caught:
        pool.apply(eat, (2_000_000_000,))
    error = caught.value
    assert isinstance(error, MemoryError) and error.limit == 300_000_000 and error.peak > error.limit
    assert error.task == eat.__name__ and wait_until(lambda: has_ended(error.pid))
    assert pool.map(square, range(20)) == [number * number for number in range(20)]


HELD = 400_000_000


@every_method
@pytest.mark.parametrize("option", ["memory_limit", "max_rss_per_worker"])
def test_memory_that_a_worker_inherits_does_not_count(new_pool: NewPool, option: str) -> None:
    held = bytearray(b"x") * HELD
    pool = new_pool(1, **{option: "150 MB"})
    workers = [pool.apply(limited.pid_after, (0.1,)) for _ in range(3)]
    assert len(set(workers)) == 1 and len(held) == HELD


@every_method
def test_shared_memory_and_mapped_files_do_not_count(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(1, memory_limit="150 MB")
    memory = mp.shared_memory.SharedMemory(create=True, size=HELD)
    try:
        assert pool.apply(limited.read_shared, (memory.name,)) == 0
    finally:
        memory.close()
        memory.unlink()
    with open(tmp_path / "file", "wb") as file:
        file.truncate(HELD)
    assert pool.apply(limited.read_file, (str(tmp_path / "file"),)) == 0


def eats_when_told(pool: Any, folder: Path) -> tuple[Any, Callable[[], bool]]:
    """Start a task, and return its result and a function.

    The function has the task exceed the memory limit, waits for the end of its worker, and returns whether that has ended.
    """
    result = pool.apply_async(limited.eat_when_told, (str(folder), 2_000_000_000))
    assert wait_for_file(str(folder / "begun 0"))
    workers = [worker.pid for worker in pool._pool]

    def exceed() -> bool:
        (folder / "go").touch()
        return wait_until(lambda: any(map(has_ended, workers)))

    return result, exceed


@every_method
def test_a_memory_limit_holds_while_an_iterator_is_slow(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(2, memory_limit="300 MB")
    result, exceed = eats_when_told(pool, tmp_path)
    ended: list[bool] = []

    def items() -> Iterator[int]:
        # So many that the iterator is read while the caller waits for results.
        yield from range(1000)
        ended.append(exceed())

    assert list(pool.imap(square, items())) == [number * number for number in range(1000)] and ended == [True]
    with pytest.raises(mp.MemoryLimitError):
        result.get()


@every_method
@pytest.mark.parametrize("others", [0, 3000])
def test_a_memory_limit_holds_while_an_item_is_pickled(
    new_pool: NewPool, mp: ModuleType, tmp_path: Path, others: int
) -> None:
    pool = new_pool(2, memory_limit="300 MB")
    result, exceed = eats_when_told(pool, tmp_path)
    ended: list[bool] = []

    class Slow:
        def __reduce__(self) -> tuple[type[int], tuple[int]]:
            ended.append(exceed())
            return int, (5,)

    # After many others, it is pickled while the caller, which waits for results, drives the pool.
    items = [*range(others), Slow()]
    assert pool.map(identity, items, chunksize=1) == [*range(others), 5]
    assert ended == [True]
    with pytest.raises(mp.MemoryLimitError):
        result.get()


@every_method
def test_a_worker_that_has_grown_is_replaced_after_its_task(new_pool: NewPool) -> None:
    pool = new_pool(1, max_rss_per_worker="150MB")
    first = pool.apply(pid)
    assert pool.apply(limited.grow, (200_000_000,)) == first
    assert pool.apply(pid) != first


# -- order


@every_method
def test_tasks_with_a_lower_priority_number_go_first(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1)
    first = pool.apply_async(limited.tell_and_wait, (str(tmp_path), 0))
    assert wait_for_file(str(tmp_path / "begun 0"))
    order: list[int] = []
    results = [
        pool.apply_async(identity, (priority,), callback=order.append, priority=priority)
        for priority in (3, 1, 2, -1, 0)
    ]
    (tmp_path / "go").touch()
    for result in results:
        result.get()
    assert first.get() == 0 and order == [-1, 0, 1, 2, 3]


@every_method
def test_an_urgent_call_goes_before_what_was_given_in_advance(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1)
    pool.map(limited.note_and_sleep, [(str(tmp_path / "quick"), 0.0)] * 50, 1)
    order = str(tmp_path / "order")
    low = [pool.apply_async(limited.note_and_sleep, ((order, 0.3),), priority=5) for _ in range(6)]
    assert wait_for_file(order)
    pool.apply(limited.note_and_sleep, ((order, 0.0),), priority=-1)
    # The one that ran, perhaps the one that began before the urgent call was received, and the urgent call.
    assert len(Path(order).read_text()) <= 3
    for result in low:
        result.get()


@every_method
def test_calls_share_the_workers(new_pool: NewPool) -> None:
    pool = new_pool(1)
    pool.apply(sleep, (0.01,))
    long = pool.map_async(sleep, [0.01] * 400, 1)
    short = pool.map_async(sleep, [0.01] * 4, 1)
    single = pool.apply_async(sleep, (0.01,))
    short.get()
    single.get()
    assert not long.ready() and long._number_left > 300
    long.cancel()


# -- what cannot be


@quick
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"task_timeout": 0}, ValueError, "task_timeout must be more than 0 seconds"),
        ({"task_timeout": -1.0}, ValueError, "task_timeout must be more than 0"),
        ({"task_timeout": float("nan")}, ValueError, "task_timeout must be more than 0"),
        ({"task_timeout": "1"}, TypeError, "task_timeout must be a number of seconds"),
        ({"task_timeout": True}, TypeError, "task_timeout must be a number of seconds"),
        ({"soft_timeout": 2, "task_timeout": 1}, ValueError, "must be less than task_timeout"),
        ({"retries": -1}, ValueError, "retries must be between"),
        ({"retries": 1.5}, TypeError, "retries must be an int or Retries"),
        ({"priority": "high"}, TypeError, "priority must be an int"),
        ({"priority": 2**40}, ValueError, "priority must fit"),
        ({"timeout": 1}, TypeError, "'timeout' is not an option of a (pool|call); task_timeout is its name here"),
        ({"task_timout": 1}, TypeError, "'task_timout' is not an option .*; did you mean task_timeout"),
        ({"progres": True}, TypeError, "'progres' is not an option .*; did you mean progress"),
    ],
)
def test_options_that_cannot_be(new_pool: NewPool, options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        new_pool(1, **options)
    pool = new_pool(1)
    for call in (lambda: pool.map(square, [1], **options), lambda: pool.imap(square, [1], **options)):
        with pytest.raises(error, match=match):
            call()
    assert pool.apply(square, (2,)) == 4


@quick
def test_an_option_of_a_pool_is_none_of_a_call(new_pool: NewPool) -> None:
    with pytest.raises(TypeError, match=r"'max_backlog' is an option of a pool, not of a call: pass it to Pool\(\)"):
        new_pool(1).map(square, [1], max_backlog=3)


@quick
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"memory_limit": 0}, ValueError, "memory_limit must be more than 0 bytes"),
        ({"memory_limit": "1KB"}, ValueError, "memory_limit must be 1 MB or more"),
        ({"memory_limit": "many"}, ValueError, 'such as "4GB"'),
        ({"memory_limit": 1.5}, TypeError, "memory_limit must be a number of bytes"),
        ({"max_rss_per_worker": "-1GB"}, ValueError, "max_rss_per_worker must be more than 0 bytes"),
        ({"worker_init_timeout": 0}, ValueError, "worker_init_timeout must be more than 0"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be 1 or more"),
        ({"max_tasks_per_child": 1, "maxtasksperchild": 1}, ValueError, "pass one of them"),
    ],
)
def test_options_of_a_pool_that_cannot_be(
    new_pool: NewPool, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        new_pool(1, **options)


@quick
def test_pauses_of_retries(new_pool: NewPool, mp: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"initial_delay \(100 s\) must not be more than max_delay \(60 s\)"):
        mp.Retries(3, initial_delay=100)
    assert mp.Retries(3, initial_delay=100, max_delay=100).initial_delay == 100
    assert mp.Retries(3, on=[OSError, KeyError]).on == (OSError, KeyError)


@quick
def test_sizes_as_text(new_pool: NewPool, mp: ModuleType) -> None:
    from maniple._impl.pool.options import bytes_of

    given = {"4GB": 4 * 10**9, "512MiB": 512 * 2**20, " 1.5 kB": 1500, "100": 100, "7B": 7, "1tib": 2**40}
    # A single letter counts as for docker and systemd.
    given |= {"4G": 2**32, "150M": 150 * 2**20, "1.5 k": 1536, "1t": 2**40, "4GiB": 2**32}
    assert {text: bytes_of("limit", text) for text in given} == given
    for text in ("4I", "G", "4GI", "4 G B", "4P", "-", "4GBB"):
        with pytest.raises(ValueError, match='such as "4GB", "4G" or "512MiB"'):
            bytes_of("limit", text)


@quick
def test_a_thread_pool_says_what_to_use_instead(new_pool: NewPool, mp: ModuleType) -> None:
    from maniple.pool import ThreadPool

    with pytest.raises(ValueError, match="a thread cannot be ended; use a Pool"):
        ThreadPool(1, task_timeout=1)
    with ThreadPool(1) as pool:
        with pytest.raises(ValueError, match="a thread cannot be ended; use a Pool"):
            pool.map(square, [1], task_timeout=1)
        assert pool.map(square, [3]) == [9]
        result = pool.apply_async(square, (3,))
        with pytest.raises(ValueError, match="a thread cannot be ended"):
            result.cancel(kill=True)
        assert result.get() == 9


@every_method
@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_cancelled_call_that_returns_its_exceptions_has_one_for_each_item(
    new_pool: NewPool, mp: ModuleType, kill: bool, begun: bool
) -> None:
    pool = new_pool(1)
    if begun:
        pool.map(identity, range(4))
    result = pool.map_async(sleep, [0.2] * 40, return_exceptions=True)
    if begun:
        assert wait_until(result.running)
    result.cancel(kill)
    got = result.get(LONG)
    assert len(got) == 40 and isinstance(got[-1], mp.CancelledError) and str(got[-1]).endswith("item 39")
    assert pool.map(square, [3]) == [9]


@quick
def test_the_end_of_the_pool_is_no_exception_of_an_item(new_pool: NewPool) -> None:
    pool = new_pool(1)
    results = [pool.map_async(sleep, [LONG] * 3, return_exceptions=True)]
    results += [pool.apply_async(sleep, (LONG,), return_exceptions=True)]
    stream = pool.imap(sleep, [LONG] * 3, return_exceptions=True)
    pool.terminate()
    for get in (*(result.get for result in results), stream.next):
        with pytest.raises(ValueError, match="it was terminated"):
            get()


@quick
def test_the_text_of_results_tells_what_has_become_of_them(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(1)
    first, second = (pool.apply_async(limited.tell_and_wait, (str(tmp_path), number)) for number in range(2))
    assert wait_for_file(str(tmp_path / "begun 0"))
    assert repr(first).endswith(" running>") and repr(second).endswith(" waiting>")
    second.cancel()
    (tmp_path / "go").touch()
    first.get()
    assert repr(first).endswith(" finished>") and repr(second).endswith(" cancelled>")
    late = pool.apply_async(sleep, (LONG,), task_timeout=0.1)
    late.wait()
    assert repr(late).endswith(" failed>")
    with pytest.raises(mp.TaskTimeoutError) as caught:
        late.get()
    assert repr(caught.value) == f"TaskTimeoutError({str(caught.value)!r})"


@quick
def test_the_errors_can_be_pickled(new_pool: NewPool, mp: ModuleType) -> None:
    for error in (
        mp.TaskTimeoutError("f, item 3", 1.5, 1.6, 77),
        mp.SoftTimeoutError(2.5),
        mp.MemoryLimitError("f", 1000, 2000, 77),
        mp.CancelledError("the call was cancelled: f"),
    ):
        error.add_note("a note")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)
        assert type(error).__module__ == "maniple.pool"


@quick
def test_a_worker_that_the_system_ends_for_lack_of_memory(new_pool: NewPool, mp: ModuleType) -> None:
    from maniple._impl.pool.payload import lost

    error = lost(77, -signal.SIGKILL, "", True, None, "f", 3, 1, True)
    assert "probably by the kernel, which has ended a process because memory ran out" in str(error)
    assert "memory" not in str(lost(77, -signal.SIGKILL, "", True, None, "f", 3, 1, False))


@quick
def test_limits_under_other_load(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(4)
    spinning = [pool.apply_async(limited.hold_the_interpreter, task_timeout=1.0) for _ in range(2)]
    limited_ones = [pool.apply_async(limited.block_in_c, task_timeout=SHORT) for _ in range(8)]
    others = pool.map_async(square, range(1000), 1)
    for result in (*limited_ones, *spinning):
        with pytest.raises(mp.TaskTimeoutError):
            result.get(timeout=60)
    assert others.get(timeout=60) == [number * number for number in range(1000)]
    assert os.getpid() not in pool.map(pid, range(200), 1)


PROGRAM = """
import os, sys
import {package} as mp

class InMain(Exception): pass

def fail_twice(path, kind):
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) < 3:
        raise kind("again")
    return os.path.getsize(path)

if __name__ == "__main__":
    class Local(Exception): pass

    ctx, path = mp.get_context(sys.argv[1]), sys.argv[2]
    with ctx.Pool(1, retries=mp.Retries(5, on=(InMain,))) as pool:
        print(pool.apply(fail_twice, (path, InMain)))
        os.remove(path)
        print(pool.apply(fail_twice, (path, Local), retries=mp.Retries(5, on=(Local,))))
"""


@every_method
def test_retries_on_classes_of_the_main_module(new_pool: NewPool, mp_package: str, kind: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(package=mp_package))
    command = [sys.executable, str(program), kind, str(tmp_path / "tries")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "3\n3\n"), done.stderr
