"""Programs whose C library has no memory left, or whose interpreter has none for an object."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

PROGRAMS = Path(__file__).parent / "programs"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("objects", [None, 0, 30], ids=lambda left: f"objects={left}")
def test_work_continues_or_raises_memory_error(mp_package: str, method: str, objects: int | None) -> None:
    argv = [
        sys.executable,
        str(PROGRAMS / "no_memory.py"),
        mp_package,
        method,
        *([] if objects is None else [str(objects)]),
    ]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=85)
    assert (done.stdout.strip(), done.returncode) == ("ok", 0), done.stderr[-2000:]


def test_one_object_that_cannot_be_made_is_a_memory_error(mp_package: str) -> None:
    pytest.importorskip("_testcapi", reason="this interpreter has no module that lets an allocation fail")
    argv = [sys.executable, str(PROGRAMS / "no_object.py"), mp_package]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=85)
    assert (done.stdout.strip(), done.returncode) == ("ok", 0), done.stderr[-2000:]
