"""Results that no caller takes: loops over `imap` that end early, unread iterators, dropped results."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NewPool = Callable[..., Any]
ways = pytest.mark.parametrize("way", ["imap", "imap_unordered"])


def until(condition: Callable[[], Any], patience: float = 30) -> bool:
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def note(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class Item:
    def __abs__(self) -> int:
        return 0

    def __reduce__(self) -> Any:
        return int, ()


@ways
@pytest.mark.parametrize("lazy", [False, True])
def test_an_abandoned_loop_leaves_nothing(new_pool: NewPool, way: str, lazy: bool) -> None:
    pool = new_pool()
    before = threading.active_count()
    items = [Item() for _ in range(5000)]
    seen = weakref.ref(items[-1])
    for _ in getattr(pool, way)(abs, iter(items) if lazy else items):
        break
    del items
    gc.collect()
    assert until(lambda: seen() is None and threading.active_count() <= before)
    assert until(lambda: not pool._cache)
    assert pool.apply(abs, (-3,)) == 3


@ways
def test_an_abandoned_loop_begins_no_further_call(new_pool: NewPool, tmp_path: Path, way: str) -> None:
    pool, noted = new_pool(), tmp_path / "noted"
    for _ in getattr(pool, way)(note, (str(noted) for _ in range(100_000))):
        break
    pool.close()
    pool.join()
    assert size(noted) < 100_000


@ways
@pytest.mark.parametrize("lazy", [False, True])
def test_an_unread_iterator_runs_all_its_calls(new_pool: NewPool, tmp_path: Path, way: str, lazy: bool) -> None:
    pool, noted = new_pool(), tmp_path / "noted"
    before = threading.active_count()
    # More than the pool has in progress at a time.
    paths = [str(noted)] * 3000
    getattr(pool, way)(note, iter(paths) if lazy else paths)
    assert until(lambda: size(noted) == 3000)
    assert until(lambda: threading.active_count() <= before)


@ways
def test_an_endless_input_ends_with_its_loop(new_pool: NewPool, way: str) -> None:
    pool, closed = new_pool(), threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    for _ in getattr(pool, way)(abs, endless(), 10):
        break
    gc.collect()
    assert closed.wait(30)


class Asks(Item):
    """An item whose destructor uses its pool."""

    def __init__(self, pool: Any, told: list[int]) -> None:
        self._pool, self._told = weakref.ref(pool), told

    def __del__(self) -> None:
        if (pool := self._pool()) is not None:
            self._told.append(len(pool._cache))


def test_an_items_destructor_may_use_the_pool(new_pool: NewPool) -> None:
    pool = new_pool()
    told: list[int] = []
    for _ in pool.imap(abs, [Asks(pool, told) for _ in range(3000)]):
        break
    gc.collect()
    assert until(lambda: len(told) == 3000)
