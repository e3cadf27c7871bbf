"""Limits while a thread of the program holds the interpreter's lock in one call of C code: no thread of the pool runs Python code then."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import limited
import pytest
from limited import pid_after
from pools import METHODS, square

every_method = pytest.mark.parametrize("kind", METHODS, indirect=True)

HOLD = 4
LIMITS = (0.6, 1.2)
# The memory of a worker, and what it takes at a time.
MEMORY, STEP = 80_000_000, 2_000_000


def ready() -> None:
    """Import this module in a worker that starts."""


def hold_the_interpreter(seconds: int) -> None:
    # Functions of `PyDLL` do not release the lock.
    ctypes.PyDLL(None).sleep(seconds)


def beat(path: str) -> None:
    Path(path).write_text(str(time.time()))
    while True:
        os.utime(path)
        time.sleep(0.005)


def grow(path: str) -> None:
    held = []
    while True:
        held.append(b"x" * STEP)
        Path(path).write_text(str(len(held) * STEP))
        time.sleep(0.02)


def beats(path: Path) -> float:
    """Return how long a worker has run `beat`, in seconds."""
    begun = path.read_text() if path.exists() else ""
    return path.stat().st_mtime - float(begun) if begun else 0.0


# What sends the pool's thread back to Python code, in which it waits for the lock.
EVENTS: dict[str, Callable[[Any], object]] = {
    "another limit": lambda pool: pool.apply_async(limited.block_in_c, task_timeout=0.1),
    "a death": lambda pool: pool.apply_async(os._exit, (3,)),
    "a callback": lambda pool: pool.apply_async(square, (3,), callback=print),
    "the end of a map": lambda pool: pool.map_async(square, range(4)),
}


@every_method
@pytest.mark.parametrize("event", EVENTS)
def test_time_limits_are_held(new_pool: Callable[..., Any], mp: ModuleType, tmp_path: Path, event: str) -> None:
    pool = new_pool(3, initializer=ready)
    pool.map(pid_after, [0.05] * 9, chunksize=1)
    files = [tmp_path / str(limit) for limit in LIMITS]
    results = [
        pool.apply_async(beat, (str(file),), task_timeout=limit) for file, limit in zip(files, LIMITS, strict=True)
    ]
    other = EVENTS[event](pool)
    hold_the_interpreter(HOLD)
    for result, limit in zip(results, LIMITS, strict=True):
        with pytest.raises(mp.TaskTimeoutError) as raised:
            result.get()
        assert raised.value.elapsed < HOLD - 1, limit
    assert all(beats(file) < HOLD - 1 for file in files)
    del other


@every_method
@pytest.mark.parametrize("event", list(EVENTS)[:2])
def test_memory_is_looked_at(new_pool: Callable[..., Any], mp: ModuleType, tmp_path: Path, event: str) -> None:
    pool = new_pool(3, initializer=ready, memory_limit=MEMORY)
    pool.map(pid_after, [0.05] * 9, chunksize=1)
    result = pool.apply_async(grow, (str(tmp_path / "size"),))
    other = EVENTS[event](pool)
    hold_the_interpreter(HOLD)
    with pytest.raises(mp.MemoryLimitError):
        result.get()
    # With an interpreter's own memory, and far from the 64 MiB that a control group allows beyond the limit.
    assert int((tmp_path / "size").read_text() or 0) < MEMORY + 5 * STEP
    del other
