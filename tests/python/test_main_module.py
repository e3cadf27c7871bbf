"""The main module's functions, classes and globals in workers, however the program was started."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

PROGRAMS = Path(__file__).resolve().parent / "programs"

TYPED_IN = """\
global of the initializer [41, 42] [43]
functions [3, 4] 3628800 [6]
classes there [True, True] [True]
classes here True True
exception 7 [8]
array [1, 3, 5]
lock True 10
starmap [3]
thread lock {}
open file refused
defined later [1, 2] [True]
defined anew [201] [201]
as the workers had it {{10}}
process True b 0
new workers [1, 2, 3]
end
"""


def run(*arguments: str | Path, **options: object) -> tuple[str, str]:
    """What a program prints and complains of; it has to succeed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=85, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.better_than_standard("knows typed-in definitions under fork only, and no lambdas")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["notebook", "ipython", "prompt", "c", "stdin"])
def test_typed_in_definitions(kind: str, method: str, mp_package: str) -> None:
    out, _ = run(PROGRAMS / "typed_in.py", kind, method, mp_package)
    lines = [re.sub(r"^(In \[\d+\]: )+", "", line) for line in out.splitlines()]
    said = "".join(f"{line}\n" for line in lines if line)
    # A lock of threads cannot go to a process that does not inherit it: the task that uses it is told so.
    assert said == TYPED_IN.format("locked" if method == "fork" else "True")


@pytest.mark.better_than_standard("cannot pickle lambdas, closures and local classes")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", [[], ["-m", "cProfile", "-o", "/dev/null"]], ids=["script", "profiled"])
def test_what_a_script_defines_keeps_its_identity(how: list[str], method: str, mp_package: str) -> None:
    assert run(*how, PROGRAMS / "by_value.py", mp_package, method) == ("done\n", "")
