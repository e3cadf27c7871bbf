"""mpire: a pool whose workers stay between calls only where `keep_alive` says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from mpire.pool import WorkerPool

from .base import Adapter, Function


class Library(Adapter):
    distribution = "mpire"

    def session(self, workers: int, method: str) -> AbstractContextManager[Any]:
        pool: AbstractContextManager[Any] = WorkerPool(workers, start_method=method, keep_alive=True)
        return pool

    def map(self, pool: Any, function: Function, items: list[Any], chunksize: int | None = None) -> list[Any]:
        results: list[Any] = pool.map(function, items, chunk_size=chunksize, concatenate_numpy_output=False)
        return results

    def imap(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(pool.imap(function, items, chunk_size=1))

    def imap_unordered(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(pool.imap_unordered(function, items, chunk_size=1))

    def submit(self, pool: Any, function: Function, item: Any) -> Callable[[], Any]:
        waiting: Callable[[], Any] = pool.apply_async(function, (item,)).get
        return waiting

    def limited_map(self, pool: Any, function: Function, items: list[Any], seconds: float) -> list[Any]:
        results: list[Any] = pool.map(function, items, chunk_size=1, task_timeout=seconds)
        return results

    def limited_call(self, pool: Any, function: Function, item: Any, seconds: float) -> bool:
        try:
            pool.apply(function, (item,), task_timeout=seconds)
        except TimeoutError:
            return False
        return True
