"""Idle workers receive signals at any time: their handlers run, and they end in order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_terminated_idle_worker_runs_its_own_handler(method: str) -> None:
    line = [sys.executable, "-m", "maniple", str(PROGRAMS / "heard_signals.py"), method]
    done = subprocess.run(line, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")
