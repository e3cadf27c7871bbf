"""`maniple.Pool`, in place of the standard package's by changing one name."""

from __future__ import annotations

from contextlib import AbstractContextManager

from .base import PoolAdapter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Library(PoolAdapter):
    module_name = "maniple"
    distribution = "maniple"

    def executor(self, workers: int, method: str) -> AbstractContextManager[Any]:
        executor: AbstractContextManager[Any] = self.module.ProcessPoolExecutor(
            workers, self.module.get_context(method)
        )
        return executor

    def parallel(self) -> str:
        from maniple.joblib import register

        register()
        return "maniple"
