"""Pools inside a pool's worker."""

from __future__ import annotations

import importlib
import os
import signal
from typing import Any

from . import tasks
from .bench import Bench, until
from .registry import scenario


def sum_in_inner_pool(job: tuple[str, str, int]) -> int:
    package, method, item = job
    context = importlib.import_module(package).get_context(method)
    with context.Pool(2) as inner:
        total = sum(inner.map(abs, [-item] * 3))
        inner.close()
        inner.join()
    return total


def hold_inner_pool(job: tuple[str, str, str, str]) -> None:
    package, method, owners, folder = job
    tasks.announce(owners)
    context = importlib.import_module(package).get_context(method)
    with context.Pool(2) as inner:
        inner.map(tasks.announce_and_sleep, [folder] * 2, chunksize=1)


def start_inner_pool(bench: Bench, pool: Any) -> tuple[Any, int, list[int]]:
    """The outcome of a task that holds a busy pool, the pid of its worker, and those of the inner ones."""
    owners, folder = bench.folder(), bench.folder()
    outcome = pool.apply_async(hold_inner_pool, ((bench.package, bench.method, owners, folder),))
    until(lambda: outcome.ready() or len(os.listdir(folder)) == 2, "the inner pool to be busy")
    assert not outcome.ready(), bench.expect(Exception, outcome.get)
    return outcome, int(os.listdir(owners)[0]), [int(pid) for pid in os.listdir(folder)]


@scenario("pool inside a pool's worker")
def inner_pool(bench: Bench) -> None:
    with bench.pool() as pool:
        jobs = [(bench.package, bench.method, item) for item in range(4)]
        assert pool.map(sum_in_inner_pool, jobs, chunksize=1) == [0, 3, 6, 9]


@scenario("worker that owns a pool is SIGKILLed")
def owner_killed(bench: Bench) -> None:
    with bench.pool() as pool:
        outcome, owner, inner = start_inner_pool(bench, pool)
        os.kill(owner, signal.SIGKILL)
        bench.expect_lost(outcome.get, exitcode=-signal.SIGKILL, function="hold_inner_pool", pid=owner)
        bench.at("waiting for the inner workers to end")
        bench.assert_gone(inner)


@scenario("outer pool terminated while an inner one is busy")
def outer_terminated(bench: Bench) -> None:
    pool = bench.mp.Pool(2)
    _, _, inner = start_inner_pool(bench, pool)
    bench.at("terminate and join")
    pool.terminate()
    pool.join()
    bench.at("waiting for the inner workers to end")
    bench.assert_gone(inner)
