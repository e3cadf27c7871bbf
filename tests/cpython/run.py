"""Runs CPython's own tests of multiprocessing, unmodified, against another package; the tests are this interpreter's.

    .venv/bin/python tests/cpython/run.py                       # maniple, every start method
    .venv/bin/python tests/cpython/run.py --suites mp --methods spawn -k TestQueue -v
    .venv/bin/python tests/cpython/run.py --package multiprocessing    # the standard package, for comparison

A test fails here if it fails, if it makes no progress for --limit seconds, if it ends its process or leaves one behind, and if it
is skipped or missing where the same test of the standard package passes on this machine. A test that fails once and passes when it
is run again, alone, is named as flaky and counts as passed. The last line is `N passed, N failed, N skipped`; the exit status is 0
if nothing failed. README.md beside this file says how it works.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import time
from pathlib import Path

import jobs
from proving import faults_of
from runner import Group, Result, Runner
from set_aside import why_set_aside
from suites import futures_tests, suites_of, wanted
from twin import FOLDERS, METHODS, STANDARD, Missing, Twin
from windows import WindowsTwin

# More failures than these are not run again: the package is broken, and that is known by then.
MOST_RETRIED = 20
# Of so many failures the report says what the standard package makes of them.
MOST_ASKED = 10


class Run:
    """One run of all that the options ask for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.results: dict[str, Result] = {}
        self.flaky: list[str] = []
        self.untidy: list[str] = []
        self.total = 0
        self.suites: list[str] = []
        self.done = 0

    def go(self) -> int:
        options = self.options
        extra = {path.stem: path for path in options.tests}
        if {"cf", "ex"} & set(options.suites):
            extra |= futures_tests(options.cf_tests)
        suites = [name for name in options.suites if name != "ex"]
        if suites or options.tests:
            self.go_on(suites, extra)
        if "ex" in options.suites:
            self.go_on(["ex"], extra)
        return self.close()

    def go_on(self, suites: list[str], extra: dict[str, Path]) -> None:
        """Run some suites. The suite `ex` has a twin of its own, in which the executor is replaced, too."""
        options = self.options
        self.suites = suites
        with self.twin(options.package, extra, "ex" in suites and options.package != STANDARD) as twin:
            if faults := faults_of(twin, options.methods):
                for fault in faults:
                    self.add(Result(f"proof::{fault.splitlines()[0]}", "failed", fault))
                return
            if twin.package != STANDARD:
                say(
                    f"proof: {STANDARD} is {twin.package} in this twin, with -I and with -E -S, and in children of every method"
                )
            if twin.unguarded:
                say(
                    f"not provable here: that {twin.package} does without {', '.join(twin.unguarded)} (linked into the interpreter)"
                )
            tests = self.collect(twin)
            if twin.package == STANDARD:
                self.run_on(twin, tests)
            else:
                with self.twin(STANDARD, extra) as standard:
                    theirs = self.collect(standard, quiet=True)
                    self.run_on(twin, tests)
                    self.compare(standard, theirs)

    def twin(self, package: str, extra: dict[str, Path], executor: bool = False) -> Twin:
        if self.options.windows:
            if executor:
                raise Missing("the suite ex does not run under Wine")
            return WindowsTwin(package, self.options.windows, extra)
        return Twin(package, extra, executor)

    def runner(self, twin: Twin) -> Runner:
        return Runner(twin, (self.options.limit, self.options.settle), self.options.jobs)

    def collect(self, twin: Twin, quiet: bool = False) -> dict[str, str]:
        options = self.options
        suites = suites_of(twin, self.suites, options.methods, [] if self.suites == ["ex"] else options.tests)
        found, broken = self.runner(twin).collect(suites)
        if not quiet:
            for result in broken:
                self.add(result)
        found = {test: module for test, module in found.items() if wanted(test, options.k)}
        if self.suites == ["ex"] and not options.set_aside:
            aside = {test: why for test in found if (why := why_set_aside(test)) is not None}
            if not quiet and aside:
                say(f"{len(aside)} tests set aside, which set_aside.py names with their reasons")
            found = {test: module for test, module in found.items() if test not in aside}
        return found

    def run_on(self, twin: Twin, tests: dict[str, str]) -> None:
        self.total, self.done = len(tests), 0
        say(
            f"{self.total} tests of CPython {platform.python_version()} on {twin.package}, {self.options.jobs} classes at once"
        )
        runner = self.runner(twin)
        for result in runner.run(tests, self.tell):
            self.add(result)
        self.untidy = runner.untidy
        again = [result.test for result in self.results.values() if result.bad and result.test in tests]
        if len(again) > MOST_RETRIED:
            say(f"{len(again)} tests failed: too many to run again")
            return
        for number in range(self.options.retries):
            if not again:
                break
            say(f"again, alone, {number + 1} of {self.options.retries}: {', '.join(again)}")
            for result in self.runner(twin).run({test: tests[test] for test in again}, ignore, alone=True):
                if result.test in again and not result.bad:
                    self.flaky.append(f"{result.test}: {self.results[result.test].outcome} the first time")
                    self.results[result.test] = result
                elif result.test not in again:
                    self.add(result)
            again = [test for test in again if self.results[test].bad]

    def compare(self, standard: Twin, theirs: dict[str, str]) -> None:
        """Run on the standard package what was skipped, is missing or has failed: what passes there is lost here."""
        # A module that cannot be read has failed as a whole: its tests need no names.
        unread = {result.test for result in self.results.values() if result.outcome == "error"}
        missing = [
            test
            for test, module in theirs.items()
            if test not in self.results and f"{test.partition('::')[0]}::{module}" not in unread
        ]
        skipped = [test for test in theirs if test in self.results and self.results[test].outcome == "skipped"]
        failed = [test for test in theirs if test in self.results and self.results[test].bad][:MOST_ASKED]
        asked = [*missing, *skipped, *failed]
        if not asked:
            return
        say(
            f"on the standard package: {len(skipped)} tests that were skipped, {len(missing)} that are missing, "
            f"{len(failed)} that failed"
        )
        there = self.outcomes(standard, {test: theirs[test] for test in asked})
        doubtful = {test.partition(".")[0] for test in (*missing, *skipped) if there.get(test) == "passed"}
        if doubtful:
            # Some tests pass alone and skip themselves in their class, after what others have done to its process.
            say(f"on the standard package, the whole class: {', '.join(sorted(doubtful))}")
            whole = {test: module for test, module in theirs.items() if test.partition(".")[0] in doubtful}
            there |= self.outcomes(standard, whole)
        for test in asked:
            outcome = there.get(test, "not run")
            here = self.results.get(test)
            if here is not None and here.bad:
                here.text += f"\n(With the standard package, on this machine: {outcome}.)"
            elif outcome == "passed":
                what = f"was skipped: {here.text}" if here else "is missing"
                self.results[test] = Result(
                    test, "lost", f"{what}; with the standard package it passes on this machine"
                )
            elif here is None:
                self.add(Result(test, "skipped", f"is missing; with the standard package: {outcome}"))

    def outcomes(self, twin: Twin, tests: dict[str, str]) -> dict[str, str]:
        return {result.test: result.outcome for result in self.runner(twin).run(tests, ignore)}

    def add(self, result: Result) -> None:
        known = self.results.get(result.test)
        if known is None or not known.bad:
            self.results[result.test] = result

    def tell(self, group: Group, results: list[Result]) -> None:
        before = self.done * 10 // max(self.total, 1)
        self.done += len(group.tests)
        bad = [result for result in results if result.bad]
        if self.options.verbose:
            say(f"  {group.id(group.name)}: {len(results)} results, {len(bad)} bad")
        for result in bad:
            say(f"  {result.outcome}: {result.test}")
        if self.done * 10 // max(self.total, 1) > before:
            say(f"  {self.done} of {self.total}, after {time.monotonic() - STARTED:.0f} s")

    def close(self) -> int:
        bad = [result for result in self.results.values() if result.bad]
        for result in bad:
            say(f"\n==== {result.outcome}: {result.test}\n{result.text.strip()}")
        if self.options.verbose:
            for result in self.results.values():
                if result.outcome == "skipped":
                    say(f"skipped: {result.test}: {result.text}")
        for line in self.untidy:
            say(f"untidy, says test.support: {line}")
        for line in self.flaky:
            say(f"flaky: {line}")
        for result in bad:
            say(f"{result.outcome}: {result.test}")
        count = {
            outcome: sum(result.outcome == outcome for result in self.results.values())
            for outcome in ("passed", "skipped")
        }
        if not count["passed"] and not bad:
            say("no test has run")
        say(f"{count['passed']} passed, {len(bad)} failed, {count['skipped']} skipped")
        return 1 if bad or not count["passed"] else 0


STARTED = time.monotonic()


def say(text: str) -> None:
    print(text, flush=True)


def ignore(group: Group, results: list[Result]) -> None:
    pass


def end(number: int, frame: object) -> None:
    """Ctrl-C or SIGTERM: the jobs end with this process."""
    jobs.stop()
    for folder in list(FOLDERS):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(128 + number)


def list_of(allowed: tuple[str, ...]):  # type: ignore[no-untyped-def]
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := set(names) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: none of {', '.join(allowed)}")
        return names

    return parse


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package", default="maniple", help="what `multiprocessing` is to mean (default maniple)")
    parser.add_argument(
        "--suites",
        type=list_of(("mp", "main", "cf", "ex")),
        default=["mp", "main"],
        help="mp: test._test_multiprocessing; main: test_multiprocessing_main_handling; cf: the process pools of "
        "test_concurrent_futures; ex: the same, on the package's own executor (default mp,main)",
    )
    parser.add_argument(
        "--set-aside", action="store_true", help="run the tests of ex that set_aside.py names, too, to see them fail"
    )
    parser.add_argument(
        "--methods", type=list_of(METHODS), default=list(METHODS), help="start methods of mp (default: all)"
    )
    parser.add_argument(
        "-k", action="append", default=[], help="only ids that contain this, or that this glob fits; repeatable"
    )
    parser.add_argument("-j", "--jobs", type=int, default=2, help="classes at once (default 2)")
    parser.add_argument(
        "--limit", type=float, default=120, help="seconds without progress after which a test hangs (default 120)"
    )
    parser.add_argument(
        "--settle", type=float, default=10, help="seconds that helpers have to end after their process (default 10)"
    )
    parser.add_argument("--retries", type=int, default=2, help="how often a failed test runs again, alone (default 2)")
    parser.add_argument("--cf-tests", default="", help="test_concurrent_futures, where this Python came without")
    parser.add_argument(
        "--tests", type=Path, action="append", default=[], help="a file of tests instead of CPython's; repeatable"
    )
    parser.add_argument(
        "--windows",
        type=Path,
        metavar="KIT",
        help="the tests of a CPython for Windows under Wine (windows.py), by spawn",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="name each class and each skipped test")
    options = parser.parse_args()
    if options.tests:
        options.suites = []
    if options.windows:
        options.methods = ["spawn"]
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    try:
        return Run(options).go()
    except Missing as missing:
        say(str(missing))
        return 1


if __name__ == "__main__":
    sys.exit(main())
