"""An item or a result that cannot be pickled or unpickled: a note of the error names the item, and the type of the error stays."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.better_than_standard("the error does not say which item")


class Unreadable:
    """An object whose pickle raises ValueError."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


def identity(item: Any) -> Any:
    return item


def locks_at_three(number: int) -> Any:
    return threading.Lock() if number == 3 else number


def unreadable_at_three(number: int) -> Any:
    return Unreadable() if number == 3 else number


@pytest.fixture(scope="module")
def pool(mp: ModuleType) -> Any:
    with mp.get_context("fork").Pool(2) as pool:
        yield pool


CALLS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "map": lambda pool, func, items: pool.map(func, items, 3),
    "map one by one": lambda pool, func, items: pool.map(func, items, 1),
    "map_async": lambda pool, func, items: pool.map_async(func, items, 2).get(20),
    "imap": lambda pool, func, items: list(pool.imap(func, items)),
    "imap in chunks": lambda pool, func, items: list(pool.imap(func, items, 3)),
    "imap of an iterator": lambda pool, func, items: list(pool.imap(func, iter(items), 3)),
    "imap_unordered": lambda pool, func, items: list(pool.imap_unordered(func, iter(items))),
}
each_call = pytest.mark.parametrize("call", list(CALLS))


def notes_of(kind: Any, call: Callable[[], Any]) -> list[str]:
    with pytest.raises(kind) as raised:
        call()
    assert type(raised.value) is kind
    return list(raised.value.__notes__)


@each_call
def test_an_item_that_cannot_be_pickled(pool: Any, call: str) -> None:
    items = [0, 1, 2, 3, threading.Lock(), 5]
    (note,) = notes_of(TypeError, lambda: CALLS[call](pool, identity, items))
    assert note == "Item 4 of the call, of type _thread.lock, cannot be pickled."


@each_call
def test_an_item_that_cannot_be_unpickled(pool: Any, call: str) -> None:
    (note,) = notes_of(ValueError, lambda: CALLS[call](pool, identity, [0, 1, 2, 3, Unreadable(), 5]))
    where = {"map": "items 3 to 5", "map_async": "items 4 to 5", "imap in chunks": "items 3 to 5"}
    where["imap of an iterator"] = "items 3 to 5"
    assert note == (
        f"It was raised while the worker unpickled the arguments of the task, {where.get(call, 'item 4')} of the call"
    )


@each_call
def test_a_result_that_cannot_be_pickled(pool: Any, pool_module: ModuleType, call: str) -> None:
    (note,) = notes_of(pool_module.MaybeEncodingError, lambda: CALLS[call](pool, locks_at_three, range(6)))
    assert note == "The result of item 3, of type _thread.lock, cannot be pickled."


@each_call
def test_a_result_that_cannot_be_unpickled(pool: Any, pool_module: ModuleType, call: str) -> None:
    (note,) = notes_of(pool_module.ResultDecodeError, lambda: CALLS[call](pool, unreadable_at_three, range(6)))
    where = {"map": "items 3 to 5", "map_async": "items 2 to 3", "imap in chunks": "items 3 to 5"}
    where["imap of an iterator"] = "items 3 to 5"
    at = where.get(call, "item 3")
    assert note == f"It is {'in ' if 'items' in at else ''}the result of {at} of the call."


def raises_at_three(number: int) -> int:
    if number == 3:
        raise LookupError("three")
    return number


class UnsendableError(Exception):
    def __init__(self) -> None:
        super().__init__(threading.Lock())


def unsendable_error_at_three(number: int) -> int:
    if number == 3:
        raise UnsendableError
    return number


def divide(first: int, second: int) -> int:
    return first // second


@each_call
def test_an_item_whose_call_raises(pool: Any, call: str) -> None:
    assert notes_of(LookupError, lambda: CALLS[call](pool, raises_at_three, range(6))) == [
        "Item 3 of the call raised it."
    ]


def test_an_item_of_several_arguments_whose_call_raises(pool: Any, mp: ModuleType) -> None:
    pairs = [(1, 1), (2, 1), (3, 0), (4, 1)]
    for chunksize in (1, 2, 3, 4):
        assert notes_of(ZeroDivisionError, partial(pool.starmap, divide, pairs, chunksize)) == [
            "Item 2 of the call raised it."
        ]
    found = pool.starmap(divide, pairs, return_exceptions=True)
    assert found[2].__notes__ == ["Item 2 of the call raised it."]
    with mp.get_context("fork").Pool(1, seed=3) as seeded:
        for chunksize in (1, 4):
            assert notes_of(ZeroDivisionError, partial(seeded.starmap, divide, pairs, chunksize)) == [
                "Item 2 of the call raised it."
            ]


@each_call
def test_an_exception_that_cannot_be_pickled(pool: Any, pool_module: ModuleType, call: str) -> None:
    (note,) = notes_of(pool_module.MaybeEncodingError, lambda: CALLS[call](pool, unsendable_error_at_three, range(6)))
    assert note == f"The exception of item 3, of type {__name__}.UnsendableError, cannot be pickled."


def test_an_argument_that_cannot_be_pickled(pool: Any) -> None:
    lock = threading.Lock()
    assert notes_of(TypeError, lambda: pool.apply(divide, (1, lock))) == [
        "Argument 1 of the call, of type _thread.lock, cannot be pickled."
    ]
    assert notes_of(TypeError, lambda: pool.apply_async(divide, (1,), {"second": [lock]})) == [
        "Argument 'second' of the call, of type list, cannot be pickled."
    ]


def test_a_call_of_apply_has_no_items(pool: Any, pool_module: ModuleType) -> None:
    assert notes_of(pool_module.MaybeEncodingError, lambda: pool.apply(locks_at_three, (3,))) == [
        "The result, of type _thread.lock, cannot be pickled."
    ]
    assert notes_of(pool_module.MaybeEncodingError, lambda: pool.apply(unsendable_error_at_three, (3,))) == [
        f"The exception, of type {__name__}.UnsendableError, cannot be pickled."
    ]
    with pytest.raises(LookupError) as raised:
        pool.apply(raises_at_three, (3,))
    assert not hasattr(raised.value, "__notes__")
    assert notes_of(ValueError, lambda: pool.apply(identity, (Unreadable(),))) == [
        "It was raised while the worker unpickled the arguments of the task"
    ]


def test_an_error_is_noted_once(pool: Any) -> None:
    result = pool.map_async(identity, [threading.Lock()])
    for _ in range(2):
        assert len(notes_of(TypeError, result.get)) == 1
