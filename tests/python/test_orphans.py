"""The end of processes whose maker ends abruptly: by a signal, a crash, `os._exit`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from pools import METHODS

PROGRAM = Path(__file__).parent / "programs" / "makers.py"
MARK = "MAKERS_TEST"

pytestmark = pytest.mark.better_than_standard("processes outlive a maker that is killed")


def gone(pid: int, patience: float) -> bool:
    """Return whether the process ends in that time; the system may remove it later."""
    deadline = time.monotonic() + patience
    while True:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)


@contextmanager
def maker(package: str, method: str, how: str, place: str = "-") -> Iterator[subprocess.Popen[str]]:
    """The program; the processes that it started are gone afterwards."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    argv = [sys.executable, str(PROGRAM), package, method, how, place]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, MARK: mark})
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        for other in psutil.process_iter():
            try:
                if other.environ().get(MARK) == mark:
                    other.kill()
            except psutil.Error:
                pass


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "SIGKILL", "SIGINT", "exit", "crash", "thread", "manager"])
def test_a_daemonic_process_ends_with_its_maker(mp_package: str, method: str, how: str) -> None:
    with maker(mp_package, method, how) as process:
        child = int(line(process))
        if how.startswith("SIG"):
            process.send_signal(getattr(signal, how))
        elif how in ("thread", "manager"):
            assert not gone(child, 0.3)
            process.kill()
        process.wait(20)
        assert gone(child, 20)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["ignore", "compute", "inherited handler"])
def test_a_process_that_ignores_sigterm_is_killed(mp_package: str, method: str, how: str) -> None:
    with maker(mp_package, method, how) as process:
        child = int(line(process))
        process.kill()
        process.wait(20)
        assert gone(child, 20)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["SIGKILL", "manager"])
def test_a_stopped_process_ends_when_it_continues(mp_package: str, method: str, how: str) -> None:
    with maker(mp_package, method, how) as process:
        child = int(line(process))
        os.kill(child, signal.SIGSTOP)
        process.kill()
        process.wait(20)
        assert not gone(child, 0.3)
        os.kill(child, signal.SIGCONT)
        assert gone(child, 20)


@pytest.mark.parametrize("method", METHODS)
def test_a_process_may_clean_up_after_its_makers_end(mp_package: str, method: str, tmp_path: Path) -> None:
    note = tmp_path / "note"
    with maker(mp_package, method, "clean_up", str(note)) as process:
        child = int(line(process))
        process.kill()
        process.wait(20)
        assert gone(child, 20)
        assert note.read_text() == "cleaned up"


@pytest.mark.parametrize("method", METHODS)
def test_an_ordinary_process_outlives_its_maker(mp_package: str, method: str) -> None:
    with maker(mp_package, method, "undaemonic") as process:
        child = int(line(process))
        process.kill()
        process.wait(20)
        assert not gone(child, 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_daemonic_processes_stay_with_a_program_that_becomes_a_daemon(mp_package: str, method: str) -> None:
    with maker(mp_package, method, "daemonize") as process:
        child, heir = int(line(process)), int(line(process))
        process.wait(20)
        assert not gone(child, 1.0)
        os.kill(heir, signal.SIGKILL)
        assert gone(child, 20)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how, word", [("replace", "replaced"), ("close all", "closed")])
def test_daemonic_processes_stay_with_a_maker_that_lost_its_descriptors(
    mp_package: str, method: str, how: str, word: str
) -> None:
    with maker(mp_package, method, how) as process:
        child = int(line(process))
        assert line(process) == word
        assert not gone(child, 1.0)
        process.kill()
        process.wait(20)
        assert gone(child, 20)
