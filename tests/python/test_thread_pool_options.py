"""`retries` and `return_exceptions` of pools of threads, and the options that they refuse."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.better_than_standard("it has no options")


@pytest.fixture
def new_pool(pool_module: ModuleType) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def new(threads: int = 2, **options: Any) -> Any:
        made.append(pool_module.ThreadPool(threads, **options))
        return made[-1]

    yield new
    for pool in made:
        pool.terminate()
        pool.join()


def halves(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def add_halves(one: int, two: int) -> int:
    return halves(one) + halves(two)


class Flaky:
    """Raises `kind` at the first calls for each item."""

    def __init__(self, failures: int, kind: type[BaseException] = ConnectionError) -> None:
        self.failures, self.kind = failures, kind
        self.calls: Counter[int] = Counter()

    def __call__(self, number: int) -> int:
        self.calls[number] += 1
        if self.calls[number] <= self.failures:
            raise self.kind(f"try {self.calls[number]} of {number}")
        return number


CALLS: dict[str, Callable[..., Any]] = {
    "map": lambda pool, **options: pool.map(halves, range(5), **options),
    "map in chunks": lambda pool, **options: pool.map(halves, range(5), 3, **options),
    "map_async": lambda pool, **options: pool.map_async(halves, range(5), **options).get(),
    "starmap": lambda pool, **options: pool.starmap(add_halves, [(number, 0) for number in range(5)], **options),
    "imap": lambda pool, **options: list(pool.imap(halves, range(5), **options)),
    "imap in chunks": lambda pool, **options: list(pool.imap(halves, iter(range(5)), 2, **options)),
    "imap_unordered": lambda pool, **options: sorted(
        pool.imap_unordered(halves, iter(range(5)), **options), key=lambda one: str(one)
    ),
    "apply": lambda pool, **options: [pool.apply(halves, (number,), **options) for number in range(5)],
    "apply_async": lambda pool, **options: [pool.apply_async(halves, [n], {}, **options).get() for n in range(5)],
}


@pytest.mark.parametrize("of_pool", [False, True], ids=["call", "pool"])
@pytest.mark.parametrize("call", CALLS)
def test_the_exception_takes_the_place_of_the_result(new_pool: Callable[..., Any], call: str, of_pool: bool) -> None:
    option = {"return_exceptions": True}
    results = CALLS[call](new_pool(**option)) if of_pool else CALLS[call](new_pool(), **option)
    assert sorted(map(str, results)) == ["0", "1", "1 is odd", "2", "3 is odd"]
    if call != "imap_unordered":
        assert [type(result) for result in results] == [int, ValueError, int, ValueError, int]
    with pytest.raises(ValueError, match="1 is odd"):
        CALLS["map"](new_pool(return_exceptions=True), return_exceptions=False)


def test_such_a_call_has_succeeded(new_pool: Callable[..., Any]) -> None:
    called: list[Any] = []
    result = new_pool().map_async(halves, [1, 2], callback=called.append, return_exceptions=True)
    assert [str(one) for one in result.get()] == ["1 is odd", "1"]
    assert result.successful() and len(called[0]) == 2


def test_the_failure_of_an_input_is_no_result(new_pool: Callable[..., Any]) -> None:
    def source() -> Iterator[int]:
        yield 2
        raise KeyError("of the input")

    results = new_pool().imap(halves, source(), return_exceptions=True)
    assert next(results) == 1
    with pytest.raises(KeyError):
        next(results)


def test_items_are_tried_again_after_the_exceptions_that_are_named(
    new_pool: Callable[..., Any], mp: ModuleType
) -> None:
    flaky = Flaky(2)
    pool = new_pool(retries=mp.Retries(2, initial_delay=0.01, on=(ConnectionError,)))
    assert pool.map(flaky, range(5)) == list(range(5))
    assert set(flaky.calls.values()) == {3}
    assert list(pool.imap(Flaky(1), iter(range(5)))) == list(range(5))
    assert pool.apply(Flaky(1), (7,)) == 7
    with pytest.raises(ConnectionError, match="try 3 of 7") as raised:
        pool.apply(Flaky(9), (7,))
    assert [str(error) for error in raised.value.earlier_errors] == ["try 1 of 7", "try 2 of 7"]  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        pool.apply(Flaky(1, KeyError), (7,))
    assert [type(one) for one in pool.map(Flaky(9), [7], return_exceptions=True)] == [ConnectionError]
    with pytest.raises(ConnectionError, match="try 1"):
        pool.apply(Flaky(1), (7,), retries=None)


def test_a_pause_that_no_float_can_hold_is_the_longest_pause(new_pool: Callable[..., Any], mp: ModuleType) -> None:
    retries = mp.Retries(4, initial_delay=1e-6, backoff_coefficient=1e200, max_delay=1e-5, on=(ValueError,))
    with pytest.raises(ValueError, match="math domain") as raised:
        new_pool(1).apply(math.sqrt, (-1,), retries=retries)
    assert len(raised.value.earlier_errors) == 4  # type: ignore[attr-defined]


class Leaving(Exception):
    def __str__(self) -> str:
        raise SystemExit(5)


def test_an_exception_whose_text_is_an_exit_is_like_any_other(new_pool: Callable[..., Any], mp: ModuleType) -> None:
    pool, flaky = new_pool(1), Flaky(9)

    def leave(number: int) -> int:
        with pytest.raises(ConnectionError):
            flaky(number)
        raise Leaving

    retries = mp.Retries(2, on=Leaving)
    assert [type(one) for one in pool.map(leave, [1], retries=retries, return_exceptions=True)] == [Leaving]
    assert flaky.calls[1] == 3


@pytest.mark.parametrize("retries", [3, "of the class"])
def test_retries_without_exceptions_are_refused(new_pool: Callable[..., Any], mp: ModuleType, retries: Any) -> None:
    given = mp.Retries(3) if retries == "of the class" else retries
    for call in (lambda: new_pool(retries=given), lambda: new_pool(1).map(abs, [1], retries=given)):
        with pytest.raises(ValueError, match=r"no thread is lost: Retries\(3, on="):
            call()
    assert new_pool(retries=0).map(abs, [-1], retries=mp.Retries(0)) == [1]


def test_a_terminated_pool_waits_for_no_further_try(new_pool: Callable[..., Any], mp: ModuleType) -> None:
    flaky, pool = Flaky(9), new_pool(1)
    result = pool.apply_async(flaky, (1,), retries=mp.Retries(9, initial_delay=60, on=ConnectionError))
    while not flaky.calls:
        time.sleep(0.01)
    pool.terminate()
    assert pool.join(timeout=60) is True
    with pytest.raises(ValueError, match="Pool not running"):
        result.get()
    assert flaky.calls[1] == 1


def test_statistics_name_the_function(new_pool: Callable[..., Any]) -> None:
    pool = new_pool()
    pool.map(halves, range(5), return_exceptions=True)
    assert {slow.function for slow in pool.stats().slowest} == {"halves"}


def test_statistics_count_retries_and_returned_exceptions(new_pool: Callable[..., Any], mp: ModuleType) -> None:
    pool = new_pool(retries=mp.Retries(2, on=ConnectionError))
    pool.map(Flaky(2), range(5), chunksize=3)
    pool.map(Flaky(9), range(3), return_exceptions=True)
    stats = pool.stats()
    assert (stats.tasks_received, stats.tasks_completed, stats.tasks_failed) == (8, 5, 3)
    assert (stats.tasks_launched, stats.tasks_retried) == (8 + 16, 16)


def test_options_that_change_nothing_are_accepted(new_pool: Callable[..., Any]) -> None:
    pool = new_pool(task_timeout=None, priority=0)
    assert pool.map(halves, [4], soft_timeout=None, retries=None, priority=0, return_exceptions=False) == [2]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"task_timeout": 1}, ValueError, "a thread cannot be ended; use a Pool"),
        ({"retries": 1, "soft_timeout": 1}, ValueError, "a thread cannot be ended; use a Pool"),
        ({"priority": 1}, ValueError, "its threads run the calls in their order"),
        ({"retries": -1}, ValueError, "retries must be between 0"),
        ({"retries": "two"}, TypeError, "retries must be an int or Retries"),
        ({"retrys": 1}, TypeError, "did you mean retries"),
    ],
    ids=str,
)
def test_bad_options(new_pool: Callable[..., Any], options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        new_pool(**options)
    pool = new_pool()
    for call in (pool.map, pool.imap):
        with pytest.raises(kind, match=words):
            call(halves, [2], **options)
    with pytest.raises(kind, match=words):
        pool.apply_async(halves, (2,), **options)


def test_a_class_that_replaces_parts_has_no_options(pool_module: ModuleType) -> None:
    class Own(pool_module.ThreadPool):  # type: ignore[misc,name-defined]
        def _repopulate_pool(self) -> None:
            super()._repopulate_pool()

    with pytest.raises(ValueError, match="replaces parts of Pool, so its calls have no options"):
        Own(1, return_exceptions=True)
