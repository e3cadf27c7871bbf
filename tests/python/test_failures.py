"""Whatever dies or cannot be decoded: every call returns, and nothing is left behind.

One test a row of the failure matrix and start method. What a row does stands in
`scenarios/`; `harness.py` runs it in a session of its own under a watchdog.
"""
from __future__ import annotations

import pytest

from harness import run_scenario
from scenarios.registry import METHODS, all_scenarios


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", all_scenarios())
def test_row(name: str, method: str, mp_package: str, watchdog: float) -> None:
    outcome = run_scenario(name, mp_package, method, watchdog)
    assert outcome.ok, f"{all_scenarios()[name].row} [{method}]: {outcome}"
