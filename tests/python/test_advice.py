"""Errors of a shortage, and of a partner that has gone, say what happened and what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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
        assert "its server has ended" in caught.value.__notes__[0]
