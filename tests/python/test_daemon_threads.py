"""A program ends with its own exit status while daemon threads wait in native code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

PROGRAM = """
import sys, threading, time
import maniple

def wait():
    if what == "result":
        result.get()
    elif what == "recv":
        near.recv()
    elif what == "poll":
        near.poll(60)
    elif what == "queue":
        queue.get()
    elif what == "simple queue":
        simple.get()
    elif what == "lock":
        lock.acquire()

if __name__ == "__main__":
    what = sys.argv[1]
    if what == "result":
        pool = maniple.Pool(1)
        result = pool.apply_async(time.sleep, (60,))
    near, far = maniple.Pipe()
    queue, simple, lock = maniple.Queue(), maniple.SimpleQueue(), maniple.Lock()
    lock.acquire()
    for _ in range(1 if what in ("recv", "poll") else 3):
        threading.Thread(target=wait, daemon=True).start()
    time.sleep(0.3)  # longer than it takes a waiting thread to look up once
    print("at its end")
    sys.exit(7)
"""


@pytest.mark.parametrize("what", ["result", "recv", "poll", "queue", "simple queue", "lock"])
def test_a_program_ends_while_its_daemon_threads_wait(what: str, tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(program), what], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (7, "at its end\n"), done.stderr


IN_CALLS = """
import importlib, sys, threading, time
mp = importlib.import_module(sys.argv[1])

def nap(x):
    time.sleep(0.05)
    return x

def call():
    while True:
        if what == "map":
            pool.map(nap, range(10))
        elif what == "apply":
            pool.apply(nap, (1,))
        elif what == "imap":
            list(pool.imap(nap, range(10)))
        else:
            result = pool.map_async(nap, range(10), callback=len)
            result.wait()
            result.get()

if __name__ == "__main__":
    what = sys.argv[3]
    pool = mp.get_context(sys.argv[2]).Pool(2)
    pool.map(nap, range(2))
    for _ in range(2):
        threading.Thread(target=call, daemon=True).start()
    time.sleep(0.2)
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["map", "apply", "imap", "async"])
def test_daemon_threads_in_pool_calls_print_nothing_at_exit(
    mp_package: str, method: str, what: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(IN_CALLS)
    argv = [sys.executable, str(program), mp_package, method, what]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


IN_PYTHON_CODE = """
import importlib, sys, threading, time
mp = importlib.import_module(sys.argv[1])

def spend():
    end = time.monotonic() + 0.004
    while time.monotonic() < end:
        pass

def rebuilt(x):
    spend()
    return x

class Slow:
    def __reduce__(self):
        spend()
        return rebuilt, (1,)

def made(x):
    return Slow()

def items():
    while True:
        spend()
        yield 1

def call():
    while True:
        if what == "put":
            queue.put(Slow())
        elif what == "get":
            queue.put(Slow())
            queue.get()
        elif what == "send":
            near.send(Slow())
            far.recv()
        elif what == "imap":
            list(pool.imap(abs, items()))
        elif what == "argument":
            pool.map(made, [Slow()] * 3)
        else:
            pool.map(made, range(5))

if __name__ == "__main__":
    what = sys.argv[2]
    queue = mp.Queue()
    near, far = mp.Pipe()
    pool = mp.get_context("fork").Pool(1) if what in ("imap", "argument", "result") else None
    for _ in range(1 if what == "send" else 2):
        threading.Thread(target=call, daemon=True).start()
    time.sleep(0.15)
"""


@pytest.mark.parametrize("what", ["put", "get", "send", "imap", "argument", "result"])
def test_a_program_ends_while_daemon_threads_run_python_code(mp_package: str, what: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(IN_PYTHON_CODE)
    argv = [sys.executable, str(program), mp_package, what]
    for _ in range(4):  # a thread is not always in code that must not be ended
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


MANAGED = """
import sys, threading, time, {package} as mp
if __name__ == "__main__":
    manager = mp.get_context("{method}").Manager()
    waits = dict(event=manager.Event().wait, queue=manager.Queue().get, lock=manager.Lock().acquire)
    waits["lock"]()
    threading.Thread(target=waits["{what}"], daemon=True).start()
    time.sleep(0.3)
"""


@pytest.mark.better_than_standard("prints a traceback")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["event", "queue", "lock"])
def test_a_daemon_thread_in_a_call_of_a_manager_prints_nothing_at_exit(
    mp_package: str, method: str, what: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(MANAGED.format(package=mp_package, method=method, what=what))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
