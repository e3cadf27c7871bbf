"""The program's code that takes long: callbacks, decoding of results, finalizers of items, iterators, starts, readers of its standard error.

The pool holds its limits meanwhile, notices deaths, and answers other calls.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS, identity, pid, sleep, square

NewPool = Callable[..., Any]

every_method = pytest.mark.parametrize("kind", METHODS, indirect=True)
quick = pytest.mark.parametrize("kind", ["fork"], indirect=True)

PATIENCE = 20.0
SQUARES = [number * number for number in range(100)]


class Block:
    """Code of the program that blocks until the gate is open."""

    begun = threading.Event()
    open = threading.Event()
    passed: list[bool]

    def __init__(self) -> None:
        type(self).begun, type(self).open = threading.Event(), threading.Event()
        type(self).passed = []

    def __call__(self, *_: object) -> None:
        block()


def block() -> None:
    Block.begun.set()
    Block.passed.append(Block.open.wait(PATIENCE))


def rebuilt_slowly() -> int:
    if threading.current_thread() is not threading.main_thread():
        block()
    return 5


class SlowResult:
    def __reduce__(self) -> Any:
        return rebuilt_slowly, ()


class SlowEnd:
    """An item whose last reference in this process may be the pool's."""

    def __init__(self, owner: int) -> None:
        self.owner = owner

    def __del__(self) -> None:
        if os.getpid() == self.owner:
            block()


def slow_result() -> SlowResult:
    return SlowResult()


def fail() -> None:
    raise ValueError


def ends(number: int) -> Iterator[SlowEnd]:
    for _ in range(number):
        yield SlowEnd(os.getpid())


def pass_limits(pool: Any, mp: ModuleType) -> None:
    assert pool.apply(square, (3,)) == 9
    assert pool.map(square, range(100)) == SQUARES
    assert list(pool.imap(square, map(int, range(100)))) == SQUARES
    with pytest.raises(mp.TaskTimeoutError):
        pool.apply_async(sleep, (60,), task_timeout=0.2).get(PATIENCE)
    with pytest.raises(mp.WorkerLostError):
        pool.apply_async(os._exit, (3,)).get(PATIENCE)
    running = pool.apply_async(sleep, (60,))
    while not running.running():
        pass
    assert running.cancel(kill=True)


BLOCKERS: dict[str, Callable[[Any, Block], Any]] = {
    "callback": lambda pool, blocks: pool.apply_async(square, (3,), callback=blocks),
    "error callback": lambda pool, blocks: pool.apply_async(fail, error_callback=blocks),
    "callback of a death": lambda pool, blocks: pool.apply_async(os._exit, (3,), error_callback=blocks),
    "callback of a map": lambda pool, blocks: pool.map_async(square, range(9), callback=blocks),
    "decoding for a callback": lambda pool, _: pool.apply_async(slow_result, callback=identity),
}


@every_method
@pytest.mark.parametrize("blocker", BLOCKERS)
def test_the_pool_holds_its_limits_while_a_callback_blocks(new_pool: NewPool, mp: ModuleType, blocker: str) -> None:
    pool = new_pool(2)
    blocks = Block()
    BLOCKERS[blocker](pool, blocks)
    later: list[int] = []
    assert Block.begun.wait(PATIENCE)
    last = pool.apply_async(square, (4,), callback=later.append)
    pass_limits(pool, mp)
    # Callbacks come one after the other.
    assert later == []
    Block.open.set()
    assert last.get(PATIENCE) == 16 and later == [16]
    assert Block.passed == [True]


@quick
@pytest.mark.parametrize("is_closed", [False, True])
def test_terminate_waits_only_shortly_for_a_callback(new_pool: NewPool, is_closed: bool) -> None:
    pool = new_pool(2)
    pool.apply_async(square, (3,), callback=Block())
    assert Block.begun.wait(PATIENCE)
    if is_closed:
        pool.close()
        assert not pool.join(timeout=0.5)
    pool.terminate()
    pool.join()
    assert Block.passed == []
    Block.open.set()


@quick
@pytest.mark.parametrize("how", ["close", "terminate"])
def test_a_callback_may_end_the_pool(new_pool: NewPool, how: str) -> None:
    pool = new_pool(2)
    ended = threading.Event()

    def end(_: object) -> None:
        getattr(pool, how)()
        pool.join()
        ended.set()

    pool.apply_async(square, (3,), callback=end)
    assert ended.wait(PATIENCE)
    pool.join()


@quick
@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_without_a_further_thread_callbacks_run_nevertheless(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    pool = new_pool(2)

    def refuse(_: object) -> None:
        raise error("can't start new thread")

    monkeypatch.setattr("maniple._impl.pool.completions.start_assured", refuse)
    called: list[int] = []
    results = [pool.apply_async(square, (number,), callback=called.append) for number in range(50)]
    assert [result.get(PATIENCE) for result in results] == SQUARES[:50] and sorted(called) == SQUARES[:50]


@every_method
@pytest.mark.parametrize("call", ["map", "map of single items", "map_async", "imap"])
def test_the_end_of_an_item_may_wait_for_other_calls(new_pool: NewPool, mp: ModuleType, call: str) -> None:
    pool = new_pool(2)
    Block()
    done = threading.Event()

    def others() -> None:
        assert Block.begun.wait(PATIENCE)
        pass_limits(pool, mp)
        Block.open.set()
        done.set()

    thread = threading.Thread(target=others, daemon=True)
    thread.start()
    if call == "imap":
        assert len(list(pool.imap(type, ends(2)))) == 2
    elif call == "map_async":
        assert len(pool.map_async(type, ends(2)).get(3 * PATIENCE)) == 2
    else:
        assert len(pool.map(type, ends(2), None if call == "map" else 1)) == 2
    assert done.wait(3 * PATIENCE)
    # Another thread may have dropped the items.
    end = time.monotonic() + PATIENCE
    while len(Block.passed) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert Block.passed == [True, True]


@every_method
def test_inputs_that_block_delay_no_other(new_pool: NewPool) -> None:
    pool = new_pool(2)
    gate = threading.Event()

    def blocked() -> Iterator[int]:
        yield 0
        assert gate.wait(PATIENCE)
        yield 1

    first = [pool.imap(square, blocked()) for _ in range(20)]
    assert [list(pool.imap(square, map(int, range(10)))) for _ in range(20)] == [SQUARES[:10]] * 20
    gate.set()
    assert [list(stream) for stream in first] == [[0, 1]] * 20


@quick
def test_an_input_for_which_there_is_no_thread_ends_with_the_error(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = new_pool(2)
    gate = threading.Event()

    def blocked() -> Iterator[int]:
        assert gate.wait(PATIENCE)
        yield 1

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    # The first feeder takes one input and finds the others waiting.
    first = pool.imap(square, map(int, range(10)))
    assert list(first) == SQUARES[:10]
    monkeypatch.setattr("maniple._impl.pool.feeders.start_assured", refuse)
    streams = [pool.imap(square, blocked()) for _ in range(3)]
    timer = threading.Timer(0.5, gate.set)
    timer.start()
    ends = 0
    for stream in streams:
        try:
            assert list(stream) == [1]
        except RuntimeError as error:
            assert "thread" in str(error)
            ends += 1
    timer.join()
    assert ends <= 2
    assert pool.map(square, [3]) == [9]


class SlowStart:
    """An argument of the initializer that is pickled slowly in a thread of the pool."""

    is_slow = False

    def __reduce__(self) -> Any:
        slow_hook()
        return int, (3,)


def slow_hook() -> None:
    if SlowStart.is_slow and threading.current_thread() is not threading.main_thread():
        block()


os.register_at_fork(before=slow_hook)


def with_slow_start(new_pool: NewPool, monkeypatch: pytest.MonkeyPatch, processes: int) -> Any:
    """Return a pool that is starting a worker, which will take long."""
    pool = new_pool(processes, initializer=identity, initargs=(SlowStart(),))
    while len(set(pool.map(pid, range(100), 1))) < processes:
        pass
    Block()
    monkeypatch.setattr(SlowStart, "is_slow", True)
    with pytest.raises(Exception, match="code 3"):
        pool.apply_async(os._exit, (3,)).get(PATIENCE)
    assert Block.begun.wait(PATIENCE)
    return pool


@every_method
def test_the_pool_holds_its_limits_while_a_start_blocks(
    new_pool: NewPool, mp: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = with_slow_start(new_pool, monkeypatch, 5)
    called: list[int] = []
    pass_limits(pool, mp)
    assert pool.apply_async(square, (3,), callback=called.append).get(PATIENCE) == 9 and called == [9]
    assert list(pool.imap(square, map(int, range(10)))) == SQUARES[:10]
    assert Block.passed == []
    Block.open.set()
    while len(set(pool.map(pid, range(100), 1))) < 5:
        pass


@every_method
@pytest.mark.parametrize("how", ["terminate", "close and terminate", "close"])
def test_the_end_of_a_pool_waits_only_shortly_for_a_start(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pool = with_slow_start(new_pool, monkeypatch, 2)
    if "close" in how:
        assert pool.map(square, range(100)) == SQUARES
        pool.close()
    if "terminate" in how:
        pool.terminate()
    else:
        # The pool does not need the worker, but its process may already run.
        assert not pool.join(timeout=0.5)
        Block.open.set()
    pool.join()
    assert Block.passed == [True] * (not how.endswith("terminate"))
    Block.open.set()


@quick
@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_without_a_further_thread_workers_start_nevertheless(
    new_pool: NewPool, mp: ModuleType, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    pool = new_pool(2)

    def refuse(_: object) -> None:
        raise error("can't start new thread")

    monkeypatch.setattr("maniple._impl.pool.workers.start_assured", refuse)
    for _ in range(5):
        with pytest.raises(mp.WorkerLostError):
            pool.apply_async(os._exit, (3,)).get(PATIENCE)
    assert pool.map(square, range(100)) == SQUARES


class Unstartable:
    """An argument of the initializer that lets no worker start for a while."""

    refuses: type[BaseException] | None = None

    def __reduce__(self) -> Any:
        if self.refuses is not None:
            raise self.refuses("the program's own")
        return int, (3,)


@pytest.mark.parametrize("kind", ["spawn", "forkserver"], indirect=True)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, ValueError])
def test_whatever_a_start_raises_is_a_failed_start(
    mp: ModuleType, new_pool: NewPool, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    pool = new_pool(3, initializer=identity, initargs=(Unstartable(),))
    # A pool that cannot start workers is not given up while a worker lives, that is, has started.
    while len(set(pool.map(pid, range(100), 1))) < 3:
        pass
    monkeypatch.setattr(Unstartable, "refuses", error)
    with pytest.raises(mp.WorkerLostError):
        pool.apply_async(os._exit, (3,)).get(PATIENCE)
    with pytest.raises(mp.TaskTimeoutError):
        pool.apply_async(sleep, (60,), task_timeout=0.2).get(PATIENCE)
    monkeypatch.setattr(Unstartable, "refuses", None)
    assert pool.map(square, range(100)) == SQUARES


@quick
@pytest.mark.parametrize("error", [SystemExit, ValueError])
def test_a_hook_that_raises_ends_no_thread_of_the_pool(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    pool = new_pool(2)

    def hook(_: object) -> None:
        raise error

    def raises(_: object) -> None:
        raise LookupError

    monkeypatch.setattr(threading, "excepthook", hook)
    for _ in range(3):
        pool.apply_async(square, (3,), callback=raises).get(PATIENCE)
    called: list[int] = []
    assert pool.apply_async(square, (3,), callback=called.append).get(PATIENCE) == 9
    assert called == [9]


STOPPED = """
import os, sys, threading, time
import maniple

def say(count):
    os.write(2, b"x" * count)
    return count

def main(method, reads):
    r, w = os.pipe()
    kept = os.dup(2)
    os.dup2(w, 2)
    os.close(w)
    pool = maniple.get_context(method).Pool(3)
    said = pool.apply_async(say, (300_000,))
    time.sleep(0.3)
    called = []
    assert pool.apply(abs, (-1,)) == 1
    pool.apply_async(abs, (-1,), callback=called.append).get(20)
    assert called == [1]
    for task, terms, error in (
        ((os._exit, (3,)), {}, maniple.WorkerLostError),
        ((time.sleep, (60,)), {"task_timeout": 0.2}, maniple.TaskTimeoutError),
    ):
        try:
            pool.apply_async(*task, **terms).get(20)
        except error:
            print(error.__name__, flush=True)
    if not reads:
        pool.terminate()
        pool.join()
        print("terminated", flush=True)
        os._exit(0)
    got = []

    def read():
        time.sleep(0.5)
        # Other processes may keep the writing end.
        while sum(got) < 300_000 and (data := os.read(r, 65536)):
            got.append(data.count(b"x"))

    reader = threading.Thread(target=read)
    reader.start()
    pool.close()
    pool.join()
    os.dup2(kept, 2)
    reader.join()
    print(said.get(), sum(got), flush=True)

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "reads")
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reads", ["reads", "never"])
def test_a_standard_error_that_takes_nothing_delays_its_writers_alone(tmp_path: Path, method: str, reads: str) -> None:
    program = tmp_path / "stopped.py"
    program.write_text(STOPPED)
    done = subprocess.run(
        [sys.executable, str(program), method, reads], capture_output=True, text=True, timeout=90, check=False
    )
    expected = ["WorkerLostError", "TaskTimeoutError", "300000 300000" if reads == "reads" else "terminated"]
    assert done.stdout.split("\n")[:-1] == expected, done.stderr
