"""Runs one scenario in a session of its own, under a watchdog, and looks what it leaves.

Every process which a scenario starts, however indirectly, carries a mark in its
environment; that finds also those which moved to another group or lost their parent.
"""
from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil

from footprint import SETTLE_SECONDS, shared_names_of, still_there

HERE = Path(__file__).resolve().parent
MARK = "MP_TEST_MARK"


@dataclass
class Outcome:
    """What came of one scenario; `status` is ok, failed, hung, crashed or leaked."""

    status: str
    detail: str = ""
    printed: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def __str__(self) -> str:
        return f"{self.status}: {self.detail}\n--- it printed ---\n{self.printed[-6000:]}"


def run_scenario(name: str, package: str, method: str, watchdog: float) -> Outcome:
    """Run `name` and wait at most `watchdog` seconds for it; nothing it started survives this call."""
    mark = uuid.uuid4().hex
    started = time.monotonic()
    # Not removed with an error if a straggler still writes into it.
    with tempfile.TemporaryDirectory(prefix="scenario-", ignore_cleanup_errors=True) as folder:
        workdir = Path(folder)
        printed = workdir / "printed"
        with printed.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "scenarios", name, "--package", package,
                 "--method", method, "--workdir", folder],
                cwd=HERE, env={**os.environ, MARK: mark, "PYTHONPATH": search_path()},
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True)
        watch = _Watch(mark)
        try:
            outcome = _ending(process, workdir, watchdog, watch)
            if outcome.ok:
                left = _wait_until_gone(watch)
                if left:
                    outcome = Outcome("leaked", "still running: " + "; ".join(left))
        finally:
            _kill_all(watch)
            process.wait()
        names = still_there(watch.shared_names)
        if names and outcome.ok:
            outcome = Outcome("leaked", f"shared memory is left: {names}")
        for name in names:
            Path("/dev/shm", name).unlink(missing_ok=True)
        outcome.printed = printed.read_text(errors="replace")
    outcome.seconds = time.monotonic() - started
    return outcome


def search_path() -> str:
    return os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))


class _Watch:
    """The processes that carry a mark, and the shared memory they have been seen with."""

    def __init__(self, mark: str) -> None:
        self._needle = f"{MARK}={mark}".encode()
        self._strangers: set[str] = set()
        self.shared_names: set[str] = set()

    def look(self) -> list[psutil.Process]:
        """The marked processes which are there now, zombies aside."""
        found = []
        entries = {entry for entry in os.listdir("/proc") if entry.isdigit()}
        self._strangers &= entries
        for entry in entries - self._strangers:
            with contextlib.suppress(OSError, psutil.Error):
                environment = Path("/proc", entry, "environ").read_bytes()
                if self._needle in environment:
                    found.append(psutil.Process(int(entry)))
                elif environment:  # it is empty for a moment while a process replaces its program
                    self._strangers.add(entry)
        self.shared_names |= shared_names_of(process.pid for process in found)
        return found


def _ending(process: subprocess.Popen[bytes], workdir: Path, watchdog: float, watch: _Watch) -> Outcome:
    step_file, outcome_file = workdir / "step", workdir / "outcome.json"
    deadline = time.monotonic() + watchdog
    while True:
        try:
            code = process.wait(0.1)
            break
        except subprocess.TimeoutExpired:
            watch.look()
        if time.monotonic() > deadline:
            process.send_signal(signal.SIGUSR1)  # it prints where its threads stand
            time.sleep(0.3)
            step = step_file.read_text() if step_file.exists() else "its start"
            done = ", though its checks had passed" if outcome_file.exists() else ""
            return Outcome("hung", f"no end within {watchdog:g} s, at: {step}{done}")
    if not outcome_file.exists():
        return Outcome("crashed", f"ended with exit code {code} and no outcome")
    outcome = Outcome(**json.loads(outcome_file.read_text()))
    if outcome.ok and code != 0:
        return Outcome("failed", f"all checks passed, then the process ended with exit code {code}")
    return outcome


def _wait_until_gone(watch: _Watch) -> list[str]:
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := watch.look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    lines = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            lines.append(f"{process.pid} {process.status()} {' '.join(process.cmdline())[-160:]}")
    return lines


def _kill_all(watch: _Watch) -> None:
    """End all that is left; more than one round, since a dying program may start others."""
    for _ in range(50):
        left = watch.look()
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)
