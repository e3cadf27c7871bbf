"""Several threads look at one process: a thread may close the object while another is about to use its sentinel.

The number of the closed sentinel then belongs to the next descriptor that is opened, which may be the sentinel of another process.
"""

from __future__ import annotations

import os
import threading
import time
from types import ModuleType
from typing import Any

import pytest

LIMIT = 20
FIRST, SECOND = 3, 7


class Race:
    """A process that has ended, and another one that gets the number of its sentinel as soon as the first is closed."""

    def __init__(self, mp: ModuleType, method: str, second: Any, *args: Any) -> None:
        self.mp, self.method, self.ctx = mp, method, mp.get_context(method)
        self.first = self.ctx.Process(target=os._exit, args=(FIRST,))
        self.first.start()
        assert mp.connection.wait([self.first.sentinel], LIMIT)
        self.popen = self.first._popen
        self.second = self.ctx.Process(target=second, args=args, daemon=True)
        self.ends = second is os._exit
        self.happened = False

    def happens(self) -> None:
        """Another thread closes the first process and starts the second."""
        if self.happened or threading.current_thread() is not threading.main_thread():
            return
        self.happened = True
        number = self.popen.sentinel

        def close_and_start() -> None:
            # The lower numbers are taken, so the next descriptor gets that of the sentinel. (A start under forkserver needs more.)
            fillers = [os.dup(0)]
            while self.method != "forkserver" and fillers[-1] < number:
                fillers.append(os.dup(0))
            os.close(fillers.pop())
            self.first.close()
            self.second.start()
            for filler in fillers:
                os.close(filler)

        thread = threading.Thread(target=close_and_start)
        thread.start()
        thread.join(LIMIT)
        assert self.second.sentinel == number
        if self.ends:
            assert self.mp.connection.wait([number], LIMIT)


@pytest.fixture
def processes(mp_package: str) -> ModuleType:
    import importlib

    importlib.import_module(f"{mp_package}.connection")
    return importlib.import_module(mp_package)


@pytest.mark.better_than_standard("its object finds no child, and has no exit code")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_exit_code_is_the_processs_own(
    processes: ModuleType, method: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = Race(processes, method, os._exit, SECOND)
    look = os.waitid

    def waitid(*args: Any) -> Any:
        if when == "before":
            race.happens()
        found = look(*args)
        if when == "after":
            race.happens()
        return found

    monkeypatch.setattr(os, "waitid", waitid)
    assert race.popen.poll() == FIRST
    monkeypatch.undo()
    assert race.happened
    race.second.join(LIMIT)
    assert race.second.exitcode == SECOND
    race.second.close()


@pytest.mark.better_than_standard("a thread that waits reads the sentinel of another process")
@pytest.mark.parametrize("flag", [os.WNOHANG, 0])
def test_the_exit_code_of_a_fork_servers_child_is_its_own(
    processes: ModuleType, flag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = Race(processes, "forkserver", time.sleep, 60)
    wait = processes.connection.wait

    def wait_later(*args: Any) -> Any:
        race.happens()
        return wait(*args)

    monkeypatch.setattr(processes.connection, "wait", wait_later)
    assert race.popen.poll(flag) == FIRST
    monkeypatch.undo()
    assert race.second.is_alive()
    race.second.kill()
    race.second.join(LIMIT)
    race.second.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_is_not_closed_while_a_signal_is_sent_to_it(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maniple = pytest.importorskip("maniple")
    from maniple import popen_fork

    process = maniple.get_context(method).Process(target=os._exit, args=(FIRST,))
    process.start()
    maniple.connection.wait([process.sentinel], LIMIT)
    closing = threading.Thread(target=process.close)
    found = []

    def send(*args: Any) -> None:
        closing.start()
        closing.join(0.3)
        found.append(closing.is_alive())

    monkeypatch.setattr(popen_fork, "_send", send)
    process._popen.terminate()
    closing.join(LIMIT)
    assert found == [True] and not closing.is_alive()
