"""The Rust crate's test programs that are run from outside."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@functools.cache
def built(test: str) -> str:
    """The path of the test program of that name, built if it is not."""
    build = ["cargo", "test", "--locked", "--all-features", "-p", "maniple", "--test", test, "--no-run"]
    told = subprocess.run([*build, "--message-format", "json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line for line in told.stdout.splitlines() if f'"name":"{test}"' in line]
    return next(path for line in reversed(lines) if (path := json.loads(line).get("executable")))
