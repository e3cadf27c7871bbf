"""The base of every case: the settings of the run, the library under test, the clock, the checks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import tasks
from adapters.base import Adapter

# float64 elements: 64, 8 and 1 MiB
LARGE = 8 * 1024 * 1024
MIDDLE = 1024 * 1024
MEDIUM = 128 * 1024


class WrongAnswer(Exception):
    """A call came back with something else than it should have."""


@dataclass
class Setting:
    """What the runner decides for a whole run; it travels to the agents as JSON."""

    workers: int = 2
    method: str = "fork"
    items: int = 20_000  # small tasks in a map, an imap; items through a queue
    burst: int = 20_000  # calls outstanding at once
    calls: int = 2_000  # round trips in a row
    many: int = 400_000  # small tasks under default chunking
    repeats: int = 5  # of calls that take milliseconds, within one round
    loops_per_ms: int = 15_000  # of `tasks.burn`, measured by the runner


@dataclass
class Stage:
    """A library and a setting, with the steps that cases share."""

    library: Adapter
    setting: Setting
    seconds: float = field(default=0.0, init=False)
    units: int = field(default=0, init=False)

    def context(self, method: str | None = None) -> Any:
        """What has the package's Process, Queue, Pipe and so on, for a start method (default: the run's)."""
        if method is None:
            return self.library.context(self.library.method_for(self.setting.method))
        return self.library.context(self.library.method_for(method, exactly=True))

    @contextmanager
    def pool(self, unordered: bool = False, threads: bool = False) -> Iterator[Any]:
        """A pool of processes, or of threads, that has already answered a few calls, so that its workers are up.

        `unordered` if the case uses imap_unordered: mpire's workers continue in
        the mode of their first call.
        """
        workers = self.setting.workers
        if threads:
            session = self.library.threads(workers)
        else:
            session = self.library.session(workers, self.library.method_for(self.setting.method))
        with session as pool:
            numbers = list(range(64))
            if unordered:
                expect(sorted(self.library.imap_unordered(pool, tasks.double, numbers)), doubled(64))
            else:
                expect(self.library.map(pool, tasks.double, numbers, 1), doubled(64))
            yield pool

    @contextmanager
    def executor(self) -> Iterator[Any]:
        """An executor that has already answered a few calls."""
        method = self.library.method_for(self.setting.method)
        with self.library.executor(self.setting.workers, method) as executor:
            futures = [self.library.future(executor, tasks.double, number) for number in range(64)]
            expect([future.result() for future in futures], doubled(64))
            yield executor

    def timed(self, call: Callable[[], Any], units: int = 1) -> Any:
        """Add one call's time to the stage's; `units` is how many tasks or calls it was."""
        gc.collect()
        begun = perf_counter()
        answer = call()
        self.seconds += perf_counter() - begun
        self.units += units
        return answer


def expect(got: Any, wanted: Any) -> None:
    """Raise an error with a short message unless the two are equal."""
    if got != wanted:
        raise WrongAnswer(f"expected {wanted!r:.60}, got {got!r:.60}")


def expect_array(got: Any, wanted: Any) -> None:
    if got.dtype != wanted.dtype or got.shape != wanted.shape or not (got == wanted).all():
        raise WrongAnswer(f"expected an array {wanted.shape} {wanted.dtype}, got another: {got!r:.60}")


def doubled(count: int) -> list[int]:
    return [2 * number for number in range(count)]
