"""Runs one of `targets.TARGETS` over its corpus, without libFuzzer: `python fuzz/replay.py TARGET`.

A hang or a crash names the input that was last printed.  Memory is limited to what any input of some kilobytes needs.
"""

from __future__ import annotations

import faulthandler
import resource
import sys
from pathlib import Path

MOST = 1 << 30
SECONDS = 60


def inputs(name: str) -> list[bytes]:
    """An input per line, in hexadecimal digits; `-` is the one without bytes."""
    text = (Path(__file__).parent / "corpus" / f"{name}.txt").read_text()
    return [bytes.fromhex(line.lstrip("-")) for line in text.splitlines() if line and not line.startswith("#")]


def main(name: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from targets import TARGETS

    every = inputs(name)
    for number, data in enumerate(every):
        print(f"input {number}", file=sys.stderr)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        TARGETS[name](data)
    faulthandler.cancel_dump_traceback_later()
    print(f"{len(every)} inputs")


if __name__ == "__main__":
    main(*sys.argv[1:])
