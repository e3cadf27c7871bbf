"""The standard package's `multiprocessing.Pool`: the one that every ratio is taken against."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager

from .base import PoolAdapter, awaiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Library(PoolAdapter):
    module_name = "multiprocessing"

    def executor(self, workers: int, method: str) -> AbstractContextManager[Any]:
        from concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor(workers, mp_context=self.module.get_context(method))

    def awaiting(self, workers: int, method: str) -> AbstractAsyncContextManager[Any]:
        return awaiting(self.executor(workers, method))

    def parallel(self) -> str:
        return "multiprocessing"
