"""Compares what maniple shows with what the installed standard package shows: nothing may lack or differ; additions are welcome.

    .venv/bin/python tests/cpython/names.py

Compared are the modules, their public names and `__all__`, the kinds of things, constants, what classes derive from, their
members, every signature with its defaults, the start methods, the contexts, and the attributes of one object of each kind.
`allowed.py` names what may differ. The last line is `names on Python X: N passed, N failed (...)`; the exit status is 1 if
anything failed.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from allowed import ALLOWED
from signatures import objections, shown
from surface import LIMIT, STANDARD, standard_modules

Facts = dict[str, dict[str, Any]]


class Comparison:
    """Each check is one property of one path. `faults` and `additions` are (path, what)."""

    def __init__(self, allowed: dict[str, str]) -> None:
        self.allowed = allowed
        self.checks = 0
        self.faults: list[tuple[str, str]] = []
        self.additions: list[tuple[str, str]] = []
        self.forgiven: list[tuple[str, str]] = []

    def compare(self, theirs: Facts, ours: Facts) -> None:
        for path, fact in theirs.items():
            if fact.get("own", True):
                self.path(path, fact, ours.get(path))
        differing = {path for path, _what in self.forgiven}
        for path in self.allowed.keys() & theirs.keys() - differing:
            self.faults.append((path, "is allowed to differ and does not: take it out of allowed.py"))

    def path(self, path: str, there: dict[str, Any], here: dict[str, Any] | None) -> None:
        if here is None:
            self.check(path, "is missing")
            return
        self.check(
            path,
            ""
            if alike(there["kind"], here["kind"])
            else f"is a {here['kind']} ({here.get('value', '')}), not a {there['kind']}",
        )
        for key, word in (("names", "__all__ lacks"), ("bases", "does not derive from")):
            for name in there.get(key, ()):
                if key == "bases" and name.startswith("_"):
                    continue  # how the classes are made, not what they are
                self.check(path, "" if name in here.get(key, ()) else f"{word} {name}")
        if there["kind"] == here["kind"] and "value" in there:
            self.check(
                path, "" if there["value"] == here.get("value") else f"is {here.get('value')}, not {there['value']}"
            )
        if there.get("signature") is not None and here["kind"] != "value":
            self.signature(path, there["signature"], here.get("signature"))

    def signature(self, path: str, theirs: list[list[str]], ours: list[list[str]] | None) -> None:
        if ours is None:
            self.check(path, f"shows no signature; the standard one is {shown(theirs)}")
            return
        against = objections(theirs, ours)
        self.check(path, f"{'; '.join(against)}. Standard: {shown(theirs)}; ours: {shown(ours)}" if against else "")
        if ours != theirs and not against:
            self.additions.append((path, f"{shown(theirs)} is {shown(ours)}"))

    def check(self, path: str, fault: str) -> None:
        self.checks += 1
        if not fault:
            return
        if path in self.allowed:
            self.forgiven.append((path, f"{fault} ({self.allowed[path]})"))
        else:
            self.faults.append((path, fault))


def alike(there: str, here: str) -> bool:
    """A class may stand where a function was, or a static method where a class was: it is called in the same way."""
    callable_ = {"callable", "class", "method", "static method", "class method"}
    if {there, here} <= {"method", "static method", "class method", "attribute"}:
        return there == here
    return there == here or (there in ("callable", "static method") and here in callable_)


def facts_of(package: str, modules: dict[str, list[str]]) -> Facts:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("surface.py")), package]
    done = subprocess.run(command, input=json.dumps(modules), capture_output=True, text=True, timeout=LIMIT + 30)
    if done.returncode:
        raise SystemExit(
            f"{package} cannot be described (exit code {done.returncode}):\n{done.stdout[-2000:]}{done.stderr}"
        )
    facts: Facts = json.loads(done.stdout)
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package", default="maniple")
    parser.add_argument("--standard", default=STANDARD, help="the package to be like (default: the interpreter's own)")
    parser.add_argument("-v", "--verbose", action="store_true", help="show additions and what is allowed to differ")
    options = parser.parse_args()
    modules: dict[str, list[str]] = {
        name: [] for name in (standard_modules() if options.standard == STANDARD else [""])
    }
    theirs = facts_of(options.standard, modules)
    for path in theirs:
        module, colon, name = path.partition(":")
        if colon and module in modules and "." not in name:
            modules[module].append(name)
    comparison = Comparison(ALLOWED)
    comparison.compare(theirs, facts_of(options.package, modules))
    if options.verbose:
        for path, what in comparison.additions:
            print(f"  addition: {path}: {what}")
        for path, what in comparison.forgiven:
            print(f"  allowed: {path}: {what}")
    for path, what in comparison.faults:
        print(f"  {path} {what}")
    passed = comparison.checks - len(comparison.faults) - len(comparison.forgiven)
    print(
        f"names on Python {platform.python_version()}: {passed} passed, {len(comparison.faults)} failed "
        f"({len(comparison.additions)} additions, {len(comparison.forgiven)} allowed)"
    )
    return 1 if comparison.faults or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
