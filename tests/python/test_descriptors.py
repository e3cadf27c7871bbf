"""Closed descriptors of the standard streams, and the package's descriptors that the program has closed and reused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

PROGRAM = Path(__file__).parent / "programs" / "descriptors.py"
#: above what `closerange` closes there
OUTCOME = 200


def outcome(package: str, method: str, *what: str) -> str:
    reader, writer = os.pipe()
    os.dup2(writer, OUTCOME, inheritable=True)
    try:
        argv = [sys.executable, str(PROGRAM), package, method, *what]
        environment = dict(os.environ, OUTCOME=str(OUTCOME))
        done = subprocess.run(
            argv,
            env=environment,
            pass_fds=[OUTCOME],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=80,
        )
    finally:
        os.close(OUTCOME)
        os.close(writer)
    with open(reader) as said:
        return said.read() or f"exit code {done.returncode}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("numbers", ["0", "late0", "late1", "late2", "012", "late012"])
def test_closed_standard_streams(mp_package: str, method: str, numbers: str) -> None:
    assert outcome(mp_package, method, "closed", numbers) == "ok"


# The others have no descriptor that one of these lacks.
OBJECTS = [
    "Lock",
    "Condition",
    "Event",
    "Barrier",
    "Queue",
    "JoinableQueue",
    "SimpleQueue",
    "Pipe",
    "one-way Pipe",
    "Value",
    "Process",
    pytest.param(
        "SharedMemory", marks=pytest.mark.skipif(sys.version_info < (3, 13), reason="mmap closes its own by number")
    ),
]


@pytest.mark.better_than_standard("closes by number what it has opened")
@pytest.mark.parametrize("what", OBJECTS)
def test_the_package_closes_no_file_that_reuses_its_number(mp_package: str, what: str) -> None:
    assert outcome(mp_package, "fork", "became_daemon", what) == "child okok"


@pytest.mark.better_than_standard("closes by number what it has opened")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("what", ["Lock", "Queue", "Process"])
def test_the_package_closes_no_reused_number_in_other_start_methods(mp_package: str, method: str, what: str) -> None:
    assert outcome(mp_package, method, "became_daemon", what) == "child okok"


@pytest.mark.parametrize("method", METHODS)
def test_an_inherited_descriptor_above_the_limit(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "above_the_limit") == "ok"


@pytest.mark.better_than_standard("writes by number into what the program has opened")
@pytest.mark.parametrize("before", ["new", "used"])
@pytest.mark.parametrize("what", ["Queue", "Queue that is watched", "JoinableQueue", "SimpleQueue"])
def test_a_queue_writes_to_no_file_that_reuses_its_number(mp_package: str, what: str, before: str) -> None:
    assert outcome(mp_package, "fork", "used_after", what, before) == "ok"
