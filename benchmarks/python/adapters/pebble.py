"""pebble: a pool that can stop its tasks, one call at a time."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from typing import Any

import pebble

from .base import ExecutorAdapter, Function


class Library(ExecutorAdapter):
    distribution = "pebble"

    def session(self, workers: int, method: str) -> AbstractContextManager[Any]:
        pool: AbstractContextManager[Any] = pebble.ProcessPool(workers, context=multiprocessing.get_context(method))
        return pool

    def map(self, pool: Any, function: Function, items: list[Any], chunksize: int | None = None) -> list[Any]:
        options = {} if chunksize is None else {"chunksize": chunksize}
        return list(pool.map(function, items, **options).result())

    def imap(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(pool.map(function, items).result())

    def future(self, pool: Any, function: Function, item: Any) -> Future[Any]:
        future: Future[Any] = pool.schedule(function, args=(item,))
        return future

    def awaited(self, pool: Any, function: Function, item: Any) -> Awaitable[Any]:
        # Not by `run_in_executor`: the first argument of pebble's `submit` after the function is a time limit.
        return asyncio.wrap_future(self.future(pool, function, item))

    def limited_map(self, pool: Any, function: Function, items: list[Any], seconds: float) -> list[Any]:
        return list(pool.map(function, items, timeout=seconds).result())

    def limited_call(self, pool: Any, function: Function, item: Any, seconds: float) -> bool:
        try:
            pool.schedule(function, args=(item,), timeout=seconds).result()
        except TimeoutError:
            return False
        return True

    def lost_call(self, pool: Any, function: Function, item: Any) -> None:
        with suppress(pebble.ProcessExpired):
            pool.schedule(function, args=(item,)).result()
