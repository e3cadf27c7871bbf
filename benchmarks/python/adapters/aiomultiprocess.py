"""aiomultiprocess: a pool whose workers run coroutines. It has no other calls."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

import aiomultiprocess
import tasks

from .base import Adapter, Function, NotOffered


class Library(Adapter):
    distribution = "aiomultiprocess"

    def session(self, workers: int, method: str) -> AbstractContextManager[Any]:
        raise NotOffered("only calls that an event loop awaits")

    def awaiting(self, workers: int, method: str) -> AbstractAsyncContextManager[Any]:
        aiomultiprocess.set_start_method(method)
        pool: AbstractAsyncContextManager[Any] = aiomultiprocess.Pool(workers)
        return pool

    def awaited(self, pool: Any, function: Function, item: Any) -> Awaitable[Any]:
        result: Awaitable[Any] = pool.apply(tasks.COROUTINES[function], (item,))
        return result
