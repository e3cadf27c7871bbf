"""After every death and every decoding failure, every call returns, and nothing is left behind.

One test for each row of the failure matrix and start method. The rows are in `scenarios/`; `harness.py` runs the rows
of one file and method together, in a separate session under a watchdog.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from harness import Outcome, run_scenarios
from scenarios.registry import METHODS, all_scenarios

# The harness has a watchdog for each row; this one is for the harness, and for a whole file.
pytestmark = pytest.mark.timeout(900)

# The number of sessions at a time: a row mostly waits, for grace periods and for events that must not happen.
SESSIONS = 2

Group = tuple[str, str]


def group_of(name: str, method: str) -> Group:
    return name.partition(".")[0], method


@pytest.fixture(scope="module")
def groups(request: pytest.FixtureRequest, mp_package: str, watchdog: float) -> Iterator[dict[Group, Future]]:
    """Start the rows that were chosen for this run, by file and method. None is in progress after this file."""
    chosen: dict[Group, list[str]] = {}
    for item in request.session.items:
        if item.module is request.module:
            name, method = item.callspec.params["name"], item.callspec.params["method"]
            chosen.setdefault(group_of(name, method), []).append(name)
    executor = ThreadPoolExecutor(SESSIONS)
    yield {
        group: executor.submit(run_scenarios, names, mp_package, group[1], watchdog) for group, names in chosen.items()
    }
    executor.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", all_scenarios())
@pytest.mark.parametrize("method", METHODS)
def test_row(groups: dict[Group, Future[dict[str, Outcome]]], name: str, method: str) -> None:
    outcome = groups[group_of(name, method)].result()[name]
    assert outcome.ok, f"{all_scenarios()[name].row} [{method}]: {outcome}"
