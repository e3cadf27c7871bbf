"""Whether CPython's own tests can be run, and what to do where they cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VERSION = "{}.{}".format(*sys.version_info)


def is_there(module: str) -> bool:
    """Whether this Python has that module of the package `test`."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec('test') is None or u.find_spec('test.{module}') is None)"
    return subprocess.call([sys.executable, "-c", code], stderr=subprocess.DEVNULL) == 0


def why_not(runner: str, target: str) -> str:
    """Why ``make target`` cannot run the tests; empty where it can."""
    if not Path(runner).is_file():
        return (
            f"CPython's own tests cannot run: {runner} is not there. Say where their runner lies with "
            f"make {target} SUITE=/path/to/mp_suite.py"
        )
    if not is_there("_test_multiprocessing"):
        return (
            f"CPython's own tests cannot run: this Python {VERSION} came without its tests (package `test`). On Debian and "
            f"Ubuntu: apt-get install libpython{VERSION}-testsuite"
        )
    return ""
