"""What a program under test holds, and the processes that come of it, seen from outside."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Every process that a program starts has this variable in its environment, also after the end of its parents.
MARK = "MP_TEST_MARK"


def names_of(mark: str) -> str:
    """How the names begin that a program with this mark makes in /dev/shm. Other programs make names there as well."""
    return f"test_{mark[:12]}_"


def end_with_parent() -> None:
    """Make the kernel kill this process when its watcher ends: no other process would end it."""
    KILL_ME_THEN = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(KILL_ME_THEN, int(signal.SIGKILL))


def holdings(pid: int) -> dict[str, Any]:
    """What the process holds, as far as that must not grow: by number, and all of it by name."""
    place = Path("/proc", str(pid))
    descendants = [f"{state} {child}" for child, state in below(pid)]
    descriptors = []
    for entry in (place / "fd").iterdir():
        with contextlib.suppress(OSError):
            descriptors.append(os.readlink(entry).rstrip("0123456789[]"))
    threads = os.listdir(place / "task")
    mappings = [
        line.split(maxsplit=5)[-1]
        for line in (place / "maps").read_text().splitlines()
        if line.split()[1].endswith("s")
    ]
    return {
        "processes": len(descendants),
        "zombies": sum(one.startswith("Z") for one in descendants),
        "descriptors": len(descriptors),
        "threads": len(threads),
        "shared mappings": len(mappings),
        "all": [*descendants, *descriptors, *mappings],
    }


def below(pid: int) -> Iterator[tuple[int, str]]:
    """All that descends from a process, with the letter of its state."""
    with contextlib.suppress(OSError):
        for task in Path("/proc", str(pid), "task").iterdir():
            for child in (task / "children").read_text().split():
                with contextlib.suppress(OSError):
                    yield int(child), Path("/proc", child, "stat").read_text().rpartition(")")[2].split()[0]
                yield from below(int(child))


def marked(mark: str) -> Iterator[str]:
    """The processes of a program that are there, zombies aside."""
    needle = f"{MARK}={mark}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if needle in Path("/proc", entry, "environ").read_bytes():
                    yield f"{entry} {Path('/proc', entry, 'cmdline').read_bytes().decode(errors='replace')[-120:]}"


def end_all(mark: str) -> None:
    """Kill them; in rounds, since one that dies may be starting others."""
    for _ in range(100):
        found = list(marked(mark))
        if not found:
            return
        for one in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(one.split()[0]), signal.SIGKILL)
        time.sleep(0.02)
