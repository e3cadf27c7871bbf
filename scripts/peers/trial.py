"""Runs the tests of a peer with one of the two packages, and reports the outcome of each test.

A test that runs for longer than the peer's limit is made to show its stacks (SIGABRT), ended, and counted as ``hung``; one
that ends the interpreter counts as ``crashed``. The run then continues after that test. Every process that the run has started
is ended after it, found by a mark in its environment.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from marked import end_all
from registry import Peer
from run_tests import MARK

HERE = Path(__file__).resolve().parent
# How often a run may crash or hang and continue.
STOPS = 60
# Seconds until an interpreter that received SIGABRT is killed.
ABORT = 10
# Seconds in which pytest must have begun its first test, and have ended after the last one.
AROUND = 240

Results = dict[str, dict[str, str]]


@dataclass
class Trial:
    """A peer's tests, ready to be run on the standard package or on maniple."""

    peer: Peer
    python: Path
    folder: Path
    # Where the log and the notes go; the same for both packages.
    kept: Path

    def run(self, ours: bool, only: list[str] | None = None) -> Results:
        """Run all tests, or only those named."""
        self.kept.mkdir(parents=True, exist_ok=True)
        side = ("maniple" if ours else "standard") + ("-again" if only is not None else "")
        log = self.kept / f"{side}.log"
        log.unlink(missing_ok=True)
        if self.peer.runner == "pytest":
            return self._pytest(ours, only, side, log)
        if self.peer.runner == "scripts":
            return self._scripts(ours, only, log)
        return self._unittest(ours, only, log)

    # ------------------------------------------------------------ kinds of runner

    def _pytest(self, ours: bool, only: list[str] | None, side: str, log: Path) -> Results:
        notes = self.kept / f"{side}.notes"
        notes.write_text("")
        environ = {"MANIPLE_PEERS_NOTES": str(notes)}
        if only is not None:
            chosen = self.kept / f"{side}.only"
            chosen.write_text(json.dumps(only))
            environ["MANIPLE_PEERS_ONLY"] = str(chosen)
        flags = ["-c", str(HERE / "inside" / "peers.ini"), "--rootdir", str(self.folder)]
        if ours and self.peer.backend:
            flags += ["-p", "maniple_backend"]
        flags += ["-p", "maniple_peers", "-p", "no:cacheprovider", "--color=no", "-q", *self.peer.arguments]
        flags += [word for test in self.peer.left_out for word in ("--deselect", test)]
        command = ["-m", "pytest", *flags, *self.peer.tests]
        started = time.monotonic()
        for _ in range(STOPS):
            stop = self._until_it_stops(command, ours, environ, log, notes)
            results, running = read(notes)
            if not stop:
                break
            if time.monotonic() - started > self.peer.whole:
                self._note(notes, running or "the rest", "hung", f"all of it took more than {self.peer.whole} s")
                break
            if running is None:
                # Before its first test or after the last one: there is no test to continue with.
                self._note(notes, f"around the tests ({stop})", "failed", tail(log))
                break
            self._note(notes, running, stop, tail(log))
        return read(notes)[0]

    def _until_it_stops(self, command: list[str], ours: bool, environ: dict[str, str], log: Path, notes: Path) -> str:
        """Run once; "" if it came to its end, or how it did not."""
        with self._start(command, ours, environ, log) as run:
            began, seen = time.monotonic(), ""
            while run.process.poll() is None:
                time.sleep(0.2)
                _, running = read(notes)
                now = f"{running} {notes.stat().st_size}"
                if now != seen:
                    began, seen = time.monotonic(), now
                limit = AROUND if running is None else self.peer.limit
                if time.monotonic() - began > limit:
                    run.abort()
                    return "hung"
            # 0: all well; 1: some tests failed; 5: none was left to run.
            return "" if run.process.returncode in (0, 1, 2, 5) and read(notes)[1] is None else "crashed"

    def _scripts(self, ours: bool, only: list[str] | None, log: Path) -> Results:
        """Each file is a test of its own: it passes if it ends with 0 in time."""
        results: Results = {}
        files = sorted(path for pattern in self.peer.tests for path in self.folder.glob(pattern))
        for path in files:
            name = str(path.relative_to(self.folder))
            if name in self.peer.left_out or (only is not None and name not in only):
                continue
            code = self._to_its_end([name, *self.peer.arguments], ours, log)
            said = log.read_text(errors="replace").rpartition("\n==== ")[2]
            outcome = {0: "passed", None: "hung"}.get(code, "failed")
            results[name] = {"outcome": outcome, "text": "" if outcome == "passed" else said[-6000:]}
        return results

    def _unittest(self, ours: bool, only: list[str] | None, log: Path) -> Results:
        """A runner of the peer's own which prints a line for each test, as unittest does with -v."""
        code = self._to_its_end([*self.peer.arguments, *self.peer.tests], ours, log, self.peer.whole)
        said = log.read_text(errors="replace")
        results: Results = {}
        for name, place, word in re.findall(r"^(\w+) \(([\w.]+)\).*?\.\.\. (\w+)", said, re.M | re.S):
            outcome = {"ok": "passed", "skipped": "skipped", "expected": "skipped"}.get(word, "failed")
            test = f"{place}.{name}" if not place.endswith(f".{name}") else place
            if only is None or test in only:
                results[test] = {"outcome": outcome, "text": "" if outcome == "passed" else failure_of(test, said)}
        if code not in (0, 1) or not results:
            results["all of it"] = {"outcome": "hung" if code is None else "failed", "text": said[-6000:]}
        return results

    # ------------------------------------------------------------ processes

    def _to_its_end(self, command: list[str], ours: bool, log: Path, limit: float | None = None) -> int | None:
        """Run a program; its exit code, or None if it was ended for its time."""
        with self._start(command, ours, {}, log) as run:
            try:
                return run.process.wait(limit or self.peer.limit)
            except subprocess.TimeoutExpired:
                run.abort()
                return None

    def _start(self, command: list[str], ours: bool, environ: dict[str, str], log: Path) -> Run:
        path = [str(HERE / "inside")]
        if ours and self.peer.everywhere:
            path.insert(0, str(HERE / "everywhere"))
        if ours and self.peer.backend:
            path.insert(0, str(HERE / "backend"))
        prefix = "-m maniple" if ours and not self.peer.backend else ""
        mark = uuid.uuid4().hex
        whole = {**os.environ, **dict(self.peer.environ), **environ, MARK: mark, "PYTHONPATH": os.pathsep.join(path)}
        whole |= {"PYTHONFAULTHANDLER": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        # For programs that start others.
        whole["MANIPLE_PEERS_PREFIX"] = prefix
        # As in an environment that was activated: tests start the peer's own programs by name.
        whole["PATH"] = f"{self.python.parent}{os.pathsep}{whole.get('PATH', '')}"
        whole["VIRTUAL_ENV"] = str(self.python.parent.parent)
        line = [str(self.python), *prefix.split(), *command]
        return Run(line, self.folder / self.peer.inside, whole, log, mark)

    @staticmethod
    def _note(notes: Path, test: str, outcome: str, text: str) -> None:
        with open(notes, "a", encoding="utf-8") as file:
            file.write(json.dumps({"ended": test, "outcome": outcome, "text": text}) + "\n")


class Run:
    """A process that writes to a log; what it leaves behind is ended with it."""

    def __init__(self, line: list[str], folder: Path, environ: dict[str, str], log: Path, mark: str) -> None:
        self.mark = mark
        with open(log, "ab") as output:
            output.write(f"\n==== {' '.join(line)}\n".encode())
            output.flush()
            self.process = subprocess.Popen(
                line,
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        end_all(MARK, self.mark)
        self.process.wait()

    def abort(self) -> None:
        """Let it show where its threads are, and end it."""
        self.process.send_signal(signal.SIGABRT)
        try:
            self.process.wait(ABORT)
        except subprocess.TimeoutExpired:
            self.process.kill()


def read(notes: Path) -> tuple[Results, str | None]:
    """What has ended so far, and which test is running."""
    results: Results = {}
    running = None
    for line in notes.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # being written just now
        if "began" in entry:
            running = entry["began"]
        else:
            results[entry["ended"]] = {"outcome": entry["outcome"], "text": entry["text"]}
            if entry["ended"] == running:
                running = None
    return results, running


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-6000:]


def failure_of(test: str, said: str) -> str:
    """What unittest says of a failure, below its rule."""
    method = test.rsplit(".", 1)[-1]
    found = re.search(rf"^(?:ERROR|FAIL): {re.escape(method)} .*?(?=^={{20}}|\Z)", said, re.M | re.S)
    return found[0][-6000:] if found else ""
