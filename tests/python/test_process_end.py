"""The end of a process: handlers, threads and children in their order, and streams that cannot be flushed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS

PROGRAM = Path(__file__).parent / "programs" / "endings.py"
BEFORE_3_13 = sys.version_info < (3, 13)


def ending(package: str, method: str, what: str, *where: str) -> tuple[list[str], str]:
    """Return the process's output lines, and its errors."""
    argv = [sys.executable, str(PROGRAM), package, method, what, *where]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=40)
    return done.stdout.splitlines(), done.stderr


@pytest.mark.better_than_standard("before 3.13 children are waited for first")
@pytest.mark.parametrize("method", METHODS)
def test_an_exit_handler_may_stop_a_thread_or_child(mp_package: str, method: str) -> None:
    assert ending(mp_package, method, "stops_helper") == (["stop, running: True", "exit code 0"], "")


@pytest.mark.better_than_standard("before 3.13 children and finalizers come first")
@pytest.mark.parametrize("method", METHODS)
def test_a_child_ends_in_the_order_of_a_program(mp_package: str, method: str) -> None:
    expected = [
        "second handler, helper runs: True",
        "first handler",
        "finalizer, helper runs: True",
        "late finalizer, helper runs: False",
    ]
    assert ending(mp_package, method, "order", "main") == (expected, "")
    assert ending(mp_package, method, "order") == ([*expected, "exit code 0"], "")


@pytest.mark.better_than_standard("3.11 runs no handlers in forked children")
@pytest.mark.parametrize("method", METHODS)
def test_exit_handlers_run_after_the_threads(mp_package: str, method: str) -> None:
    assert ending(mp_package, method, "threads_first") == (["thread", "handler", "exit code 0"], "")


@pytest.mark.skipif(not BEFORE_3_13, reason="the standard package waits for the thread first since 3.13")
@pytest.mark.parametrize("method", METHODS)
def test_a_thread_may_wait_for_a_daemonic_process(mp_package: str, method: str) -> None:
    assert ending(mp_package, method, "thread_waits_for_daemon") == (["exit code 0"], "")


@pytest.mark.better_than_standard("before 3.14 the child ends with 1")
def test_a_child_forked_by_an_executors_thread_ends_with_zero(mp_package: str) -> None:
    program = f"""
from concurrent.futures import ThreadPoolExecutor
import {mp_package} as mp
def start():
    process = mp.get_context("fork").Process(target=abs, args=(1,))
    process.start()
    process.join()
    return process.exitcode
with ThreadPoolExecutor(2) as executor:
    print(executor.submit(start).result())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.better_than_standard("before 3.13 the executor's processes are waited for before they are told to end")
@pytest.mark.parametrize("method", METHODS)
def test_open_executors_end(mp_package: str, method: str) -> None:
    lines, errors = ending(mp_package, method, "executors")
    assert (sorted(lines), errors) == (["exit code 0", "process 1", "thread"], "")


@pytest.mark.better_than_standard("3.11 runs no handlers in forked children")
@pytest.mark.parametrize("method", METHODS)
def test_a_failing_handler_does_not_change_the_exit_code(mp_package: str, method: str) -> None:
    lines, errors = ending(mp_package, method, "failing_handler")
    assert lines == ["exit code 3"]
    assert "ZeroDivisionError" in errors


@pytest.mark.better_than_standard("3.11 runs no handlers in forked children")
@pytest.mark.parametrize("method", METHODS)
def test_the_output_of_handlers_is_shown(mp_package: str, method: str) -> None:
    lines, errors = ending(mp_package, method, "prints")
    assert lines == ["printed printed lateexit code 1"]
    assert errors.count("ValueError: what failed") == 1


HANDLERS = """
import atexit, time
import {package} as mp
{before}
atexit.register(print, "handler")
{after}
def work():
    time.sleep(0.3)
    print("child", flush=True)
if __name__ == "__main__":
    mp.get_context("{method}").Process(target=work).start()
"""


@pytest.mark.parametrize(
    "method", ["fork", "spawn"]
)  # a fork server that preloads this main module has its own handlers
@pytest.mark.parametrize("where, module", [("after", ""), ("before", "shared_memory"), ("before", "pool")])
def test_a_programs_handlers_run_in_the_standard_packages_order(
    tmp_path: Path, method: str, where: str, module: str
) -> None:
    """A handler that is registered before the package's own runs after the children have been waited for."""
    said = []
    for package in "multiprocessing", "maniple":
        parts = {"before": "", "after": ""} | {where: f"import {package}.{module}" if module else ""}
        script = tmp_path / "script.py"
        script.write_text(HANDLERS.format(package=package, method=method, **parts))
        for runner in [[]] if package == "multiprocessing" else [[], ["-m", "maniple"]]:
            argv = [sys.executable, *runner, str(script)]
            said.append(subprocess.run(argv, capture_output=True, text=True, timeout=40).stdout)
    assert said[1:] == said[:1] * 2


OWN_POPEN = """
import os
import {package} as mp
from {package} import popen_fork, util

class Popen(popen_fork.Popen):
    # As a program has it that was written for Python before 3.13.
    def _launch(self, process_obj):
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            os._exit(process_obj._bootstrap(parent_sentinel=None))
        os.close(writer)
        self.sentinel = reader
        self.finalizer = util.Finalize(self, util.close_fds, (reader,))

class Process(mp.get_context("fork").Process):
    _Popen = staticmethod(Popen)

def work():
    util.Finalize(None, print, ("finalizer",), exitpriority=1)

if __name__ == "__main__":
    process = Process(target=work)
    process.start()
    process.join()
    print(process.exitcode)
"""


@pytest.mark.skipif(not BEFORE_3_13, reason="finalizers are the caller's business since 3.13")
def test_finalizers_run_in_a_programs_own_fork(mp_package: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(OWN_POPEN.format(package=mp_package))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=40)
    assert (done.stdout, done.stderr) == ("finalizer\n0\n", "")


class Stream:
    """A stream whose methods are missing or fail."""

    closed = False

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def write(self, text: str) -> int:
        if self.fault == "write":
            raise OSError(5, "Input/output error")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        if name == "flush" and self.fault != "no flush":
            return self._flush
        raise AttributeError(name)

    def _flush(self) -> None:
        faults = {"OSError": OSError(5, "Input/output error"), "ValueError": ValueError("closed")}
        raise faults.get(self.fault, RuntimeError(self.fault))


FAULTS = ["OSError", "ValueError", "RuntimeError", "no flush", "write", "none", "closed", "broken pipe"]


def stream_with(fault: str) -> Any:
    if fault == "none":
        return None
    if fault not in ("closed", "broken pipe"):
        return Stream(fault)
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w")
    if fault == "closed":
        stream.close()
    else:
        stream.write("cannot be written")
    return stream


def end_with(fault: str, ending: str) -> None:
    sys.stdout = sys.stderr = stream_with(fault)
    if ending == "failure":
        raise ArithmeticError("a failure that is shown")
    sys.exit(3 if ending == "number" else "words" if ending == "words" else None)


@pytest.mark.better_than_standard("a flush that fails changes the exit code")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ending, code", [("number", 3), ("none", 0), ("words", 1), ("failure", 1)])
def test_a_failing_stream_does_not_change_the_exit_code(mp: ModuleType, method: str, ending: str, code: int) -> None:
    ctx = mp.get_context(method)
    processes = [ctx.Process(target=end_with, args=(fault, ending)) for fault in FAULTS]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [code] * len(FAULTS)
    for process in processes:
        process.close()


@pytest.mark.better_than_standard("a flush that fails makes start() raise")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "broken pipe"])
def test_a_program_with_a_failing_stream_starts_processes(
    mp: ModuleType, method: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = mp.get_context(method).Process(target=sys.exit, args=(3,))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream_with(fault))
        patched.setattr(sys, "stderr", stream_with(fault))
        process.start()
    process.join()
    assert process.exitcode == 3
    process.close()


@pytest.mark.better_than_standard("the traceback goes to the stream that fails only")
@pytest.mark.parametrize("method", METHODS)
def test_a_failing_stream_does_not_hide_a_traceback(mp_package: str, method: str) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_process_end import end_with
import {mp_package} as mp
if __name__ == "__main__":
    process = mp.get_context("{method}").Process(target=end_with, args=("write", "failure"))
    process.start()
    process.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40)
    assert done.stderr.count("ArithmeticError: a failure that is shown") == 1


def _with_a_timer() -> None:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.better_than_standard("the timer's signal ends a process whose handlers are gone already")
def test_a_running_timer_does_not_end_a_process(mp: ModuleType, method: str) -> None:
    processes = [mp.get_context(method).Process(target=_with_a_timer) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]


LATE_POOL = """
import atexit, {package} as mp
context = mp.get_context("{method}")
kept = []
def work():
    try:
        kept.append(context.Pool(1))
        print(kept[0].apply(abs, (-4,)), flush=True)
    except RuntimeError as error:  # Python 3.12 and later start no thread then
        print(4 if "shutdown" in str(error) else error, flush=True)
if __name__ == "__main__":
    atexit.register(work)
"""


@pytest.mark.better_than_standard("the process never ends")
@pytest.mark.parametrize("method", METHODS)
def test_a_pool_that_an_exit_handler_makes_and_keeps_ends_with_the_process(
    tmp_path: Path, mp_package: str, method: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(LATE_POOL.format(package=mp_package, method=method))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=40)
    assert (done.stdout, done.returncode) == ("4\n", 0), done.stderr
