"""Runs CPython's own multiprocessing tests on the package, measured against the standard package on the same machine.

    .venv/bin/python scripts/run_suite.py /path/to/mp_suite.py [-k Queue ...]

What the standard package makes of the same tests is kept in build/suite, by the interpreter's version, and made there first
where it is missing (delete the file to have it made again). A test that passes there must pass here: failing, hanging and
being skipped are all failures, and so is a module that has a tenth of its lines in common with the standard package. Beyond
those named in EXCEPTIONS nothing is forgiven. Arguments that are not ours go to the runner.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

from cpython_tests import VERSION, is_there, why_not

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "suite"
# What Debian and Ubuntu call the package of tests, and where it puts those that an interpreter built by hand has not.
SYSTEM_TESTS = "/usr/lib/python{}/test"
# Percent of a module's lines that may stand in the standard package's as well: signatures, names, asserted messages.
SHARED_LINES = 10
# Test id without its start method -> why an independent implementation cannot pass it. At most five.
EXCEPTIONS: dict[str, str] = {}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runner", help="mp_suite.py")
    parser.add_argument(
        "--cf-tests", default="", help="concurrent.futures' tests where Python has none; 'none': without"
    )
    parser.add_argument("--jobs", default="2", help="processes at once (default 2)")
    options, passed_on = parser.parse_known_args()
    if problem := why_not(options.runner, "suite"):
        print(problem, file=sys.stderr)
        return 1
    suites, where = "mp,main,cf", []
    if options.cf_tests == "none":
        suites = "mp,main"
    elif options.cf_tests:
        where = ["--cf-tests", options.cf_tests]
    elif not is_there("test_concurrent_futures"):
        where = ["--cf-tests", futures_tests_of_the_system()]
        if not where[1]:
            print(
                f"This Python {VERSION} came without the tests of concurrent.futures. On Debian and Ubuntu they are in "
                f"libpython{VERSION}-testsuite; name them with CF_TESTS=/path/to/test_concurrent_futures, or go "
                "without them with CF_TESTS=none.",
                file=sys.stderr,
            )
            return 1
    common = [sys.executable, options.runner, "--suites", suites, "-j", options.jobs, *where]

    KEPT.mkdir(parents=True, exist_ok=True)
    version = platform.python_version()
    baseline = KEPT / f"standard-{version}.json"
    if not baseline.exists():
        print(f"==== the standard package of Python {version} first, once: {baseline}", flush=True)
        fresh = baseline.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        # Its own failures are no matter: they count for nothing in the comparison.
        subprocess.call([*common, "--package", "multiprocessing", "--json", str(fresh)], cwd=ROOT)
        if not fresh.exists():
            print("the standard package's run came to nothing: see above", file=sys.stderr)
            return 1
        fresh.rename(baseline)
    report = KEPT / f"maniple-{version}.json"
    report.unlink(missing_ok=True)
    print(f"==== maniple on Python {version}", flush=True)
    ours = ["--package", "maniple", "--forbid-c-ext", "--baseline", str(baseline), "--json", str(report)]
    code = subprocess.call([*common, *ours, *passed_on], cwd=ROOT)
    if not report.exists():
        print("the run came to nothing: see above", file=sys.stderr)
        return code or 1
    return judge(json.loads(report.read_text()), json.loads(baseline.read_text()))


def futures_tests_of_the_system() -> str:
    folder = Path(SYSTEM_TESTS.format("{}.{}".format(*sys.version_info)))
    found = [
        path for path in (folder / "test_concurrent_futures", folder / "test_concurrent_futures.py") if path.exists()
    ]
    return str(found[0]) if found else ""


def judge(report: dict, baseline: dict) -> int:
    """Say what counts against us; 1 if anything does."""
    passed_there = {test for test, result in baseline["results"].items() if result["outcome"] == "passed"}
    results = report["results"]
    worse = {test for test in results if results[test]["outcome"] not in ("passed", "skipped") and test in passed_there}
    worse |= set(report["summary"]["lost_against_baseline"])
    new = {
        test
        for test in results
        if results[test]["outcome"] not in ("passed", "skipped") and test not in baseline["results"]
    }
    forgiven = {test for test in worse if test.split("::")[-1] in EXCEPTIONS}
    copied = {
        row["name"]: row["same_text"] for row in report["proof"]["modules"] if row.get("same_text", 0) >= SHARED_LINES
    }
    problems = report["proof"]["problems"]
    print("\n==== judgement")
    for test in sorted(worse - forgiven | new):
        print(f"  worse than the standard package: {test}")
    for test in sorted(forgiven):
        print(f"  cannot pass ({EXCEPTIONS[test.split('::')[-1]]}): {test}")
    for name, percent in copied.items():
        print(f"  too much text of the standard package's: {name}, {percent} %")
    for problem in problems:
        print(f"  no proof of independence: {problem}")
    count = report["summary"]
    faults = len(worse - forgiven | new) + len(copied) + len(problems)
    print(f"suite: {count['passed']} passed, {count['skipped']} skipped, {len(forgiven)} forgiven, {faults} against us")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
