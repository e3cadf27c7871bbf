"""The proof that a run tests the package under test, and not the standard package by another way."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from twin import INSIDE, STANDARD, Twin

# The ways in which tests start Python: each hides something of the surroundings.
WAYS: tuple[tuple[str, ...], ...] = ((), ("-I",), ("-E", "-S"))


def faults_of(twin: Twin, methods: list[str]) -> list[str]:
    """What speaks against `multiprocessing` being the package in every process of the twin; empty if nothing does."""
    if twin.package == STANDARD:
        return []
    faults = []
    for number, flags in enumerate(WAYS):
        way = " ".join(["python", *flags])
        result = twin.folder / f"proof{number}"
        command = [str(twin.python), *flags, str(INSIDE / "proof.py"), str(result), *methods]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=twin.patience, env=twin.environment()
            )
        except subprocess.TimeoutExpired as hung:
            faults.append(f"{way}: no answer in {twin.patience} s: {hung.stderr!r}")
            continue
        if done.returncode or not result.exists():
            faults.append(f"{way}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
            continue
        for place, modules in json.loads(result.read_text()).items():
            faults += [f"{way}, {place}: {fault}" for fault in foreign(modules, twin.package)]
    return faults


def foreign(modules: dict[str, list[str]], package: str) -> list[str]:
    """Which modules of the standard name are not the package's."""
    if STANDARD not in modules:
        return [f"{STANDARD} was not imported: {modules}"]
    root = Path(modules[STANDARD][1]).parent
    return [
        f"{name} is {own} ({file})"
        for name, (own, file) in modules.items()
        if own != package + name.removeprefix(STANDARD) or not Path(file).is_relative_to(root)
    ]


__all__ = ["faults_of"]
