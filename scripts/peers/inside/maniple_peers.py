"""A pytest plugin that writes the outcome of each test to a file, which survives a crash.

`MANIPLE_PEERS_NOTES` names the file. Each line of it is a JSON object: ``{"began": id}`` or ``{"ended": id, "outcome": …,
"text": …}``. A test that has ended is not run again, so that a run which crashed can continue after the test that crashed.
`MANIPLE_PEERS_ONLY` names a file with a JSON list: of the tests found, only these are run.
"""

from __future__ import annotations

import json
import os

NOTES = os.environ["MANIPLE_PEERS_NOTES"]
ONLY = os.environ.get("MANIPLE_PEERS_ONLY")
# A forked child of a test goes through pytest's hooks as well, when it does not end as it should.
OWNER = os.getpid()
found: dict[str, tuple[str, str]] = {}
# Characters of a failure that are kept: its end says most.
KEPT = 6000


def note(**what: str) -> None:
    if os.getpid() == OWNER:
        with open(NOTES, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(what) + "\n")


def pytest_configure(config) -> None:
    # Names the marks that peers use with a plugin of theirs which is not installed here.
    config.addinivalue_line("markers", "timeout: a limit of the peer's own; ours is kept from outside")


def pytest_collection_modifyitems(config, items) -> None:
    with open(NOTES, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    done = {line["ended"] for line in lines if "ended" in line}
    only = None
    if ONLY:
        with open(ONLY, encoding="utf-8") as file:
            only = set(json.load(file))
    kept = [item for item in items if item.nodeid not in done and (only is None or item.nodeid in only)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_collectreport(report) -> None:
    if report.failed:
        note(ended=f"collecting {report.nodeid}", outcome="failed", text=str(report.longrepr)[-KEPT:])


def pytest_runtest_logstart(nodeid, location) -> None:
    found.pop(nodeid, None)
    note(began=nodeid)


def pytest_runtest_logreport(report) -> None:
    before, text = found.get(report.nodeid, ("", ""))
    outcome = before
    if report.failed or before == "failed":
        outcome = "failed"
    elif report.skipped:
        outcome = "skipped"
    elif report.when == "call" and not before:
        outcome = "passed"
    if report.failed or report.skipped:
        text += f"{report.when}: {report.longrepr}\n"
    found[report.nodeid] = (outcome, text)


def pytest_runtest_logfinish(nodeid, location) -> None:
    outcome, text = found.pop(nodeid, ("failed", "no report"))
    note(ended=nodeid, outcome=outcome or "failed", text=text[-KEPT:])
