"""Freezes a program with PyInstaller, as a folder and as one file, and runs it in every start method.

    python scripts/check_frozen.py .venv

It has to print the same with maniple as with the standard package, and to start its main module no more often.  PyInstaller
and the wheel that was built last go into an environment beside ``.venv``, which is made for this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from setup import Environment

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "tests" / "frozen" / "example.py"
METHODS = ("fork", "spawn", "forkserver")
EXPECTED = "[1, 4, 9]\nitem\n[1, 2]\nTrue 0\n"
SECONDS = 60


def main(folder: str) -> None:
    environment = Path(folder).absolute()
    python = prepare(environment)
    troubles = []
    with tempfile.TemporaryDirectory(prefix="frozen-") as built:
        for shape in ("--onedir", "--onefile"):
            print(f"freezing {PROGRAM.name} with {shape}", flush=True)
            program = freeze(python, Path(built), shape)
            for method in METHODS:
                troubles += compare(program, method, f"{shape} {method}")
    print("\n".join(troubles) or "frozen: all as with the standard package")
    sys.exit(bool(troubles))


def prepare(environment: Path) -> Path:
    """An environment with PyInstaller and the wheel; returns its interpreter."""
    wheels = sorted((environment / "wheels").glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime)
    if not wheels:
        sys.exit(f"there is no wheel in {environment / 'wheels'}: run make build")
    beside = environment.with_name(environment.name + "-frozen")
    python = beside / "bin" / "python"
    Environment(beside).make()
    quiet = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*quiet, "pyinstaller>=6", "cloudpickle>=3"], check=True)
    subprocess.run([*quiet, "--no-deps", "--force-reinstall", wheels[-1]], check=True)
    return python


def freeze(python: Path, folder: Path, shape: str) -> Path:
    """Build the program; returns its path."""
    places = [f"--distpath={folder / shape}", f"--workpath={folder / 'work'}", f"--specpath={folder}"]
    imports = ["--hidden-import=maniple", "--hidden-import=multiprocessing"]
    line = [python, "-m", "PyInstaller", "--log-level=WARN", "--noconfirm", shape, *places, *imports, PROGRAM]
    subprocess.run(line, check=True)
    return folder / shape / "example" if shape == "--onefile" else folder / shape / "example" / "example"


def compare(program: Path, method: str, where: str) -> list[str]:
    """What is wrong with the program in one start method."""
    troubles = []
    standard, _ = run(program, method, "multiprocessing", "with")
    for package in ("maniple", "alias"):
        for variant in ("with", "without"):
            starts, trouble = run(program, method, package, variant)
            if trouble:
                troubles.append(f"{where}, {package} {variant} freeze_support: {trouble}")
            elif starts > standard:
                troubles.append(f"{where}, {package} {variant} freeze_support: {starts} starts instead of {standard}")
            print(
                f"  {method:10} {package:8} {variant:7} {starts} starts (the standard package: {standard})", flush=True
            )
    return troubles


def run(program: Path, method: str, package: str, variant: str) -> tuple[int, str]:
    """How often the main module was started, and what was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        count = Path(folder) / "count"
        told = {"COUNT": str(count), "METHOD": method, "PACKAGE": package, "VARIANT": variant}
        environ = {**os.environ, **{f"FROZEN_{name}": value for name, value in told.items()}}
        try:
            done = subprocess.run([program], env=environ, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return count.read_text().count("start"), f"it did not end within {SECONDS} s"
        starts = count.read_text().count("start")
    if (done.returncode, done.stdout, done.stderr) != (0, EXPECTED, ""):
        return starts, f"status {done.returncode}, printed {done.stdout!r} and {done.stderr[-500:]!r}"
    return starts, ""


if __name__ == "__main__":
    main(*sys.argv[1:])
