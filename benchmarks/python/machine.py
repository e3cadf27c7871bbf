"""What the figures were taken on, and how fast a core is."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

from tasks import burn


def describe() -> dict[str, Any]:
    """The header of a report."""
    return {
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(one, 2) for one in os.getloadavg()],
    }


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def loops_per_millisecond() -> int:
    """How much of `tasks.burn` is a millisecond here: the fastest of several tries."""
    loops = 20_000
    fastest = min(_seconds(loops) for _ in range(7))
    return max(1, round(loops / (fastest * 1000)))


def _seconds(loops: int) -> float:
    begun = time.perf_counter()
    burn(loops)
    return time.perf_counter() - begun
