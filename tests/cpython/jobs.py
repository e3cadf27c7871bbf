"""One process of tests and its descendants: started, watched and ended in every case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twin import Twin

# Inherited by every process of a job, also after the end of its parents.
MARK = "MANIPLE_SUITE_JOB"
# The signal at which each process of the twin writes the tracebacks of all its threads.
ASK = signal.SIGRTMIN + 9
# How much of a job's output a report shows.
SHOWN = 12000
# The marks of the jobs that run now.
LIVE: set[str] = set()
STOPPED = threading.Event()


class Stopped(Exception):
    """No job begins after `stop`."""


@dataclass
class Ending:
    """The end of a job. `how` is "done", "timeout" or the cause of the process's death."""

    events: list[dict[str, Any]] = field(default_factory=list)
    how: str = "done"
    output: str = ""
    left: list[str] = field(default_factory=list)


class Job:
    """`limits` are the seconds that a test may take without a word, and those that the package's helpers, such as its resource
    tracker, have to end after the process that they serve."""

    def __init__(self, twin: Twin, module: str, tests: list[str] | None, limits: tuple[float, float]) -> None:
        self.twin, self.mark = twin, uuid.uuid4().hex
        self.limit, self.settle = limits
        self.folder = Path(tempfile.mkdtemp(prefix="j", dir=twin.folder))
        self.order: dict[str, Any] = {
            "package": twin.package,
            "module": module,
            "events": str(self.folder / "events"),
        }
        if tests is not None:
            self.order["tests"] = tests

    def run(self) -> Ending:
        """Run to the end, or until no event has come for `limit` seconds."""
        (self.folder / "tmp").mkdir()
        (self.folder / "cwd").mkdir()
        (self.folder / "events").touch()
        (self.folder / "order").write_text(json.dumps(self.order))
        environ = self.twin.environment(**{MARK: self.mark, "TMPDIR": str(self.folder / "tmp")})
        ending = Ending()
        LIVE.add(self.mark)
        if STOPPED.is_set():
            raise Stopped
        with open(self.folder / "output", "ab") as output, open(self.folder / "events") as events:
            process = subprocess.Popen(
                [self.twin.python, "-m", "maniple_suite_worker", str(self.folder / "order")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=self.folder / "cwd",
                start_new_session=True,
            )
            try:
                self._watch(process, events, ending)
                if ending.how == "timeout":
                    self._ask_for_tracebacks(process.pid)
                elif ending.how == "done":
                    ending.left = self._settle()
            finally:
                end_all(self.mark)
                process.wait()
                LIVE.discard(self.mark)
        text = (self.folder / "output").read_bytes().decode(errors="replace")
        ending.output = text if len(text) <= SHOWN else f"[...]{text[-SHOWN:]}"
        return ending

    def _watch(self, process: subprocess.Popen[bytes], events: Any, ending: Ending) -> None:
        last, rest = time.monotonic(), ""
        while True:
            code = process.poll()
            rest += events.read()
            *lines, rest = rest.split("\n")
            if lines:
                ending.events += [json.loads(line) for line in lines]
                last = time.monotonic()
            if code is not None:
                if code:
                    ending.how = died_of(code)
                return
            if time.monotonic() - last > self.limit:
                ending.how = "timeout"
                return
            time.sleep(0.05)

    def _ask_for_tracebacks(self, first: int) -> None:
        """Have every process of the job write where its threads are, one after the other, into the output."""
        others = [(pid, command) for pid, command in marked(self.mark) if pid != first]
        for pid, command in [(first, "the process of the tests"), *others[:30]]:
            with open(self.folder / "output", "a") as output:
                output.write(f"\n---- process {pid}: {command[:200]}\n")
                if not catches(pid, ASK):
                    output.write("(has no handler that shows its threads)\n")
                    continue
            try:
                os.kill(pid, ASK)
            except ProcessLookupError:
                continue
            time.sleep(0.2)

    def _settle(self) -> list[str]:
        """What the job has left behind, once its helpers had time to end."""
        deadline = time.monotonic() + self.settle
        while (left := list(marked(self.mark))) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [f"{pid} {command[:160]}" for pid, command in left]


def died_of(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def marked(mark: str) -> Iterator[tuple[int, str]]:
    """The processes of a job that run now, by number and command."""
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (entry / "environ").read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if state_of(entry) != "Z":
                    yield int(entry.name), command.strip()
        except OSError:
            continue


def state_of(entry: Path) -> str:
    return (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    except OSError:
        pass
    return False


def end_all(mark: str) -> None:
    """End all processes of a job. Trackers come last: they remove the shared memory of those that were ended."""
    spared = time.monotonic() + 2
    while left := list(marked(mark)):
        others = [pid for pid, command in left if "tracker" not in command]
        for pid in others if others or time.monotonic() < spared else [pid for pid, _command in left]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def stop() -> None:
    """End all jobs that run now, and begin no more."""
    STOPPED.set()
    for _ in range(3):
        for mark in list(LIVE):
            end_all(mark)
        # A thread may have been about to start one.
        time.sleep(0.1)
