"""The check of words finds the forms that the house rules avoid, only in prose."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "check_words.py"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_words", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(check: ModuleType, path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [words.lower() for _, words, _ in check.faults(path)]


@pytest.mark.parametrize(
    "prose, words",
    [
        ("Whoever gets the lock is told.", ["whoever", "is told"]),
        ("Nobody reads it any more.", ["nobody"]),
        ("The process who holds it.", ["who"]),
        ("One that waits is woken.", ["one that"]),
        ("Of one that died.", ["of one that"]),
        ("It gives the result.", ["gives"]),
        ("The key stands in the table.", ["stands"]),
        ("What becomes of the task.", ["becomes of"]),
        ("The pool goes on.", ["goes on"]),
        ("The handle goes along, and the lock is to be had.", ["goes along", "to be had"]),
        ("It waits in vain, and passes over the frame.", ["in vain", "passes over"]),
        ("A handler breaks it off; as a rule the unit is given back.", ["breaks it off", "given back", "as a rule"]),
        ("It hands it on, which holds up no other.", ["holds up", "hands it on"]),
        ("It looks after a chunk in the making.", ["looks after", "in the making"]),
        ("Users who start a pool.", []),
        ("It gives up after a second.", []),
        ("The pool returns the result of one call that failed.", []),
        ("See `whoever` and ``nobody``.", []),
    ],
)
def test_the_check_finds_the_forms_in_prose(check: ModuleType, tmp_path: Path, prose: str, words: list[str]) -> None:
    assert found(check, tmp_path / "a.md", prose + "\n") == words
    assert found(check, tmp_path / "a.rs", f"//! {prose}\nfn f() {{}} // {prose}\n") == 2 * words
    assert found(check, tmp_path / "a.sh", f"#!/bin/sh\n# {prose}\n") == words
    assert found(check, tmp_path / "a.py", f'"""{prose}"""\n\n\ndef f():\n    """{prose}"""  # {prose}\n') == 3 * words


def test_code_is_not_prose(check: ModuleType, tmp_path: Path) -> None:
    assert found(check, tmp_path / "a.py", 'who = "nobody gives whatever"\nprint(f"whoever {who}")\n') == []
    assert found(check, tmp_path / "a.rs", 'let who = "nobody";\n') == []
    assert found(check, tmp_path / "a.md", "```\nnobody\n```\n\n    whoever\n") == []
    assert found(
        check, tmp_path / "a.rs", "/// ```\n/// whoever.hear();\n/// // Nobody.\n/// ```\n/// [a](Who::hear)\n"
    ) == ["nobody"]


def test_the_script_fails_for_a_fault_and_for_an_empty_folder(tmp_path: Path) -> None:
    def run() -> int:
        return subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, timeout=60).returncode

    assert run() == 1, "nothing was checked"
    (tmp_path / "README.md").write_text("The process returns.\n")
    assert run() == 0
    (tmp_path / "README.md").write_text("Somebody returns.\n")
    assert run() == 1
