"""Errors of a shortage, and of a partner that has gone, say what happened and what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from types import ModuleType

import pytest
from pools import METHODS

pytestmark = pytest.mark.better_than_standard("its errors give no advice")

AT_THE_LIMIT = """
import importlib, os, resource, sys, time
mp = importlib.import_module(sys.argv[1])
what = sys.argv[2]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

def take_all():
    taken = []
    try:
        while True: taken.append(os.open(os.devnull, 0))
    except OSError:
        return taken

def start(method):
    ctx = mp.get_context(method)
    children = []
    try:
        while True:
            child = ctx.Process(target=time.sleep, args=(60,))
            child.start()
            children.append(child)
    finally:
        for child in children: child.kill()
        for child in children: child.join()

def make():
    from maniple.shared_memory import SharedMemory
    taken = take_all()
    SharedMemory(create=True, size=10)

def load():
    taken = take_all()
    mp.shared_memory

try:
    globals()[what](*sys.argv[3:])
except OSError as problem:
    print(problem, *getattr(problem, "__notes__", ()))
"""


@pytest.mark.parametrize("what", [f"start {method}" for method in METHODS] + ["make", "load"])
def test_an_operation_without_a_descriptor_says_what_to_do(mp_package: str, what: str) -> None:
    argv = [sys.executable, "-c", AT_THE_LIMIT, mp_package, *what.split()]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert "Too many open files" in done.stdout and "ulimit -n" in done.stdout, done.stdout + done.stderr
    assert ".py" not in done.stdout


def test_a_connection_says_that_its_other_end_is_closed(mp: ModuleType) -> None:
    for end, other in (mp.Pipe(), mp.Pipe()[::-1]):
        other.close()
        with pytest.raises(EOFError, match="other end of the connection is closed"):
            end.recv()
        with pytest.raises(BrokenPipeError) as caught:
            end.send(1)
        assert str(caught.value).count("32") == 1
        end.close()


def test_the_first_call_to_a_killed_manager_says_that_the_manager_has_ended(mp: ModuleType) -> None:
    manager = mp.Manager()
    values = manager.dict(a=1)
    os.kill(manager._process.pid, signal.SIGKILL)
    manager._process.join()
    for _ in range(2):
        with pytest.raises((EOFError, ConnectionError)) as caught:
            values["a"]
        assert "has ended or was shut down" in str(caught.value)
        assert "start another manager" in repr(caught.value)
    with pytest.raises((EOFError, ConnectionError)) as caught:
        manager._debug_info()
    assert "no manager serves at" in str(caught.value)
    assert manager.address in str(caught.value)


def test_a_call_after_the_managers_shutdown_says_that_it_was_shut_down(mp: ModuleType) -> None:
    with mp.Manager() as manager:
        values = manager.dict(a=1)
        assert values["a"] == 1
    outcome: list[BaseException] = []

    def call() -> None:
        try:
            values["a"]
        except (EOFError, OSError) as error:
            outcome.append(error)

    call()
    call()
    thread = threading.Thread(target=call)  # which has no connection yet
    thread.start()
    thread.join()
    assert len(outcome) == 3
    for error in outcome:
        assert "was shut down and its objects are gone" in str(error)
        assert "before shutdown()" in repr(error)
        assert not isinstance(error, OSError) or error.errno


LOGGED = """
import importlib, logging, sys
mp = importlib.import_module(sys.argv[1])
def work(): pass
if __name__ == "__main__":
    mp.log_to_stderr(logging.DEBUG)
    process = mp.get_context(sys.argv[2]).Process(target=work, name="Child")
    process.start()
    process.join()
    if sys.argv[2] == "fork":
        manager = mp.Manager()
        values = manager.dict(a=1)
        manager.shutdown()
"""


@pytest.mark.parametrize("method", METHODS)
def test_the_last_line_of_a_childs_log_is_its_exit_code(mp_package: str, method: str, tmp_path: Path) -> None:
    (tmp_path / "logged.py").write_text(LOGGED)
    argv = [sys.executable, str(tmp_path / "logged.py"), mp_package, method]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    of_child = [line for line in done.stderr.splitlines() if "/Child]" in line]
    assert of_child[-1] == "[INFO/Child] process exiting with exitcode 0"
    assert sum("exitcode" in line for line in of_child) == 1
    assert "[INFO/Child] process shutting down" in of_child
    assert "has ended" not in done.stderr and "Broken pipe" not in done.stderr


UNGUARDED = """
import importlib, sys
mp = importlib.import_module(sys.argv[1])
mp.set_start_method(sys.argv[2])
def work(): pass
process = mp.Process(target=work)
process.start()
process.join()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_set_start_method_without_a_guard_names_the_guard(mp_package: str, method: str, tmp_path: Path) -> None:
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    argv = [sys.executable, str(tmp_path / "unguarded.py"), mp_package, method]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert "calls set_start_method() while this process is still loading" in done.stderr
    assert 'if __name__ == "__main__":' in done.stderr
    twice = f"import {mp_package} as mp; mp.set_start_method('spawn'); mp.set_start_method('fork')"
    done = subprocess.run([sys.executable, "-c", twice], capture_output=True, text=True, timeout=60)
    assert done.stderr.endswith("RuntimeError: context has already been set\n")


def test_an_item_that_cannot_be_pickled_is_reported_with_the_line_that_put_it(
    mp: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    class Watching(type(mp.Queue())):  # type: ignore[misc]
        def _on_queue_feeder_error(self, error: Exception, obj: object) -> None:
            reported.append(error)

    reported: list[Exception] = []
    for queue in (mp.Queue(), mp.JoinableQueue()):
        queue.put(lambda: 1)
        queue.close()
        printed = capsys.readouterr().err
        assert "queue.put(lambda: 1)" in printed and printed.startswith("Traceback"), printed
    watching = Watching(ctx=mp.get_context())
    watching.put(lambda: 1)
    watching.close()
    watching.join_thread()
    assert any(__file__ in note for note in reported[0].__notes__)


def test_arguments_that_are_no_tuple_are_named(mp: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"such as \(5,\), not 5"):
        mp.Process(target=print, args=5)
    with pytest.raises(ZeroDivisionError):
        mp.Process(target=print, args=(1 / n for n in [0]))


def test_the_warning_about_threads_shows_a_line_that_forks(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter (from 3.12 on) warns for the line that calls `os.fork`."""
    lines: list[str] = []
    fork = os.fork

    def watched() -> int:
        where = traceback.extract_stack(limit=2)[0]
        lines.append(f"{Path(where.filename).name}: {where.line}")
        return fork()

    monkeypatch.setattr(os, "fork", watched)
    process = mp.get_context("fork").Process(target=int)
    process.start()
    process.join()
    assert lines[0].startswith("popen_fork.py: ") and "os.fork" in lines[0]
