"""The life of a Pool: made, used, recycled, closed, terminated, deleted."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS, end_pool, identity, make_pool, pid, sleep, square, store, stored, wait_for_file
from test_pool import ALL_CALLS

NewPool = Callable[..., Any]

# ThreadPool lacks it, or does not need it.
processes_only = pytest.mark.parametrize("kind", METHODS, indirect=True)
# For tests with many cases or many workers, for which the start method does not matter.
quick_kinds = pytest.mark.parametrize("kind", ["fork", "thread"], indirect=True)


# -- made


@pytest.mark.parametrize("processes", [0, -1])
def test_number_of_workers_below_one(new_pool: NewPool, processes: int) -> None:
    with pytest.raises(ValueError, match="process"):
        new_pool(processes)


@processes_only
@pytest.mark.parametrize("tasks", [0, -1, 1.5, "2"])
def test_wrong_maxtasksperchild(new_pool: NewPool, kind: str, tasks: Any) -> None:
    with pytest.raises(ValueError, match="maxtasksperchild must be a positive int or None"):
        new_pool(1, maxtasksperchild=tasks)


def test_the_initializer_is_not_callable(new_pool: NewPool) -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        new_pool(1, initializer=3)


def test_initializer_runs_in_each_worker(new_pool: NewPool) -> None:
    pool = new_pool(2, initializer=store, initargs=({"some": "state"},))
    assert pool.map(stored, range(10), chunksize=1) == [{"some": "state"}] * 10
    store(None)


@processes_only
@pytest.mark.better_than_standard("hangs")
def test_the_error_explains_a_failed_start_of_workers(new_pool: NewPool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_process: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    pool = new_pool(1)
    worker = pool._pool[0]
    monkeypatch.setattr(type(worker), "start", refused)
    os.kill(worker.pid, signal.SIGKILL)
    # A call that the worker had begun reports its death.
    for _ in range(100):
        with pytest.raises(Exception, match="no worker process can be started|killed by signal 9") as told:
            pool.apply(square, (2,))
        if "no worker" in str(told.value):
            break
    assert str(told.value).endswith("can be started: OSError: [Errno 38] Function not implemented")


def test_initargs_are_optional(new_pool: NewPool) -> None:
    assert new_pool(1, initializer=os.getpid).apply(square, (2,)) == 4


@quick_kinds
def test_default_number_of_workers(new_pool: NewPool, kind: str) -> None:
    pool = new_pool(None)
    assert 1 <= len(pool._pool) == pool._processes <= (os.cpu_count() or 1)
    assert pool.map(square, [2]) == [4]


def test_default_number_is_within_the_control_groups_share(
    pool_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(pool_module.os, "process_cpu_count", lambda: 8, raising=False)
    for share, workers in ((3, 3), (8, 8), (16, 8)):
        monkeypatch.setattr(f"{pool_module.__package__}._impl.pool.inputs.usable_cores", lambda share=share: share)
        assert pool_module.default_processes() == workers
    monkeypatch.setattr(pool_module.os, "process_cpu_count", lambda: 5)
    assert pool_module.default_processes() == 5, "what Python was told counts for more"


def test_private_names_that_programs_use(new_pool: NewPool, pool_module: ModuleType) -> None:
    pool = new_pool(2)
    assert len(pool._pool) == pool._processes == 2
    assert all(worker.is_alive() for worker in pool._pool)
    assert pool._state == pool_module.RUN
    pool.close()
    assert pool._state == pool_module.CLOSE
    pool.terminate()
    assert pool._state == pool_module.TERMINATE
    pool.join()


@processes_only
def test_workers_are_daemons_and_children(new_pool: NewPool, kind: str, mp: ModuleType) -> None:
    pool = new_pool(2)
    assert all(worker.daemon for worker in pool._pool)
    assert {worker.pid for worker in pool._pool} <= {child.pid for child in mp.active_children()}


def test_repr_names_the_state(new_pool: NewPool) -> None:
    pool = new_pool(2)
    assert "state=RUN" in repr(pool) and "pool_size=2" in repr(pool)
    pool.close()
    assert "state=CLOSE" in repr(pool)


# -- recycled


@processes_only
@pytest.mark.parametrize("chunksize", [1, 4])
def test_maxtasksperchild_replaces_workers(new_pool: NewPool, kind: str, chunksize: int) -> None:
    pool = new_pool(2, maxtasksperchild=3)
    pids = pool.map(pid, range(12 * chunksize), chunksize)
    shares = {each: pids.count(each) for each in set(pids)}
    # A task is a chunk here, as in the standard package.
    assert max(shares.values()) <= 3 * chunksize, shares
    assert len(shares) >= 4


@processes_only
def test_maxtasksperchild_of_one(new_pool: NewPool, kind: str) -> None:
    pool = new_pool(2, maxtasksperchild=1)
    pids = [pool.apply(pid) for _ in range(4)] + pool.map(pid, range(4), chunksize=1)
    assert len(set(pids)) == 8
    assert list(pool.imap(square, range(6))) == [square(n) for n in range(6)]


@processes_only
def test_initializer_runs_in_replacements(new_pool: NewPool, kind: str) -> None:
    pool = new_pool(1, initializer=store, initargs=(7,), maxtasksperchild=2)
    assert pool.map(stored, range(6), chunksize=1) == [7] * 6


# -- closed, joined, terminated


@quick_kinds
@pytest.mark.parametrize("end", ["close", "terminate"])
@pytest.mark.parametrize("call", ALL_CALLS)
def test_calls_after_the_end(new_pool: NewPool, kind: str, call: str, end: str) -> None:
    pool = new_pool(1)
    getattr(pool, end)()
    with pytest.raises(ValueError, match="Pool not running"):
        ALL_CALLS[call](pool)
    pool.join()
    with pytest.raises(ValueError, match="Pool not running"):
        ALL_CALLS[call](pool)


def test_join_of_a_running_pool(new_pool: NewPool) -> None:
    with pytest.raises(ValueError, match="Pool is still running"):
        new_pool(1).join()


def test_close_and_join_wait_for_all_tasks(new_pool: NewPool) -> None:
    pool = new_pool(2)
    outcomes = [pool.apply_async(sleep, (0.02,)) for _ in range(10)]
    many = pool.map_async(square, range(100), chunksize=1)
    results = pool.imap(square, map(int, range(100)))
    pool.close()
    pool.join()
    assert all(outcome.ready() for outcome in outcomes)
    assert many.get(0) == [square(n) for n in range(100)]
    assert list(results) == [square(n) for n in range(100)]


def test_ends_may_be_repeated(new_pool: NewPool) -> None:
    pool = new_pool(2)
    pool.close()
    pool.close()
    pool.join()
    pool.join()
    pool.terminate()
    pool.terminate()
    pool.join()


def test_join_in_another_thread_than_close(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(2)
    held = pool.apply_async(wait_for_file, (str(tmp_path / "gate"),))
    pool.close()
    joiners = [threading.Thread(target=pool.join, daemon=True) for _ in range(2)]
    for joiner in joiners:
        joiner.start()
    joiners[0].join(0.1)
    assert joiners[0].is_alive(), "join() returned before the last task had ended"
    (tmp_path / "gate").touch()
    for joiner in joiners:
        joiner.join(30)
        assert not joiner.is_alive()
    assert held.get(0) is True


@processes_only
def test_terminate_drops_waiting_calls(new_pool: NewPool, kind: str) -> None:
    pool = new_pool(2)
    waiting = [pool.apply_async(sleep, (30,)) for _ in range(10)]
    pool.terminate()
    pool.join()
    assert not any(outcome.ready() and outcome.successful() for outcome in waiting)


def test_with_block_returns_the_pool_and_terminates_it(new_pool: NewPool) -> None:
    pool = new_pool(2)
    with pool as same:
        assert same is pool
        assert same.map(square, [3]) == [9]
    with pytest.raises(ValueError, match="Pool not running"):
        pool.map(square, [3])
    with pytest.raises(ValueError, match="Pool not running"), pool:
        pytest.fail("a terminated pool cannot be entered")
    pool.join()


def test_with_block_lets_errors_through(new_pool: NewPool) -> None:
    with pytest.raises(LookupError, match="mine"), new_pool(1):
        raise LookupError("mine")


@processes_only
def test_deleted_pool_warns(kind: str, mp: ModuleType, new_pool: NewPool) -> None:
    pool = mp.get_context(kind).Pool(1)
    gone = weakref.ref(pool)
    try:
        with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
            del pool
            gc.collect()
        assert gone() is None
    finally:
        if (left := gone()) is not None:
            end_pool(left)


@processes_only
def test_closed_pool_is_deleted_in_silence(new_pool: NewPool, kind: str, mp: ModuleType) -> None:
    pool = mp.get_context(kind).Pool(1)
    assert pool.map(square, [1]) == [1]
    pool.close()
    pool.join()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del pool
        gc.collect()


@pytest.mark.parametrize("method", METHODS)
def test_open_objects_at_the_end_of_the_program(mp_package: str, method: str) -> None:
    program = f"""
import {mp_package} as mp
from {mp_package} import managers, shared_memory
def work():
    global pool, segment, manager, queue, ends
    ctx = mp.get_context({method!r})
    pool, segment = ctx.Pool(2), shared_memory.SharedMemory(create=True, size=100)
    manager, queue, ends = managers.SharedMemoryManager(ctx=ctx), ctx.Queue(), ctx.Pipe()
    manager.start()
    queue.put(1)
    print(pool.map(abs, [-1, 2]))
    segment.unlink()
work()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("[1, 2]\n", "", 0)


def test_results_outlive_their_pool(new_pool: NewPool) -> None:
    pool = new_pool(2)
    outcome = pool.map_async(identity, ["a" * 100_000, b"b" * 3_000_000])
    outcome.wait(30)
    end_pool(pool)
    assert outcome.get(0) == ["a" * 100_000, b"b" * 3_000_000]


def test_an_error_does_not_hold_its_pool(kind: str, mp: ModuleType) -> None:
    """The exception refers to frames that refer to the result: the collector must collect this cycle."""
    pool = make_pool(mp, kind, 1)
    there = weakref.ref(pool)

    def fail_in(pool: Any) -> None:
        outcome = pool.apply_async(square, ("no number",))
        with pytest.raises(TypeError) as caught:
            outcome.get(30)
        assert caught.value

    try:
        fail_in(pool)
    finally:
        end_pool(pool)
    hub = weakref.ref(pool._workers)
    del pool
    gc.collect()
    assert there() is None and hub() is None


@pytest.mark.parametrize("call", ["apply_async", "imap"])
def test_results_keep_their_pool(kind: str, mp: ModuleType, new_pool: NewPool, call: str) -> None:
    pool = make_pool(mp, kind, 1)
    outcome = pool.apply_async(sleep, (0.1,)) if call == "apply_async" else pool.imap(sleep, [0.1])
    there = weakref.ref(pool)
    del pool
    gc.collect()
    assert (pool := there()) is not None
    try:
        assert list([outcome.get(30)] if call == "apply_async" else outcome) == [0.1]
    finally:
        end_pool(pool)


@processes_only
def test_a_pool_keeps_nothing_of_ended_calls(new_pool: NewPool) -> None:
    pool = new_pool(2)
    outcomes = [pool.apply_async(square, (n,), callback=lambda _: None) for n in range(50)]
    for outcome in outcomes:
        outcome.get(30)
    del outcomes, outcome
    assert pool._hub.describe().count("held") == 0


def test_many_pools_one_after_the_other(new_pool: NewPool, kind: str) -> None:
    """Nothing may be left of any of them, as `new_pool` checks."""
    for n in range(10 if kind in ("fork", "thread") else 3):
        pool = new_pool(2)
        assert pool.map(square, [n]) == [n * n]
        pool.close()
        pool.join()


def test_two_pools_at_once(new_pool: NewPool) -> None:
    one, two = new_pool(2), new_pool(1)
    first, second = one.map_async(square, range(100)), two.map_async(square, range(100))
    assert first.get(30) == second.get(30) == [square(n) for n in range(100)]
    one.close()
    one.join()
    assert two.map(square, [5]) == [25]


# -- the package's functions for it


@pytest.mark.parametrize("method", METHODS)
def test_pool_class_takes_a_context(mp: ModuleType, pool_module: ModuleType, warmed_up: Any, method: str) -> None:
    warmed_up(method)
    with pool_module.Pool(1, context=mp.get_context(method)) as pool:
        assert pool.map(square, [2]) == [4]
        pool.close()
        pool.join()


def test_package_level_pool(mp: ModuleType, pool_module: ModuleType) -> None:
    with mp.Pool(processes=1) as pool:
        assert isinstance(pool, pool_module.Pool)
        assert pool.map(square, [2]) == [4]
        pool.close()
        pool.join()


def test_thread_pool_is_a_pool_and_shares_objects(mp: ModuleType, pool_module: ModuleType) -> None:
    marker = object()
    with pool_module.ThreadPool(2) as pool:
        assert isinstance(pool, pool_module.Pool)
        assert pool.apply(identity, (marker,)) is marker
        pool.close()
        pool.join()


@pytest.mark.better_than_standard("it has no such errors")
@pytest.mark.parametrize("name", ["WorkerLostError", "ResultDecodeError"])
def test_error_names(mp: ModuleType, pool_module: ModuleType, name: str) -> None:
    error = getattr(pool_module, name)
    assert issubclass(error, Exception)
    if name == "WorkerLostError":
        assert issubclass(error, RuntimeError) and mp.WorkerLostError is error


def test_worker_loop_for_pools_that_libraries_build(mp: ModuleType, pool_module: ModuleType) -> None:
    tasks, results = mp.SimpleQueue(), mp.SimpleQueue()
    process = mp.Process(target=pool_module.worker, args=(tasks, results, None, (), 3, True))
    process.start()
    for place, argument in enumerate((5, "five", 2)):
        tasks.put((1, place, square, (argument,), {}))
    assert results.get() == (1, 0, (True, 25))
    job, place, (succeeded, error) = results.get()
    assert (job, place, succeeded, type(error)) == (1, 1, False, TypeError) and error.__cause__ is not None
    assert results.get() == (1, 2, (True, 4))
    process.join(30)
    assert process.exitcode == 0


@pytest.mark.parametrize("end", ["close", "terminate"])
def test_a_call_during_the_pools_end_runs_its_callback(mp: Any, end: str) -> None:
    """The pool may detect the call's end, and end itself, before the calling thread continues."""
    for pause in range(20):
        with mp.Pool(1) as pool:
            results, told = [], []

            def submit(pool: Any = pool, results: list[Any] = results, told: list[Any] = told) -> None:
                with contextlib.suppress(ValueError):
                    while True:
                        results.append(pool.apply_async(abs, (-1,), callback=told.append, error_callback=told.append))

            caller = threading.Thread(target=submit)
            caller.start()
            time.sleep(0.002 + 0.0003 * pause)
            getattr(pool, end)()
            pool.join()
            caller.join()
            for result in results:
                result.wait(30)
                assert result.ready()
            assert len(told) == len(results)


class Held:
    """An object that a function refers to."""


@pytest.mark.better_than_standard("cannot pickle lambdas")
@pytest.mark.parametrize("kind", METHODS, indirect=True)
@pytest.mark.parametrize("call", ["apply", "map", "imap"])
def test_a_pool_releases_a_function_sent_by_value(new_pool: NewPool, call: str) -> None:
    pool = new_pool(1)

    def use() -> weakref.ref[Held]:
        held = Held()
        if call == "apply":
            assert pool.apply(lambda: 3 if held else 4) == 3
        else:
            assert list(getattr(pool, call)(lambda x: x + (3 if held else 4), [1, 2])) == [4, 5]
        return weakref.ref(held)

    gone = use()
    end = time.monotonic() + 20
    while gone() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert gone() is None


def test_an_ended_pool_leaves_no_cycles(mp: ModuleType) -> None:
    gc.collect()
    gc.disable()
    open_files = []
    try:
        for _ in range(4):
            pool = mp.get_context("fork").Pool(2)
            assert pool.map(abs, range(4)) == [0, 1, 2, 3]
            assert pool.apply_async(abs, (1,), callback=abs).get() == 1
            pool.terminate()
            pool.join()
            del pool
            open_files.append(len(os.listdir("/proc/self/fd")))
    finally:
        gc.enable()
    # The first may have opened what the package keeps.
    assert open_files[-1] <= open_files[0], open_files
