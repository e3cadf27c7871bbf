"""The number of a pool's workers: resized, following the work, with spare workers; limited backlogs; the shared pool."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import limited
import pytest
from pools import METHODS, pid, sleep, square, wait_for_file

NewPool = Callable[..., Any]

every_method = pytest.mark.parametrize("kind", METHODS, indirect=True)
quick = pytest.mark.parametrize("kind", ["fork"], indirect=True)


def wait_for_size(pool: Any, size: int, patience: float = 30.0) -> bool:
    deadline = time.monotonic() + patience
    while len(pool._pool) != size:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@every_method
def test_a_pool_grows_and_shrinks(new_pool: NewPool) -> None:
    pool = new_pool(2)
    pool.resize(4)
    assert wait_for_size(pool, 4)
    assert pool.map(square, range(50)) == [number * number for number in range(50)]
    pool.resize(1)
    assert wait_for_size(pool, 1)
    assert len(set(pool.map(pid, range(20), 1))) == 1


# The interpreter reports an exception of a handler in a finalizer or a weak reference's callback, and continues.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@every_method
def test_a_signal_handler_interrupts_resize(new_pool: NewPool) -> None:
    def handler(number: int, frame: object) -> None:
        if armed:
            raise InterruptedError

    pool, armed = new_pool(1), False
    pool.apply(square, (1,))
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for turn in range(60):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 0.0002 * (turn % 20 + 1))
                pool.resize(turn % 3 + 1)
                time.sleep(0.01)
            except InterruptedError:
                pass
            finally:
                armed = False
        assert pool.map(square, range(20), 1) == [number * number for number in range(20)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    pool.close()
    assert pool.join(timeout=60)


@every_method
def test_resize_while_busy_loses_nothing(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(3)
    results = pool.starmap_async(limited.tell_and_wait, [(str(tmp_path), number) for number in range(12)], 1)
    assert all(wait_for_file(str(tmp_path / f"begun {number}")) for number in range(3))
    pool.resize(1)
    (tmp_path / "go").touch()
    assert results.get(60) == list(range(12))
    assert wait_for_size(pool, 1)
    assert pool.apply(square, (3,)) == 9


@every_method
def test_a_pool_whose_size_follows_the_work(new_pool: NewPool) -> None:
    pool = new_pool(3, min_processes=0, idle_timeout=0.3)
    assert len(pool._pool) == 0
    assert len(set(pool.map(limited.grow, [1000] * 6, 1))) > 1
    assert wait_for_size(pool, 0)
    assert pool.apply(square, (4,)) == 16
    assert wait_for_size(pool, 0)
    assert list(pool.imap(square, (number for number in range(5)))) == [0, 1, 4, 9, 16]


@quick
def test_the_least_number_of_workers_stays(new_pool: NewPool) -> None:
    pool = new_pool(4, min_processes=2, idle_timeout=0.2)
    assert len(pool._pool) == 2
    pool.map(sleep, [0.1] * 8, 1)
    assert wait_for_size(pool, 2)
    time.sleep(0.5)
    assert len(pool._pool) == 2


@every_method
def test_a_spare_worker_takes_the_place_of_one_that_ends(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(1, spare_workers=1)
    assert wait_for_size(pool, 2)
    first = pool.apply(pid)
    assert set(pool.map(pid, range(30), 1)) == {first}, "the spare worker gets no tasks"
    spare = next(process.pid for process in pool._pool if process.pid != first)
    with pytest.raises(mp.TaskTimeoutError):
        # The spare worker may still be starting.
        pool.apply(sleep, (60.0,), task_timeout=2.0)
    assert pool.apply(pid) == spare
    assert wait_for_size(pool, 2)


@every_method
def test_the_workers_of_a_smaller_pool_have_its_numbers(new_pool: NewPool) -> None:
    pool = new_pool(2)
    for size in (4, 2, 3, 1, 2):
        pool.resize(size)
        assert wait_for_size(pool, size)
        assert set(pool.map(limited.worker_number, [0.02] * 8, 1)) <= set(range(size))


@every_method
def test_a_smaller_pool_keeps_the_workers_that_answer(new_pool: NewPool) -> None:
    pool = new_pool(2)
    first, second = pool._pool
    assert pool.map(square, range(100), 1) == [number * number for number in range(100)]
    os.kill(first.pid, signal.SIGSTOP)
    try:
        # The pool notices that a worker does not begin its tasks.
        assert pool.map(square, range(100), 1) == [number * number for number in range(100)]
        pool.resize(1)
        assert set(pool.map_async(pid, range(20), 1).get(30)) == {second.pid}
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert wait_for_size(pool, 1)


@every_method
def test_a_pool_that_shrinks_while_workers_start_keeps_the_lowest_numbers(new_pool: NewPool) -> None:
    pool = new_pool(2)
    pool.map(limited.worker_number, [0.02] * 8, 1)
    for size in (3, 6):
        pool.resize(size)
        pool.resize(1)
        assert wait_for_size(pool, 1)
        assert set(pool.map(limited.worker_number, [0.02] * 4, 1)) == {0}


@every_method
@pytest.mark.parametrize("cost_is_known", [False, True])
def test_a_backlog_that_is_full(new_pool: NewPool, tmp_path: Path, cost_is_known: bool) -> None:
    pool = new_pool(1, max_backlog=2, backlog_full="raise")
    if cost_is_known:
        # Workers get short tasks in advance. These count as well.
        (tmp_path / "go").touch()
        for _ in range(20):
            pool.apply(limited.tell_and_wait, (str(tmp_path), 0))
        (tmp_path / "go").unlink()
        (tmp_path / "begun 0").unlink()
    results = [pool.apply_async(limited.tell_and_wait, (str(tmp_path), 0))]
    assert wait_for_file(str(tmp_path / "begun 0"))
    with pytest.raises(queue.Full, match="max_backlog"):
        for number in range(1, 10):
            results.append(pool.apply_async(limited.tell_and_wait, (str(tmp_path), number)))
    assert len(results) == 3
    (tmp_path / "go").touch()
    assert [result.get(60) for result in results] == [0, 1, 2]
    assert pool.apply(square, (2,)) == 4


@quick
def test_a_call_waits_for_room_in_the_backlog(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1, max_backlog=1)
    results: list[Any] = []

    def submit() -> None:
        for number in range(6):
            results.append(pool.apply_async(limited.tell_and_wait, (str(tmp_path), number)))

    thread = threading.Thread(target=submit)
    thread.start()
    assert wait_for_file(str(tmp_path / "begun 0"))
    thread.join(0.2)
    assert thread.is_alive() and len(results) <= 3
    (tmp_path / "go").touch()
    thread.join(60)
    assert [result.get(60) for result in results] == list(range(6))


@quick
def test_a_handler_may_make_a_call_while_a_call_waits_for_room(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1, max_backlog=1)
    results = [pool.apply_async(limited.tell_and_wait, (str(tmp_path), number)) for number in range(2)]
    assert wait_for_file(str(tmp_path / "begun 0"))
    handled: list[int] = []

    def handle(_signal: int, _frame: Any) -> None:
        (tmp_path / "go").touch()
        results[1].get(60)  # from here on the call below could have the room
        handled.append(pool.apply_async(square, (3,)).get(60))

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        results += [pool.apply_async(limited.tell_and_wait, (str(tmp_path), number)) for number in range(2, 5)]
        assert [result.get(60) for result in results] == list(range(5))
        while not handled:
            time.sleep(0.01)
        assert handled == [9]
    finally:
        signal.signal(signal.SIGUSR1, before)


@every_method
def test_threads_keep_the_limit_together(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1, max_backlog=2)
    first = pool.apply_async(limited.tell_and_wait, (str(tmp_path), 0))
    assert wait_for_file(str(tmp_path / "begun 0"))
    results: list[Any] = []
    threads = [threading.Thread(target=lambda n=n: results.append(pool.apply_async(square, (n,)))) for n in range(8)]
    for thread in threads:
        thread.start()
    threads[0].join(0.2)
    assert len(results) <= 2
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join(60)
    assert sorted(result.get(60) for result in results) == [n * n for n in range(8)] and first.get(60) == 0


@quick
def test_cancelled_calls_do_not_wait(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1, max_backlog=3, backlog_full="raise")
    first = pool.apply_async(limited.tell_and_wait, (str(tmp_path), 0))
    assert wait_for_file(str(tmp_path / "begun 0"))
    results = [pool.apply_async(square, (n,)) for n in range(3)]
    with pytest.raises(queue.Full):
        pool.apply_async(square, (3,))
    assert results[1].cancel() and results[2].cancel()
    results[1:] = [pool.apply_async(square, (n,)) for n in (1, 2)]
    with pytest.raises(queue.Full):
        pool.apply_async(square, (3,))
    (tmp_path / "go").touch()
    assert [result.get(60) for result in results] == [0, 1, 4] and first.get(60) == 0


@quick
def test_a_closed_pool_wakes_a_call_that_waits_for_room(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1, max_backlog=1)
    raised: list[BaseException] = []

    def submit() -> None:
        try:
            for number in range(6):
                pool.apply_async(limited.tell_and_wait, (str(tmp_path), number))
        except ValueError as error:
            raised.append(error)

    thread = threading.Thread(target=submit)
    thread.start()
    assert wait_for_file(str(tmp_path / "begun 0"))
    thread.join(0.2)
    pool.terminate()
    thread.join(30)
    assert not thread.is_alive() and raised


def test_the_shared_pools_options_may_be_arrays(mp: ModuleType) -> None:
    from maniple._impl.pool import shared

    numpy = pytest.importorskip("numpy")
    try:
        pool = mp.shared_pool(1, initializer=repr, initargs=(numpy.zeros(3),))
        assert mp.shared_pool(1, initializer=repr, initargs=(numpy.zeros(3),)) is pool
        other = mp.shared_pool(1, initializer=repr, initargs=(numpy.ones(3),))
        assert other is not pool and other.apply(square, (3,)) == 9
        other.terminate()
        other.join()
    finally:
        shared._forget()


@quick
def test_the_shared_pool(new_pool: NewPool, mp: ModuleType) -> None:
    from maniple._impl.pool import shared

    with pytest.raises(ValueError, match="at least 1"):
        mp.shared_pool(0)
    pool = mp.shared_pool(2, idle_timeout=0.2)
    try:
        assert mp.shared_pool(idle_timeout=0.2) is pool
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
        assert mp.shared_pool(3, idle_timeout=0.2) is pool and pool._processes == 3
        other = mp.shared_pool(idle_timeout=0.3)
        assert other is not pool and other._processes == 3 and other.apply(square, (3,)) == 9
        for call in (lambda: pool.apply(square, (3,)), lambda: pool.map(square, [3]), lambda: pool.imap(square, [3])):
            with pytest.raises(ValueError, match="not running: another part of the program called shared_pool"):
                call()
        other.terminate()
        again = mp.shared_pool(idle_timeout=0.3)
        assert again is not other and again.apply(square, (3,)) == 9
        again.terminate()
        again.join()
    finally:
        shared._forget()


@quick
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"min_processes": -1}, ValueError, "min_processes must be 0 or more"),
        ({"min_processes": 3}, ValueError, "must not be more than processes"),
        ({"min_processes": True}, TypeError, "min_processes must be an int"),
        ({"idle_timeout": 1}, ValueError, "idle_timeout needs min_processes"),
        ({"idle_timeout": 0, "min_processes": 0}, ValueError, "idle_timeout must be more than 0"),
        ({"spare_workers": -1}, ValueError, "spare_workers must be 0 or more"),
        ({"max_backlog": 0}, ValueError, "max_backlog must be 1 or more"),
        ({"max_backlog": 1, "backlog_full": "wait"}, ValueError, 'must be "block" or "raise"'),
    ],
)
def test_sizes_that_cannot_be(new_pool: NewPool, options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        new_pool(2, **options)


@quick
def test_resize_of_what_cannot_be(new_pool: NewPool) -> None:
    from maniple.pool import ThreadPool

    pool = new_pool(1)
    with pytest.raises(ValueError, match="processes must be 1 or more"):
        pool.resize(0)
    elastic = new_pool(3, min_processes=2)
    with pytest.raises(ValueError, match=r"processes \(1\) must not be less than min_processes \(2\)"):
        elastic.resize(1)
    assert elastic._processes == 3 and elastic.apply(square, (3,)) == 9
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.resize(2)
    with ThreadPool(1) as threads, pytest.raises(ValueError, match="cannot be resized"):
        threads.resize(2)


@quick
def test_a_resized_pool_still_follows_the_work(new_pool: NewPool) -> None:
    pool = new_pool(4, min_processes=2, idle_timeout=0.2)
    pool.resize(2)  # as many as `min_processes`
    pool.resize(4)
    pool.map(square, range(20), 1)
    assert wait_for_size(pool, 2)


@pytest.mark.parametrize("kind", ["spawn", "forkserver"], indirect=True)
def test_surplus_workers_end_that_become_ready_when_there_is_no_call(new_pool: NewPool) -> None:
    for _ in range(3):
        pool = new_pool(2)
        pool.map(square, range(4))
        pool.resize(4)
        pool.resize(1)  # at least two workers are still starting
        assert wait_for_size(pool, 1)
        elastic = new_pool(3, min_processes=0, idle_timeout=0.2)
        elastic.map(square, range(6), 1)  # ends before all workers are ready
        assert wait_for_size(elastic, 0)
