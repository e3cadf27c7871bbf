"""Shows that each failure test catches its fault: runs them against the standard package.

    python tests/python/standard_fails.py

prints one line a row: the standard package's result, and whether the test caught it. It marks rows in which the
standard package is sound. It exits with 1 if a row passes that should fail, or the reverse (see `SOUND` and `EITHER`):
then a test no longer detects its fault, or demands too much.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from harness import Outcome, run_scenarios
from scenarios.registry import METHODS, Scenario, all_scenarios

# Rows that the standard package passes.
SOUND = {
    "undecodable.unpicklable_argument",
    "undecodable.unpicklable_result",
    "laziness.endless:imap",
    "laziness.endless:imap_unordered",
    "interrupts.to_main:map",
    "interrupts.to_main:join",
    "interrupts.while_computing:announce_and_hold_the_interpreter",
    "orphans.parent_exits:idle",
    "orphans.open_pool:idle",
    "orphans.open_pool:announce_and_sleep",
    "orphans.open_pool:announce_and_hold_the_interpreter",
    "orphans.failing_program",
    "initializers.at_first",
    "initializers.closing",
    "endings.terminate_busy:announce_and_sleep",
    "endings.terminate_busy:announce_and_hold_the_interpreter",
    "endings.with_block",
    "endings.forked_bystander",
    "endings.close_under_imap",
}

# Rows whose fault depends on timing or on the start method.
EITHER = {
    "deaths.idle_workers",
    "deaths.idle_worker_noticed",
    "deaths.while_streaming",
    "orphans.parent_killed:idle",
    "interrupts.to_the_group:map",
    "interrupts.to_the_group:get",
    "interrupts.to_the_group:get_timeout",
    "interrupts.to_the_group:join",
    "interrupts.while_computing:announce_and_spin",
}


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
        # Each in a separate process: most rows leave a standard pool in an unusable state.
        return run_scenarios([item[0].name], options.package, item[1], options.watchdog)[item[0].name]

    surprises = faults = 0
    print(f"{'row':<74} {'method':<10} {options.package:<15} caught fault?")
    with ThreadPoolExecutor(options.jobs) as executor:
        for (row, method), outcome in zip(work, executor.map(run, work)):
            faults += not outcome.ok
            verdict = f"no fault: {options.package} is sound here" if outcome.ok else f"yes: {first_line(outcome)}"
            if options.package == "multiprocessing" and row.name not in EITHER and outcome.ok != (row.name in SOUND):
                surprises += 1
                verdict += "   <-- UNEXPECTED"
            print(f"{row.row:<74} {method:<10} {outcome.status:<15} {verdict}", flush=True)
    print(f"{len(work)} runs: {faults} faults caught, {len(work) - faults} sound, {surprises} unexpected")
    return 1 if surprises else 0


def first_line(outcome: Outcome) -> str:
    return outcome.detail.splitlines()[0][:150] if outcome.detail else outcome.status


if __name__ == "__main__":
    sys.exit(main())
