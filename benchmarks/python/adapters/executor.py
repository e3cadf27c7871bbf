"""The standard package's `concurrent.futures.ProcessPoolExecutor`."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

from .base import ExecutorAdapter


class Library(ExecutorAdapter):
    def session(self, workers: int, method: str) -> AbstractContextManager[Any]:
        return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method))
