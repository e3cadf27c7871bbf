"""Compare maniple.Pool with the standard package's and with other libraries.

    python benchmarks/python/run.py --quick        the standard package only, a minute or two
    python benchmarks/python/run.py                every library in requirements.txt

Rounds are taken in turn (each library once, then all again), so that a busy
minute of the machine falls on all of them. README.md says what is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import machine
import report
from adapters import NAMES, REFERENCE, SUBJECT
from cases import PAYLOADS, START_METHODS, YARDSTICKS, Case, chosen
from crew import Agent
from stage import Setting

RESULTS = Path(__file__).parent.parent / "results"
QUICK = Setting(calls=1_000, repeats=3)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the standard package, 3 rounds")
    parser.add_argument("--cases", default="", help="keys or beginnings of keys, by comma (all)")
    parser.add_argument(
        "--payloads", action="store_true", help="also payloads of 1 KB to 64 MB through pools, queues and pipes"
    )
    parser.add_argument("--peers", help=f"names by comma, or 'none' ({','.join(NAMES[2:])})")
    parser.add_argument("--rounds", type=int, help="how often each library runs each case (5; quick: 3)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--start-method", choices=START_METHODS, default="fork")
    parser.add_argument("--items", type=int, help="small tasks in a map or imap (20,000)")
    parser.add_argument(
        "--cap", type=float, default=60.0, help="seconds after which one run of a case is given up (60)"
    )
    parser.add_argument(
        "--budget", type=float, default=15.0, help="seconds after which a peer gets no more rounds (15)"
    )
    parser.add_argument("--json", type=Path, default=RESULTS / "python.json", help="where the figures go (%(default)s)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a floor is missed")
    return parser.parse_args()


def libraries(options: argparse.Namespace) -> list[str]:
    """The names to compare, in order; unknown ones end the program."""
    wanted = options.peers if options.peers is not None else "none" if options.quick else ",".join(NAMES[2:])
    peers = [name for name in wanted.split(",") if name and name != "none"]
    unknown = [name for name in peers if name not in NAMES]
    if unknown:
        raise SystemExit(f"no library is called {', '.join(unknown)}; there are: {', '.join(NAMES[2:])}")
    return [name for name in NAMES if name in (REFERENCE, SUBJECT, *peers)]


def measure(case: Case, agents: list[Agent], setting: Setting, rounds: int, options: argparse.Namespace) -> report.Row:
    """Run one case `rounds` times in every library, taking turns."""
    row = report.Row(case, {agent.name: report.Series() for agent in agents})
    spent = dict.fromkeys(row.series, 0.0)
    for turn in range(rounds):
        for agent in agents:
            series = row.series[agent.name]
            peer = agent.name not in (REFERENCE, SUBJECT)
            if series.status != "ok" or (peer and spent[agent.name] > options.budget):
                continue
            progress(f"{case.key}  round {turn + 1} of {rounds}  {agent.name}")
            reply = agent.ask(case.key, asdict(setting), options.cap)
            if reply["status"] == "ok":
                series.seconds.append(reply["seconds"])
                spent[agent.name] += reply["seconds"] * reply["units"]
            else:
                series.status, series.why = reply["status"], reply.get("why", "")
    progress("")
    return row


def progress(text: str) -> None:
    """One line on a terminal, overwritten; nothing if the output is not a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def header(about: dict[str, Any], setting: Setting, rounds: int, agents: list[Agent]) -> str:
    load = ", ".join(f"{one:.2f}" for one in about["load"])
    lines = [
        f"{about['when']}  {about['python']}  {about['system']}",
        f"{about['processor']}, {about['cores']} cores, load average {load}",
        (
            f"{setting.workers} workers, start method {setting.method}, {rounds} rounds in turn, medians; "
            f"{setting.items:,} tasks in map and imap, {setting.burst:,} in the burst, "
            f"{setting.calls:,} round trips, {setting.many:,} under default chunks"
        ),
        "libraries: " + ", ".join(f"{agent.name} {agent.version or 'n/a'}" for agent in agents),
    ]
    if about["load"][0] > about["cores"] / 2:
        lines.append("WARNING: the machine was busy when this began; expect noise")
    return "\n".join(lines)


def main() -> int:
    options = arguments()
    setting = Setting(**asdict(QUICK)) if options.quick else Setting()
    setting.workers, setting.method = options.workers, options.start_method
    setting.items = options.items or setting.items
    rounds = options.rounds or (3 if options.quick else 5)
    cases = chosen([one for one in options.cases.split(",") if one])
    about = machine.describe()
    setting.loops_per_ms = machine.loops_per_millisecond()

    options.json.parent.mkdir(parents=True, exist_ok=True)
    log = options.json.with_suffix(".log")
    log.write_text("")
    agents = [Agent(name, log) for name in libraries(options)]
    rows: list[report.Row] = []
    payloads: list[report.Row] = []
    yardsticks: list[report.Row] = []
    pair = [agent for agent in agents if agent.name in (REFERENCE, SUBJECT)]
    try:
        for agent in agents:
            agent.start()
        print(header(about, setting, rounds, agents), flush=True)
        for case in cases:
            rows.append(measure(case, agents, setting, rounds, options))
        if options.payloads:
            yardsticks = [measure(case, pair, setting, rounds, options) for case in YARDSTICKS]
            payloads = [measure(case, pair, setting, rounds, options) for case in PAYLOADS]
    finally:
        for agent in agents:
            agent.stop()

    unavailable = {agent.name: agent.unavailable for agent in agents if agent.unavailable}
    print()
    print(report.floors_table(rows))
    if len(agents) > 2:
        print()
        print(report.peers_tables(rows, [agent.name for agent in agents if not agent.unavailable]))
    if payloads:
        print()
        print(report.payloads_table(payloads, yardsticks))
        rows += payloads
    print()
    for line in report.remarks(rows, unavailable):
        print(line)
    verdicts = [row.verdict() for row in rows]
    print(report.LEGEND.format(payloads=report.PAYLOADS_LEGEND if payloads else ""))
    print(f"floors: {verdicts.count('ok')} ok, {verdicts.count('short')} short; figures in {options.json}")
    figures = {
        "machine": about,
        "setting": asdict(setting),
        "rounds": rounds,
        "versions": {agent.name: agent.version for agent in agents},
        "unavailable": unavailable,
        "cases": [row.as_json() for row in (*rows, *yardsticks)],
    }
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    wrong = any(row.series[SUBJECT].status in ("wrong", "hang", "died") for row in rows)
    return 1 if wrong or (options.strict and "short" in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
