"""Finds and ends the processes of a run by an environment variable that all of them inherit, also those without a parent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

# Seconds in which what a run has started must have ended after it.
SETTLE = 5


def marked(variable: str, value: str) -> Iterator[tuple[int, str]]:
    """The processes that have `variable` set to `value`, by number and command; none where there is no /proc."""
    needle = f"{variable}={value}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (entry / "environ").read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                yield int(entry.name), command.strip()
        except OSError:
            continue


def stragglers(variable: str, value: str) -> list[str]:
    """The marked processes that have not ended after `SETTLE` seconds."""
    deadline = time.monotonic() + SETTLE
    while (left := list(marked(variable, value))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [f"{pid} {command[:160]}" for pid, command in left]


def end_all(variable: str, value: str) -> None:
    """Kill the marked processes."""
    for _ in range(20):
        left = list(marked(variable, value))
        if not left:
            return
        for pid, _command in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
