"""`maniple.Pool`, in place of the standard package's by changing one name."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress

from .base import Function, PoolAdapter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Library(PoolAdapter):
    module_name = "maniple"
    distribution = "maniple"

    def limited_map(self, pool: Any, function: Function, items: list[Any], seconds: float) -> list[Any]:
        results: list[Any] = pool.map(function, items, task_timeout=seconds)
        return results

    def limited_call(self, pool: Any, function: Function, item: Any, seconds: float) -> bool:
        try:
            pool.apply(function, (item,), task_timeout=seconds)
        except self.module.TaskTimeoutError:
            return False
        return True

    def lost_call(self, pool: Any, function: Function, item: Any) -> None:
        with suppress(self.module.WorkerLostError):
            pool.apply(function, (item,))

    def executor(self, workers: int, method: str) -> AbstractContextManager[Any]:
        executor: AbstractContextManager[Any] = self.module.ProcessPoolExecutor(
            workers, self.module.get_context(method)
        )
        return executor

    def awaiting(self, workers: int, method: str) -> AbstractAsyncContextManager[Any]:
        pool: AbstractAsyncContextManager[Any] = self.module.get_context(method).Pool(workers)
        return pool

    def awaited(self, pool: Any, function: Function, item: Any) -> Awaitable[Any]:
        result: Awaitable[Any] = pool.apply_async(function, (item,))
        return result

    def parallel(self) -> str:
        from maniple.joblib import register

        register()
        return "maniple"
