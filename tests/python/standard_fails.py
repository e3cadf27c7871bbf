"""Shows that each failure test catches its fault: runs them against the standard package.

    python tests/python/standard_fails.py

prints one line a row: what the standard package does there, and whether the test
caught it. Rows where the standard package is sound are named as such. Exits with 1
if a row that is listed as faulty there (`SOUND` lists the others) passes after all,
or the other way round: then a test has lost its teeth, or checks too much.
"""
from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from harness import Outcome, run_scenario
from scenarios.registry import METHODS, Scenario, all_scenarios

# Rows which the standard package passes, so that what the tests ask is possible at all.
SOUND: set[str] = set()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", default="multiprocessing")
    parser.add_argument("--methods", default="fork", help="comma-separated; default: fork")
    parser.add_argument("--watchdog", type=float, default=5.0, help="seconds after which a row counts as hung")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-k", dest="pattern", default="", help="only scenarios whose name contains this")
    options = parser.parse_args()
    methods = options.methods.split(",")
    if unknown := set(methods) - set(METHODS):
        parser.error(f"no such start method: {', '.join(sorted(unknown))}")

    rows = [row for name, row in all_scenarios().items() if options.pattern in name]
    work = [(row, method) for row in rows for method in methods]

    def run(item: tuple[Scenario, str]) -> Outcome:
        return run_scenario(item[0].name, options.package, item[1], options.watchdog)

    surprises = faults = 0
    print(f"{'row':<74} {'method':<10} {options.package:<15} caught fault?")
    with ThreadPoolExecutor(options.jobs) as executor:
        for (row, method), outcome in zip(work, executor.map(run, work)):
            faults += not outcome.ok
            expected = row.name in SOUND
            verdict = f"no fault: {options.package} is sound here" if outcome.ok else f"yes: {first_line(outcome)}"
            if outcome.ok != expected:
                surprises += 1
                verdict += "   <-- UNEXPECTED"
            print(f"{row.row:<74} {method:<10} {outcome.status:<15} {verdict}", flush=True)
    print(f"{len(work)} runs: {faults} faults caught, {len(work) - faults} sound, {surprises} unexpected")
    return 1 if surprises else 0


def first_line(outcome: Outcome) -> str:
    return outcome.detail.splitlines()[0][:150] if outcome.detail else outcome.status


if __name__ == "__main__":
    sys.exit(main())
