"""Threads that have no memory to begin with: their start raises, and no caller waits forever."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from maniple._impl.sync.thread_call import ThreadCall
from maniple._impl.sync.thread_start import start_assured, start_steadily


class Starved:
    """Make the first call in another thread raise MemoryError, as a call without memory for its frame does."""

    def __init__(self, call: Any) -> None:
        self.call, self.times = call, 0

    def __call__(self, *args: Any) -> Any:
        if threading.get_ident() != threading.main_thread().ident:
            self.times += 1
            if self.times == 1:
                raise MemoryError("no memory for a frame")
        return self.call(*args)


@pytest.mark.parametrize("start", [start_assured, start_steadily])
def test_start_raises_if_its_thread_cannot_begin(start: Any) -> None:
    thread = threading.Thread(target=print)
    vars(thread)["_bootstrap"] = Starved(thread._bootstrap)  # type: ignore[attr-defined]
    with pytest.raises(MemoryError):
        start(thread)
    assert thread not in threading.enumerate()


def test_a_start_does_not_change_its_thread() -> None:
    ran: list[threading.Thread] = []
    thread = threading.Thread(target=lambda: ran.append(threading.current_thread()))
    start_assured(thread)
    thread.join(30)
    assert ran == [thread] and "_bootstrap" not in vars(thread) and not thread.is_alive()


def test_a_call_raises_if_its_thread_cannot_begin() -> None:
    call = ThreadCall(lambda: 5)
    vars(call)["_run"] = Starved(call._run)
    call.begin()
    with pytest.raises(MemoryError):
        call._result()


def test_a_call_has_its_result_and_its_error() -> None:
    call = ThreadCall(lambda: 5)
    call.begin()
    assert call._result() == 5
    failing = ThreadCall(lambda: 1 // 0)
    failing.begin()
    with pytest.raises(ZeroDivisionError):
        failing._result()


def test_the_end_of_the_program_ends_daemonic_threads() -> None:
    # The interpreter unwinds their stacks, the native first step among them.
    program = """
import threading, time
from maniple._impl.sync.thread_start import start_assured

def busy():
    while True:
        time.sleep(0.0002)

for _ in range(8):
    start_assured(threading.Thread(target=busy, daemon=True))
time.sleep(0.02)
"""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
