"""Callbacks that fail, that are slow, and that use the pool themselves."""

from __future__ import annotations

import threading

from . import tasks
from .bench import Bench
from .registry import scenario


def fail(_: object) -> None:
    raise LookupError("the callback's own error")


@scenario("callback that raises, of {call}", call=["apply_async", "map_async"])
def raising(bench: Bench, call: str) -> None:
    with bench.pool() as pool:
        # The pool decides where the error is shown (a hook, a log); the result is valid.
        argument = (-1,) if call == "apply_async" else [-1]
        outcome = getattr(pool, call)(abs, argument, callback=fail)
        bench.at("the call whose callback raises")
        assert outcome.get() == (1 if call == "apply_async" else [1])


@scenario("error_callback that raises")
def raising_error_callback(bench: Bench) -> None:
    with bench.pool() as pool:
        outcome = pool.apply_async(tasks.raise_it, (KeyError("k"),), error_callback=fail)
        bench.expect(KeyError, outcome.get)


@scenario("error_callback that raises for a lost worker")
def raising_for_lost(bench: Bench) -> None:
    with bench.pool() as pool:
        outcome = pool.apply_async(tasks.die, ("exit_3",), error_callback=fail)
        bench.expect_lost(outcome.get, exitcode=3, function="die")


@scenario("error_callback that submits the lost task again")
def resubmitting(bench: Bench) -> None:
    with bench.pool() as pool:
        log = bench.log()
        done = threading.Event()
        second: list[object] = []

        def again(_: BaseException) -> None:
            pool.apply_async(tasks.step, ((log, 2, ""),), callback=lambda value: (second.append(value), done.set()))

        pool.apply_async(tasks.step, ((log, 1, "sigkill"),), error_callback=again)
        assert done.wait(15), "the second try did not come to its callback"
        assert second == [20]
        bench.assert_each_ran_once(log, [1, 2])
