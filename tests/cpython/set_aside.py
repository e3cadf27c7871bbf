"""The tests of CPython's executors that do not apply to `maniple.ProcessPoolExecutor`, and why.

`run.py --suites ex --set-aside` runs them, too.
"""

from __future__ import annotations

import re

# What fits a test's `Class.method` -> the reason.
SET_ASIDE: dict[str, str] = {}


def why_set_aside(test: str) -> str | None:
    """The reason why a test of the suite `ex` is not run; None if it is run."""
    name = test.partition("::")[2]
    return next((why for pattern, why in SET_ASIDE.items() if re.search(pattern, name)), None)
