"""The names of the standard package's pools and results that programs read and set, on pools of all kinds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from pools import add, end_pool, fail, sleep, square, wait_for_file

better = pytest.mark.better_than_standard("the standard pool hangs or says nothing there")


def istarmap(pool_module: ModuleType, pool: Any, func: Any, iterable: Any, chunksize: int = 1) -> Iterator[Any]:
    """`starmap`, lazily, as programs add it to the pool."""
    pool._check_running()
    batches = pool_module.Pool._get_tasks(func, iterable, chunksize)
    result = pool_module.IMapIterator(pool)
    tasks = pool._guarded_task_generation(result._job, pool_module.starmapstar, batches)
    pool._taskqueue.put((tasks, result._set_length))
    return (item for chunk in result for item in chunk)


def until(condition: Callable[[], bool], patience: float = 20.0) -> bool:
    limit = time.monotonic() + patience
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.005)
    return True


# -- results


@pytest.mark.parametrize("chunksize", [1, 3, None])
def test_number_left_falls_to_nothing(shared_pool: Any, chunksize: int | None) -> None:
    outcome = shared_pool.map_async(sleep, [0.01] * 31, chunksize=chunksize)
    seen = []
    while not outcome.ready():
        seen.append(outcome._number_left * outcome._chunksize)
        time.sleep(0.005)
    assert outcome._chunksize == (chunksize or 4)
    assert seen == sorted(seen, reverse=True) and len(set(seen)) > 2 and max(seen) <= 33
    assert outcome._number_left == 0


def test_number_left_falls_without_being_waited_for(shared_pool: Any) -> None:
    outcome = shared_pool.map_async(square, range(100), chunksize=7)
    assert until(lambda: outcome._number_left == 0)
    assert outcome.get(30)[-1] == 99 * 99
    empty = shared_pool.map_async(square, [])
    assert (empty._number_left, empty._chunksize) == (0, 0)


def test_number_left_counts_chunks(shared_pool: Any, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    outcome = shared_pool.map_async(wait_for_file, [str(gate)] * 10, chunksize=4)
    assert (outcome._number_left, outcome._chunksize) == (3, 4)
    gate.touch()
    assert all(outcome.get(30))


def test_outcomes_of_results(shared_pool: Any, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    outcome = shared_pool.apply_async(wait_for_file, (str(gate),))
    assert not outcome._event.is_set() and not outcome._event.wait(0.01)
    assert outcome._job in outcome._cache and outcome._job in shared_pool._cache
    assert outcome._pool is shared_pool
    gate.touch()
    assert outcome._event.wait(30)
    assert (outcome._success, outcome._value) == (True, True)
    failed = shared_pool.map_async(fail, [KeyError("gone")])
    failed.wait(30)
    assert failed._success is False and isinstance(failed._value, KeyError)
    assert shared_pool.map_async(square, [1, 2])._value in ([None, None], [1, 4])


def test_callbacks_of_results(shared_pool: Any, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    told: list[Any] = []
    outcome = shared_pool.apply_async(wait_for_file, (str(gate),), callback=told.append)
    assert outcome._callback == told.append and outcome._error_callback is None
    gate.touch()
    assert outcome.get(30) and told == [True]


def test_results_accept_a_programs_attributes(shared_pool: Any) -> None:
    outcome = shared_pool.apply_async(square, (3,))
    outcome.number = 7
    assert (outcome.get(30), outcome.number) == (9, 7)


def test_iterators_have_their_progress(shared_pool: Any) -> None:
    results = shared_pool.imap(square, range(20))
    assert next(results) == 0
    assert until(lambda: results._index == 20)
    assert (len(results._items), results._length, len(results._unsorted)) == (19, 20, 0)
    assert len(list(results)) == 19 and len(results._items) == 0


# -- pools


def test_the_cache_has_the_jobs_that_have_not_ended(shared_pool: Any, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    assert until(lambda: not shared_pool._cache)
    outcomes = [shared_pool.apply_async(wait_for_file, (str(gate),)) for _ in range(5)]
    outcomes.append(shared_pool.apply_async(wait_for_file, (str(gate),), callback=id))
    assert len(shared_pool._cache) == 6
    assert set(shared_pool._cache) == {outcome._job for outcome in outcomes}
    assert shared_pool._cache[outcomes[5]._job] is outcomes[5]
    assert all(not job.ready() for job in shared_pool._cache.values())
    assert -1 not in shared_pool._cache
    gate.touch()
    assert all(outcome.get(30) for outcome in outcomes)
    assert until(lambda: len(shared_pool._cache) == 0)


def test_the_task_queue_counts_waiting_jobs(shared_pool: Any, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    outcomes = [shared_pool.apply_async(wait_for_file, (str(gate),)) for _ in range(20)]
    assert 0 <= shared_pool._taskqueue.qsize() <= 20
    gate.touch()
    assert all(outcome.get(30) for outcome in outcomes)
    assert shared_pool._taskqueue.qsize() == 0 and shared_pool._taskqueue.empty()
    assert shared_pool._inqueue.empty()


def test_a_pool_has_its_arguments(new_pool: Any, kind: str) -> None:
    options = {} if kind == "thread" else {"maxtasksperchild": 7}
    pool = new_pool(2, initializer=square, initargs=(3,), **options)
    assert pool._initializer is square and pool._initargs == (3,)
    assert pool._maxtasksperchild == options.get("maxtasksperchild")
    assert (pool._processes, len(pool._pool), pool._state) == (2, 2, "RUN")
    assert pool._worker_handler.is_alive() and pool._result_handler.is_alive() and pool._task_handler.is_alive()
    assert pool._ctx is not None and pool._wrap_exception is (kind != "thread")
    for name in ("_quick_put", "_quick_get"):
        assert callable(getattr(pool, name))
    assert pool._change_notifier.empty()


def test_a_pool_grows(new_pool: Any) -> None:
    pool = new_pool(1)
    assert pool.map(square, [3]) == [9]
    pool._processes = 3
    pool._repopulate_pool()
    assert len(pool._pool) == 3
    outcomes = [pool.apply_async(sleep, (0.2,)) for _ in range(3)]
    assert [outcome.get(30) for outcome in outcomes] == [0.2] * 3


@better
@pytest.mark.parametrize("kind", ["fork", "spawn"], indirect=True)
def test_maxtasksperchild_can_be_set(new_pool: Any) -> None:
    pool = new_pool(1)
    before = pool.apply(pid_of_worker)
    pool._maxtasksperchild = 1
    assert pool._maxtasksperchild == 1
    pool.apply(pid_of_worker)
    assert until(lambda: pool.apply(pid_of_worker) != before)


def pid_of_worker() -> int:
    import os

    return os.getpid()


@better
def test_a_missing_attribute_raises_an_explanation(new_pool: Any) -> None:
    pool = new_pool(1)
    outcome, results = pool.apply_async(square, (3,)), pool.imap(square, [1])
    refused = [
        lambda: setattr(pool, "_inqueue", None),
        lambda: setattr(pool, "_pool", []),
        lambda: setattr(pool._worker_handler, "_state", "TERMINATE"),
        lambda: pool._inqueue._reader,
        lambda: pool._inqueue.get(),
        lambda: pool._outqueue.put(None),
        lambda: pool._quick_get(),
        lambda: pool._taskqueue.get(),
        lambda: pool._cache[outcome._job].get() if outcome._job in pool._cache else refuse(),
        lambda: setattr(outcome, "_value", 1),
        lambda: outcome._event.set(),
        lambda: outcome._set(0, (True, 1)),
        lambda: results._set_length(3),
        lambda: results._cond.wait(),
        lambda: results._cond.__enter__(),
    ]
    for touch in refused:
        with pytest.raises(AttributeError):
            touch()
    with pytest.raises(ValueError, match="close"):
        pool._taskqueue.put(None)
    assert outcome.get(30) == 9 and next(results) == 1


def refuse() -> None:
    raise AttributeError


# -- tasks of a program's own


@pytest.mark.parametrize("chunksize", [1, 4])
def test_istarmap(shared_pool: Any, pool_module: ModuleType, chunksize: int) -> None:
    pairs = ((n, n) for n in range(50))
    sums = istarmap(pool_module, shared_pool, add, pairs, chunksize)
    assert list(sums) == [2 * n for n in range(50)]
    assert list(istarmap(pool_module, shared_pool, add, [], chunksize)) == []


def test_istarmap_raises_its_inputs_exception(shared_pool: Any, pool_module: ModuleType) -> None:
    def pairs() -> Iterator[tuple[int, int]]:
        yield 1, 2
        raise RuntimeError("no more pairs")

    sums = istarmap(pool_module, shared_pool, add, pairs())
    assert next(sums) == 3
    with pytest.raises(RuntimeError, match="no more pairs"):
        next(sums)


def test_istarmap_ends_after_the_pool_is_closed(new_pool: Any, pool_module: ModuleType) -> None:
    pool = new_pool(2)
    sums = istarmap(pool_module, pool, add, ((n, n) for n in range(500)), 3)
    pool.close()
    assert list(sums) == [2 * n for n in range(500)]
    pool.join()


@better
def test_istarmap_ends_with_the_pool(new_pool: Any, pool_module: ModuleType) -> None:
    pool = new_pool(2)
    sums = istarmap(pool_module, pool, sleep, ((0.1,) for _ in range(500)))
    assert next(sums) == 0.1
    end_pool(pool)
    with pytest.raises(ValueError, match="terminated"):
        list(sums)


@better
def test_a_programs_task_is_lost(new_pool: Any, kind: str, pool_module: ModuleType) -> None:
    if kind == "thread":
        return
    import os

    with pytest.raises(pool_module.WorkerLostError):
        list(istarmap(pool_module, new_pool(1), os._exit, [(7,)]))


def test_a_program_makes_handles(shared_pool: Any, pool_module: ModuleType) -> None:
    told: list[Any] = []
    one = pool_module.ApplyResult(shared_pool, told.append, None)
    assert shared_pool._cache[one._job] is one
    shared_pool._taskqueue.put(([(one._job, 0, add, (3,), {"two": 4})], None))
    assert (one.get(30), told) == (7, [7])
    many = pool_module.MapResult(shared_pool, 2, 3, None, None)
    batches = pool_module.Pool._get_tasks(square, [1, 2, 3], 2)
    tasks = shared_pool._guarded_task_generation(many._job, pool_module.mapstar, batches)
    shared_pool._taskqueue.put((tasks, None))
    assert many.get(30) == [1, 4, 9] and many._number_left == 0
    assert one._job not in shared_pool._cache and many._job not in shared_pool._cache


def test_a_program_has_its_own_mapper(shared_pool: Any) -> None:
    assert shared_pool._map_async(square, [1, 2, 3], backwards, 2).get(30) == [4, 1, 9]


def backwards(chunk: Any) -> list[Any]:
    func, items = chunk
    return [func(item) for item in reversed(items)]


def test_a_task_is_unsendable(shared_pool: Any, pool_module: ModuleType, shared_kind: str) -> None:
    if shared_kind == "thread":
        return
    sums = istarmap(pool_module, shared_pool, add, [(threading.Lock(), 1)])
    with pytest.raises(TypeError, match="pickle"):
        next(sums)


def test_dir_lists_readable_names(shared_pool: Any) -> None:
    assert {"_pool", "_cache", "_taskqueue", "_inqueue", "map"} <= set(dir(shared_pool))
