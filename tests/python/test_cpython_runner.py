"""The runner of CPython's own tests detects and names each way in which a test can fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNNER = ROOT / "cpython" / "run.py"
TROUBLED = Path(__file__).parent / "programs" / "suite" / "troubled.py"

sys.path.insert(0, str(ROOT / "cpython"))
import twin  # noqa: E402

sys.path.remove(str(ROOT / "cpython"))

try:
    twin.test_folders()
except twin.Missing as missing:
    pytest.skip(str(missing), allow_module_level=True)


def run(*arguments: str, **more) -> tuple[int, str]:
    command = [sys.executable, str(RUNNER), "--methods", "fork", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=85, **more)
    return done.returncode, done.stdout


def summary(output: str) -> dict[str, str]:
    """Return each test that the run names at its end -> the run's statement about it."""
    return {
        test: outcome
        for outcome, test in re.findall(r"^([a-z]+(?: [a-z]+)?): troubled::([\w.() ]+)$", output, re.MULTILINE)
    }


@pytest.fixture(scope="module")
def troubled() -> tuple[int, str]:
    return run("--tests", str(TROUBLED), "--limit", "3", "--settle", "1", "--retries", "1")


def test_every_failure_fails_the_run_and_is_named(troubled):
    code, output = troubled
    assert summary(output) == {
        "Plain.test_fails": "failed",
        "Plain.test_fails_in_a_part": "failed",
        "Plain.test_raises": "error",
        "Plain.test_is_skipped_here_alone": "lost",
        "Plain.test_is_missing_here": "lost",
        "Hanging.test_b_hangs_in_a_child": "timeout",
        "Crashing.test_a_is_killed": "crashed",
        "Crashing.test_b_exits": "crashed",
        "BadFixture.test_never_begins": "error",
        "Leaving (processes)": "left behind",
    }, output
    assert code == 1
    # Passed: the plain one, the flaky one, the first of the ordered ones, two beside a hang, two beside a crash, the one that
    # leaves a process, two of the meaning. Skipped: in a part, everywhere, the second of the ordered ones.
    assert output.splitlines()[-1] == "10 passed, 10 failed, 3 skipped", output


def test_a_failure_comes_with_its_text(troubled):
    _code, output = troubled
    for text in ("one is not two", "nothing found", "number=1", "no such fixture", "SIGKILL", "exit code 3"):
        assert text in output, text


def test_a_hang_shows_where_each_process_is(troubled):
    _code, output = troubled
    report = output.partition("==== timeout: troubled::Hanging.test_b_hangs_in_a_child")[2].partition("\n====")[0]
    assert "in test_b_hangs_in_a_child" in report
    assert "in sleep_long" in report


def test_the_run_names_a_flaky_test(troubled):
    _code, output = troubled
    assert "flaky: troubled::Plain.test_fails_once: failed the first time" in output


def test_nothing_outlives_the_run(troubled):
    assert not [line for line in processes() if "mt-" in line and "time.sleep(600)" in line]


def processes() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def ignore_ctrl_c() -> None:
    """Ignore SIGINT, as a shell without job control does for background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


def test_a_run_of_passing_tests_succeeds_in_every_environment():
    code, output = run("--tests", str(TROUBLED), "-k", "Meaning", preexec_fn=ignore_ctrl_c)
    assert (code, output.splitlines()[-1]) == (0, "2 passed, 0 failed, 0 skipped"), output


def test_a_run_of_no_test_fails():
    code, output = run("--tests", str(TROUBLED), "-k", "no such test")
    assert (code, output.splitlines()[-2:]) == (1, ["no test has run", "0 passed, 0 failed, 0 skipped"]), output


def test_an_unreadable_module_fails(tmp_path):
    (tmp_path / "unreadable.py").write_text("import no_such_module\n")
    code, output = run("--tests", str(tmp_path / "unreadable.py"))
    assert code == 1
    assert "No module named 'no_such_module'" in output
    assert output.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"


def test_a_module_skipped_only_here_loses_its_tests(tmp_path):
    text = """
import multiprocessing, unittest
if multiprocessing.__name__ != "multiprocessing":
    raise unittest.SkipTest("a part is missing")
class Part(unittest.TestCase):
    def test_one(self): pass
    def test_two(self): self.fail()
"""
    (tmp_path / "partial.py").write_text(text)
    code, output = run("--tests", str(tmp_path / "partial.py"))
    assert code == 1
    assert "lost: partial::Part.test_one" in output
    assert output.splitlines()[-1] == "0 passed, 1 failed, 2 skipped"  # the module, and its failing test, too


def test_the_rest_of_a_breaking_class_counts_as_not_run(tmp_path):
    lines = ["import os, unittest", "class Broken(unittest.TestCase):"]
    lines += [f"    def test_{number}(self): os._exit(1)" for number in range(5)]
    (tmp_path / "broken.py").write_text("\n".join(lines))
    code, output = run("--tests", str(tmp_path / "broken.py"), "--retries", "0")
    found = re.findall(r"^(crashed|not run): broken::Broken", output, re.MULTILINE)
    assert sorted(found) == ["crashed"] * 3 + ["not run"] * 2, output
    assert code == 1


def package_that_says(folder: Path, text: str) -> dict[str, str]:
    """Return an environment that has a package `pretender`."""
    (folder / "pretender").mkdir()
    (folder / "pretender" / "__init__.py").write_text(text)
    return {**os.environ, "PYTHONPATH": str(folder)}


IMPOSTOR = """
import sys, types
sys.modules["multiprocessing.pool"] = types.ModuleType("another")
class Process:
    exitcode = 1
    def __init__(self, **arguments): pass
    def start(self): pass
    def join(self, timeout): pass
    def kill(self): pass
def get_context(method): return types.SimpleNamespace(Process=Process)
"""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has no attribute 'get_context'"),
        ("raise ImportError('half of a package')", "half of a package"),
        ("import _multiprocessing\n_multiprocessing.SemLock", "is not independent of it"),
        (IMPOSTOR, "multiprocessing.pool is another"),
    ],
    ids=["empty", "broken", "leaning on the standard extension", "another in its place"],
)
def test_a_package_must_replace_the_standard_package(tmp_path, text, fault):
    code, output = run("--package", "pretender", "--tests", str(TROUBLED), env=package_that_says(tmp_path, text))
    assert code == 1
    assert "failed: proof::" in output
    assert fault in output
    assert output.splitlines()[-1].startswith("0 passed, ")


def test_an_interrupted_run_leaves_nothing(tmp_path):
    environ = {**os.environ, "TMPDIR": str(tmp_path)} if len(str(tmp_path)) <= twin.LONGEST_FOLDER else dict(os.environ)
    command = [sys.executable, str(RUNNER), "--tests", str(TROUBLED), "-k", "Hanging", "--methods", "fork", "-v"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    line = ""
    while "tests of CPython" not in line:
        line = process.stdout.readline()
        assert line
    deadline = time.monotonic() + 30
    while not (own := folders_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert own
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not [folder for folder in own if folder.exists()]
    assert not [line for line in processes() if any(str(folder) in line for folder in own)]


def folders_of(pid: int) -> set[Path]:
    """Return the folders of the twins from which a run's children start."""
    found = set()
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            try:
                program = Path(os.readlink(f"/proc/{child}/exe"))
            except OSError:
                continue
            if program.parent.parent.name.startswith("mt-"):
                found.add(program.parent.parent)
    return found
