"""Runs the test suites one after the other and closes with what each of them said last.

    python scripts/run_tests.py rust loom python faults chaos api cpython

| suite | what it is |
| --- | --- |
| rust | the crates' own tests, the simulator among them, their doc-tests, and the build of their examples |
| loom | the ring and the bell under every order of memory accesses |
| python | tests/python, in every start method; files side by side |
| faults | tests/faults, the short form: chosen calls to the system fail |
| chaos | tests/chaos, the short form: half a minute of kills, stops and shortages |
| api | tests/cpython/names.py: names and signatures against the running Python's own package |
| cpython | tests/cpython/run.py: CPython's own tests of multiprocessing, in every start method |

`--second-api` and `--second-cpython` name tools from elsewhere that judge the same a second time.

A suite that fails does not keep the others from running. A suite that reports no test has
failed, and so has one that leaves a process behind. Ends with 1 if any has failed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from marked import end_all, stragglers

ROOT = Path(__file__).resolve().parent.parent
# Every process of a run inherits this variable, also after the end of its parents.
MARK = "MANIPLE_TEST_RUN"
# Seconds. Each test has a watchdog of its own; this is for what those do not see, such as a build that hangs.
LIMIT = 1800


@dataclass
class Suite:
    name: str
    command: list[str]
    # What its runner closes with; where there are several, each follows a line that `title` finds.
    closing: re.Pattern[str]
    title: re.Pattern[str] | None = None
    environ: dict[str, str] = field(default_factory=dict)


@dataclass
class Report:
    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: {"passed": 0, "failed": 0, "skipped": 0})
    # The end of what it printed.
    last: deque[str] = field(default_factory=lambda: deque(maxlen=60))


CARGO_TITLE = re.compile(r"^\s+(?:Running|Doc-tests) (?:unittests )?(.+?)(?: \(.*\))?$")
CARGO_CLOSING = re.compile(r"^test result: .*")
# How the runners name a test that failed: pytest, cargo, and this project's own.
FAILED = re.compile(r"^\s*(?:FAILED |ERROR |failed: |test .* FAILED$|tests/\S+: FAILED)")
# Where each thread was when a test hung: the lines of the test runner itself say nothing.
OF_RUNNER = re.compile(r'^\s*File "(?:<frozen |.*/site-packages/(?:_pytest|pluggy|pytest)\b)')
# Ignored by cargo's runner, or deselected and failing as expected under pytest: not run, or not counted upon.
WORDS = {"passed": "passed", "failed": "failed", "error": "failed", "errors": "failed"}
WORDS |= {"skipped": "skipped", "ignored": "skipped", "xfailed": "skipped", "xpassed": "failed"}


def suites(options: argparse.Namespace) -> dict[str, Suite]:
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    flags = f"{os.environ.get('RUSTFLAGS', '')} --cfg loom".strip()
    crates = ["-p", "maniple-sys", "-p", "maniple-engine", "-p", "maniple"]
    loom = ["cargo", "test", "--locked", "-p", "maniple-engine", "--release", "--test", "loom"]
    # Tests mostly wait. So there are two for each core.
    at_once = 2 * (os.cpu_count() or 1)
    # Other flags would have the other build's files compiled anew each time.
    apart = {"RUSTFLAGS": flags, "CARGO_TARGET_DIR": str(target / "loom")}
    counted = re.compile(r"^\d+ passed, \d+ failed.*")
    second = [sys.executable, options.second_cpython, "--package", "maniple", "--suites", "mp,main", "--forbid-c-ext"]
    return {
        "rust": Suite(
            "rust",
            ["cargo", "test", "--locked", "--all-features", "--no-fail-fast", *crates],
            CARGO_CLOSING,
            CARGO_TITLE,
            {"RUST_TEST_THREADS": str(at_once)},
        ),
        "loom": Suite("loom", loom, CARGO_CLOSING, CARGO_TITLE, apart),
        "python": Suite(
            "python",
            [sys.executable, "scripts/run_pytest.py", "tests/python"],
            counted,
        ),
        "faults": Suite(
            "faults",
            [sys.executable, "tests/faults/walk.py", "--short", "--front", "python,rust"],
            counted,
        ),
        "chaos": Suite(
            "chaos",
            [sys.executable, "tests/chaos/chaos.py", "--seconds", "24", "--length", "2", "--seed", "1"],
            counted,
        ),
        "api": Suite("api", [sys.executable, "tests/cpython/names.py"], re.compile(r"^names on Python .*")),
        "second api": Suite(
            "second api",
            [sys.executable, "scripts/check_api.py", options.second_api],
            re.compile(r"^api on Python .*"),
        ),
        "cpython": Suite(
            "cpython", [sys.executable, "tests/cpython/run.py", "-j", str(at_once), *executor_tests(options)], counted
        ),
        "second cpython": Suite(
            "second cpython",
            [*second, "--methods", "fork,spawn,forkserver", "-j", "2"],
            counted,
        ),
    }


def executor_tests(options: argparse.Namespace) -> list[str]:
    """The options for the executor's part of CPython's tests. Some interpreters came without it (`tests/cpython/README.md`)."""
    version = "python{}.{}".format(*sys.version_info)
    folders = [Path(sysconfig.get_path("stdlib")) / "test", Path("/usr/lib") / version / "test"]
    there = any((folder / name).exists() for folder in folders for name in FUTURES_TESTS)
    if options.cf_tests == "none" or not (there or options.cf_tests):
        print("without CPython's tests of executors, which this Python lacks; CF_TESTS=... names them", flush=True)
        return []
    return ["--suites", "mp,main,ex", "--cf-tests", options.cf_tests]


FUTURES_TESTS = ("test_concurrent_futures", "test_concurrent_futures.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suites", nargs="+", choices=["rust", "loom", "python", "faults", "chaos", "api", "cpython"])
    parser.add_argument("--second-api", default="", help="a tool that compares names and signatures once more")
    parser.add_argument("--second-cpython", default="", help="a tool that runs CPython's own tests once more")
    parser.add_argument("--cf-tests", default="", help="CPython's tests of executors, where this Python came without")
    options = parser.parse_args()
    # A shell without job control starts background commands with SIGINT ignored: tests of Ctrl-C would wait forever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = list(dict.fromkeys(options.suites))
    for name, tool in (("api", options.second_api), ("cpython", options.second_cpython)):
        if name in chosen and tool:
            if not Path(tool).is_file():
                # At once, rather than after ten minutes of other tests.
                print(f"{tool} is not there: it was named as a second judge of {name}", file=sys.stderr)
                return 1
            chosen.insert(chosen.index(name) + 1, f"second {name}")

    every = suites(options)
    reports = {}
    for name in chosen:
        print(f"==== {name}: {' '.join(every[name].command)}", flush=True)
        reports[name] = run(every[name])
    summarise(reports)
    return 1 if any(report.faults for report in reports.values()) else 0


def run(suite: Suite) -> Report:
    """Run one suite to its end, showing what it prints."""
    report, started, mark = Report(), time.monotonic(), uuid.uuid4().hex
    environ = {**os.environ, **suite.environ, MARK: mark}
    process = subprocess.Popen(
        suite.command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    overdue = threading.Event()
    timer = threading.Timer(LIMIT, lambda: (overdue.set(), end_all(MARK, mark)))
    timer.daemon = True
    timer.start()
    try:
        read(process, suite, report)
        code = process.wait()
    finally:
        timer.cancel()
        left = stragglers(MARK, mark)
        end_all(MARK, mark)
    if overdue.is_set():
        report.faults.append(f"was ended after {LIMIT} s")
    elif code:
        report.faults.append(f"exit code {code}")
    if not code and not report.counts["passed"]:
        report.faults.append("says that no test has run")
    report.faults += [f"left behind: {line}" for line in left]
    if report.faults and not report.counts["failed"]:
        # So that the sum at the end cannot read as a success.
        report.counts["failed"] = 1
    report.seconds = time.monotonic() - started
    return report


def read(process: subprocess.Popen[bytes], suite: Suite, report: Report) -> None:
    title = ""
    assert process.stdout is not None
    for raw in process.stdout:
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()
        line = raw.decode(errors="replace").rstrip()
        if not OF_RUNNER.match(line):
            report.last.append(line)
        if suite.title and (found := suite.title.match(line)):
            title = f"{found[1]}: "
        elif found := suite.closing.match(line):
            report.lines.append(title + (found[1] if found.groups() else found[0]))
            for number, word in re.findall(r"(\d+) (\w+)", line):
                if word in WORDS:
                    report.counts[WORDS[word]] += int(number)


def summarise(reports: dict[str, Report]) -> None:
    print("\n==== how each ended")
    for name, report in reports.items():
        print(f"{name}, {report.seconds:.0f} s: {'FAILED: ' + '; '.join(report.faults) if report.faults else 'ok'}")
        for line in report.lines:
            print(f"    {line}")
        if report.faults:
            # Where only the end of a log is kept, it has to say what failed.
            for line in report.last:
                print(f"    | {line}")
    # Once more, short and last, for a reader with the last lines only.
    for name, report in reports.items():
        if report.faults:
            print(f"{name}: {'; '.join(report.faults)}")
            for line in dict.fromkeys(filter(FAILED.match, report.last)):
                print(f"    {line.strip():.200}")
    total = {word: sum(report.counts[word] for report in reports.values()) for word in ("passed", "failed", "skipped")}
    print(f"{sum(report.seconds for report in reports.values()):.0f} s in all")
    print(", ".join(f"{number} {word}" for word, number in total.items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
