"""Initializers that fail: no endless row of new workers, and every call ends."""

from __future__ import annotations

import os
import signal
import time

from . import tasks
from .bench import Bench, full_text, until
from .registry import scenario

# Two workers, and some tries to replace them.
BOUND = 20


def starts(log: str) -> int:
    try:
        with open(log) as lines:
            return sum(1 for _ in lines)
    except FileNotFoundError:
        return 0


def fail(log: str, way: str) -> None:
    tasks.note(log, os.getpid())
    if way == "raise":
        raise LookupError("the initializer says no")
    tasks.die(way)


def fail_after_two(log: str, way: str) -> None:
    tasks.note(log, os.getpid())
    if starts(log) > 2:
        tasks.die(way)


def die_at_first(log: str, times: int) -> None:
    tasks.note(log, os.getpid())
    if starts(log) <= times:
        tasks.die("sigkill")


def check_no_more_starts(log: str) -> None:
    seen = starts(log)
    assert seen <= BOUND, f"{seen} workers were started for an initializer that fails"
    time.sleep(0.5)
    assert starts(log) <= seen + 2, f"still starting workers: {seen}, half a second later {starts(log)}"


@scenario("initializer ends by {way}", way=["raise", "sigkill", "exit_3"])
def always(bench: Bench, way: str) -> None:
    log = bench.log()
    bench.at("making the pool")
    try:
        pool = bench.mp.Pool(2, fail, (log, way))
    except Exception as error:  # a pool may also refuse to be made
        check_text(error, way)
        check_no_more_starts(log)
        return
    for call, run in {
        "apply": lambda: pool.apply(abs, (-1,)),
        "map": lambda: pool.map(abs, range(10)),
        "imap": lambda: list(pool.imap(abs, range(10))),
        "apply_async": lambda: pool.apply_async(abs, (-1,)).get(),
    }.items():
        bench.at(f"{call} on a pool whose initializer fails")
        error = bench.expect(Exception, run)
        if call == "apply":
            check_text(error, way)
    check_no_more_starts(log)
    bench.at("terminate and join")
    pool.terminate()
    pool.join()


def check_text(error: BaseException, way: str) -> None:
    expected = {"raise": "the initializer says no", "sigkill": "SIGKILL", "exit_3": "3"}[way]
    text = full_text(error)
    assert "initializer" in text and expected in text, f"{expected!r} is not named in: {text}"


@scenario("close and join after the initializer failed")
def closing(bench: Bench) -> None:
    log = bench.log()
    try:
        pool = bench.mp.Pool(2, fail, (log, "raise"))
    except Exception as error:
        check_text(error, "raise")
        return
    until(lambda: starts(log) >= 2, "the initializers to run")
    bench.at("close")
    pool.close()
    bench.at("join")
    pool.join()


@scenario("initializer fails in the replacements of dead workers")
def in_replacements(bench: Bench) -> None:
    log = bench.log()
    pool = bench.mp.Pool(2, fail_after_two, (log, "exit_3"))
    until(lambda: starts(log) >= 2, "the first two workers")
    assert pool.map(abs, [-1, -2]) == [1, 2]
    folder = bench.folder()
    outcomes = [pool.apply_async(tasks.announce_and_sleep, (folder,)) for _ in range(2)]
    waiting = pool.map_async(abs, range(4))
    for pid in bench.announced(folder, 2):
        os.kill(pid, signal.SIGKILL)
    for outcome in outcomes:
        bench.at("the tasks of the killed workers")
        bench.expect_lost(outcome.get, exitcode=-signal.SIGKILL, function="announce_and_sleep")
    bench.at("the call that waited behind them")
    bench.expect(Exception, waiting.get)
    bench.at("a new call")
    bench.expect(Exception, lambda: pool.apply(abs, (-1,)))
    check_no_more_starts(log)
    bench.at("terminate and join")
    pool.terminate()
    pool.join()


@scenario("the first workers are killed while they start")
def at_first(bench: Bench) -> None:
    """One less than what makes a pool of two give up."""
    log = bench.log()
    pool = bench.mp.Pool(2, die_at_first, (log, 2))
    bench.at("a map given before any worker is ready")
    assert pool.map(abs, range(-4, 0), 1) == [4, 3, 2, 1]
    until(lambda: starts(log) == 4, "as many workers as died to be started anew")
    bench.at("close and join")
    pool.close()
    pool.join()
