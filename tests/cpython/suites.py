"""Which of CPython's test modules are run, and how they are chosen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from twin import Missing, Twin, standard_library, test_folders

FUTURES = "test_concurrent_futures"
# The classes of concurrent.futures' tests that have worker processes; the others test threads.
WITH_PROCESSES = r"ProcessPool|Resources"


@dataclass(frozen=True)
class Suite:
    """One row of the run. A test's id is `name::Class.method`."""

    name: str
    modules: tuple[str, ...]
    classes: re.Pattern[str] = re.compile("")

    def ids(self, tests: list[str]) -> list[str]:
        return [f"{self.name}::{test}" for test in tests if self.classes.search(test.partition(".")[0])]


def suites_of(twin: Twin, names: list[str], methods: list[str], files: list[Path]) -> list[Suite]:
    """The suites by their names: `mp` once for each start method, `main`, `cf`, `ex`; and a file of tests instead of CPython's."""
    found = [Suite(path.stem, (f"test.{path.stem}",)) for path in files]
    if "mp" in names:
        # `twin.py` writes the modules of a start method where CPython has installed none.
        found += [named(twin, method, f"test_multiprocessing_{method}") for method in methods]
    if "main" in names:
        found.append(named(twin, "main", "test_multiprocessing_main_handling"))
    if "cf" in names:
        found.append(named(twin, "cf", FUTURES, WITH_PROCESSES))
    if "ex" in names:
        found.append(named(twin, "ex", FUTURES, WITH_PROCESSES))
    return found


def named(twin: Twin, name: str, module: str, classes: str = "") -> Suite:
    modules = twin.modules_of(module)
    if not modules:
        raise Missing(f"this Python came without test.{module}")
    return Suite(name, tuple(modules), re.compile(classes))


def futures_tests(given: str) -> dict[str, Path]:
    """Where the tests of concurrent.futures are if not with the interpreter's own: CPython 3.11.7 and 3.12.1 leave them out.

    A distribution's package of tests, of the same version of Python, has them as a folder or as one file.
    """
    if given:
        path = Path(given)
        if not path.exists():
            raise Missing(f"there is no {path}: --cf-tests names {FUTURES}, a folder or a file")
        return {FUTURES: path}
    if any((folder / name).exists() for folder in test_folders() for name in (FUTURES, f"{FUTURES}.py")):
        return {}
    version = standard_library().name
    for path in (Path(f"/usr/lib/{version}/test/{FUTURES}"), Path(f"/usr/lib/{version}/test/{FUTURES}.py")):
        if path.exists():
            return {FUTURES: path}
    raise Missing(
        f"this {version} came without the tests of concurrent.futures. On Debian and Ubuntu lib{version}-testsuite has them: "
        "install it, name them with --cf-tests, or leave the suite cf out (make suite CF_TESTS=none)"
    )


def wanted(test: str, patterns: list[str]) -> bool:
    """Whether one of the patterns fits: a glob of the whole id, or a part of it. No pattern fits everything."""
    return not patterns or any(
        fnmatchcase(test, pattern) if set(pattern) & set("*?[") else pattern in test for pattern in patterns
    )
