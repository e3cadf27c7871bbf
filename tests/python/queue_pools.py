"""Subclasses of the pool as other projects write them, and functions for their workers."""

from __future__ import annotations

import copyreg
import importlib
import io
import os
import pickle
from types import ModuleType
from typing import Any


class Sealed:
    """A value that the queues below double in transit."""

    def __init__(self, number: int) -> None:
        self.number = number


def doubled(sealed: Sealed) -> tuple[type, tuple[int]]:
    return Sealed, (sealed.number * 2,)


def opened(sealed: Sealed) -> int:
    return sealed.number


def seal(number: int) -> Sealed:
    return Sealed(number)


class PipeQueue:
    """A queue over a pipe and two locks, with its own reducer."""

    def __init__(self, ctx: Any, doubles: bool = True) -> None:
        self.doubles = doubles
        self._reader, self._writer = ctx.Pipe(duplex=False)
        self._rlock, self._wlock = ctx.Lock(), ctx.Lock()

    def __getstate__(self) -> Any:
        return self.doubles, self._reader, self._writer, self._rlock, self._wlock

    def __setstate__(self, state: Any) -> None:
        self.doubles, self._reader, self._writer, self._rlock, self._wlock = state

    def get(self) -> Any:
        with self._rlock:
            return self._reader.recv()

    def put(self, obj: Any) -> None:
        stream = io.BytesIO()
        pickler = pickle.Pickler(stream, 4)
        if self.doubles:
            pickler.dispatch_table = copyreg.dispatch_table | {Sealed: doubled}
        pickler.dump(obj)
        with self._wlock:
            self._writer.send_bytes(stream.getvalue())


def worker_of_ones_own(module: str, *args: Any) -> None:
    """Run the worker of the `module`, as the worker function that a subclass starts instead."""
    os.environ["STARTED_BY"] = "the subclass"
    importlib.import_module(module).worker(*args)


def started_by(_: object = None) -> str | None:
    return os.environ.get("STARTED_BY")


def classes(module: ModuleType, calls: list[str]) -> dict[str, type]:
    """Return subclasses of the module's Pool by name, each with its own overrides. `calls` records the calls."""
    Pool = module.Pool

    class OwnQueues(Pool):
        def _setup_queues(self) -> None:
            calls.append("_setup_queues")
            self._inqueue, self._outqueue = PipeQueue(self._ctx), PipeQueue(self._ctx, doubles=False)
            self._quick_put, self._quick_get = self._inqueue.put, self._outqueue._reader.recv

    class ContextsQueues(Pool):
        def _setup_queues(self) -> None:
            calls.append("_setup_queues")
            self._inqueue, self._outqueue = self._ctx.SimpleQueue(), self._ctx.SimpleQueue()
            self._quick_put, self._quick_get = self._inqueue._writer.send, self._outqueue._reader.recv

    class Named(Pool):
        def _repopulate_pool(self) -> None:
            calls.append("_repopulate_pool")
            super()._repopulate_pool()
            for number, process in enumerate(self._pool):
                process.name = f"mine-{number}"

    class Static(Pool):
        @staticmethod
        def _repopulate_pool_static(ctx: Any, Process: Any, processes: int, pool: list[Any], *rest: Any) -> None:
            calls.append("_repopulate_pool_static")
            Pool._repopulate_pool_static(ctx, Process, processes, pool, *rest)

    class OwnWorkers(Pool):
        def _repopulate_pool(self) -> None:
            calls.append("_repopulate_pool")
            for _ in range(self._processes - len(self._pool)):
                # Without the worker table that `_initargs` contains, as a class that passes its own arguments.
                args = module.__name__, self._inqueue, self._outqueue
                process = self._ctx.Process(target=worker_of_ones_own, args=args)
                process.daemon = True
                process.start()
                self._pool.append(process)

    class Generates(Pool):
        def _guarded_task_generation(self, *args: Any) -> Any:
            calls.append("_guarded_task_generation")
            return super()._guarded_task_generation(*args)

    return {cls.__name__: cls for cls in (OwnQueues, ContextsQueues, Named, Static, OwnWorkers, Generates)}


class CannotReturn(Exception):
    """Pickles, but cannot be unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


def raise_what_cannot_return() -> None:
    raise CannotReturn(1, 2)


class Unreadable:
    """Pickles, but cannot be unpickled."""

    def __reduce__(self) -> Any:
        return int, ("not a number",)


def give_unreadable(_: object = None) -> Unreadable:
    return Unreadable()


class Deadly:
    """Ends the worker that unpickles it."""

    def __init__(self, caller: int) -> None:
        self.caller = caller

    def __reduce__(self) -> Any:
        return live_only_in, (self.caller,)


def live_only_in(process: int) -> int:
    if os.getpid() != process:
        os._exit(9)
    return process
