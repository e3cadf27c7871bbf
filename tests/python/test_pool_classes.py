"""Subclasses of the pool, and programs that replace its parts: the pool calls the overrides, and no failure hangs."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import unittest.mock
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
from conftest import nothing_left
from pools import METHODS, add, end_pool, fail, pid, sleep, square
from queue_pools import (
    Deadly,
    Sealed,
    Unreadable,
    classes,
    give_unreadable,
    opened,
    raise_what_cannot_return,
    seal,
    started_by,
)

NAMES = ("OwnQueues", "ContextsQueues", "Named", "Static", "OwnWorkers", "Generates")
CALLED = {
    "OwnQueues": "_setup_queues",
    "ContextsQueues": "_setup_queues",
    "Named": "_repopulate_pool",
    "Static": "_repopulate_pool_static",
    "OwnWorkers": "_repopulate_pool",
    "Generates": "_guarded_task_generation",
}
better = pytest.mark.better_than_standard("the standard pool hangs there")


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, warmed_up: Callable[[str], None]) -> str:
    warmed_up(request.param)
    return request.param


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def made(
    request: pytest.FixtureRequest,
    mp: ModuleType,
    pool_module: ModuleType,
    method: str,
    calls: list[str],
) -> Iterator[Callable[..., Any]]:
    """Makes a pool of a class by its name (`queue_pools.classes`), or of a class."""
    pools: list[Any] = []

    def make(cls: Any, processes: int = 2, **options: Any) -> Any:
        if isinstance(cls, str):
            cls = classes(pool_module, calls)[cls]
        pools.append(cls(processes, context=mp.get_context(method), **options))
        return pools[-1]

    with nothing_left(request.config):
        yield make
        while pools:
            end_pool(pools.pop())


def get(outcome: Any) -> Any:
    return outcome.get(30)


# -- overrides are called


@pytest.mark.parametrize("name", NAMES)
def test_overridden_methods_of_a_class_are_called(made: Any, calls: list[str], name: str) -> None:
    pool = made(name)
    assert get(pool.map_async(square, range(100))) == [square(n) for n in range(100)]
    assert list(pool.imap(square, range(20), chunksize=3)) == [square(n) for n in range(20)]
    assert sorted(pool.imap_unordered(square, map(int, range(20)))) == [square(n) for n in range(20)]
    assert get(pool.apply_async(add, (1,), {"two": 2})) == 3
    assert get(pool.starmap_async(add, [(1, 2), (3, 4)], chunksize=1)) == [3, 7]
    assert get(pool.map_async(square, [])) == []
    with pytest.raises(KeyError, match="gone"):
        get(pool.apply_async(fail, (KeyError("gone"),)))
    assert CALLED[name] in calls
    pool.close()
    pool.join()


def test_items_travel_by_the_queues_of_the_class(made: Any) -> None:
    pool = made("OwnQueues", 1)
    assert get(pool.map_async(opened, [Sealed(1), Sealed(5)])) == [2, 10]
    assert get(pool.apply_async(seal, (3,))).number == 3


def test_the_class_starts_the_workers(made: Any) -> None:
    assert get(made("OwnWorkers").apply_async(started_by)) == "the subclass"
    assert {process.name for process in made("Named")._pool} == {"mine-0", "mine-1"}


def test_replaced_handlers_run(
    made: Any, pool_module: ModuleType, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Pool = pool_module.Pool
    results, finish = Pool._handle_results, Pool._help_stuff_finish

    def handle(outqueue: Any, get: Any, cache: Any) -> None:
        calls.append("_handle_results")
        results(outqueue, get, cache)

    def help_finish(inqueue: Any, task_handler: Any, size: int) -> None:
        calls.append("_help_stuff_finish")
        finish(inqueue, task_handler, size)

    monkeypatch.setattr(Pool, "_handle_results", staticmethod(handle))
    monkeypatch.setattr(Pool, "_help_stuff_finish", staticmethod(help_finish))
    pool = made(Pool)
    assert get(pool.map_async(square, [3])) == [9]
    pool.terminate()
    assert set(calls) == {"_handle_results", "_help_stuff_finish"}


def test_a_worker_function_put_into_the_module_runs(
    made: Any, pool_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "worker", started_by_worker)
    assert get(made(pool_module.Pool).apply_async(started_by)) == "the module"


def started_by_worker(inqueue: Any, outqueue: Any, *rest: Any) -> None:
    os.environ["STARTED_BY"] = "the module"
    while (task := inqueue.get()) is not None:
        job, place, func, args, kwds = task
        outqueue.put((job, place, (True, func(*args, **kwds))))


def test_overridden_queues_of_a_context_are_used(mp: ModuleType, pool_module: ModuleType, method: str) -> None:
    class Context:
        made = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(mp.get_context(method), name)

        def SimpleQueue(self) -> Any:
            Context.made += 1
            return mp.get_context(method).SimpleQueue()

    pool = pool_module.Pool(2, context=Context())
    assert get(pool.map_async(square, [2])) == [4]
    end_pool(pool)
    assert Context.made >= 2


def test_a_failed_start_of_a_pool_leaves_no_worker(mp: ModuleType, pool_module: ModuleType) -> None:
    started: list[Any] = []

    class Process:
        exitcode = None
        ended = False

        def __init__(self, **_: Any) -> None:
            self.name = "Process-1"

        def start(self) -> None:
            if len(started) == 2:
                raise OSError("no third one")
            started.append(self)

        def terminate(self) -> None:
            self.ended = True

        def join(self) -> None:
            assert self.ended

    with pytest.raises(OSError, match="no third one"):
        pool_module.Pool(3, context=unittest.mock.MagicMock(Process=Process))
    assert [process.ended for process in started] == [True, True]


def test_a_pool_of_threads_with_overridden_queues(pool_module: ModuleType, calls: list[str]) -> None:
    class Threads(pool_module.ThreadPool):
        def _setup_queues(self) -> None:
            calls.append("_setup_queues")
            super()._setup_queues()

    pool = Threads(2)
    assert get(pool.map_async(square, range(5))) == [0, 1, 4, 9, 16]
    assert list(pool.imap(square, map(int, range(5)))) == [0, 1, 4, 9, 16]
    end_pool(pool)
    assert calls == ["_setup_queues"]


def test_a_class_that_overrides_public_methods_only(made: Any, pool_module: ModuleType) -> None:
    class Wrapping(pool_module.Pool):
        def apply_async(self, func: Any, *args: Any, **kwds: Any) -> Any:
            return super().apply_async(square, *args, **kwds)

    assert made(Wrapping).apply(add, (3,)) == 9


# -- the class of `Process`, with the engine


def test_process_may_be_any_kind_of_method(made: Any, mp: ModuleType, pool_module: ModuleType, method: str) -> None:
    kind = mp.get_context(method).Process

    class Static(pool_module.Pool):
        @staticmethod
        def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
            return kind(*args, **kwds)

    class Bound(pool_module.Pool):
        def Process(self, ctx: Any, *args: Any, **kwds: Any) -> Any:
            return super().Process(ctx, *args, **kwds)

    for cls in (Static, Bound):
        assert made(cls).apply(square, (3,)) == 9


# -- failures


@better
@pytest.mark.parametrize("name", ["OwnQueues", "ContextsQueues", "OwnWorkers"])
def test_a_killed_worker_fails_its_task_alone(made: Any, pool_module: ModuleType, name: str) -> None:
    pool = made(name)
    around = [pool.apply_async(square, (n,)) for n in range(10)]
    dead = pool.apply_async(end_at_once)
    around += [pool.apply_async(square, (n,)) for n in range(10)]
    with pytest.raises(pool_module.WorkerLostError, match="SIGKILL"):
        get(dead)
    assert [get(outcome) for outcome in around] == 2 * [square(n) for n in range(10)]
    with pytest.raises(pool_module.WorkerLostError, match="item"):
        get(pool.map_async(end_at_once, [1], chunksize=1))


def end_at_once(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@better
def test_idle_workers_that_are_killed_are_replaced(made: Any) -> None:
    pool = made("OwnQueues")
    assert get(pool.map_async(square, [1])) == [1]
    for process in list(pool._pool):
        os.kill(process.pid, signal.SIGKILL)
    assert get(pool.map_async(square, range(50), chunksize=1)) == [square(n) for n in range(50)]


@better
@pytest.mark.parametrize("name", ["OwnQueues", "ContextsQueues"])
def test_an_unpicklable_result_fails_its_task_alone(made: Any, pool_module: ModuleType, name: str) -> None:
    pool = made(name)
    long = pool.apply_async(sleep, (0.5,))
    outcomes = [pool.apply_async(give_unreadable) for _ in range(5)] + [pool.apply_async(raise_what_cannot_return)]
    for outcome in outcomes:
        with pytest.raises(pool_module.ResultDecodeError):
            get(outcome)
    for argument in (Unreadable(), Deadly(os.getpid())):
        lost = pool.apply_async(square, (argument,))
        with pytest.raises((pool_module.ResultDecodeError, pool_module.WorkerLostError)):
            get(lost)
    assert get(long) == 0.5
    assert get(pool.map_async(square, range(50), chunksize=1)) == [square(n) for n in range(50)]


@better
def test_an_argument_that_cannot_be_unpickled_among_many(made: Any, pool_module: ModuleType) -> None:
    pool = made("ContextsQueues")
    outcomes = [pool.apply_async(square, (Unreadable() if n in (3, 17) else n,)) for n in range(30)]
    for n, outcome in enumerate(outcomes):
        if n in (3, 17):
            with pytest.raises(pool_module.ResultDecodeError):
                get(outcome)
        else:
            assert get(outcome) == square(n)


@better
def test_a_pool_ends_after_a_killed_worker(made: Any) -> None:
    pool = made("OwnQueues")
    outcome = pool.map_async(sleep, [0.1] * 4, chunksize=1)
    os.kill(pool._pool[0].pid, signal.SIGKILL)
    pool.close()
    pool.join()
    assert outcome.ready()


@better
def test_a_half_read_task_does_not_delay_the_end(mp: ModuleType) -> None:
    """A worker that ends while it reads a large task leaves bytes in the pipe that are not messages."""
    reader, writer = mp.Pipe(duplex=False)
    rest = bytes(8_000_000)

    def put() -> None:
        left = memoryview(rest)
        while left:
            left = left[os.write(writer.fileno(), left) :]

    handler = threading.Thread(target=put, daemon=True)
    handler.start()
    parts = importlib.import_module(f"{mp.__name__}._impl.pool.queue_pool").QueueParts
    parts._help_stuff_finish(SimpleNamespace(_reader=reader), handler, 1)
    handler.join(0)
    stuck = handler.is_alive()
    reader.close()
    handler.join()
    writer.close()
    assert not stuck


@better
@pytest.mark.parametrize("name", ["OwnQueues", "ContextsQueues"])
def test_terminate_ends_waiting_calls(made: Any, name: str) -> None:
    pool = made(name)
    outcome = pool.map_async(sleep, [60.0] * 20, chunksize=1)
    large = pool.apply_async(len, (bytes(4_000_000),))
    stream = pool.imap(sleep, map(float, [60.0] * 20))
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            get(outcome)
        except BaseException as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    end_pool(pool)
    waiting.join(20)
    assert isinstance(raised[0], ValueError)
    for end in (large.get, stream.next):
        with pytest.raises(ValueError, match="terminated"):
            end(1)


@better
def test_a_pool_fails_if_no_worker_becomes_ready(made: Any, pool_module: ModuleType) -> None:
    pool = made("ContextsQueues", initializer=end_at_once)
    for _ in range(2):
        with pytest.raises(pool_module.WorkerLostError, match="gets ready"):
            get(pool.map_async(square, range(10), chunksize=1))


def test_workers_are_replaced_after_their_tasks(made: Any) -> None:
    pool = made("ContextsQueues", maxtasksperchild=2)
    assert len(set(get(pool.map_async(pid, range(10), chunksize=1)))) >= 5


@better
def test_a_callbacks_exception_ends_nothing(made: Any) -> None:
    pool = made("ContextsQueues")
    told: list[Any] = []
    before, threading.excepthook = threading.excepthook, told.append
    try:
        outcome = pool.apply_async(square, (3,), callback=lambda _: 1 / 0)
        assert get(outcome) == 9
        assert get(pool.apply_async(square, (4,))) == 16
    finally:
        threading.excepthook = before
    assert told[0].exc_type is ZeroDivisionError


PROGRAM = """
import importlib, sys, time
sys.path.insert(0, {folder!r})
package = {package!r}
import queue_pools
from pools import sleep
if __name__ == "__main__":
    mp = importlib.import_module(package)
    cls = queue_pools.classes(importlib.import_module(package + ".pool"), [])["ContextsQueues"]
    pool = cls(2, context=mp.get_context({method!r}))
    pool.apply_async(sleep, (100,))
    print(*[process.pid for process in pool._pool], flush=True)
    time.sleep(100)
"""


@better
def test_workers_end_with_a_killed_program(mp_package: str, method: str, tmp_path: Any) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(folder=os.path.dirname(__file__), package=mp_package, method=method))
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        workers = [psutil.Process(int(number)) for number in running.stdout.readline().split()]
        time.sleep(0.2)
        running.kill()
        _, alive = psutil.wait_procs(workers, 20)
    for worker in alive:
        worker.kill()
    assert len(workers) == 2 and not alive
