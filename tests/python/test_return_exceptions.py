"""`return_exceptions=True`: the exception of an item takes the place of its result, for each way to fail; the others are kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import maniple
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


def two_and_a_failure(kind: type[BaseException]) -> Iterator[int]:
    yield 1
    yield 2
    raise kind("input")


@every_method
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_the_failure_of_the_input_is_no_item(
    new_pool: Callable[..., Any], call: str, error: type[BaseException]
) -> None:
    pool = new_pool(2)
    results = getattr(pool, call)(abs, two_and_a_failure(error), return_exceptions=True)
    taken = []
    with pytest.raises(error):
        while len(taken) < 4:
            taken.append(next(results))
    # Unordered, the failure may come before the results.
    taken += results
    assert sorted(taken) == [1, 2]
    assert pool.map(abs, [-1]) == [1]


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NoNotes(Exception):
    def add_note(self, note: str) -> None:
        raise RuntimeError("no notes")


class OtherNotes(Exception):
    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.__notes__ = "text"  # type: ignore[assignment]


def raise_a(kind: type[Exception]) -> None:
    raise kind("the task's own")


@every_method
@pytest.mark.parametrize("kind_of_error", [NoText, NoNotes, OtherNotes])
def test_exceptions_that_refuse_what_the_pool_adds(
    new_pool: Callable[..., Any], kind_of_error: type[Exception]
) -> None:
    pool = new_pool(1)
    retries = maniple.Retries(1, on=Exception)
    with pytest.raises(kind_of_error):
        pool.apply(raise_a, (kind_of_error,), retries=retries)
    (raised,) = pool.map(raise_a, [kind_of_error], retries=retries, return_exceptions=True)
    assert type(raised) is kind_of_error
    assert len(raised.earlier_errors) == 1


class Exiting:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def exiting_at_place(number: int) -> Any:
    return Exiting() if number == PLACE else number


@every_method
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_a_result_that_requests_the_end_of_the_program_does_not_stop_the_iterator(
    new_pool: Callable[..., Any], call: str
) -> None:
    results = getattr(new_pool(1), call)(exiting_at_place, range(COUNT))
    taken = []
    for _ in range(10 * COUNT):
        try:
            taken.append(next(results))
        except maniple.ResultDecodeError:
            pass
        except StopIteration:
            break
    assert taken == [number for number in range(COUNT) if number != PLACE]


class ExitingError(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


def exiting_error_at_place(number: int) -> int:
    if number == PLACE:
        raise ExitingError
    return number


@every_method
@pytest.mark.parametrize("func", [exiting_at_place, exiting_error_at_place])
@pytest.mark.parametrize("thread", ["the first", "another"])
def test_the_unpickling_that_exits_fails_its_item_alone(
    new_pool: Callable[..., Any], func: Callable[[int], Any], thread: str
) -> None:
    pool = new_pool(2)

    def results() -> list[list[Any]]:
        options = {"return_exceptions": True}
        found = [
            pool.map(func, range(COUNT), **options),
            pool.map(func, range(COUNT), 3, **options),
            pool.starmap(func, ((number,) for number in range(COUNT)), **options),
            list(pool.imap(func, range(COUNT), **options)),
            [pool.apply_async(func, (number,), **options).get() for number in range(COUNT)],
        ]
        for call in (lambda: pool.apply(func, (PLACE,)), lambda: pool.map(func, range(COUNT))):
            with pytest.raises(maniple.ResultDecodeError, match="SystemExit: 3"):
                call()
        result = pool.apply_async(func, (PLACE,))
        result.wait(20)
        assert not result.successful()
        return found

    if thread == "the first":
        found = results()
    else:
        with ThreadPoolExecutor(1) as threads:
            found = threads.submit(results).result()
    for ordered in found:
        assert [type(result).__name__ for result in ordered] == [
            "ResultDecodeError" if number == PLACE else "int" for number in range(COUNT)
        ]
