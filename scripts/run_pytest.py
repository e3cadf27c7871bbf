"""Runs pytest over a folder, a process for each file, one more at a time than there are cores, because tests often wait.

    python scripts/run_pytest.py tests/python [-j JOBS] [pytest's options]

The output of a file is shown when the file has ended: its closing line if all of its tests passed, else everything. A file
that does not end in time is named, with the place where each of its threads is; so is a file that leaves a process behind.
The last line is `N passed, N failed, N skipped`; the exit status is 0 if nothing failed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from marked import end_all, stragglers

ROOT = Path(__file__).resolve().parent.parent
MARK = "MANIPLE_TEST_FILE"
# Files that take long for their size. They go first, so that no core is idle at the end.
SLOW = (
    "test_shortage", "test_scarcity", "test_failures", "test_conditions", "test_orphans", "test_frequent_signals",
    "test_limits_beside_interpreter",
)  # fmt: skip
# Seconds for one file. Each test has a watchdog of its own; this is for what those do not see.
LIMIT = 600
# Seconds for a process that is late to write where its threads are.
LAST_WORDS = 5
# pytest's exit code when a file has no test that the options choose.
NOTHING_CHOSEN = 5

CLOSING = re.compile(r"^=+ (.*(?:passed|failed|error|skipped|deselected|no tests ran).*?) =+$")
WORDS = {"passed": "passed", "failed": "failed", "error": "failed", "errors": "failed"}
WORDS |= {"skipped": "skipped", "xfailed": "skipped", "xpassed": "failed"}


@dataclass
class Outcome:
    file: Path
    seconds: float = 0.0
    # Seconds of a processor that the file and its processes used.
    processor: float = 0.0
    output: str = ""
    closing: str = ""
    faults: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"passed": 0, "failed": 0, "skipped": 0})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "-j",
        "--jobs",
        type=int,
        default=1 + (os.cpu_count() or 1),
        help="files at a time (default: one more than cores)",
    )
    options, rest = parser.parse_known_args()
    files = sorted(options.folder.rglob("test_*.py"), key=lambda file: (file.stem not in SLOW, -file.stat().st_size))
    shown = threading.Lock()
    outcomes: list[Outcome] = []

    def run_and_show(file: Path) -> None:
        outcome = run(file, rest)
        with shown:
            outcomes.append(outcome)
            show(outcome)

    with ThreadPoolExecutor(max(1, options.jobs)) as threads:
        for waiting in [threads.submit(run_and_show, file) for file in files]:
            waiting.result()
    return close(outcomes)


def run(file: Path, rest: list[str]) -> Outcome:
    """Run one file to its end, or to the limit."""
    outcome, started, mark = Outcome(file), time.monotonic(), uuid.uuid4().hex
    with tempfile.TemporaryFile() as output:
        # A file and not a pipe: what the tests leave behind may hold the other end, and must not delay the reader.
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "pytest", str(file), *rest],
            cwd=ROOT,
            env={**os.environ, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        code, outcome.processor = wait(process, LIMIT)
        if code is None:
            # The handler of this signal writes where each thread is.
            process.send_signal(signal.SIGABRT)
            try:
                process.wait(LAST_WORDS)
            except subprocess.TimeoutExpired:
                pass
        left = stragglers(MARK, mark) if code is not None else []
        end_all(MARK, mark)
        process.wait()
        output.seek(0)
        outcome.output = output.read().decode(errors="replace")
    count(outcome)
    if code is None:
        outcome.faults.append(f"was ended after {LIMIT} s")
    elif code not in (0, NOTHING_CHOSEN):
        outcome.faults.append(f"exit code {code}")
    elif not outcome.closing:
        outcome.faults.append("says nothing of its tests")
    outcome.faults += [f"left behind: {line}" for line in left]
    if outcome.faults and not outcome.counts["failed"]:
        outcome.counts["failed"] = 1
    outcome.seconds = time.monotonic() - started
    return outcome


def wait(process: subprocess.Popen[bytes], limit: float) -> tuple[int | None, float]:
    """Return the exit code, None if the process has not ended in time, and the processor time that it and its children used."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode, usage.ru_utime + usage.ru_stime
        time.sleep(0.05)
    return None, 0.0


def count(outcome: Outcome) -> None:
    for line in outcome.output.splitlines():
        if found := CLOSING.match(line):
            outcome.closing = found[1]
    for number, word in re.findall(r"(\d+) (\w+)", outcome.closing):
        if word in WORDS:
            outcome.counts[WORDS[word]] += int(number)


def show(outcome: Outcome) -> None:
    name = os.path.relpath(outcome.file, ROOT)
    if outcome.faults:
        print(outcome.output, flush=True)
        print(f"{name}: FAILED: {'; '.join(outcome.faults)}: {outcome.closing}", flush=True)
    else:
        print(f"{name}: {outcome.closing}, {outcome.processor:.0f} s of a processor", flush=True)


def close(outcomes: list[Outcome]) -> int:
    failed = [outcome for outcome in outcomes if outcome.faults]
    if failed:
        print("\n==== what failed")
    for outcome in failed:
        print(f"{os.path.relpath(outcome.file, ROOT)}: {'; '.join(outcome.faults)}")
        lines = [line for line in outcome.output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        for line in lines or outcome.output.splitlines()[-30:]:
            print(f"    {line}")
    print(f"{sum(outcome.processor for outcome in outcomes):.0f} s of a processor in all")
    total = {word: sum(outcome.counts[word] for outcome in outcomes) for word in ("passed", "failed", "skipped")}
    print(", ".join(f"{number} {word}" for word, number in total.items()), flush=True)
    return 1 if failed or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
