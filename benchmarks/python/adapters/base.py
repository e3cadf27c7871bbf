"""What a case may ask of any library, and the two families most belong to.

What this module imports, each whole script pays for, whichever library it runs: so it imports little.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any

    Function = Callable[[Any], Any]
else:
    Function = None  # an annotation is all it is for


class NotOffered(Exception):
    """The library has no such feature; the message says which."""


class Adapter:
    """The base class of adapters for libraries. `Pool` below is the pool object of the library."""

    distribution: str | None = None
    start_methods: tuple[str, ...] = ("fork", "spawn", "forkserver")
    # Used where the asked start method is not among the library's own.
    own_method: str | None = None

    def version(self) -> str:
        if self.distribution is None:
            return "standard"
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return "source tree"

    def method_for(self, asked: str, exactly: bool = False) -> str:
        """The start method to use when `asked` is wanted."""
        if asked in self.start_methods:
            return asked
        if exactly or self.own_method is None:
            raise NotOffered(f"no start method {asked}")
        return self.own_method

    def context(self, method: str) -> Any:
        """The library's Process, Queue, Pipe, Lock, Value and Manager, as the standard package names them."""
        raise NotOffered("only a pool")

    def session(self, workers: int, method: str) -> AbstractContextManager[Any]:
        """A pool for the length of a `with` block; its workers are gone after it."""
        raise NotImplementedError

    def threads(self, workers: int) -> AbstractContextManager[Any]:
        """A pool of threads for the length of a `with` block."""
        raise NotOffered("no pool of threads")

    def map(self, pool: Any, function: Function, items: list[Any], chunksize: int | None = None) -> list[Any]:
        """All results in order; `None` leaves the chunk size to the library."""
        raise NotOffered("no map")

    def imap(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        """Results in order, one at a time, one item per message."""
        raise NotOffered("no imap")

    def imap_unordered(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        """Results as they come, one item per message."""
        raise NotOffered("no imap_unordered")

    def submit(self, pool: Any, function: Function, item: Any) -> Callable[[], Any]:
        """Hand in one call; what is returned waits for its result."""
        raise NotOffered("no single calls")

    def submit_map(self, pool: Any, function: Function, items: Any, ended: Callable[[list[Any]], None]) -> None:
        """Hand in a map; `ended` is called with its results."""
        raise NotOffered("no map with a callback")

    def call(self, pool: Any, function: Function, item: Any) -> Any:
        """One call, there and back."""
        return self.submit(pool, function, item)()

    def limited_map(self, pool: Any, function: Function, items: list[Any], seconds: float) -> list[Any]:
        """All results in order; a task that runs for longer is ended."""
        raise NotOffered("no time limits of tasks")

    def limited_call(self, pool: Any, function: Function, item: Any, seconds: float) -> bool:
        """One call; whether it ended within its time limit. The pool can be used further."""
        raise NotOffered("no time limits of tasks")

    def lost_call(self, pool: Any, function: Function, item: Any) -> None:
        """One call of a function that kills its process; the pool can be used further."""
        raise NotOffered("it does not go on after a lost worker")

    def executor(self, workers: int, method: str) -> AbstractContextManager[Any]:
        """As `session`: what `future` takes in the place of a pool."""
        raise NotOffered("no futures")

    def future(self, pool: Any, function: Function, item: Any) -> Future[Any]:
        """Hand in one call; a future of `concurrent.futures` comes back."""
        future: Future[Any] = pool.submit(function, item)
        return future

    def awaiting(self, workers: int, method: str) -> AbstractAsyncContextManager[Any]:
        """As `session`, in an event loop: what `awaited` takes in the place of a pool."""
        raise NotOffered("no calls that can be awaited")

    def awaited(self, pool: Any, function: Function, item: Any) -> Awaitable[Any]:
        """Hand in one call; what is returned can be awaited."""
        from asyncio import get_running_loop

        return get_running_loop().run_in_executor(pool, function, item)

    def parallel(self) -> str:
        """The name of the joblib backend on this library, which is registered then."""
        raise NotOffered("no joblib backend")


class PoolAdapter(Adapter):
    """Libraries with the standard package's `Pool`."""

    module_name = ""

    def __init__(self) -> None:
        self.module = import_module(self.module_name)

    def context(self, method: str) -> Any:
        return self.module.get_context(method)

    @contextmanager
    def session(self, workers: int, method: str) -> Iterator[Any]:
        with self.module.get_context(method).Pool(workers) as pool:
            yield pool
        pool.join()

    @contextmanager
    def threads(self, workers: int) -> Iterator[Any]:
        with import_module(f"{self.module_name}.pool").ThreadPool(workers) as pool:
            yield pool
        pool.join()

    def map(self, pool: Any, function: Function, items: list[Any], chunksize: int | None = None) -> list[Any]:
        results: list[Any] = pool.map(function, items, chunksize)
        return results

    def imap(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(pool.imap(function, items))

    def imap_unordered(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(pool.imap_unordered(function, items))

    def submit(self, pool: Any, function: Function, item: Any) -> Callable[[], Any]:
        waiting: Callable[[], Any] = pool.apply_async(function, (item,)).get
        return waiting

    def submit_map(self, pool: Any, function: Function, items: Any, ended: Callable[[list[Any]], None]) -> None:
        pool.map_async(function, items, callback=ended)

    def call(self, pool: Any, function: Function, item: Any) -> Any:
        return pool.apply(function, (item,))


class ExecutorAdapter(Adapter):
    """Libraries with the interface of `concurrent.futures`."""

    def map(self, pool: Any, function: Function, items: list[Any], chunksize: int | None = None) -> list[Any]:
        options = {} if chunksize is None else {"chunksize": chunksize}
        return list(pool.map(function, items, **options))

    def imap(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        return iter(pool.map(function, items))

    def imap_unordered(self, pool: Any, function: Function, items: Iterable[Any]) -> Iterator[Any]:
        from concurrent.futures import as_completed

        futures = [self.future(pool, function, item) for item in items]
        return (future.result() for future in as_completed(futures))

    def submit(self, pool: Any, function: Function, item: Any) -> Callable[[], Any]:
        waiting: Callable[[], Any] = self.future(pool, function, item).result
        return waiting

    def executor(self, workers: int, method: str) -> AbstractContextManager[Any]:
        return self.session(workers, method)

    def awaiting(self, workers: int, method: str) -> AbstractAsyncContextManager[Any]:
        return awaiting(self.session(workers, method))


@asynccontextmanager
async def awaiting(session: AbstractContextManager[Any]) -> AsyncIterator[Any]:
    """An executor for the length of an ``async with`` block."""
    with session as executor:
        yield executor
