"""Whatever dies or cannot be decoded: every call returns, and nothing is left behind.

One test a row of the failure matrix and start method. What a row does stands in
`scenarios/`; `harness.py` runs the rows of one file and method together, in a session
of their own under a watchdog, when the first of them is asked for.
"""
from __future__ import annotations

import pytest

from harness import Outcome, run_scenarios
from scenarios.registry import METHODS, all_scenarios

# The harness has a watchdog for each row; this one is for the harness, and for a whole file.
pytestmark = pytest.mark.timeout(900)

Outcomes = dict[tuple[str, str], Outcome]


@pytest.fixture(scope="session")
def outcomes() -> Outcomes:
    """By name and start method, what has been run so far."""
    return {}


@pytest.mark.parametrize("name", all_scenarios())
@pytest.mark.parametrize("method", METHODS)
def test_row(request: pytest.FixtureRequest, outcomes: Outcomes, name: str, method: str, mp_package: str,
             watchdog: float) -> None:
    if (name, method) not in outcomes:
        for each, outcome in run_scenarios(chosen(request, name, method), mp_package, method, watchdog).items():
            outcomes[each, method] = outcome
    outcome = outcomes.pop((name, method))  # so that a second run of a test is one
    assert outcome.ok, f"{all_scenarios()[name].row} [{method}]: {outcome}"


def chosen(request: pytest.FixtureRequest, name: str, method: str) -> list[str]:
    """`name` first, then what else of its file and method is to run in this session."""
    names = [name]
    for item in request.session.items:
        wanted = getattr(item, "callspec", None) and item.callspec.params
        if item.function is request.function and wanted["method"] == method and wanted["name"] not in names:
            if wanted["name"].partition(".")[0] == name.partition(".")[0]:
                names.append(wanted["name"])
    return names
