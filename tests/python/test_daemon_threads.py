"""A program ends while daemon threads wait in native code, with the exit status of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
def test_program_ends_though_daemon_threads_wait(what: str, tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, str(program), what], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (7, "at its end\n"), done.stderr
