"""loky: joblib's executor, with a start method of its own (fork, then exec)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import loky
from loky.backend import get_context

from .base import ExecutorAdapter


class Library(ExecutorAdapter):
    distribution = "loky"
    start_methods = ("loky", "spawn", "forkserver")
    own_method = "loky"

    def session(self, workers: int, method: str) -> AbstractContextManager[Any]:
        executor: AbstractContextManager[Any] = loky.ProcessPoolExecutor(workers, context=get_context(method))
        return executor

    def parallel(self) -> str:
        return "loky"
