"""`make fuzz`: every parser of another process's bytes under libFuzzer, one after the other.

    python3 scripts/fuzz.py PYTHON [--seconds 600] [--only link,log] [--keep]

The fuzzers are built apart from everything else (`fuzz/`, `target/fuzz`), with counters at every branch; those in Rust with
AddressSanitizer, for which RUSTC_BOOTSTRAP allows unstable options: a stable toolchain suffices.
Each target begins with what `fuzz/corpus/TARGET.txt` has.  With `--keep` the corpus becomes the smallest set of inputs that
reaches as much as all that were found.  A find (a crash, a hang, memory, a wrong value) is kept in target/fuzz/finds, told, and the exit
code is 1.  What it was goes into the corpus by hand, with a comment, when it is mended.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUZZ, TARGET = ROOT / "fuzz", ROOT / "target" / "fuzz"
CORPUS, FINDS = FUZZ / "corpus", TARGET / "finds"
COUNTERS = [
    "--cfg fuzzing -Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]
# Seconds for one input, megabytes for one allocation and for all of them, bytes of an input.
LIMITS = ["-timeout=20", "-malloc_limit_mb=256", "-rss_limit_mb=2048", "-max_len=4096", "-detect_leaks=1"]
# Of a corpus in the repository: hexadecimal digits.
MOST_KEPT = 40_000


@dataclass
class Outcome:
    name: str
    runs: int = 0
    reached: int = 0
    inputs: int = 0
    code: int = 0
    find: str = ""


def build(host: str) -> tuple[Path, Path]:
    """The fuzzer for the targets in Rust, and the library for those in Python."""
    environ = {**os.environ, "RUSTC_BOOTSTRAP": "1"}
    places = []
    for package, flags, product in (
        ("maniple-fuzz", ["-Zsanitizer=address"], "maniple-fuzz"),
        ("maniple-fuzz-python", [], "libmaniple_fuzz.so"),
    ):
        folder = TARGET / package
        environ["RUSTFLAGS"] = " ".join(COUNTERS + flags)
        command = ["cargo", "build", "--quiet", "--locked", "--release", "--target", host, "--package", package]
        subprocess.run([*command, "--target-dir", folder], cwd=FUZZ, env=environ, check=True)
        places.append(folder / host / "release" / product)
    return places[0], places[1]


def host() -> str:
    told = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return re.search(r"^host: (.*)$", told, re.M)[1]  # type: ignore[index]


def commands(python: str, rust: Path, library: Path) -> Iterator[tuple[str, list[str]]]:
    """Each target, and what runs it."""
    for name in subprocess.run([rust], capture_output=True, text=True, check=True).stdout.split():
        yield name, [str(rust), name]
    listing = "import ast, sys; tree = ast.parse(open(sys.argv[1]).read())\nfor one in tree.body:\n"
    listing += "    if isinstance(one, ast.AnnAssign) and one.target.id == 'TARGETS': print(*[k.value for k in one.value.keys])"
    told = subprocess.run([python, "-c", listing, FUZZ / "targets.py"], capture_output=True, text=True, check=True)
    for name in told.stdout.split():
        yield name, [python, str(FUZZ / "drive.py"), str(library), name]


def unpack(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = CORPUS / f"{name}.txt"
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else ()):
        if line and not line.startswith("#"):
            (folder / f"kept-{number}").write_bytes(bytes.fromhex(line.lstrip("-")))


def pack(name: str, folder: Path) -> None:
    """Write the corpus: what was put in by hand stays, with its comments, at the beginning."""
    file = CORPUS / f"{name}.txt"
    kept: list[str] = []
    if file.exists():
        by_hand, mark, _ = file.read_text().partition(FOUND)
        kept = by_hand.splitlines() if mark else []
    lines, size = [], 0
    for digits in sorted(
        {one.read_bytes().hex() for one in folder.iterdir()}, key=lambda digits: (len(digits), digits)
    ):
        size += len(digits)
        if size > MOST_KEPT:
            break
        if digits not in kept:
            lines.append(digits or "-")
    file.write_text("\n".join([*kept, FOUND, *lines]) + "\n")


FOUND = "# What the fuzzer has found, so that each input reaches something that those before it do not."


def run(name: str, command: list[str], seconds: int) -> Outcome:
    folder, log = TARGET / "corpus" / name, TARGET / f"{name}.log"
    unpack(name, folder)
    arguments = [f"-max_total_time={seconds}", "-print_final_stats=1", f"-artifact_prefix={FINDS}/{name}-", *LIMITS]
    environ = {**os.environ, "ASAN_OPTIONS": "abort_on_error=1:allocator_may_return_null=1"}
    with log.open("wb") as out:
        code = subprocess.run(
            ["nice", "-n", "15", "timeout", "-s", "KILL", str(3 * seconds + 300), *command, str(folder), *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=TARGET,
        ).returncode
    told = log.read_text(errors="replace")
    outcome = Outcome(name, code=code, inputs=len(list(folder.iterdir())))
    if found := re.search(r"number_of_executed_units: (\d+)", told):
        outcome.runs = int(found[1])
    if found := re.findall(r" cov: (\d+)", told):
        outcome.reached = int(found[-1])
    if code or not outcome.runs:
        said = re.search(r"^.*(?:panicked|Error:|ERROR: ).*(?:\n.*)?", told, re.M)
        outcome.find = said[0].replace("\n", " ")[:300] if said else f"exit code {code}, see {log}"
    return outcome


def merge(name: str, command: list[str]) -> None:
    """The smallest set of inputs that reaches as much."""
    folder, least = TARGET / "corpus" / name, TARGET / "least" / name
    subprocess.run(["rm", "-rf", least], check=True)
    least.mkdir(parents=True)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["nice", "-n", "15", *command, "-merge=1", str(least), str(folder), *LIMITS], **quiet, cwd=TARGET)
    if not any(least.iterdir()):
        raise SystemExit(f"the inputs of {name} could not be merged")
    pack(name, least)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("python", help="the interpreter of an environment with the package's requirements")
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("--only", default="", help="names of targets, with commas between")
    parser.add_argument("--keep", action="store_true", help="write the corpus anew")
    options = parser.parse_args()
    FINDS.mkdir(parents=True, exist_ok=True)
    print("-- building the fuzzers", flush=True)
    every = dict(commands(os.path.abspath(options.python), *build(host())))
    chosen = options.only.split(",") if options.only else list(every)
    if unknown := set(chosen) - set(every):
        parser.error(f"no target is called {', '.join(unknown)}; there are: {', '.join(every)}")
    each = max(1, options.seconds // len(chosen))
    outcomes = []
    for name in chosen:
        outcomes.append(outcome := run(name, every[name], each))
        words = f"{outcome.runs:>9} runs, {outcome.reached:>5} places reached, {outcome.inputs:>5} inputs"
        print(f"{name:<14} {words}   {'FOUND: ' + outcome.find if outcome.find else ''}", flush=True)
        if options.keep and not outcome.find:
            merge(name, every[name])
    finds = [outcome for outcome in outcomes if outcome.find]
    print(f"{sum(one.runs for one in outcomes)} runs of {len(outcomes)} targets, {len(finds)} finds", flush=True)
    if finds:
        print(f"The inputs are in {FINDS}, and what was said in {TARGET}/NAME.log.", file=sys.stderr)
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
