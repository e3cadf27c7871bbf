"""Programs that outlive their worker, and write to the standard error that they inherited from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS, wait_for_file

PROGRAM = """
import importlib, subprocess, sys, time
mp = importlib.import_module(sys.argv[1])

SCRIPT = 'sleep 0.5; for i in 1 2 3; do echo late $i >&2; sleep 0.2; done; head -c 200000 /dev/zero | tr "\\\\0" x >&2; echo there > "$0"'

def start(path):
    subprocess.Popen(["/bin/sh", "-c", SCRIPT, path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

if __name__ == "__main__":
    pool = mp.get_context(sys.argv[2]).Pool(1)
    pool.apply(start, (sys.argv[4],))
    pool.close() if sys.argv[3] != "terminated" else pool.terminate()
    pool.join()
    while sys.argv[3] != "ended" and not importlib.import_module("os").path.exists(sys.argv[4]):
        time.sleep(0.02)
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("end", ["closed", "terminated", "ended"])
def test_a_program_may_write_after_its_worker_has_ended(mp_package: str, tmp_path: Path, method: str, end: str) -> None:
    """`ended`: the program that made the pool has ended, too."""
    program, there = tmp_path / "program.py", tmp_path / "there"
    program.write_text(PROGRAM)
    argv = [sys.executable, str(program), mp_package, method, end, str(there)]
    # Its standard error ends after all of its holders have ended.
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60)
    assert wait_for_file(str(there))
    assert done.returncode == 0
    assert done.stderr == "late 1\nlate 2\nlate 3\n" + "x" * 200_000
