"""Runs scenarios in a separate session, under a watchdog, and checks for leftovers.

Every process that a scenario starts, even indirectly, has a mark in its environment; the mark also identifies processes
that moved to another group or lost their parent.
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from footprint import SETTLE_SECONDS, shared_names_of, still_there
from scenarios.bench import OUTCOMES

HERE = Path(__file__).resolve().parent
MARK = "MP_TEST_MARK"


@dataclass
class Outcome:
    """The outcome of a scenario; `status` is ok, failed, hung, crashed or leaked."""

    status: str
    detail: str = ""
    printed: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def __str__(self) -> str:
        return f"{self.status}: {self.detail}\n--- it printed ---\n{self.printed[-6000:]}"


def run_scenarios(names: Sequence[str], package: str, method: str, watchdog: float) -> dict[str, Outcome]:
    """Yield the outcome of each scenario, at most `watchdog` seconds each; no process of theirs survives this call.

    The scenarios share a process until one fails, which saves most of the time; the next scenario then gets a new
    process.
    """
    outcomes: dict[str, Outcome] = {}
    while remaining := [name for name in names if name not in outcomes]:
        outcomes |= _run_in_one_process(remaining, package, method, watchdog)
    return outcomes


def _run_in_one_process(names: Sequence[str], package: str, method: str, watchdog: float) -> dict[str, Outcome]:
    """Return the outcomes of `names`, up to the first that is not ok."""
    watch = _Watch()
    # Not removed with an error if a straggler still writes into it.
    with tempfile.TemporaryDirectory(prefix="scenario-", ignore_cleanup_errors=True) as folder:
        workdir = Path(folder)
        printed = workdir / "printed"
        with printed.open("wb") as sink:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "scenarios",
                    *names,
                    "--package",
                    package,
                    "--method",
                    method,
                    "--workdir",
                    folder,
                ],
                cwd=HERE,
                env={**os.environ, MARK: watch.mark, "PYTHONPATH": search_path()},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        left: list[str] = []
        try:
            outcomes = _follow(process, names, workdir, watchdog, watch)
            if all(outcome.ok for outcome in outcomes.values()):
                left = _wait_until_gone(watch)
        finally:
            _kill_all(watch)
            process.wait()
        names_left = still_there(watch.shared_names)
        for name in names_left:
            Path("/dev/shm", name).unlink(missing_ok=True)
        text = printed.read_text(errors="replace")
    last = list(outcomes)[-1]
    outcomes[last].printed = text
    if outcomes[last].ok and (left or names_left):
        what = "; ".join(
            [*(f"still running: {line}" for line in left), *(f"shared memory {name}" for name in names_left)]
        )
        return _blame(outcomes, what, package, method, watchdog)
    return outcomes


def _blame(outcomes: dict[str, Outcome], what: str, package: str, method: str, watchdog: float) -> dict[str, Outcome]:
    """Find the scenario that leaks `what` by running each alone; if none leaks alone, all are blamed."""
    if len(outcomes) > 1:
        alone = {name: _run_in_one_process([name], package, method, watchdog)[name] for name in outcomes}
        if not all(outcome.ok for outcome in alone.values()):
            return alone
    return {
        name: Outcome("leaked", f"left by {', '.join(outcomes)}: {what}", outcome.printed)
        for name, outcome in outcomes.items()
    }


def search_path() -> str:
    return os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))


class _Watch:
    """The processes that carry a new mark, and the shared memory that they have used."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self._needle = f"{MARK}={self.mark}".encode()
        self._strangers: set[str] = set()
        self.shared_names: set[str] = set()

    def look(self) -> list[psutil.Process]:
        """Return the marked processes that exist now, except zombies."""
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


def _follow(
    process: subprocess.Popen[bytes], names: Sequence[str], workdir: Path, watchdog: float, watch: _Watch
) -> dict[str, Outcome]:
    """Wait for the process, and read the outcomes as they arrive; the last describes the process's end."""
    started = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        ended = process.returncode is not None
        watch.look()
        for line in _lines(workdir / OUTCOMES)[len(outcomes) :]:
            fields = json.loads(line)
            now = time.monotonic()
            outcomes[fields["name"]] = Outcome(fields["status"], fields["detail"], seconds=now - started)
            started = now
        if ended:
            break
        if time.monotonic() - started > watchdog:
            process.send_signal(signal.SIGUSR1)  # it prints the stacks of its threads
            time.sleep(0.3)
            _set_current(outcomes, names, "hung", f"no end within {watchdog:g} s, at: {_step(workdir)}")
            return outcomes
    bad = any(not outcome.ok for outcome in outcomes.values())
    if len(outcomes) < len(names) and not bad:
        _set_current(outcomes, names, "crashed", f"exit code {process.returncode} and no outcome, at: {_step(workdir)}")
    elif process.returncode != 0 and not bad:
        _set_current(outcomes, names, "failed", f"all checks passed, then the process ended with {process.returncode}")
    return outcomes


def _set_current(outcomes: dict[str, Outcome], names: Sequence[str], status: str, detail: str) -> None:
    """Attribute the end to the scenario without an outcome yet, or to the exit of the last scenario."""
    name = names[min(len(outcomes), len(names) - 1)]
    outcomes[name] = Outcome(status, detail)


def _lines(path: Path) -> list[str]:
    """Return the complete lines of a file that may not exist yet."""
    return path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []


def _step(workdir: Path) -> str:
    path = workdir / "step"
    return path.read_text() if path.exists() else "its start"


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
    """End the remaining processes, in more than one round, since a dying program may start others."""
    for _ in range(50):
        left = watch.look()
        if not left:
            return
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.02)
