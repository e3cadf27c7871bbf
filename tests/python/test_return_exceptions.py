"""`return_exceptions=True`: the exception of an item takes the place of its result, for each way to fail; the others are kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from pools import METHODS

every_method = pytest.mark.parametrize("kind", METHODS, indirect=True)

COUNT = 7
PLACE = 3


def refuse() -> None:
    raise LookupError("it cannot be unpickled")


class Unreadable:
    def __reduce__(self) -> Any:
        return refuse, ()


class UnreadableError(Exception):
    def __init__(self, number: int, further: int) -> None:
        super().__init__(number)
        self.further = further


def faulty(number: int, fault: str) -> Any:
    if number != PLACE:
        return number
    if fault == "result that cannot be unpickled":
        return Unreadable()
    if fault == "result that cannot be pickled":
        return (number for number in range(3))
    if fault == "exception that cannot be unpickled":
        raise UnreadableError(number, 0)
    if fault == "death":
        os._exit(3)
    raise ValueError(fault)


FAULTS = {
    "exception": "ValueError",
    "result that cannot be unpickled": "ResultDecodeError",
    "result that cannot be pickled": "MaybeEncodingError",
    "exception that cannot be unpickled": "ResultDecodeError",
    "death": "WorkerLostError",
}


class Bound:
    """The function for one item, for methods that pass one argument."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __call__(self, number: int) -> Any:
        return faulty(number, self.fault)


def by_callback(pool: Any, fault: str) -> Any:
    called: list[Any] = []
    pool.map_async(Bound(fault), range(COUNT), callback=called.append, return_exceptions=True).wait(20)
    return called[0]


CALLS: dict[str, Callable[[Any, str], Any]] = {
    "map": lambda pool, fault: pool.map(Bound(fault), range(COUNT), return_exceptions=True),
    "map in chunks": lambda pool, fault: pool.map(Bound(fault), range(COUNT), 3, return_exceptions=True),
    "starmap": lambda pool, fault: pool.starmap(faulty, ((n, fault) for n in range(COUNT)), return_exceptions=True),
    "map_async": by_callback,
    "imap": lambda pool, fault: list(pool.imap(Bound(fault), range(COUNT), return_exceptions=True)),
    "imap_unordered": lambda pool, fault: sorted(
        pool.imap_unordered(Bound(fault), range(COUNT), return_exceptions=True),
        key=lambda result: PLACE if isinstance(result, Exception) else result,
    ),
    "apply": lambda pool, fault: [
        *range(PLACE),
        pool.apply_async(faulty, (PLACE, fault), return_exceptions=True).get(),
        *range(PLACE + 1, COUNT),
    ],
}


@every_method
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_the_exception_takes_the_place_of_the_result(new_pool: Callable[..., Any], call: str, fault: str) -> None:
    pool = new_pool(2)
    results = CALLS[call](pool, fault)
    assert [type(result).__name__ for result in results] == [
        FAULTS[fault] if number == PLACE else "int" for number in range(COUNT)
    ]
    assert results[:PLACE] == list(range(PLACE)) and results[PLACE + 1 :] == list(range(PLACE + 1, COUNT))
