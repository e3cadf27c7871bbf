"""`make sanitize`: the tests under what sees undefined behaviour, data races, and memory that is used wrongly or leaks.

    python3 scripts/sanitize.py PYTHON [--only miri,asan,tsan,memcheck,python]

| part | what runs | what it takes |
| --- | --- | --- |
| miri | what Miri can run of the engine's unit tests: no shared memory, no processes | a nightly toolchain with `miri` |
| asan | the engine's tests, with AddressSanitizer and LeakSanitizer | any toolchain |
| tsan | the engine's unit tests and those of locks and queues, with ThreadSanitizer | a nightly toolchain with `rust-src` |
| memcheck | the engine's unit tests under valgrind, where there is no `tsan`: a fallback that sees no races of atomics | valgrind |
| python | the extension with AddressSanitizer, through the Python tests of queues, payloads, pipes and pools | gcc's libasan |

A part whose tools are missing and cannot be downloaded is reported at the end as not run; the exit code is 1 if a part has found something.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "target" / "sanitize"
UNSTABLE = {"RUSTC_BOOTSTRAP": "1"}
# Tests that say how much memory or time something takes, or that run a program which has no sanitizer in it.
PASSED = re.compile(r"^test result: .*? (\d+) passed; (\d+) failed", re.M)
REPORT = re.compile(
    r"^.*(?:ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|ERROR SUMMARY: [1-9]|Undefined Behavior).*$", re.M
)
# The tests of the Rust crates that need only memory. Miri has no futexes in shared mappings, no memfds, no processes.
MIRI = [
    "codec::",
    "channel::length_prefix",
    "exit::",
    "pool::burst",
    "shm::buffers",
    "wait::adaptive_spin",
    "wait::spin",
]
# Of the package: what makes the extension do most.
PYTHON_TESTS = ["test_payloads.py", "test_queues.py", "test_connections.py", "test_fuzz_corpus.py"]


class Missing(Exception):
    """Why a part cannot be run here."""


def call(command: list[str], limit: int = 3600, **environ: str) -> tuple[int, str]:
    print("+ " + " ".join(map(str, command)), flush=True)
    process = subprocess.Popen(
        ["nice", "-n", "10", "timeout", "-s", "KILL", str(limit), *command],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if re.match(r"test .* (FAILED|ok)$|\s+Compiling", line) is None:
            sys.stdout.write(line)
    return process.wait(), "".join(said)


def host() -> str:
    told = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return re.search(r"^host: (.*)$", told, re.M)[1]  # type: ignore[index]


def component(name: str) -> None:
    """Have a component of the nightly toolchain; that toolchain, too."""
    listing = ["rustup", "component", "list", "--installed", "--toolchain", "nightly"]
    for fetch in (
        ["rustup", "toolchain", "install", "nightly", "--profile", "minimal"],
        ["rustup", "component", "add", name],
    ):
        have = subprocess.run(listing, capture_output=True, text=True)
        if have.returncode == 0 and re.search(rf"^{name}(-|$)", have.stdout, re.M):
            return
        if "toolchain" not in fetch or have.returncode:
            extra = [] if "toolchain" in fetch else ["--toolchain", "nightly"]
            subprocess.run([*fetch, *extra], capture_output=True)
    have = subprocess.run(listing, capture_output=True, text=True)
    if not re.search(rf"^{name}(-|$)", have.stdout, re.M):
        raise Missing(f"the nightly toolchain has no {name}, and rustup cannot fetch it")


def miri(_python: str) -> tuple[int, str]:
    component("miri")
    component("rust-src")
    flags = "-Zmiri-disable-isolation -Zmiri-permissive-provenance"
    test = [
        "cargo",
        "+nightly",
        "miri",
        "test",
        "--locked",
        "-p",
        "maniple-sys",
        "-p",
        "maniple-engine",
        "-p",
        "maniple",
        "--lib",
        "--target-dir",
        str(TARGET / "miri"),
    ]
    return call([*test, "--", *MIRI], MIRIFLAGS=flags, PROPTEST_CASES="4")


def asan(_python: str) -> tuple[int, str]:
    test = ["cargo", "test", "--locked", "--target", host(), "--target-dir", str(TARGET / "asan"), "--no-fail-fast"]
    # The corpus has its own limit to address space, of which this sanitizer takes terabytes; it is replayed by `make fuzz`.
    skip = ["--", "--skip", "hostile::", "--test-threads", "2"]
    return call(
        [*test, "-p", "maniple-sys", "-p", "maniple-engine", "--lib", "--tests", *skip],
        RUSTFLAGS="-Zsanitizer=address",
        ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1",
        **UNSTABLE,
    )


def tsan(_python: str) -> tuple[int, str]:
    component("rust-src")
    test = [
        "cargo",
        "+nightly",
        "test",
        "--locked",
        "-Zbuild-std",
        "--target",
        host(),
        "--target-dir",
        str(TARGET / "tsan"),
    ]
    # Children that are forked and run no other program are not supported by it, and signals come late. One test at a time: it does
    # not see rustix map memory, and takes what two tests have at one address, one after the other, for the same.
    lib = ["-p", "maniple-sys", "-p", "maniple-engine", "--lib", "--no-fail-fast", "--"]
    lib += ["--skip", "hostile::", "--skip", "process::", "--skip", "atfork::"]
    it = ["-p", "maniple-engine", "--test", "it", "--no-fail-fast", "--", "sync::", "channel::"]
    ran = [
        call(
            [*test, *part, "--test-threads", "1"],
            RUSTFLAGS="-Zsanitizer=thread",
            TSAN_OPTIONS=f"suppressions={ROOT}/scripts/tsan.txt:second_deadlock_stack=1:die_after_fork=0",
        )
        for part in (lib, it)
    ]
    return max(code for code, _ in ran), "".join(said for _, said in ran)


def memcheck(_python: str) -> tuple[int, str]:
    if shutil.which("valgrind") is None:
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "valgrind"], capture_output=True)
    if shutil.which("valgrind") is None:
        raise Missing("there is no valgrind, and apt-get cannot fetch it")
    crates = ["-p", "maniple-sys", "-p", "maniple-engine"]
    made = subprocess.run(
        ["cargo", "test", "--locked", *crates, "--lib", "--no-run", "--message-format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    programs = sorted(set(re.findall(r'"executable":"([^"]*maniple_(?:sys|engine)-[^"]*)"', made.stdout)))
    valgrind = ["valgrind", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite", "-q"]
    ran = [call([*valgrind, program, "--skip", "hostile::", "--test-threads", "1"]) for program in programs]
    return max(code for code, _ in ran), "".join(said for _, said in ran)


def python(interpreter: str) -> tuple[int, str]:
    compiler = shutil.which("gcc")
    library = (
        compiler
        and subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    )
    if not library or not os.path.isabs(library):
        raise Missing("gcc has no libasan.so")
    # It may be a linker's script, which names the file.
    real = re.search(rb"/\S*libasan\.so\.\d+", Path(library).read_bytes()[:200])
    library = real[0].decode() if real else os.path.realpath(library)
    build = [
        "cargo",
        "build",
        "--locked",
        "--target",
        host(),
        "--target-dir",
        str(TARGET / "python"),
        "-p",
        "maniple-python",
    ]
    code, said = call(
        [*build, "--features", "pyo3/extension-module"],
        RUSTFLAGS="-Zsanitizer=address -Clink-arg=-Wl,-z,undefs",
        PYO3_PYTHON=interpreter,
        **UNSTABLE,
    )
    if code:
        return code, said
    # The package as it is here, with this module in it.
    package = TARGET / "package"
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(
        ROOT / "python" / "maniple", package / "maniple", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    shutil.copy(TARGET / "python" / host() / "debug" / "lib_maniple.so", package / "maniple" / "_maniple.abi3.so")
    tests = [str(ROOT / "tests" / "python" / name) for name in PYTHON_TESTS]
    return call(
        [
            interpreter,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--deselect",
            "footprint",
            "-k",
            PYTHON_ONLY,
            *tests,
        ],
        PYTHONPATH=str(package),
        LD_PRELOAD=library,
        PYTHONMALLOC="malloc",
        # The interpreter leaves much behind at its end; and what it leaves hides nothing of ours, whose memory is mapped.
        ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:halt_on_error=1",
    )


# Without those that limit the address space, of which the sanitizer takes terabytes, or measure memory.
PYTHON_ONLY = "not interest and not memory and not limit and not mapping"

PARTS: dict[str, Callable[[str], tuple[int, str]]] = {
    "miri": miri,
    "asan": asan,
    "tsan": tsan,
    "memcheck": memcheck,
    "python": python,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("python", help="the interpreter of an environment with the package's test requirements")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    options = parser.parse_args()
    lines, finds = [], 0
    for name in options.only.split(","):
        if name not in PARTS:
            parser.error(f"no part is called {name}; there are: {', '.join(PARTS)}")
        try:
            code, said = PARTS[name](os.path.abspath(options.python))
        except Missing as why:
            lines.append(f"{name}: NOT RUN: {why}")
            continue
        counts = [tuple(map(int, found)) for found in PASSED.findall(said)]
        counts += [(int(found), 0) for found in re.findall(r"^(\d+) passed", said, re.M)]
        reports = REPORT.findall(said)
        finds += bool(code or reports)
        passed, failed = (sum(column) for column in zip(*counts)) if counts else (0, 0)
        state = "ok" if not code and not reports else f"FOUND something (exit code {code})"
        lines.append(f"{name}: {passed} tests passed, {failed} failed, {len(reports)} reports: {state}")
    print("\n==== how each part ended")
    print("\n".join(lines))
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
