"""A worker dies in each of the pool's calls; the other items are not touched."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from . import tasks
from .bench import Bench
from .deaths import drain
from .registry import scenario

ITEMS, DOOMED = 8, 4


def job_list(log: str) -> list[tuple[str, int, str]]:
    return [(log, item, "sigkill" if item == DOOMED else "") for item in range(ITEMS)]


CALLS: dict[str, Callable[[Any, list], Any]] = {
    "map": lambda pool, jobs: pool.map(tasks.step, jobs, chunksize=1),
    "starmap": lambda pool, jobs: pool.starmap(tasks.step3, jobs, chunksize=1),
    "map_async": lambda pool, jobs: pool.map_async(tasks.step, jobs, chunksize=1).get(),
    "starmap_async": lambda pool, jobs: pool.starmap_async(tasks.step3, jobs, chunksize=1).get(),
}


@scenario("worker dies in {call}", call=list(CALLS))
def whole(bench: Bench, call: str) -> None:
    """The call raises for the lost item, after every other item has run once."""
    with bench.pool() as pool:
        log = bench.log()
        function = "step3" if "star" in call else "step"
        bench.expect_lost(
            lambda: CALLS[call](pool, job_list(log)), exitcode=-signal.SIGKILL, function=function, index=DOOMED
        )
        bench.at("a second call of the same kind")
        again = bench.log()
        jobs = [(again, item, "") for item in range(ITEMS)]
        assert CALLS[call](pool, jobs) == [item * 10 for item in range(ITEMS)]
        # Nothing is left to run of the first call: another one has come and gone.
        bench.assert_each_ran_once(log, range(ITEMS))


@scenario("worker dies in {call}", call=["imap", "imap_unordered"])
def iterated(bench: Bench, call: str) -> None:
    """The iterator raises in the lost item's place and then continues."""
    with bench.pool() as pool:
        log = bench.log()
        results, losses = drain(getattr(pool, call)(tasks.step, job_list(log)))
        results = results if call == "imap" else sorted(results)
        assert results == [item * 10 for item in range(ITEMS) if item != DOOMED]
        assert len(losses) == 1, losses
        bench.check_lost(losses[0], exitcode=-signal.SIGKILL, function="step", index=DOOMED)
        bench.assert_each_ran_once(log, range(ITEMS))


@scenario("worker dies in {call}", call=["apply", "apply_async"])
def single(bench: Bench, call: str) -> None:
    with bench.pool() as pool:
        log = bench.log()

        def run(pool: Any) -> Any:
            made = getattr(pool, call)(tasks.step, ((log, 1, "sigkill"),))
            return made if call == "apply" else made.get()

        bench.expect_lost(lambda: run(pool), exitcode=-signal.SIGKILL, function="step")
        bench.assert_each_ran_once(log, [1])


@scenario("error_callback is told of a worker lost in {call}", call=["apply_async", "map_async", "starmap_async"])
def callbacks(bench: Bench, call: str) -> None:
    with bench.pool() as pool:
        log = bench.log()
        told: list[tuple[str, Any]] = []
        done = threading.Event()

        def keep(kind: str) -> Callable[[Any], None]:
            def callback(value: Any) -> None:
                told.append((kind, value))
                done.set()

            return callback

        function = tasks.step3 if call == "starmap_async" else tasks.step
        arguments = [(job_list(log)[DOOMED],)] if call == "apply_async" else [job_list(log)]
        outcome = getattr(pool, call)(function, *arguments, callback=keep("value"), error_callback=keep("error"))
        assert done.wait(15), "neither callback was called"
        bench.check_lost(told[0][1], exitcode=-signal.SIGKILL, function=function.__name__)
        assert bench.expect(type(told[0][1]), outcome.get) is told[0][1]
        assert outcome.ready() and not outcome.successful()
        bench.assert_sound(pool)
        assert [kind for kind, _ in told] == ["error"], told


@scenario("good items' callbacks next to a lost worker")
def callbacks_of_the_others(bench: Bench) -> None:
    with bench.pool() as pool:
        log = bench.log()
        good: list[int] = []
        bad: list[BaseException] = []
        outcomes = [
            pool.apply_async(tasks.step, (job,), callback=good.append, error_callback=bad.append)
            for job in job_list(log)
        ]
        for outcome in outcomes:
            outcome.wait()
        assert [outcome.successful() for outcome in outcomes] == [item != DOOMED for item in range(ITEMS)]
        assert sorted(good) == [item * 10 for item in range(ITEMS) if item != DOOMED]
        assert len(bad) == 1
        bench.check_lost(bad[0], exitcode=-signal.SIGKILL, function="step")
        bench.assert_each_ran_once(log, range(ITEMS))
