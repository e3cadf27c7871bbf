"""Wrong arguments of a pool: the error names the argument and says what it must be."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

KINDS = ["Pool", "ThreadPool"]
CALLS = ["map", "starmap", "apply"]


@pytest.fixture(scope="module", params=KINDS)
def pool(request: pytest.FixtureRequest, pool_module: ModuleType) -> Any:
    with getattr(pool_module, request.param)(2) as pool:
        yield pool


def add(one: int, other: int) -> int:
    return one + other


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", ["4", 1.5, [2], b"2"])
@pytest.mark.better_than_standard("the error is about `<` or `range`")
def test_a_number_of_workers_that_is_no_number(pool_module: ModuleType, kind: str, processes: Any) -> None:
    with pytest.raises(TypeError, match=rf"processes must be an int or None, not .*{type(processes).__name__}"):
        getattr(pool_module, kind)(processes)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("func", [None, 5, "abs"])
@pytest.mark.better_than_standard("the error comes from a worker, and does not name the argument")
def test_a_function_that_cannot_be_called(pool: Any, call: str, func: Any) -> None:
    with pytest.raises(TypeError, match=rf"func must be a function, but .*{type(func).__name__} is not callable"):
        getattr(pool, call)(func, [(1, 2)])


@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.better_than_standard("the error has no hint")
def test_starmap_without_tuples(pool: Any, chunksize: int | None) -> None:
    for items in ([(1, 2), 7], ((1, 2), 7), iter([(1, 2), 7])):
        with pytest.raises(TypeError) as raised:
            pool.starmap(add, items, chunksize)
        (note,) = raised.value.__notes__
        assert note.startswith("item 1 of starmap is 7 of type int, but each item must be a tuple of arguments")


def test_an_error_of_the_function_in_starmap_gets_no_hint(pool: Any) -> None:
    with pytest.raises(TypeError) as raised:
        pool.starmap(add, [(1, 2, 3)])
    assert not getattr(raised.value, "__notes__", None)
    assert pool.starmap(add, [(1, 2)]) == [3]
