"""A view of an executor whose calls have options of their own."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator

from ..._maniple import Futures
from ..pool.options import own_tasks, terms_of
from .mapping import mapped
from .options import checked_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ParamSpec, TypeVar, Unpack

    from ..._maniple import Terms
    from ...executor import ProcessPoolExecutor
    from ..pool.options import TaskOptions
    from .futures import Future

    Call = ParamSpec("Call")
    Result = TypeVar("Result")

__all__ = ["ExecutorView"]


class ExecutorView(concurrent.futures.Executor):
    """A view of a `ProcessPoolExecutor` whose calls have further options; `ProcessPoolExecutor.options` returns it.

    It has no workers of its own. Its futures are those of the executor, and `shutdown`, and so the end of a ``with`` block, shuts the
    executor down.
    """

    def __init__(self, executor: ProcessPoolExecutor, options: dict[str, Any]) -> None:
        checked_calls(options)
        of_all = executor._options
        merged = options if of_all is None else {**of_all.calls, **options}
        checked_calls(merged)
        self._executor, self._options, self._given = executor, merged, options
        self._seeds = None if of_all is None else of_all.seeds
        # The engine's form of the options, once the executor has its workers.
        self._is_known = False
        self._terms: Terms | None = None

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._given.items())
        return f"<{self._executor!r} with options({given})>"

    def options(self, **options: Unpack[TaskOptions]) -> ExecutorView:
        """Return a view of the same executor that has these options as well."""
        checked_calls(dict(options))
        return ExecutorView(self._executor, {**self._given, **options})

    def _send(self, send: Callable[..., int], *call: Any) -> Future[Any]:
        executor = self._executor
        if executor._pool is None or not self._is_known:
            pool = executor._begin()
            if not self._is_known:
                self._terms = terms_of(self._options, pool._main, self._seeds)
                self._is_known = True
        return executor._send(self._terms, send, *call)

    def submit(
        self, fn: Callable[Call, Result], /, *args: Call.args, **kwargs: Call.kwargs
    ) -> concurrent.futures.Future[Result]:
        """Start ``fn(*args, **kwargs)`` in a worker, and return its future at once, as the executor's `submit` does."""
        return self._send(Futures.submit, fn, args, kwargs)

    def _submit_chunk(self, fn: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> Future[Any]:
        return self._send(Futures.submit_chunk, fn, chunk)

    def map(
        self,
        fn: Callable[..., Result],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Result]:
        """Return an iterator over ``fn(*items)`` for each tuple of items, as the executor's `map` does.

        With a limit, with retries or with a seed, each call is a task of its own, for every `chunksize`.
        """
        is_single = own_tasks(self._options) or self._seeds is not None
        return mapped(self.submit, self._submit_chunk, is_single, fn, iterables, timeout, chunksize, buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down; see its method."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


ExecutorView.__module__ = "maniple.executor"
