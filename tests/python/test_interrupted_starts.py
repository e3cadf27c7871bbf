"""A signal handler interrupts `Process.start`: the process object has its child, or the child was ended and reaped."""

from __future__ import annotations

import gc
import importlib
import os
import random
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


class Broken(Exception):
    pass


def nothing() -> None:
    pass


def children(but: set[int]) -> set[int]:
    """Return the children of this process, including zombies."""
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(pid) for pid in task.read_text().split()} - but


@pytest.mark.better_than_standard("a child that was started is not known")
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "method, times, within", [("fork", 150, 0.0015), ("spawn", 25, 0.02), ("forkserver", 20, 0.008)]
)
def test_an_interrupted_start_leaves_no_unknown_child(
    mp: ModuleType, monkeypatch: pytest.MonkeyPatch, method: str, times: int, within: float
) -> None:
    # Some handlers run in the fork hooks of `logging`; pytest's own hook for those is Python code, in which handlers run too.
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: None)
    ctx, rng, armed, broken = mp.get_context(method), random.Random(method), False, 0

    def handler(*_: Any) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Broken

    first = ctx.Process(target=nothing)
    first.start()
    first.join()
    before = signal.signal(signal.SIGALRM, handler)
    helpers = children(set())
    try:
        for _ in range(times):
            process = ctx.Process(target=nothing)
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, rng.random() ** 2 * within + 1e-6)
                process.start()
                armed = False
            except Broken:
                broken += 1
            armed = False
            if process.pid is None:
                assert process not in mp.active_children()
                process.start()  # there is none yet
            process.join()
            assert process.exitcode == 0
            process.close()
            assert not children(helpers)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert broken


@pytest.mark.better_than_standard("the process object does not know the child")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_start_interrupted_at_its_end_keeps_its_child(
    mp: ModuleType, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    process = mp.get_context(method).Process(target=nothing)
    start = type(process)._Popen

    def broken_off(process_obj: Any) -> Any:
        start(process_obj)
        raise Broken

    monkeypatch.setattr(process, "_Popen", broken_off, raising=False)
    with pytest.raises(Broken):
        process.start()
    assert process in mp.active_children() or not process.is_alive()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_start_that_is_interrupted_in_its_clean_up_leaves_no_child(
    mp: ModuleType, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    package = mp.__name__
    first = mp.get_context(method).Process(target=nothing)
    first.start()
    first.join()
    fork = importlib.import_module(f"{package}.popen_fork")
    spawn = importlib.import_module(f"{package}.popen_spawn_posix")
    helpers = children(set())

    def broken(*_: object) -> None:
        raise Broken

    for part in [(fork.Wires, "become_parent"), (spawn.Popen, "_say")]:
        with monkeypatch.context() as patched:
            patched.setattr(*part, broken)
            patched.setattr(fork.Wires, "abandon", broken)
            patched.setattr(spawn.Popen, "close", broken)
            process = mp.get_context(method).Process(target=nothing)
            try:
                process.start()
            except Broken:
                assert process.pid is None and not children(helpers)
            else:
                assert part[0] is spawn.Popen and method == "fork"
                process.join()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_an_interrupted_start_closes_its_sentinel_once(
    mp: ModuleType, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    first = mp.get_context(method).Process(target=nothing)
    first.start()
    first.join()
    popen_fork = importlib.import_module(f"{mp.__name__}.popen_fork")
    made: list[Any] = []

    def interrupted(*arguments: Any, **options: Any) -> None:
        # A handler runs after the finalizer was made, and before it is stored.
        made.append(popen_fork.util.Finalize(*arguments, **options))
        raise Broken

    process = mp.get_context(method).Process(target=nothing)
    with monkeypatch.context() as patched:
        patched.setattr(popen_fork, "Finalize", interrupted)
        with pytest.raises(Broken):
            process.start()
    assert len(made) == 1
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    gc.collect()
    made.pop()()
    for file in files:
        os.close(file)  # none was closed by another owner
