"""The memory limit of workers with control groups, and where the system refuses them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import memory_groups
import psutil
import pytest
from memory_groups import LIMIT, SLACK
from pools import METHODS

Run = Callable[..., dict[str, Any]]

every_method = pytest.mark.parametrize("method", METHODS)
both = pytest.mark.parametrize("groups", ["allowed", "refused"])


def may_make_groups() -> bool:
    """Return whether this process can make groups in version 1 of the kernel's interface."""
    group = memory_groups.memory_group()
    if group is None:
        return False
    trial = group / f"trial-{os.getpid()}"
    try:
        trial.mkdir()
    except OSError:
        return False
    trial.rmdir()
    return True


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a scenario in a program of its own; checks that there are groups where there may be, and that none is left."""

    def run(method: str, scenario: str, groups: str = "allowed", status: int = 0) -> dict[str, Any]:
        words = [sys.executable, memory_groups.__file__, method, scenario, str(tmp_path)]
        done = subprocess.run(
            [*words, *(["refused"] if groups == "refused" else [])], stdout=subprocess.PIPE, text=True, timeout=80
        )
        assert done.returncode == status
        told: dict[str, Any] = json.loads(done.stdout)
        assert bool(told["group"]) == (groups == "allowed" and may_make_groups())
        assert not told.get("left")
        return told

    return run


@both
@every_method
def test_a_task_beyond_the_limit_ends_alone(run: Run, method: str, groups: str) -> None:
    told = run(method, "run_beyond_the_limit", groups)
    assert told["error"] == "MemoryLimitError" and told["limit"] == LIMIT < told["peak"]
    assert bool(told["next"]) == bool(told["group"]) and (told["next"] != told["group"] or not told["group"])


@both
@every_method
def test_a_task_that_uses_all_at_once_while_nothing_watches(run: Run, method: str, groups: str, tmp_path: Path) -> None:
    told = run(method, "eat_at_once", groups)
    assert told["error"] == "MemoryLimitError" and told["limit"] == LIMIT < told["peak"]
    if told["group"]:
        assert LIMIT < int((tmp_path / "peak").read_text()) <= LIMIT + SLACK


@every_method
def test_a_kill_by_the_kernel_at_the_limit_is_the_limit_s_error(run: Run, method: str) -> None:
    told = run(method, "be_killed")
    assert told["error"] == "MemoryLimitError" and told["limit"] == LIMIT < told["peak"]
    if told["group"]:
        assert told["peak"] <= LIMIT + SLACK


@both
@every_method
def test_shared_memory_ends_no_worker(run: Run, method: str, groups: str) -> None:
    told = run(method, "share", groups)
    assert told["value"] == 240_000_000 and told["next"] == told["group"]


@both
@every_method
def test_the_processes_of_a_task_count_in_its_group(run: Run, method: str, groups: str) -> None:
    told = run(method, "start_a_large_child", groups)
    if told["group"]:
        assert told["error"] == "MemoryLimitError" and told["peak"] > LIMIT
    else:
        assert told["value"] == 0


@every_method
def test_a_process_that_outlives_its_worker_leaves_the_group(run: Run, method: str) -> None:
    told = run(method, "leave_a_process")
    left = psutil.Process(told["value"])
    try:
        own = memory_groups.memory_group()
        lines = Path(f"/proc/{left.pid}/cgroup").read_text()
        assert left.is_running() and (own is None or f"{os.sep}{own.name}\n" in lines)
    finally:
        left.kill()


@every_method
def test_groups_of_a_killed_program_are_removed_by_the_next(run: Run, method: str) -> None:
    group = run(method, "kill_the_pool", status=-signal.SIGKILL)["group"]
    assert bool(group) == may_make_groups()
    if group:
        # The worker ends with its pool's process.
        patience = time.monotonic() + 20
        while Path(group, "cgroup.procs").read_text() and time.monotonic() < patience:
            time.sleep(0.01)
        assert Path(group).is_dir()
    run(method, "run_beyond_the_limit")
    assert not group or not Path(group).exists()
