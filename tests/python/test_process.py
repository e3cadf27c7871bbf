"""Processes, from the view of the program that starts them."""

from __future__ import annotations

import errno
import logging
import os
import py_compile
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS


def tell_record_name(pipe: Any) -> None:
    pipe.send(logging.getLogger("some").makeRecord("some", logging.INFO, __file__, 1, "text", (), None).processName)


@pytest.mark.parametrize("method", METHODS)
def test_log_records_name_the_process(mp: ModuleType, method: str) -> None:
    ctx = mp.get_context(method)
    here, there = ctx.Pipe()
    with here, there:
        process = ctx.Process(target=tell_record_name, args=(there,), name="Worker bee")
        process.start()
        assert here.recv() == "Worker bee"
        process.join()
        process.close()


def read_stdin(pipe: Any, deeper: Any = None) -> None:
    lines, fd = list(sys.stdin), sys.stdin.fileno()
    copied = subprocess.run(["cat"], stdin=sys.stdin, capture_output=True, check=True).stdout
    pipe.send((sys.stdin.read(), lines, sys.stdin.buffer.read(4), os.read(fd, 4), copied, sys.stdin.isatty()))
    if deeper is not None:
        process = deeper(target=read_stdin, args=(pipe,))
        process.start()
        process.join()
        process.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_childs_stdin_is_the_null_device(mp: ModuleType, method: str) -> None:
    ctx = mp.get_context(method)
    here, there = ctx.Pipe()
    with here, there:
        process = ctx.Process(target=read_stdin, args=(there, ctx.Process))
        process.start()
        for _ in "child", "its own child":
            assert here.recv() == ("", [], b"", b"", b"", False)
        process.join()
        process.close()


@pytest.mark.better_than_standard("the child waits for ever")
def test_a_child_forked_while_a_thread_waits_for_input_ends(mp_package: str) -> None:
    program = f"""
import sys, threading, time
import {mp_package} as mp

def start():
    time.sleep(0.3)  # the main thread waits for a line by then, and has the lock of its buffer
    process = mp.get_context("fork").Process(target=print, args=("child",))
    process.start()
    process.join(20)
    print(process.exitcode, flush=True)
    process.kill()

thread = threading.Thread(target=start)
thread.start()
sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert [running.stdout.readline(), running.stdout.readline()] == [b"child\n", b"0\n"]
        running.stdin.close()


def what(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_childs_first_import_is_light() -> None:
    """Each of these modules would lengthen the start of every spawned child by some milliseconds."""
    heavy = {"typing", "pickle", "socket", "subprocess", "runpy", "re", "enum", "signal", "logging", "inspect"}
    code = (
        f"import sys; had = set(sys.modules); import maniple.spawn; print({heavy!r} & (set(sys.modules) - had) or '')"
    )
    assert what(code) == "\n"


@pytest.mark.parametrize("module", ["pool", "managers", "queues", "forkserver"])
def test_modules_import_rare_needs_late(module: str) -> None:
    """Each of these modules takes longer to import than most modules of the package."""
    slow = {"typing", "pickle", "re", "traceback", "pkgutil", "secrets", "subprocess", "logging", "inspect", "tempfile"}
    if module != "forkserver":  # which is about sockets
        slow.add("socket")
    code = (
        f"import sys; had = set(sys.modules); import maniple.{module}; print({slow!r} & (set(sys.modules) - had) or '')"
    )
    assert what(code) == "\n"


def test_a_socket_of_a_late_import_can_be_sent() -> None:
    code = """
import sys
from maniple.reduction import ForkingPickler
ForkingPickler.dumps(len)
assert "socket" not in sys.modules
import socket
one, other = socket.socketpair()
with ForkingPickler.loads(ForkingPickler.dumps(one)) as copy:
    copy.sendall(b"hello")
print(other.recv(9))
"""
    assert what(code) == "b'hello'\n"


SCRIPT = """
import sys
count = 0
if __name__ == "__mp_main__":
    print(sys.argv[0] == __file__, __package__ == "", __spec__)

def work():
    global count
    count += 1
    import __main__
    print(__name__, count, __main__.count, sys.modules["__mp_main__"] is __main__, work.__globals__ is vars(__main__))

if __name__ == "__main__":
    import maniple
    for method in "spawn", "forkserver":
        process = maniple.get_context(method).Process(target=work)
        process.start()
        process.join()
"""


@pytest.mark.parametrize("compiled", [False, True])
def test_a_script_is_the_main_module_of_its_children(tmp_path: Path, compiled: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    if compiled:
        py_compile.compile(str(script), str(tmp_path / "compiled.pyc"))
        script = tmp_path / "compiled.pyc"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    # runpy makes a copy for compiled code; here the module itself runs.
    said = "__mp_main__ 1 0 True False" if compiled else "__mp_main__ 1 1 True True"
    assert done.stdout.splitlines() == ["True True None", said] * 2


@pytest.mark.better_than_standard("names no limit")
def test_the_error_for_too_many_processes_names_the_limit(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    process = mp.get_context("fork").Process(target=abs, args=(1,))
    with pytest.raises(BlockingIOError) as caught:
        process.start()
    assert any("ulimit -u" in note for note in caught.value.__notes__)
    monkeypatch.undo()
    process.start()
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.better_than_standard("the error does not say why")
@pytest.mark.parametrize("use", ["start", "is_alive", "join", "__repr__"])
def test_a_class_whose_constructor_does_not_call_its_base(mp: ModuleType, use: str) -> None:
    class Incomplete(mp.Process):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            pass

    with pytest.raises(AttributeError, match=r"Incomplete\.__init__ has not called super\(\)\.__init__\(\)"):
        getattr(Incomplete(), use)()
    with pytest.raises(AttributeError, match="^'Process' object has no attribute 'started'$"):
        _ = mp.Process().started


@pytest.mark.better_than_standard("the error does not say what to do")
def test_the_function_as_the_first_argument(mp: ModuleType) -> None:
    with pytest.raises(AssertionError, match=r"the argument target: Process\(target=\.\.\.\)"):
        mp.Process(print)
    with pytest.raises(AssertionError, match="^group argument must be None for now$"):
        mp.Process(3)


OF_MULTIPROCESSING = """
import multiprocessing
import maniple

if __name__ == "__main__":
    for make in (maniple.Queue, maniple.Lock):
        try:
            multiprocessing.get_context("spawn").Process(target=print, args=(make(),)).start()
        except RuntimeError as error:
            print(error)
"""


@pytest.mark.better_than_standard("there is one package")
def test_an_object_for_a_process_of_the_other_package(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(OF_MULTIPROCESSING)
    told = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60).stdout
    assert told == "".join(
        f"a {name} of maniple can only be an argument of a process of maniple, and this process is one of multiprocessing: "
        f"start it by maniple.Process, or make the {name} by multiprocessing\n"
        for name in ("Queue", "Lock")
    )
