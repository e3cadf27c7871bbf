"""What values of the commonest types cost on their way through a pool: numbers, texts, lists, records, and what is in them twice.

Each case moves as many as the standard package moves in some milliseconds, several times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tasks
from adapters.base import NotOffered, PoolAdapter
from stage import Stage, expect

COUNT = 20_000


def mapped(items: Callable[[], Any]) -> Callable[[Stage], None]:
    """Items of a `map` with the usual chunks, of which nothing comes back."""

    def run(stage: Stage) -> None:
        values = items()
        with stage.pool() as pool:
            for _ in range(2 * stage.setting.repeats):
                expect(set(stage.timed(lambda: stage.library.map(pool, tasks.nothing, values))), {None})

    return run


def starmapped(stage: Stage) -> None:
    if not isinstance(stage.library, PoolAdapter):
        raise NotOffered("no starmap")
    pairs = [(1, 2)] * COUNT
    with stage.pool() as pool:
        for _ in range(2 * stage.setting.repeats):
            expect(set(stage.timed(lambda: pool.starmap(tasks.nothing, pairs))), {None})


def results(make: Callable[[int], Any], size: int, calls: int) -> Callable[[Stage], None]:
    """What comes back for a number alone."""

    def run(stage: Stage) -> None:
        sizes = [size] * calls
        wanted = make(size)
        with stage.pool() as pool:
            for _ in range(2 * stage.setting.repeats):
                got = stage.timed(lambda: stage.library.map(pool, make, sizes))
                expect(len(got), calls)
                expect(got[-1], wanted)

    return run


def one(items: Sequence[Any]) -> Callable[[Stage], None]:
    """A long list as the argument of one call."""

    def run(stage: Stage) -> None:
        with stage.pool() as pool:
            for _ in range(2 * stage.setting.repeats):
                expect(stage.timed(lambda: stage.library.call(pool, len, items)), len(items))

    return run


CASES: tuple[tuple[str, str, Callable[[Stage], None], float], ...] = (
    ("starmap-equal", "starmap, one pair 20,000 times", starmapped, 1.2),
    ("map-text", "map over a text, letter by letter", mapped(lambda: "x" * COUNT), 1.2),
    ("tuples-in", "map over tuples", mapped(lambda: [(number, str(number)) for number in range(COUNT)]), 1.2),
    ("lists-in", "map over lists of plain values", mapped(lambda: tasks.lists(COUNT)), 1.6),
    ("records-in", "map over records (dicts)", mapped(lambda: tasks.records(COUNT)), 1.6),
    ("records-back", "records as results", results(tasks.records, 200, 100), 1.6),
    ("lists-back", "lists of plain values as results", results(tasks.lists, 1000, 20), 1.6),
    ("ints-back", "lists of ints as results", results(tasks.ints, 1000, 100), 1.6),
    ("list-in", "a list of 200,000 ints as argument", one(list(range(200_000))), 1.2),
)
