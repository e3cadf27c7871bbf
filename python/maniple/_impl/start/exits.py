"""Exit codes of processes, for messages. The module is separate from `process`, because most children do not need it."""

from __future__ import annotations

import sys

from ...process import _say
from .descriptors import EX_TEMPFAIL
from .shortage import advice, is_shortage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["end_without_start", "name_of_exit"]


def end_without_start(name: str, problem: OSError) -> NoReturn:
    """Exit with `EX_TEMPFAIL` if `problem` is a shortage, else raise it. After that exit code a pool starts another
    worker later."""
    if not is_shortage(problem):
        raise problem
    why = f"{problem} ({advice(problem)})"
    _say(lambda: sys.stderr.write(f"Process {name} cannot begin: {why}\n"))
    raise SystemExit(EX_TEMPFAIL) from problem


def name_of_exit(code: int) -> int | str:
    """Return an exit code for display: a signal as its name."""
    from signal import Signals

    return next((f"-{known.name}" for known in Signals if known == -code), code)
