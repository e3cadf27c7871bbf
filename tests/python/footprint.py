"""The footprint of a process: children, descriptors, threads, shared mappings.

Two footprints, before and after the work under test, show whether it left anything behind. The pytest fixtures and the
scenario processes use this module.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

# The time in which background threads and dying children clean up. Only a real leftover uses all of it.
SETTLE_SECONDS = 6.0


@dataclass
class Footprint:
    """One observation of the calling process."""

    children: dict[int, str] = field(default_factory=dict)
    descriptors: dict[int, str] = field(default_factory=dict)
    python_threads: list[str] = field(default_factory=list)
    native_threads: int = 0
    shared_mappings: list[str] = field(default_factory=list)

    @classmethod
    def take(cls) -> Footprint:
        gc.collect()
        return cls(
            children=_children(),
            descriptors=_descriptors(),
            python_threads=sorted(thread.name for thread in threading.enumerate()),
            native_threads=len(os.listdir("/proc/self/task")),
            shared_mappings=_shared_mappings(),
        )

    def growth_since(self, before: Footprint) -> list[str]:
        """Return what is new since `before`, one line for each object."""
        grown = []
        for pid, what in self.children.items():
            if pid not in before.children:
                grown.append(f"process {pid} is left: {what}")
            elif "zombie" in what:
                grown.append(f"process {pid} was left as a zombie: {what}")
        if len(self.descriptors) > len(before.descriptors):
            fresh = {fd: name for fd, name in self.descriptors.items() if before.descriptors.get(fd) != name}
            grown.append(f"{len(before.descriptors)} -> {len(self.descriptors)} descriptors; new: {fresh}")
        if len(self.python_threads) > len(before.python_threads):
            grown.append(f"threads {before.python_threads} -> {self.python_threads}")
        elif self.native_threads > before.native_threads:
            grown.append(f"native threads {before.native_threads} -> {self.native_threads}")
        if len(self.shared_mappings) > len(before.shared_mappings):
            grown.append(f"shared mappings {before.shared_mappings} -> {self.shared_mappings}")
        return grown


def leaks_since(before: Footprint, patience: float = SETTLE_SECONDS) -> list[str]:
    """Return `Footprint.growth_since`, after late cleaners have had up to `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        grown = Footprint.take().growth_since(before)
        if not grown or time.monotonic() > deadline:
            return grown
        time.sleep(0.02)


def _children() -> dict[int, str]:
    found = {}
    for child in psutil.Process().children(recursive=True):
        try:
            found[child.pid] = f"{child.status()} {' '.join(child.cmdline())[-160:]}"
        except psutil.NoSuchProcess:
            continue
    return found


def _descriptors() -> dict[int, str]:
    names = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            names[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    return names


def _shared_mappings() -> list[str]:
    shared = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, *_, name = [*line.split(maxsplit=5), ""][:6]
        if access.endswith("s"):
            shared.append(name or span)
    return sorted(shared)


def shared_names_of(pids: Iterable[int]) -> set[str]:
    """Return the names under /dev/shm that any of these processes has mapped or open now.

    The files there have no known owner, and other users may use the machine too, so a test must know its own names
    before it can report them as leftovers.
    """
    names = set()
    for pid in pids:
        process = Path("/proc", str(pid))
        with contextlib.suppress(OSError):
            names.update(re.findall(r"/dev/shm/(\S+)$", (process / "maps").read_text(), re.MULTILINE))
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    folder, name = os.path.split(os.readlink(descriptor))
                    if folder == "/dev/shm":
                        names.add(name)
    return names


def still_there(names: set[str]) -> list[str]:
    """Return the names of `names` that still exist under /dev/shm."""
    return sorted(name for name in names if Path("/dev/shm", name).exists())
