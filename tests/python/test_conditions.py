"""Processes, pools and locks on kernels and in sandboxes that refuse calls, and in programs that wait for all children
themselves."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

PROGRAM = Path(__file__).parent / "programs" / "conditions.py"

REFUSED = [
    ("fork", "pidfd_open:EPERM"),
    ("fork", "pidfd_send_signal:EPERM"),
    ("fork", "waitid:EPERM"),
    ("fork", "prlimit64,getrandom,accept4,preadv2:EPERM"),
    ("fork", "prlimit64,getrandom,accept4,preadv2:ENOSYS"),
    *((method, "pidfd_open:ENOSYS") for method in METHODS),
    *((method, "pidfd_open,pidfd_send_signal,waitid:ENOSYS") for method in METHODS),
]


if platform.machine() == "x86_64":
    # Elsewhere the system has no other call for this.
    REFUSED += [(method, f"ppoll:{error}") for method in METHODS for error in ("EPERM", "ENOSYS")]


def outcome(package: str, method: str, *conditions: str) -> str:
    argv = [sys.executable, str(PROGRAM), package, method, *conditions]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=80)
    return done.stdout.strip() or f"exit code {done.returncode}: {done.stderr[-2000:]}"


@pytest.mark.better_than_standard("children that somebody else reaps are never seen to end")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("condition", ["sigchld_ignored", "reaped_elsewhere"])
def test_the_program_reaps_children(mp_package: str, method: str, condition: str) -> None:
    assert outcome(mp_package, method, condition) == "ok"


@pytest.mark.better_than_standard("a dead holder's lock stays locked")
@pytest.mark.parametrize(("method", "condition"), REFUSED)
def test_the_system_refuses_calls(mp_package: str, method: str, condition: str) -> None:
    said = outcome(mp_package, method, condition)
    if said.startswith("skipped"):
        pytest.skip(said)
    assert said == "ok"


@pytest.mark.better_than_standard("a dead holder's lock stays locked")
@pytest.mark.parametrize("method", METHODS)
def test_without_proc(mp_package: str, method: str) -> None:
    said = outcome(mp_package, method, "no_proc")
    if said.startswith("skipped"):
        pytest.skip(said)
    assert said == "ok"


@pytest.mark.parametrize("refused", [[], ["pidfd_open:ENOSYS"]])
def test_processes_of_another_time_namespace(mp_package: str, refused: list[str]) -> None:
    said = outcome(mp_package, "fork", *refused, "time_namespace")
    if said.startswith("skipped"):
        pytest.skip(said)
    assert said == "ok"
