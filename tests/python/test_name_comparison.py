"""The comparison of names and signatures detects each kind of difference, and accepts additions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = Path(__file__).resolve().parent.parent / "cpython" / "names.py"

MODEL = """
__all__ = ["Pool", "Gone", "start", "MODE"]
MODE = "fast"
DEPTH = 3

class Base: pass
class Gone(OSError): pass

class Pool(Base):
    limit = 1
    def map(self, func, items, chunksize=None): pass
    def _private(self): pass
    @staticmethod
    def count(first, *rest): pass
    @classmethod
    def named(cls, *, name, size=2, **more): pass
    @property
    def state(self): pass
    def __enter__(self): pass

def start(target, /, args=(), *, daemon=None): pass
def _hidden(): pass
"""


def compare(folder: Path, ours: str) -> tuple[int, str]:
    for name, text in (("model", MODEL), ("copy_of_it", ours)):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
    command = [sys.executable, str(NAMES), "--standard", "model", "--package", "copy_of_it", "-v"]
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)
    return done.returncode, done.stdout + done.stderr


def changed(old: str, new: str) -> str:
    assert MODEL.count(old) == 1, old
    return MODEL.replace(old, new)


def test_a_package_is_like_itself(tmp_path):
    code, output = compare(tmp_path, MODEL)
    assert code == 0, output
    assert ", 0 failed (0 additions, 0 allowed)" in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("def start(", "def begin(", ":start is missing"),
        ('"Gone", ', "", ": __all__ lacks Gone"),
        ("DEPTH = 3", "DEPTH = 4", ":DEPTH is 4, not 3"),
        ("DEPTH = 3", "def DEPTH(): pass", ":DEPTH is a callable (), not a value"),
        ("class Gone(OSError)", "class Gone(Exception)", ":Gone does not derive from OSError"),
        ("class Pool(Base)", "class Pool", ":Pool does not derive from Base"),
        ("def map(", "def mapped(", ":Pool.map is missing"),
        ("    def __enter__(self): pass", "", ":Pool.__enter__ is missing"),
        ("    limit = 1", "", ":Pool.limit is missing"),
        ("    @property\n", "", ":Pool.state is a method (), not a attribute"),
        ("    @staticmethod\n", "", ":Pool.count is a method (), not a static method"),
        ("chunksize=None", "chunksize=1", "chunksize is 1 where it was None"),
        ("chunksize=None", "chunksize", "chunksize is required where it was None"),
        ("func, items", "items, func", ":Pool.map has items in the place of func"),
        ("items, chunksize=None", "items", "has no parameter chunksize to be given by name"),
        ("items, chunksize=None", "items, *, chunksize=None", "takes chunksize only by name"),
        ("func, items", "func, extra, items", "has extra in the place of items"),
        ("chunksize=None", "chunksize=None, *, extra", "requires extra"),
        ("first, *rest", "first", "takes no *rest"),
        ("first, *rest", "first, second=None, *rest", "has second where more arguments were taken"),
        (", **more", "", "takes no **more"),
        ("size=2", "size=3", "size is 3 where it was 2"),
        ("args=()", "arguments=()", ":start has arguments in the place of args"),
        ("def start(target, /, args=(), *, daemon=None): pass", "start = type", ":start shows no signature"),
    ],
)
def test_a_difference_fails_and_is_named(tmp_path, old, new, fault):
    code, output = compare(tmp_path, changed(old, new))
    assert code == 1
    assert fault in output


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("chunksize=None", "chunksize=None, *, extra=0"),
        ("chunksize=None", "chunksize=None, extra=0"),
        ("func, items", "func, items=()"),
        ("target, /", "goal, /"),
        ("(target, /, ", "(target, "),
        ("first, *rest", "first, *rest, **more"),
    ],
)
def test_a_signature_that_accepts_every_standard_call_is_an_addition(tmp_path, old, new):
    code, output = compare(tmp_path, changed(old, new))
    assert code == 0, output
    assert "0 failed (1 additions, 0 allowed)" in output


def test_new_and_private_names_do_not_count(tmp_path):
    ours = changed("def _hidden(): pass", "def new(): pass").replace("    def _private(self): pass\n", "")
    code, output = compare(tmp_path, ours)
    assert code == 0, output
    assert "(0 additions, 0 allowed)" in output


def test_an_unimportable_package_fails(tmp_path):
    code, output = compare(tmp_path, "import no_such_module")
    assert code == 1
    assert "no_such_module" in output


def test_an_unused_permission_to_differ_fails():
    command = [sys.executable, str(NAMES), "--package", "multiprocessing"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=85)
    faults = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert done.returncode == 1
    assert faults and all("take it out of allowed.py" in line for line in faults), done.stdout + done.stderr


@pytest.mark.parametrize(
    ("there", "here", "fault"),
    [
        ({"!Lock().acquire": {"kind": "callable"}}, {}, "is missing"),
        ({"!Lock()": {"kind": "object"}}, {"!Lock()": {"kind": "error", "value": "OSError"}}, "is a error (OSError)"),
        ({"!Lock().x": {"kind": "callable"}}, {"!Lock().x": {"kind": "attribute"}}, "is a attribute"),
        (
            {"!start methods": {"kind": "value", "value": "a"}},
            {"!start methods": {"kind": "value", "value": "b"}},
            "is b, not a",
        ),
        (
            {"pool:": {"kind": "module"}},
            {"pool:": {"kind": "missing module", "value": "none"}},
            "is a missing module (none)",
        ),
    ],
)
def test_objects_and_modules_are_compared_as_names_are(there, here, fault):
    sys.path.insert(0, str(NAMES.parent))
    try:
        from names import Comparison
    finally:
        sys.path.remove(str(NAMES.parent))
    comparison = Comparison({})
    comparison.compare(there, here)
    assert [what for _path, what in comparison.faults if fault in what], comparison.faults
