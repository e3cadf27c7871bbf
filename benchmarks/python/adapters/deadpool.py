"""deadpool: an executor whose tasks can have time limits."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

import deadpool

from .base import ExecutorAdapter, Function


class Library(ExecutorAdapter):
    distribution = "deadpool-executor"

    def session(self, workers: int, method: str) -> AbstractContextManager[Any]:
        pool: AbstractContextManager[Any] = deadpool.Deadpool(workers, mp_context=multiprocessing.get_context(method))
        return pool

    def limited(self, pool: Any, function: Function, item: Any, seconds: float) -> Future[Any]:
        future: Future[Any] = pool.submit(function, item, deadpool_timeout=seconds)
        return future

    def limited_map(self, pool: Any, function: Function, items: list[Any], seconds: float) -> list[Any]:
        return [future.result() for future in [self.limited(pool, function, item, seconds) for item in items]]

    def limited_call(self, pool: Any, function: Function, item: Any, seconds: float) -> bool:
        try:
            self.limited(pool, function, item, seconds).result()
        except TimeoutError:
            return False
        return True

    def lost_call(self, pool: Any, function: Function, item: Any) -> None:
        try:
            pool.submit(function, item).result()
        except deadpool.ProcessError:
            pass
