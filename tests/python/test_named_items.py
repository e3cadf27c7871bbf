"""An item or a result that cannot be pickled or unpickled: a note of the error names the item, and the type of the error stays."""

from __future__ import annotations

import io
import os
import pickle
import threading
from collections.abc import Callable
from email.message import Message
from functools import partial
from types import ModuleType
from typing import Any
from urllib.error import HTTPError

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


class TwoArguments(Exception):
    """An exception that can be pickled, and not unpickled."""

    def __init__(self, number: int, _further: int) -> None:
        super().__init__(f"number {number}")


def not_found(url: str) -> Any:
    raise HTTPError(url, 404, "Not Found", Message(), io.BufferedReader(io.BytesIO()))  # type: ignore[type-var]


def two_arguments(number: int) -> Any:
    raise TwoArguments(number, 0)


def test_the_error_tells_the_class_and_the_text_of_an_exception_that_cannot_be_sent(
    pool: Any, mp: ModuleType, pool_module: ModuleType
) -> None:
    (error,) = pool.map(not_found, ["http://example.org"], return_exceptions=True)
    assert type(error) is pool_module.MaybeEncodingError
    assert (error.exception_type, error.exception_text) == ("urllib.error.HTTPError", "HTTP Error 404: Not Found")
    assert "not_found" in str(error.__cause__)
    with pytest.raises(mp.ResultDecodeError) as raised:
        pool.apply(two_arguments, (3,))
    assert (raised.value.exception_type, raised.value.exception_text) == (f"{__name__}.TwoArguments", "number 3")
    for kept in (error, raised.value):
        again = pickle.loads(pickle.dumps(kept))
        assert (again.exception_type, again.exception_text) == (kept.exception_type, kept.exception_text)
    # The result is the cause of these.
    for kind, func in ((pool_module.MaybeEncodingError, locks_at_three), (mp.ResultDecodeError, unreadable_at_three)):
        with pytest.raises(kind) as refused:
            pool.apply(func, (3,))
        assert refused.value.exception_type is None and refused.value.exception_text is None


def test_equal_errors_of_earlier_tries_are_one_note(pool: Any, mp: ModuleType) -> None:
    with pytest.raises(mp.pool.MaybeEncodingError) as raised:
        pool.apply(not_found, ("http://example.org",), retries=mp.Retries(3, on=HTTPError))
    notes = [note for note in raised.value.__notes__ if " failed with " in note]
    assert len(raised.value.earlier_errors) == 3
    assert len(notes) == 1 and notes[0].startswith("tries 1 to 3 failed with MaybeEncodingError: ")


def test_other_errors_of_earlier_tries_have_a_note_each(pool: Any) -> None:
    from maniple._impl.pool.payload import after_tries

    error = ValueError()
    after_tries(error, [KeyError("a"), KeyError("b"), KeyError("b"), KeyError("b"), OSError("b")])
    assert error.__notes__ == [
        "try 1 failed with KeyError: 'a'",
        "tries 2 to 4 failed with KeyError: 'b'",
        "try 5 failed with OSError: b",
    ]


class Closed(Exception):
    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        return None


def raise_closed(_: int) -> None:
    raise Closed("text")


def test_an_exception_that_refuses_its_cause_arrives(pool: Any) -> None:
    with pytest.raises(Closed, match="text"):
        pool.map(raise_closed, [1])


class Untouchable(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


def raise_untouchable(_: int) -> None:
    raise Untouchable("text")


def test_an_exception_whose_methods_raise_fails_its_task_alone(pool: Any, mp: ModuleType) -> None:
    pid = pool.apply(os.getpid)
    with pytest.raises(mp.pool.MaybeEncodingError) as raised:
        pool.map(raise_untouchable, [1])
    assert raised.value.exception_type.endswith(".Untouchable")
    assert pool.apply(os.getpid) == pid
