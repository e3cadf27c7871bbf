"""The workbench that every scenario gets: pools, the usual checks, a folder."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from . import tasks

WORKERS = 2

# The file in the working folder to which each scenario's outcome is added, a line of JSON.
OUTCOMES = "outcomes.jsonl"


def until(condition: Callable[[], Any], what: str, patience: float = 8.0) -> Any:
    """Wait for a true value of `condition()` and return it; AssertionError names `what`."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain: {what}"
        time.sleep(0.01)
    return value


def full_text(error: BaseException) -> str:
    """The error as a traceback shows it: its own text, its causes, its notes."""
    return "".join(traceback.format_exception(error))


def alive(pid: int) -> bool:
    """Whether the process is still there and is more than a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def items_named(task: str) -> Iterable[int]:
    """The item indexes in a lost task's description: "item 7", or for a chunk "items 5 to 9"."""
    numbers = [int(number) for number in re.findall(r"\d+", task.partition("item")[2])]
    return range(numbers[0], numbers[-1] + 1) if numbers else ()


class Bench:
    def __init__(self, package: str, method: str, workdir: Path) -> None:
        self.package = package
        self.method = method
        self.workdir = workdir
        self.module = importlib.import_module(package)
        self.pool_module = importlib.import_module(f"{package}.pool")
        self.mp = self.module.get_context(method)
        self._warm = False

    # -- pools

    def warm_up(self) -> None:
        """The first pool of a process starts helpers that stay, such as the fork server; once is enough."""
        if not self._warm:
            self.at("warming up")
            pool = self.mp.Pool(1)
            pool.map(tasks.identity, [1, 2])
            pool.close()
            pool.join()
            self._warm = True

    @contextlib.contextmanager
    def pool(self, processes: int = WORKERS, **options: Any) -> Iterator[Any]:
        """A pool that must still be sound after the block, and is then closed and joined.

        After an error it is left as it is: the scenario's process ends at once, since
        tidying up a broken pool could hang and hide the error.
        """
        pool = self.mp.Pool(processes, **options)
        yield pool
        self.assert_sound(pool, processes)
        self.at("close and join")
        pool.close()
        pool.join()

    def assert_sound(self, pool: Any, processes: int = WORKERS) -> None:
        """The pool answers, and with all its workers at once."""
        self.at("a map after the failure")
        assert pool.map(abs, [-1, -2]) == [1, 2]
        self.at("all workers at once after the failure")
        folder = self.folder()
        pids = pool.starmap(tasks.meet, [(folder, processes)] * processes, chunksize=1)
        assert 0 not in pids, f"only {len(os.listdir(folder))} of {processes} workers took part"
        assert len(set(pids)) == processes, f"{processes} tasks at once ran in {pids}"

    def worker_pids(self, pool: Any) -> list[int]:
        return [worker.pid for worker in pool._pool if worker.pid is not None]

    # -- files

    def folder(self) -> str:
        return tempfile.mkdtemp(dir=self.workdir)

    def log(self) -> str:
        return os.path.join(self.folder(), "log")

    def ran(self, log: str) -> Counter[int]:
        """How often each item ran, from the lines that `tasks.note` wrote."""
        path = Path(log)
        return Counter(map(int, path.read_text().split())) if path.exists() else Counter()

    def announced(self, folder: str, count: int) -> list[int]:
        """The pids of the first `count` workers that `tasks.announce` in `folder`."""
        names = until(
            lambda: len(os.listdir(folder)) >= count and os.listdir(folder),
            f"{count} busy workers; the folder has {os.listdir(folder)}",
        )
        return [int(name) for name in names]

    def at(self, step: str) -> None:
        """Leave word of what comes next, for the report of a scenario that hangs."""
        (self.workdir / "step").write_text(step)

    # -- expectations

    def expect(self, kinds: type | tuple[type, ...], call: Callable[[], Any]) -> BaseException:
        """Run `call`, which must raise one of `kinds`; returns the exception."""
        try:
            value = call()
        except kinds as error:
            return error
        except BaseException as error:
            raise AssertionError(f"raised {error!r} instead of {kinds}") from error
        raise AssertionError(f"returned {value!r:.200} instead of raising {kinds}")

    def expect_lost(self, call: Callable[[], Any], **facts: Any) -> Any:
        """Run `call`, which must raise the WorkerLostError that `check_lost` describes."""
        return self.check_lost(self.expect(Exception, call), **facts)

    def check_lost(
        self, error: BaseException, *, exitcode: int, function: str, index: int | None = None, pid: int | None = None
    ) -> Any:
        """`error` is a WorkerLostError that names the process, its end and its task."""
        kind = getattr(self.pool_module, "WorkerLostError", None)
        assert kind is not None, f"{self.package}.pool has no WorkerLostError; the call raised {error!r}"
        assert isinstance(error, kind), f"raised {error!r} instead of WorkerLostError"
        assert issubclass(kind, RuntimeError)
        text = str(error)
        assert error.exitcode == exitcode, f"exitcode {error.exitcode!r}, not {exitcode}: {text}"
        if exitcode < 0:
            assert isinstance(error.signal, signal.Signals), repr(error.signal)
            assert error.signal == -exitcode
            assert error.signal.name in text, f"{error.signal.name} is not named in: {text}"
        else:
            assert error.signal is None, repr(error.signal)
            assert re.search(rf"\b{exitcode}\b", text), f"exit code {exitcode} is not named in: {text}"
        assert isinstance(error.pid, int) and re.search(rf"\b{error.pid}\b", text), f"pid {error.pid} not in: {text}"
        assert pid is None or error.pid == pid, f"pid {error.pid}, not {pid}: {text}"
        assert function in error.task and function in text, f"{function} is not named in {error.task!r}; {text}"
        if index is not None:
            assert index in items_named(error.task), f"item {index} is not named in {error.task!r}"
        assert isinstance(error.stderr_tail, str), repr(error.stderr_tail)
        assert error.stderr_tail.strip() in text, f"the tail {error.stderr_tail!r} is not in: {text}"
        return error

    def assert_each_ran_once(self, log: str, items: Iterable[int]) -> None:
        ran = self.ran(log)
        expected = Counter(items)
        assert ran == expected, f"ran too often: {ran - expected}; too seldom: {expected - ran}"

    def assert_gone(self, pids: Iterable[int], patience: float = 8.0) -> None:
        """Every process in `pids` ends within `patience` seconds."""
        pids = list(pids)
        until(lambda: not any(map(alive, pids)), f"processes {pids} to end", patience)
