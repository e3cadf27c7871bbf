"""Programs and libraries that know nothing of maniple, unmodified: each is a script in `programs/` that runs on its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

PROGRAMS = Path(__file__).resolve().parent / "programs"


def run(*arguments: str | Path) -> tuple[str, str]:
    """Return a program's output and errors; the program must succeed."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=80)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_process_pool_executor_on_our_context(method: str) -> None:
    out, err = run(PROGRAMS / "executor.py", method)
    squares = [number * number for number in range(9)]
    assert out.splitlines() == ["True", str(squares), "LookupError('told')", "refused", "3000000", "broken", "[]"]
    assert err == ""


@pytest.mark.parametrize("method", METHODS)
def test_scipy_takes_the_pools_map(method: str) -> None:
    assert run(PROGRAMS / "evolution.py", method) == ("True [1.0, -2.0]\n", "")


@pytest.mark.parametrize("method", METHODS)
def test_tqdm_around_imap_unordered(method: str) -> None:
    out, err = run(PROGRAMS / "progress.py", method)
    assert out == "True\n" and "200/200" in err


def test_joblibs_multiprocessing_backend() -> None:
    ours = run("-m", "maniple", PROGRAMS / "joblib_sums.py", "maniple")
    assert ours == run(PROGRAMS / "joblib_sums.py", "multiprocessing")


@pytest.mark.parametrize("method", METHODS)
def test_standard_queue_and_lock_in_our_child(method: str) -> None:
    assert run(PROGRAMS / "neighbours.py", method) == ("300000 child of ours\n0\n", "")


def test_a_standard_process_with_our_key_authenticates() -> None:
    """loky's workers are not children of this package; they load it when they unpickle one of its objects."""
    program = (
        "import multiprocessing; multiprocessing.current_process().authkey = b'the key of the program';"
        "import maniple.process; print(maniple.process.current_process().authkey)"
    )
    assert run("-c", program) == ("b'the key of the program'\n", "")


def test_joblibs_default_backend() -> None:
    ours = run("-m", "maniple", PROGRAMS / "joblib_loky.py")
    assert ours == run(PROGRAMS / "joblib_loky.py")


@pytest.mark.parametrize("method", METHODS)
def test_threads_are_greenlets(method: str) -> None:
    pytest.importorskip("gevent")  # not on the newest Python
    out, _ = run(PROGRAMS / "greenlets.py", "gevent", method)
    assert out.splitlines() == [
        "process None True -15",
        "queue 1225 None",
        "queue 1225 None",
        "pipe 100000 None",
        "lock 100",
        "stream 41654167500 41654167500",
        "lost 2666466670000",
        "pool [0, 1, 4, 9, 16] [0, 1, 4, 9, 16]",
        "True [81] 81",
        "executor 9 332833500",
    ]
