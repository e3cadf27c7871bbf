"""Closed descriptors of the standard streams, and the package's descriptors that the program has closed and reused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pools import METHODS

PROGRAM = Path(__file__).parent / "programs" / "descriptors.py"
#: above what `closerange` closes there
OUTCOME = 200


def outcome(package: str, method: str, *what: str) -> str:
    reader, writer = os.pipe()
    os.dup2(writer, OUTCOME, inheritable=True)
    try:
        argv = [sys.executable, str(PROGRAM), package, method, *what]
        environment = dict(os.environ, OUTCOME=str(OUTCOME))
        done = subprocess.run(
            argv,
            env=environment,
            pass_fds=[OUTCOME],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=80,
        )
    finally:
        os.close(OUTCOME)
        os.close(writer)
    with open(reader) as said:
        return said.read() or f"exit code {done.returncode}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("numbers", ["0", "late0", "late1", "late2", "012", "late012"])
def test_closed_standard_streams(mp_package: str, method: str, numbers: str) -> None:
    assert outcome(mp_package, method, "closed", numbers) == "ok"


# The others have no descriptor that one of these lacks.
OBJECTS = [
    "Lock",
    "Condition",
    "Event",
    "Barrier",
    "Queue",
    "JoinableQueue",
    "SimpleQueue",
    "Pipe",
    "one-way Pipe",
    "Value",
    "Process",
    "Listener",
    "Listener of TCP",
    "Manager that stays",
    pytest.param(
        "SharedMemory", marks=pytest.mark.skipif(sys.version_info < (3, 13), reason="mmap closes its own by number")
    ),
]


@pytest.mark.better_than_standard("closes by number what it has opened")
@pytest.mark.parametrize("what", OBJECTS)
def test_the_package_closes_no_file_that_reuses_its_number(mp_package: str, what: str) -> None:
    assert outcome(mp_package, "fork", "became_daemon", what) == "child okok"


@pytest.mark.better_than_standard("waits forever")
@pytest.mark.parametrize("method", METHODS)
def test_a_pool_whose_descriptors_are_closed_says_so(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "pool_without_descriptors") == "ok"


@pytest.mark.better_than_standard("closes by number what it has opened")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("what", ["Lock", "Queue", "Process", "Manager that stays"])
def test_the_package_closes_no_reused_number_in_other_start_methods(mp_package: str, method: str, what: str) -> None:
    assert outcome(mp_package, method, "became_daemon", what) == "child okok"


@pytest.mark.parametrize("method", METHODS)
def test_an_inherited_descriptor_above_the_limit(mp_package: str, method: str) -> None:
    assert outcome(mp_package, method, "above_the_limit") == "ok"


@pytest.mark.better_than_standard("writes by number into what the program has opened")
@pytest.mark.parametrize("before", ["new", "used"])
@pytest.mark.parametrize("what", ["Queue", "Queue that is watched", "JoinableQueue", "SimpleQueue"])
def test_a_queue_writes_to_no_file_that_reuses_its_number(mp_package: str, what: str, before: str) -> None:
    assert outcome(mp_package, "fork", "used_after", what, before) == "ok"


@pytest.mark.better_than_standard("writes by number into what the program has opened, and reads from it")
@pytest.mark.parametrize("way", ["", " that is read"])
@pytest.mark.parametrize("what", ["Pipe", "one-way Pipe", "Client"])
def test_a_connection_uses_no_file_that_reuses_its_number(mp_package: str, what: str, way: str) -> None:
    assert outcome(mp_package, "fork", "used_after", what + way, "new") == "ok"


@pytest.mark.better_than_standard("duplicates the connection as a standard stream")
def test_a_descriptor_is_sent_without_a_standard_stream(mp_package: str) -> None:
    assert outcome(mp_package, "spawn", "sends") == "ok"


STDIO_CLOSED = """
import importlib, os, sys, traceback
mp = importlib.import_module(sys.argv[1])
module = lambda name: importlib.import_module(f"{sys.argv[1]}.{name}")
ctx = mp.get_context(sys.argv[2])

def child(value=None):
    if value is not None: value.value += 1

def process(): p = ctx.Process(target=child); p.start(); p.join(); assert p.exitcode == 0
def value():
    kept.append([ctx.Value("i", 5), ctx.Array("i", [7] * 20000), ctx.Array("i", [8] * 200000)])
    p = ctx.Process(target=child, args=(kept[-1][0],)); p.start(); p.join()
    assert kept[-1][0].value == 6 and set(kept[-1][1]) == {7}
def pool(): kept.append(ctx.Pool(2)); assert kept[-1].map(abs, [-1, -2]) == [1, 2]
def manager(): kept.append(ctx.Manager()); kept.append(kept[-1].dict(a=1)); assert kept[-1]["a"] == 1
def listener():
    kept.append(module("connection").Listener(authkey=b"key"))
    import threading
    thread = threading.Thread(target=lambda: kept.append(kept[-1].accept())); thread.start()
    client = module("connection").Client(kept[-1].address, authkey=b"key"); thread.join(); kept.append(client)
def pipe(): kept.append(ctx.Pipe()); kept[-1][0].send(1); assert kept[-1][1].recv() == 1
def queues(): kept.append([ctx.Queue(), ctx.SimpleQueue(), ctx.JoinableQueue()]); kept[-1][0].put(b"x" * 100000); kept[-1][0].get()
def locks(): kept.append([ctx.Lock(), ctx.Condition(), ctx.Event(), ctx.Barrier(2)])
def shared(): kept.append(module("shared_memory").SharedMemory(create=True, size=9)); kept[-1].buf[:3] = b"abc"
def passed():
    ours, theirs = ctx.Pipe()
    kept.append(ctx.Pipe()); ours.send(kept[-1][0]); kept.append(theirs.recv())

def main(out):
    for number in range(3): os.close(number)
    for step in (process, value, pool, manager, listener, pipe, queues, locks, shared, passed) * 2:
        try: step()
        except BaseException: out.write(f"{step.__name__}: {traceback.format_exc()}")
        taken = [os.readlink(f"/proc/self/fd/{n}") for n in range(3) if os.path.lexists(f"/proc/self/fd/{n}")]
        if taken: out.write(f"{step.__name__}: {taken}\\n"); break
    for thing in kept:
        if hasattr(thing, "unlink"): thing.close(); thing.unlink()
    out.write("done"); out.flush()

kept = []
if __name__ == "__main__":
    main(open(sys.argv[3], "w"))
"""


@pytest.mark.better_than_standard("what it opens becomes a standard stream")
@pytest.mark.parametrize("method", METHODS)
def test_nothing_that_is_opened_becomes_a_standard_stream(mp_package: str, method: str, tmp_path: Path) -> None:
    program, out = tmp_path / "program.py", tmp_path / "out"
    program.write_text(STDIO_CLOSED)
    subprocess.run([sys.executable, str(program), mp_package, method, str(out)], timeout=90)
    assert out.read_text() == "done"
