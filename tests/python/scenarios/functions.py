"""Functions and arguments that plain pickle refuses: lambdas, closures, local classes."""

from __future__ import annotations

from functools import partial

from . import tasks
from .bench import Bench
from .registry import scenario


def adder(amount: int):
    def add(value: int, more: int = 0) -> int:
        return value + amount + more

    return add


@scenario("lambda as the function")
def as_lambda(bench: Bench) -> None:
    with bench.pool() as pool:
        for call, run in {
            "apply": lambda: pool.apply(lambda: 42) == 42,
            "apply_async": lambda: pool.apply_async(lambda value: value + 1, (1,)).get() == 2,
            "map": lambda: pool.map(lambda value: value * 2, range(100)) == list(range(0, 200, 2)),
            "starmap": lambda: pool.starmap(lambda one, two: one - two, [(5, 3), (3, 5)]) == [2, -2],
            "imap": lambda: list(pool.imap(lambda value: -value, range(10))) == [-n for n in range(10)],
            "imap_unordered": lambda: set(pool.imap_unordered(lambda n: n % 3, range(9))) == {0, 1, 2},
        }.items():
            bench.at(call)
            assert run(), call


@scenario("closure as the function")
def as_closure(bench: Bench) -> None:
    with bench.pool() as pool:
        assert pool.map(adder(5), [1, 2]) == [6, 7]
        assert pool.apply(adder(5), (1,), {"more": 10}) == 16
        assert pool.map(partial(adder(1), more=1), [1, 2]) == [3, 4]

        def raising(_: object) -> None:
            raise LookupError("from the closure")

        assert "from the closure" in str(bench.expect(LookupError, lambda: pool.map(raising, [1])))


@scenario("lambda, closure or local class as an argument")
def as_argument(bench: Bench) -> None:
    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

        def __call__(self) -> int:
            return self.value

    with bench.pool() as pool:
        assert pool.apply(tasks.call, (lambda: 7,)) == 7
        assert pool.map(tasks.call, [lambda: 1, partial(adder(1), 2), Local(4)]) == [1, 3, 4]
        assert list(pool.imap(tasks.call, (lambda n=n: n for n in range(5)))) == list(range(5))
        assert pool.starmap(tasks.call, [(lambda: 8,)]) == [8]
