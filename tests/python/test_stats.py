"""`Pool.stats`: its accounts with every kind of pool, and its forms as a table, a dict and text for Prometheus."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import multiprocessing.pool
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS, add, end_pool, identity, pid, sleep, square, wait_for_file
from prometheus_client.parser import text_string_to_metric_families

NewPool = Callable[..., Any]

every_method = pytest.mark.parametrize("kind", METHODS, indirect=True)
quick = pytest.mark.parametrize("kind", ["fork"], indirect=True)
ENDS = ("completed", "failed", "lost", "timed_out", "cancelled")


def is_balanced(stats: Any) -> bool:
    """Whether each received task counts once."""
    ended = sum(getattr(stats, f"tasks_{end}") for end in ENDS)
    return bool(stats.tasks_received == ended + stats.tasks_waiting + stats.tasks_running)


def ends_of(pool: Any) -> tuple[int, ...]:
    stats = pool.stats()
    assert is_balanced(stats), stats
    return tuple(getattr(stats, f"tasks_{end}") for end in ENDS)


def wait_until(found: Callable[[], bool], patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def begin_and_wait(folder: str, number: int) -> int:
    Path(folder, f"begun {number}").touch()
    wait_for_file(os.path.join(folder, "go"), 60)
    return number


def odd_fails(number: int) -> int:
    if number % 2:
        raise ValueError(number)
    return number


def die(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_first(path: str) -> int:
    with open(path, "a+") as tries:
        tries.write("x")
        tries.flush()
        tries.seek(0)
        if len(tries.read()) < 3:
            die()
    return 7


def test_the_classes_have_public_names(mp: ModuleType) -> None:
    module = importlib.import_module(f"{mp.__name__}.pool")
    with mp.Pool(1) as pool:
        pool.apply(abs, (-1,))
        stats = pool.stats()
    found = [type(stats), type(stats.running), type(stats.slowest[0]), type(stats.workers[0])]
    assert found == [module.PoolStats, module.Latency, module.SlowTask, module.WorkerStats]
    assert {kind.__module__ for kind in found} == {module.__name__}
    assert pickle.loads(pickle.dumps(stats)) == stats


def test_tasks_by_their_ends(new_pool: NewPool) -> None:
    pool = new_pool(2)
    stats = pool.stats()
    assert (stats.tasks_received, stats.workers_created, stats.max_workers_busy_concurrently) == (0, 2, 0)
    assert pool.map(square, range(100), 1) == [number * number for number in range(100)]
    with pytest.raises(ValueError, match="1"):
        pool.map(odd_fails, range(10), 1)
    assert pool.apply(add, (1, 2)) == 3
    assert len(list(pool.imap_unordered(identity, iter(range(20))))) == 20
    # The error of a call is raised before its other tasks have ended.
    wait_until(lambda: pool.stats().tasks_received == pool.stats().items_done)
    assert ends_of(pool) == (126, 5, 0, 0, 0)
    stats = pool.stats()
    assert (stats.tasks_launched, stats.tasks_retried, stats.items_done, stats.items_pending) == (131, 0, 131, 0)
    assert stats.running.count == 131
    wait_until(lambda: sum(worker.tasks_completed for worker in pool.stats().workers) == 126)
    assert [worker.number for worker in stats.workers] == [0, 1]
    assert 0 < stats.running.p50 <= stats.running.p90 <= stats.running.p99 <= stats.running.max < 10
    assert len(stats.slowest) == 5 and stats.slowest[0].duration == stats.running.max
    assert {slow.function for slow in stats.slowest} <= {"square", "odd_fails", "add", "identity"}


def test_a_chunk_is_a_task(new_pool: NewPool) -> None:
    pool = new_pool(2)
    pool.map(identity, range(100), 10)
    stats = pool.stats()
    assert (stats.tasks_completed, stats.items_done, stats.running.count) == (10, 100, 10)


def test_what_workers_do(new_pool: NewPool, kind: str, tmp_path: Path) -> None:
    pool = new_pool(2)
    results = pool.starmap_async(begin_and_wait, [(str(tmp_path), number) for number in range(5)], 1)
    assert wait_for_file(str(tmp_path / "begun 0")) and wait_for_file(str(tmp_path / "begun 1"))
    time.sleep(0.05)
    stats = pool.stats()
    assert is_balanced(stats)
    assert (stats.tasks_running, stats.tasks_waiting + stats.items_pending) == (2, 3)
    assert (stats.workers_alive, stats.workers_busy, stats.workers_idle, stats.workers_starting) == (2, 2, 0, 0)
    assert stats.max_workers_busy_concurrently == 2
    for worker in stats.workers:
        assert (worker.state, worker.task) == ("busy", "begin_and_wait")
        assert 0.05 <= worker.task_time <= worker.working_time < 60
    if kind != "thread":
        assert {worker.pid for worker in stats.workers} == {process.pid for process in pool._pool}
        assert all(worker.memory > 2**20 and worker.start_up_time > 0 for worker in stats.workers)
    (tmp_path / "go").touch()
    assert results.get(60) == list(range(5))
    wait_until(lambda: pool.stats().workers_idle == 2)
    stats = pool.stats()
    assert all(worker.task == "" and worker.task_time == 0 for worker in stats.workers)
    assert 0.1 <= stats.working_time and 0 < stats.working_ratio < 1
    before = stats.waiting_time
    time.sleep(0.1)
    assert pool.stats().waiting_time >= before + 0.15


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_pool_that_has_ended_answers_with_its_last_numbers(new_pool: NewPool, end: str) -> None:
    pool = new_pool(2)
    pool.map(square, range(50), 1)
    getattr(pool, end)()
    pool.join()
    assert ends_of(pool) == (50, 0, 0, 0, 0)
    stats = pool.stats()
    assert (stats.workers_alive, stats.workers_created) == (0, 2)
    assert {worker.state for worker in stats.workers} == {"ended"}
    assert sum(worker.tasks_completed for worker in stats.workers) == 50
    assert stats.working_time > 0


def test_tasks_that_terminate_drops_are_cancelled(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(2)
    for number in range(6):
        pool.apply_async(begin_and_wait, (str(tmp_path), number))
    assert wait_for_file(str(tmp_path / "begun 0")) and wait_for_file(str(tmp_path / "begun 1"))
    pool.terminate()
    assert ends_of(pool) == (0, 0, 0, 0, 6)
    (tmp_path / "go").touch()  # threads run to the end of their tasks
    pool.join()
    assert ends_of(pool) == (0, 0, 0, 0, 6)


@every_method
def test_lost_timed_out_and_cancelled_tasks(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(2)
    with pytest.raises(mp.pool.WorkerLostError):
        pool.apply(die)
    with pytest.raises(mp.pool.TaskTimeoutError):
        pool.apply(sleep, (60,), task_timeout=0.1)
    calls = [pool.apply_async(sleep, (60,)) for _ in range(5)]
    wait_until(lambda: pool.stats().tasks_running == 2)
    pool.cancel_all(kill=True)
    for call in calls:
        with pytest.raises(mp.pool.CancelledError):
            call.get(30)
    assert ends_of(pool) == (0, 0, 1, 1, 5)
    stats = pool.stats()
    assert stats.tasks_launched == 4
    assert sum(worker.tasks_lost for worker in stats.workers) == 1
    assert sum(worker.tasks_timed_out for worker in stats.workers) == 1
    assert stats.slowest[0].function == "sleep" and stats.slowest[0].duration >= 0.1
    wait_until(lambda: pool.stats().workers_idle == 2)
    assert pool.stats().workers_created == 6
    assert [worker.created for worker in pool.stats().workers] == [3, 3] or sum(
        worker.created for worker in pool.stats().workers
    ) == 6


@every_method
def test_a_task_that_is_tried_again_counts_once(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1)
    assert pool.apply(die_at_first, (str(tmp_path / "tries"),), retries=5) == 7
    assert ends_of(pool) == (1, 0, 0, 0, 0)
    stats = pool.stats()
    assert (stats.tasks_retried, stats.tasks_launched, stats.workers[0].tasks_lost) == (2, 3, 2)


@quick
def test_counts_of_resized_pools(new_pool: NewPool) -> None:
    pool = new_pool(1)
    pool.resize(3)
    wait_until(lambda: pool.stats().workers_idle == 3)
    pool.map(sleep, [0.01] * 30, 1)
    assert pool.stats().max_workers_busy_concurrently == 3
    pool.resize(1)
    wait_until(lambda: pool.stats().workers_alive == 1)
    stats = pool.stats()
    assert [worker.state for worker in stats.workers] == ["idle", "ended", "ended"]
    assert (ends_of(pool), stats.workers_created) == ((30, 0, 0, 0, 0), 3)


@quick
def test_workers_that_are_replaced_continue_their_counts(new_pool: NewPool) -> None:
    pool = new_pool(1, maxtasksperchild=5)
    assert len(set(pool.map(pid, range(20), 1))) == 4
    stats = pool.stats()
    assert (stats.tasks_completed, stats.workers[0].tasks_completed) == (20, 20)


def test_the_accounts_balance_while_100_000_tasks_run(new_pool: NewPool, kind: str) -> None:
    pool = new_pool(2)
    wrong: list[Any] = []
    is_over = threading.Event()
    last = [0]

    def watch() -> None:
        while not is_over.is_set():
            stats = pool.stats()
            ended = sum(getattr(stats, f"tasks_{end}") for end in ENDS)
            if not is_balanced(stats) or stats.tasks_running > 2 or ended < last[0]:
                wrong.append((last[0], stats))
            last[0] = ended
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(5):
            assert len(pool.map(identity, range(20_000), 1)) == 20_000
    finally:
        is_over.set()
        watcher.join()
    assert not wrong, wrong[0]
    assert ends_of(pool) == (100_000, 0, 0, 0, 0)
    assert last[0] > 0


@quick
def test_the_accounts_balance_while_workers_are_killed(new_pool: NewPool) -> None:
    pool = new_pool(2)
    tasks = 200
    calls = [pool.apply_async(sleep, (0.01,)) for _ in range(tasks)]
    lost = 0
    while not all(call.ready() for call in calls):
        assert is_balanced(pool.stats())
        for process in list(pool._pool)[:1]:
            process.kill()  # it may have ended, and been waited for
        time.sleep(0.02)
    lost = sum(not call.successful() for call in calls)
    assert ends_of(pool) == (tasks - lost, 0, lost, 0, 0)
    wait_until(lambda: sum(worker.tasks_lost for worker in pool.stats().workers) == lost)


@quick
def test_waiting_is_the_time_before_a_worker_begins(new_pool: NewPool) -> None:
    pool = new_pool(1)
    pool.apply(square, (1,))
    calls = [pool.apply_async(sleep, (0.2,)) for _ in range(3)]
    # The outcomes arrive long before they are taken, and so before the hub counts them.
    time.sleep(5)
    assert [call.get(30) for call in calls] == [0.2] * 3
    stats = pool.stats()
    assert 0.35 < stats.waiting.max < 4.5
    assert 0.15 < stats.running.max < 4.5
    assert 0.5 < stats.waiting.total < 4.9


@quick
def test_a_long_task_counts_in_full(new_pool: NewPool) -> None:
    # 2**32 ns are 4.3 s.
    pool = new_pool(1)
    pool.apply(sleep, (4.5,))
    stats = pool.stats()
    assert 4.5 <= stats.running.max < 8 and 4.5 <= stats.workers[0].working_time < 8
    assert 3 < stats.running.p50 <= stats.running.max


@quick
def test_the_parents_pool_in_a_forked_child(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(1)
    pool.apply(square, (2,))
    errors = mp.get_context("fork").SimpleQueue()

    def ask() -> None:
        for call in (pool.stats, lambda: pool.map(square, [1])):
            try:
                call()
            except Exception as error:
                errors.put((type(error).__name__, str(error)))

    child = mp.get_context("fork").Process(target=ask)
    child.start()
    child.join()
    (kind, text), other = errors.get(), errors.get()
    assert (kind, text) == other
    assert "forked child" in text


def test_threads_of_a_parent_in_a_forked_child(mp: ModuleType, pool_module: ModuleType) -> None:
    pool = pool_module.ThreadPool(1)
    try:
        told = mp.get_context("fork").SimpleQueue()

        def ask() -> None:
            try:
                pool.stats()
            except RuntimeError as error:
                told.put(str(error))

        child = mp.get_context("fork").Process(target=ask)
        child.start()
        child.join()
        assert "forked child" in told.get()
    finally:
        end_pool(pool)


@every_method
def test_a_pool_of_queues(kind: str, mp: ModuleType, warmed_up: Callable[[str], None]) -> None:
    class QueuePool(mp.pool.Pool):  # type: ignore[name-defined,misc]
        def _setup_queues(self) -> None:
            super()._setup_queues()

    warmed_up(kind)
    pool = QueuePool(2, context=mp.get_context(kind))
    try:
        assert pool.map(square, range(100), 10) == [number * number for number in range(100)]
        with pytest.raises(ValueError, match="1"):
            pool.apply(odd_fails, (1,))
        with pytest.raises(mp.pool.WorkerLostError):
            pool.apply(die)
        assert ends_of(pool) == (10, 1, 1, 0, 0)
        calls = [pool.apply_async(sleep, (60,)) for _ in range(4)]
        wait_until(lambda: pool.stats().tasks_running == 2)
        stats = pool.stats()
        assert (stats.tasks_waiting, stats.workers_busy, stats.items_done) == (2, 2, 102)
        assert {worker.task for worker in stats.workers} == {"sleep"}
        assert all(not call.ready() for call in calls)
    finally:
        end_pool(pool)
    assert ends_of(pool) == (10, 1, 1, 0, 4)


def test_a_pool_of_queues_and_threads(pool_module: ModuleType) -> None:
    class QueuePool(pool_module.ThreadPool):  # type: ignore[name-defined,misc]
        def _setup_queues(self) -> None:
            super()._setup_queues()

    pool = QueuePool(2)
    try:
        assert pool.map(square, range(10), 1) == [number * number for number in range(10)]
        assert ends_of(pool) == (10, 0, 0, 0, 0)
        assert pool.stats().workers_alive == 2
    finally:
        end_pool(pool)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_threads_of_which_none_is_left(pool_module: ModuleType) -> None:
    def refuse() -> None:
        raise SystemExit

    pool = pool_module.ThreadPool(1, initializer=refuse)
    try:
        with pytest.raises(pool_module.WorkerLostError):
            pool.apply(square, (1,))
        assert ends_of(pool) == (0, 0, 1, 0, 0)
    finally:
        end_pool(pool)


@quick
def test_its_forms(new_pool: NewPool) -> None:
    pool = new_pool(2)
    pool.map(identity, range(10), 1)
    stats = pool.stats()
    assert dataclasses.is_dataclass(stats)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.tasks_received = 0
    table = str(stats)
    assert "10 received: 10 completed" in table and "p99" in table
    heads = next(line for line in table.splitlines() if line.lstrip().startswith("worker ")).split()
    assert heads[:4] == ["worker", "pid", "state", "done"]
    assert str(stats.workers[1].pid) in table.splitlines()[-1]
    as_dict = json.loads(json.dumps(stats.as_dict()))
    assert as_dict["tasks_completed"] == 10 and as_dict["workers"][1]["number"] == 1
    assert as_dict["running"]["count"] == 10 and set(as_dict["slowest"][0]) == {"duration", "function"}
    assert set(as_dict) == {field.name for field in dataclasses.fields(stats)}


def test_text_for_prometheus(new_pool: NewPool) -> None:
    pool = new_pool(2)
    pool.map(identity, range(10), 1)
    label = 'thumb"nails\\ of\n2026'
    for labels in ({}, {"pool": label}):
        stats = pool.stats()
        text = stats.prometheus(**labels)
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert all(family.documentation and family.type != "unknown" for family in families.values())
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families.values()
            for sample in family.samples
        }
        assert len(samples) == sum(len(family.samples) for family in families.values()), "a sample comes twice"
        assert all(math.isfinite(value) for value in samples.values())
        own = sorted(labels.items())

        def sample(name: str, *more: tuple[str, str], own: list[tuple[str, str]] = own) -> float:
            return float(samples[(name, *sorted([*more, *own]))])  # noqa: B023

        assert sample("maniple_tasks_received_total") == 10
        assert sample("maniple_tasks_ended_total", ("end", "completed")) == 10
        assert sample("maniple_tasks", ("state", "running")) == 0
        assert sample("maniple_task_running_seconds_count") == 10
        assert sample("maniple_task_running_seconds", ("quantile", "0.99")) == pytest.approx(stats.running.p99)
        assert sample("maniple_worker_completed_total", ("worker", "1")) == stats.workers[1].tasks_completed
        assert families["maniple_task_running_seconds"].type == "summary"
        assert families["maniple_tasks_received"].type == "counter"
    for bad in ("9x", "with space", "worker", "größe"):
        with pytest.raises(ValueError, match="label"):
            pool.stats().prometheus(**{bad: "x"})


def test_the_standard_package_has_no_statistics() -> None:
    assert not hasattr(multiprocessing.pool.Pool, "stats")
