"""Exceptions of signal handlers in `Pool()`, `close`, `terminate`, `join` and `imap`: an interrupted call can be
repeated."""

from __future__ import annotations

import gc
import importlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import POOL_KINDS, end_pool, eventually, make_pool, square

ROUNDS = 25


class Struck(Exception):
    pass


class Striker:
    """Makes a handler raise `Struck` once, at a random time of a call."""

    def __init__(self, seed: int) -> None:
        self.random, self.armed = random.Random(seed), False

    def handle(self, *_: Any) -> None:
        if self.armed:
            self.armed = False
            raise Struck

    def call(self, function: Callable[[], Any], longest: float) -> tuple[bool, Any]:
        """Call a function; return whether it was not interrupted, and its result."""
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, self.random.random() ** 2 * longest + 1e-6)
            value = function()
            self.armed = False
            return True, value
        except Struck:
            return False, None
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def insist(self, function: Callable[[], Any], longest: float) -> None:
        """Call a function until it is not interrupted."""
        while not self.call(function, longest)[0]:
            pass


@pytest.fixture(params=range(3))
def striker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Striker]:
    print("seed", request.param)
    # Some handlers run in finalizers and in the hooks of `os.fork`; the interpreter reports those.
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: print(raised.exc_value))
    made = Striker(request.param)
    before = signal.signal(signal.SIGALRM, made.handle)
    try:
        yield made
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def alive(pool: Any) -> list[bool]:
    return [worker.is_alive() for worker in pool._pool]


@pytest.mark.parametrize("kind", POOL_KINDS)
def test_an_interrupted_end_can_be_repeated(mp: ModuleType, kind: str, striker: Striker) -> None:
    longest = 0.01 if kind in ("fork", "thread") else 0.05
    for _ in range(ROUNDS if kind in ("fork", "thread") else ROUNDS // 5):
        pool = make_pool(mp, kind, 2)
        calls = pool.map_async(square, range(50))
        steps = striker.random.choice([["close", "join"], ["terminate", "join"], ["close", "terminate", "join"]])
        for step in steps:
            striker.insist(getattr(pool, step), longest)
        assert not any(alive(pool)), steps
        if "terminate" not in steps:
            assert calls.get(30) == [number**2 for number in range(50)]


@pytest.mark.parametrize("kind", ["fork", "spawn", "forkserver"])
def test_an_interrupted_start_raises_and_leaves_nothing(
    mp: ModuleType, kind: str, striker: Striker, warmed_up: Callable[[str], None]
) -> None:
    warmed_up(kind)
    before = set(mp.active_children())
    for _ in range(ROUNDS if kind == "fork" else ROUNDS // 5):
        fine, pool = striker.call(lambda: make_pool(mp, kind, 2), 0.02 if kind == "fork" else 0.1)
        if fine:
            assert pool.map(square, [3]) == [9]
            end_pool(pool)
    eventually(lambda: set(mp.active_children()) <= before)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "maniple-pool-keeper"])


@pytest.mark.parametrize("kind", POOL_KINDS)
def test_an_interrupted_imap_raises_the_handlers_exception(mp: ModuleType, kind: str, striker: Striker) -> None:
    pool = make_pool(mp, kind, 2)
    for _ in range(20 * ROUNDS):
        striker.call(lambda: list(pool.imap(square, map(int, range(5)))), 0.001)
    assert pool.map(square, [3]) == [9]
    end_pool(pool)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "maniple-pool-feeder"])


def test_a_second_ctrl_c_in_terminate_leaves_no_worker(mp: ModuleType) -> None:
    pool = mp.get_context("fork").Pool(2)
    pool.map_async(time.sleep, [60] * 4)

    def strike(*_: Any) -> None:
        raise Struck

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        for _ in range(3):
            hit = threading.Timer(0.001, signal.raise_signal, (signal.SIGUSR1,))
            hit.start()
            try:
                pool.terminate()
                hit.join()
            except Struck:
                pass
            hit.join()
    except Struck:
        pass
    finally:
        signal.signal(signal.SIGUSR1, before)
    pool.terminate()
    pool.join()
    assert not any(alive(pool))


def test_an_interrupted_manager_leaves_no_server(mp: ModuleType, striker: Striker) -> None:
    ctx = mp.get_context("fork")
    before = set(mp.active_children())
    for _ in range(ROUNDS):
        fine, manager = striker.call(ctx.Manager, 0.03)
        if fine:
            assert manager.list([1])[0] == 1
            striker.insist(manager.shutdown, 0.02)
    eventually(lambda: set(mp.active_children()) <= before)


def test_an_interrupted_finalizer_calls_later(mp: ModuleType) -> None:
    util = importlib.import_module(f"{mp.__name__}.util")
    called: list[int] = []

    def strike(*_: Any) -> None:
        raise Struck

    def log(*_: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)

    finalizer = util.Finalize(None, called.append, (1,), exitpriority=0)
    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with pytest.raises(Struck):
            finalizer(None, util._finalizer_registry, log)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert not called and finalizer.still_active()
    finalizer()
    finalizer()
    assert called == [1] and not finalizer.still_active()


PROGRAM = """
import os, signal, sys, threading, time
import {package} as mp

class Struck(Exception):
    pass

def strike(*_):
    raise Struck

def identity(x):
    return x

if __name__ == "__main__":
    pools = [mp.get_context("fork").Pool(2) for _ in range(4)]
    for pool in pools:
        pool.map(identity, [1])
    signal.signal(signal.SIGUSR1, strike)
    for pool in pools:
        # Interrupts the call at its beginning.
        whole, pool._workers.terminate = pool._workers.terminate, None
        try:
            finalizer = pool._terminate
            finalizer._callback = lambda: os.kill(os.getpid(), signal.SIGUSR1)
            pool.terminate()
        except Struck:
            finalizer._callback = whole
    print("at its end", flush=True)
"""


def test_a_program_ends_after_interrupted_ends_of_pools(mp_package: str, tmp_path: Any) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(package=mp_package))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "at its end\n"), done.stderr


def test_an_interrupted_creation_leaves_no_segment(mp: ModuleType, striker: Striker) -> None:
    shared_memory = importlib.import_module(f"{mp.__name__}.shared_memory")
    left: list[str] = []
    make = shared_memory._make_filename

    def noted() -> str:
        left.append(make())
        return left[-1]

    shared_memory._make_filename = noted
    interrupted = 0
    try:
        for _ in range(40 * ROUNDS):
            fine, block = striker.call(lambda: shared_memory.SharedMemory(create=True, size=4096), 0.0001)
            interrupted += not fine
            if fine:
                block.close()
                block.unlink()
    finally:
        shared_memory._make_filename = make
    there = [name for name in left if os.path.exists(f"/dev/shm/{name.removeprefix('/')}")]
    # An exception in the single step between a call and its assignment cannot be seen.
    assert len(there) <= interrupted / 20, f"{len(there)} of {interrupted}"
    for name in there:
        shared_memory.shm_unlink(name)


def test_an_interrupted_creation_leaves_no_managed_object(mp: ModuleType, striker: Striker) -> None:
    with mp.get_context("fork").Manager() as manager:
        before = manager._number_of_objects()
        interrupted = 0
        for _ in range(20 * ROUNDS):
            fine, made = striker.call(lambda: manager.list([1]), 0.0006)
            interrupted += not fine
            del made
        end = time.monotonic() + 10
        while manager._number_of_objects() > before + interrupted / 20 and time.monotonic() < end:
            time.sleep(0.05)
        # An exception in the few steps between the answer and the proxy cannot be seen.
        assert interrupted and manager._number_of_objects() - before <= interrupted / 20


@pytest.mark.better_than_standard("leaves descriptors")
@pytest.mark.parametrize("what", ["pipe", "one-way pipe", "attached memory", "new memory"])
def test_an_interrupted_constructor_leaves_no_descriptor(mp: ModuleType, striker: Striker, what: str) -> None:
    memory: Any = importlib.import_module(f"{mp.__name__}.shared_memory").SharedMemory
    whole = memory(create=True, size=4096)
    make: Callable[[], Any] = {
        "pipe": mp.Pipe,
        "one-way pipe": lambda: mp.Pipe(False),
        "attached memory": lambda: memory(whole.name),
        "new memory": lambda: memory(create=True, size=4096),
    }[what]

    def rounds(count: int) -> int:
        interrupted = 0
        for _ in range(count):
            fine, made = striker.call(make, 0.0001)
            interrupted += not fine
            if fine and what == "new memory":
                made.unlink()
            if fine and what.endswith("memory"):
                made.close()
        return interrupted

    rounds(5)
    before = len(os.listdir("/proc/self/fd"))
    assert rounds(100 * ROUNDS) > ROUNDS
    gc.collect()
    after = len(os.listdir("/proc/self/fd"))
    whole.close()
    whole.unlink()
    assert after <= before


@pytest.mark.timeout(200)
@pytest.mark.parametrize("method, times", [("fork", 120), ("spawn", 30), ("forkserver", 30)])
def test_a_pool_that_is_struck_twice_leaves_nothing(mp_package: str, method: str, times: int) -> None:
    program = Path(__file__).with_name("programs") / "struck_twice.py"
    command = [sys.executable, str(program), mp_package, method, "1", str(times)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0 and int(done.stdout.split()[0]) > times / 2, done.stderr
