"""Runs one of `targets.TARGETS` under libFuzzer, in an interpreter that has the instrumented extension.

python fuzz/drive.py LIBRARY TARGET [libFuzzer's arguments]
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COUNTERS = 1 << 14


def load(library: str) -> ctypes.PyDLL:
    """Put the library in the place of the package's native module."""
    sys.path.insert(0, str(ROOT / "python"))
    name = "maniple._maniple"
    loader = importlib.machinery.ExtensionFileLoader(name, library)
    spec = importlib.util.spec_from_file_location(name, library, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader.exec_module(module)
    return ctypes.PyDLL(library)


def count_lines(driver: ctypes.PyDLL, modules: list[Any]) -> Any:
    """Make the fuzzer trace which lines of these modules run, and return the tracer."""
    counters = (ctypes.c_ubyte * COUNTERS)()
    driver.maniple_fuzz_count(counters, ctypes.c_size_t(COUNTERS))
    files = {module.__file__: place * (COUNTERS // len(modules)) for place, module in enumerate(modules)}

    def line(frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            place = (files[frame.f_code.co_filename] + frame.f_lineno) % COUNTERS
            counters[place] = min(255, counters[place] + 1)
        return line

    def call(frame: FrameType, _event: str, _argument: Any) -> Any:
        return line if frame.f_code.co_filename in files else None

    return call


def main(library: str, name: str, *arguments: str) -> int:
    driver = load(library)
    from targets import TARGETS, TRACED

    target = TARGETS[name]
    trace = count_lines(driver, TRACED[name]) if name in TRACED else None

    @ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    def feed(address: int, size: int) -> int:
        data = ctypes.string_at(address, size) if size else b""
        try:
            sys.settrace(trace)
            target(data)
        except BaseException:
            sys.settrace(None)
            traceback.print_exc()
            os.abort()
        sys.settrace(None)
        return 0

    # libFuzzer starts it again, by the shell, when it has many inputs to go through.
    again = " ".join((sys.executable, sys.argv[0], library, name))
    words = [word.encode() for word in (again, *arguments)]
    argv = (ctypes.c_char_p * (len(words) + 1))(*words)
    code: int = driver.maniple_fuzz_run(len(words), argv, feed)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
