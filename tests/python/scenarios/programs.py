"""Starting the programs of `victims` in a session of their own and watching them end."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .bench import Bench


class Victim:
    def __init__(self, bench: Bench, name: str, *arguments: str) -> None:
        self.errors = Path(bench.folder(), "stderr")
        with self.errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scenarios.victims", name, bench.package, bench.method, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        self.pid = self.process.pid

    def stderr(self) -> str:
        """All that the program and its workers have printed."""
        return self.errors.read_text(errors="replace")

    def end(self, patience: float) -> int:
        """The exit code, which must come within `patience` seconds."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {patience:g} s; it printed: {self.stderr()[-2000:]}") from None


@contextlib.contextmanager
def victim(bench: Bench, name: str, *arguments: str) -> Iterator[Victim]:
    program = Victim(bench, name, *arguments)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()
