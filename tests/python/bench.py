"""Starts processes for tests, and waits for their actions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

# No action takes this long; a missing action fails the test instead of hanging it.
LONG = 30.0


class Bench:
    """Starts processes by one start method, and ends them with the test."""

    def __init__(self, mp: ModuleType, method: str) -> None:
        self.ctx = mp.get_context(method)
        self.processes: list[Any] = []

    def start(self, target: Callable[..., Any], *args: Any) -> Any:
        process = self.ctx.Process(target=target, args=args)
        process.start()
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
            process.close()
        self.processes.clear()


def ends_well(process: Any) -> None:
    process.join(LONG)
    assert process.exitcode == 0


def until_asleep(pid: int) -> None:
    """Wait until the process's first thread sleeps in the kernel, on a futex if `/proc` shows that."""
    deadline = time.monotonic() + LONG
    asleep = 0
    while asleep < 3:
        assert time.monotonic() < deadline, f"process {pid} does not go to sleep"
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        with contextlib.suppress(OSError):
            where = Path(f"/proc/{pid}/wchan").read_text()
            state = state if where in ("", "0") or "futex" in where else "elsewhere"
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.01)


def until(true_now: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not true_now():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.005)


class Rung(Exception):
    pass


def ring(*_: Any) -> None:
    raise Rung
