"""Runs classes of tests, each in a process of its own, several at once; each test ends with one result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from jobs import Ending, Job
from suites import Suite
from twin import Twin

# After so many hangs and crashes in one class the rest of it counts as not run: each may have cost the limit.
MOST_BROKEN = 3
GOOD = ("passed", "skipped")


@dataclass
class Result:
    """The outcome of a test. `outcome`: passed, skipped, failed, error, timeout, crashed, left behind, not run or lost."""

    test: str
    outcome: str
    text: str = ""

    @property
    def bad(self) -> bool:
        return self.outcome not in GOOD


@dataclass(frozen=True)
class Group:
    """The tests of one class."""

    suite: str
    module: str
    name: str
    tests: tuple[str, ...]

    def id(self, what: str) -> str:
        return f"{self.suite}::{what}"


class Runner:
    def __init__(self, twin: Twin, limits: tuple[float, float], at_once: int) -> None:
        self.twin, self.limits, self.at_once = twin, limits, at_once
        # Classes after which CPython's own check finds threads, processes or settings that were not there before.
        self.untidy: list[str] = []

    def collect(self, suites: Iterable[Suite]) -> tuple[dict[str, str], list[Result]]:
        """The tests there are, as id -> module, and what kept a module from being read."""
        found: dict[str, str] = {}
        broken = []
        modules = [(suite, module) for suite in suites for module in suite.modules]
        with ThreadPoolExecutor(self.at_once) as threads:
            endings = threads.map(lambda each: Job(self.twin, each[1], None, self.limits).run(), modules)
            for (suite, module), ending in zip(modules, endings):
                tests = [test for event in ending.events if event["kind"] == "collected" for test in event["tests"]]
                skips = [event["reason"] for event in ending.events if event["kind"] == "module skipped"]
                found |= dict.fromkeys(suite.ids(tests), module)
                if skips:
                    broken.append(Result(f"{suite.name}::{module}", "skipped", skips[0]))
                elif ending.how != "done" or not tests:
                    broken.append(Result(f"{suite.name}::{module}", "error", f"{ending.how}\n{ending.output}"))
        return found, broken

    def run(
        self, tests: dict[str, str], told: Callable[[Group, list[Result]], None], alone: bool = False
    ) -> list[Result]:
        """Run tests (id -> module); `told` is called with each class. With `alone` each test has its own process."""
        groups = sorted(grouped(tests, alone), key=lambda group: -len(group.tests))
        results = []
        with ThreadPoolExecutor(self.at_once) as threads:
            pending = {threads.submit(self.run_group, group): group for group in groups}
            for done in as_completed(pending):
                results += done.result()
                told(pending[done], done.result())
        return results

    def run_group(self, group: Group) -> list[Result]:
        results: list[Result] = []
        left = list(group.tests)
        broken = 0
        while left and broken < MOST_BROKEN:
            ending = Job(self.twin, group.module, left, self.limits).run()
            reading = Reading(group, left, ending)
            if any(event.get("altered") for event in ending.events):
                self.untidy.append(f"{group.id(group.name)}: {warnings_in(ending.output)}")
            results += reading.results
            still = reading.unknown
            if ending.how == "done" or len(still) == len(left):
                left = still
                break
            left, broken = still, broken + 1
        return results + [Result(group.id(test), "not run", "the class broke before it") for test in left]


class Reading:
    """What the events of one job say: results, and the tests of which they say nothing."""

    def __init__(self, group: Group, tests: list[str], ending: Ending) -> None:
        self.group, self.ending = group, ending
        self.results: list[Result] = []
        known: dict[str, Result] = {}
        fixtures: list[Result] = []
        current = ""
        for event in ending.events:
            if event["kind"] == "start":
                current = event["test"]
            elif event["kind"] == "stop":
                current = ""
            elif event["kind"] == "outcome":
                result = Result(group.id(event["test"]), event["outcome"], event["text"])
                if event["fixture"]:
                    fixtures.append(result)
                else:
                    known[event["test"]] = worse(known.get(event["test"]), result)
            elif event["kind"] == "module skipped":
                fixtures.append(Result(group.id("module"), "skipped", event["reason"]))
        if ending.how != "done":
            self._broken(current, known)
        if begun := next((result for result in fixtures if "tearDown" not in result.test), None):
            # What sets up a class or a module speaks for the tests that it kept from running.
            for test in tests:
                known.setdefault(test, Result(group.id(test), begun.outcome, begun.text))
        self.results += [*known.values(), *(result for result in fixtures if "tearDown" in result.test)]
        self._after()
        self.unknown = [test for test in tests if test not in known]

    def _broken(self, current: str, known: dict[str, Result]) -> None:
        """A hang or a crash: of the test that ran then, or else of the class's process before or after its tests."""
        hang = self.ending.how == "timeout"
        outcome = "timeout" if hang else "crashed"
        text = f"{'made no progress' if hang else self.ending.how}\n{self.ending.output}"
        if current:
            known[current] = worse(known.get(current), Result(self.group.id(current), outcome, text))
        else:
            where = "after its tests" if known else "before its tests"
            self.results.append(Result(self.group.id(f"{self.group.name} ({where})"), outcome, text))

    def _after(self) -> None:
        name = self.group.name
        for event in self.ending.events:
            if event["kind"] == "end":
                if event["foreign"]:
                    self._add(f"{name} (proof)", "failed", "not the package under test: " + "; ".join(event["foreign"]))
                if event["missing"]:
                    self._add(f"{name} (tests)", "failed", "not there any more: " + ", ".join(event["missing"]))
        if self.ending.left:
            text = "\n".join([*self.ending.left, self.ending.output])
            self._add(f"{name} (processes)", "left behind", text)

    def _add(self, what: str, outcome: str, text: str) -> None:
        self.results.append(Result(self.group.id(what), outcome, text))


def warnings_in(output: str) -> str:
    mark = "Warning -- "
    return "; ".join(dict.fromkeys(line.removeprefix(mark) for line in output.splitlines() if line.startswith(mark)))


def worse(one: Result | None, other: Result) -> Result:
    """Of two outcomes of one test (its subtests have one each) the one that counts, with both texts."""
    if one is None or one.outcome == "passed":
        return other
    if other.outcome == "passed" or not other.bad:
        return one
    return Result(one.test, other.outcome, f"{one.text}\n{other.text}")


def grouped(tests: dict[str, str], alone: bool) -> list[Group]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for test, module in tests.items():
        suite, _, name = test.partition("::")
        key = (suite, module, name if alone else name.partition(".")[0])
        found.setdefault(key, []).append(name)
    return [Group(suite, module, name, tuple(names)) for (suite, module, name), names in found.items()]
