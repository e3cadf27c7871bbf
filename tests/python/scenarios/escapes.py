"""Tasks that raise what most code does not catch."""

from __future__ import annotations

import asyncio

from . import tasks
from .bench import Bench
from .deaths import drain
from .registry import scenario


class Halt(BaseException):
    """A program's own way out, which `except Exception` lets pass."""


ESCAPES: dict[str, BaseException] = {
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt("from the task"),
    "GeneratorExit": GeneratorExit("from the task"),
    "CancelledError": asyncio.CancelledError("from the task"),
    "Halt": Halt("from the task"),
}


def raise_at_two(job: tuple[int, BaseException]) -> int:
    item, error = job
    if item == 2:
        raise error
    return item * 10


@scenario("task raises {kind}", kind=list(ESCAPES))
def escape(bench: Bench, kind: str) -> None:
    error = ESCAPES[kind]
    with bench.pool() as pool:
        workers = set(bench.worker_pids(pool))
        for call, run in {
            "apply": lambda: pool.apply(tasks.raise_it, (error,)),
            "map": lambda: pool.map(raise_at_two, [(item, error) for item in range(5)], chunksize=1),
            "map in one chunk": lambda: pool.map(raise_at_two, [(item, error) for item in range(5)], chunksize=5),
        }.items():
            bench.at(call)
            raised = bench.expect(type(error), run)
            assert type(raised) is type(error) and raised.args == error.args, repr(raised)
            assert isinstance(raised.__cause__, bench.pool_module.RemoteTraceback), repr(raised.__cause__)
        bench.at("imap")
        iterator = pool.imap(raise_at_two, [(item, error) for item in range(5)])
        assert [next(iterator), next(iterator)] == [0, 10]
        bench.expect(type(error), lambda: next(iterator))
        assert drain(iterator) == ([30, 40], [])
        assert set(bench.worker_pids(pool)) == workers, "a worker was replaced for an exception"
