"""zooparallel: a Rust core with one task queue and one result queue of fixed size."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import zooparallel

from .base import ExecutorAdapter, Function, NotOffered

# Its queues do not grow, so they must hold a 64 MB array beside what is waiting.
QUEUE_MB = 256


class Library(ExecutorAdapter):
    distribution = "zooparallel"

    def session(self, workers: int, method: str) -> AbstractContextManager[Any]:
        multiprocessing.set_start_method(method, force=True)
        pool: AbstractContextManager[Any] = zooparallel.ZooPool(workers, buffer_size_mb=QUEUE_MB)
        return pool

    def map(self, pool: Any, function: Function, items: list[Any], chunksize: int | None = None) -> list[Any]:
        results: list[Any] = pool.map(function, items)
        return results

    def imap(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        raise NotOffered("no imap")
