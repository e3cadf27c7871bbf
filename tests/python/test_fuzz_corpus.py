"""The parsers in Python read the fuzzers' inputs (`make fuzz`): each input ends, with a correct result or an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from maniple._maniple import decode_payload

FUZZ = Path(__file__).resolve().parent.parent.parent / "fuzz"
NAMES = ["native_pickle", "payload", "messages", "objects", "fork_server", "tracker"]


def replay(name: str) -> subprocess.CompletedProcess[str]:
    # In a separate process: an input may kill it, and the limits apply only to it.
    return subprocess.run([sys.executable, FUZZ / "replay.py", name], capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_of_the_corpus_are_harmless(name: str) -> None:
    done = replay(name)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[0]) > 0


def test_the_tests_replay_the_corpus_of_every_target() -> None:
    kept = {file.stem for file in (FUZZ / "corpus").glob("*.txt")}
    listed = subprocess.run(
        [sys.executable, "-c", "from targets import TARGETS; print(*TARGETS)"], cwd=FUZZ, capture_output=True, text=True
    )
    assert sorted(listed.stdout.split()) == sorted(NAMES), listed.stderr
    assert set(NAMES) <= kept


def test_endless_nesting_raises_an_error() -> None:
    with pytest.raises(RuntimeError, match="shorter than the length that it states|same version"):
        decode_payload(b"(\1\0\0\0\0" * 200_000, False)
    assert decode_payload(b"(\1\0\0\0\0" * 4 + b"N", False) == ((((None,),),),)
