"""Threads that the system refuses, and a lack of memory in a pool's own thread: the affected call fails, or waits and retries; no caller waits
forever."""

from __future__ import annotations

import builtins
import errno
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import end_pool, make_pool, square

NewPool = Callable[..., Any]
quick_kinds = pytest.mark.parametrize("kind", ["fork", "thread"], indirect=True)

PATIENCE = 20.0
PROGRAM = Path(__file__).parent / "programs" / "keeper.py"


def outcome(package: str, method: str, *what: str) -> str:
    argv = [sys.executable, str(PROGRAM), package, method, *what]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=85)
    return done.stdout.strip() or f"exit code {done.returncode}: {done.stderr[-3000:]}"


@contextmanager
def refused(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> Iterator[None]:
    """Let only so many threads start in the block."""
    start = threading.Thread.start
    left = after

    def start_some(thread: threading.Thread) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start_some)
        yield


def close_and_join(pool: Any) -> None:
    ending = threading.Thread(target=lambda: (pool.close(), pool.join()), daemon=True)
    ending.start()
    ending.join(PATIENCE)
    assert not ending.is_alive(), "a closed pool waits for a call that has failed"


@pytest.mark.better_than_standard("does not start threads there")
@quick_kinds
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_a_lazy_map_without_a_thread_for_its_input(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    pool = new_pool(2)
    with refused(monkeypatch), pytest.raises(RuntimeError, match="start new thread") as raised:
        getattr(pool, call)(square, map(int, range(5)), 2)
    assert any("ulimit -u" in note for note in raised.value.__notes__)
    assert list(pool.imap(square, map(int, range(5)))) == [0, 1, 4, 9, 16]
    assert not pool._cache
    close_and_join(pool)


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_manager_without_a_thread_says_so(mp: ModuleType, monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    server = importlib.import_module("maniple._impl.manager.server")
    start, parent, left = server.start_thread, os.getpid(), allowed

    def start_some(*work: Any) -> None:
        nonlocal left
        if os.getpid() != parent:
            left -= 1
            if left < 0:
                raise RuntimeError("can't start new thread")
        start(*work)

    monkeypatch.setattr(server, "start_thread", start_some)
    context = mp.get_context("fork")
    with pytest.raises(OSError, match="no thread for a client") as raised:
        context.Manager().list()
    assert raised.value.errno == errno.EAGAIN and "ulimit -u" in str(raised.value)


def test_a_pool_of_threads_without_threads_says_how_many_there_may_be(
    mp: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused(monkeypatch, after=1), pytest.raises(RuntimeError, match="start new thread") as raised:
        mp.pool.ThreadPool(3)
    assert any(note.startswith("thread 2 of 3") and "ulimit -u" in note for note in raised.value.__notes__)


@pytest.mark.better_than_standard("does not start threads there")
@quick_kinds
def test_tasks_in_the_standard_form_without_a_thread_for_them(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = new_pool(2)
    with refused(monkeypatch), pytest.raises(RuntimeError, match="start new thread"):
        pool._taskqueue.put((iter([(0, 0, square, (1,), {})]), None))
    assert pool.map(square, range(3)) == [0, 1, 4]
    close_and_join(pool)


@pytest.mark.better_than_standard("leaves its threads behind")
@pytest.mark.parametrize("kind", ["fork", "thread"])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_pool_without_its_threads_leaves_none(
    mp: ModuleType, warmed_up: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, kind: str, first: int
) -> None:
    warmed_up(kind)
    before = set(threading.enumerate())
    pool = None
    with refused(monkeypatch, after=first):
        try:
            pool = make_pool(mp, kind, 3)
        except RuntimeError as error:
            assert "start new thread" in str(error)
    if pool is not None:
        end_pool(pool)
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread.name} is left"


@pytest.mark.better_than_standard("whoever asks it for a descriptor waits for ever")
def test_a_descriptor_is_sent_once_there_is_a_thread_for_it(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    sharer = importlib.import_module(f"{mp.__name__}.resource_sharer")
    sharer.stop()
    with refused(monkeypatch), pytest.raises(RuntimeError, match="start new thread"):
        sharer.DupFd(0)
    ticket = sharer.DupFd(0)
    taken: list[int] = []
    taking = threading.Thread(target=lambda: taken.append(ticket.detach()), daemon=True)
    taking.start()
    taking.join(PATIENCE)
    sharer.stop()
    assert len(taken) == 1
    os.close(taken[0])


@pytest.mark.better_than_standard("its thread for results dies")
@pytest.mark.parametrize("kind_of_result", ["bytes", "str", "tuple"])
def test_a_result_without_memory_fails_its_call(mp_package: str, kind_of_result: str) -> None:
    assert outcome(mp_package, "fork", "result_without_memory", kind_of_result) == "ok"


@pytest.mark.better_than_standard("its threads are others")
@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("hub", "keep"),
        ("hub", "adopt"),
        ("hub", "exited"),
        ("results", "ended"),
        ("hub", "begin_start"),
        ("hub", "next_end"),
    ],
)
def test_a_pools_thread_survives_a_lack_of_memory(mp_package: str, part: str, name: str) -> None:
    assert outcome(mp_package, "fork", "keeper_without_memory", part, name) == "ok"


@pytest.mark.better_than_standard("does not send functions by value")
def test_a_function_by_value_without_descriptors(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "by_value_without_descriptors") == "ok"


@pytest.mark.better_than_standard("does not send functions by value")
@pytest.mark.parametrize("kind", ["fork"], indirect=True)
def test_a_function_goes_by_value_after_another_threads_failed_import(
    new_pool: NewPool, mp: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = new_pool(1)
    # The state before the first use, also if other tests ran in this process before.
    monkeypatch.setattr(importlib.import_module(f"{mp.__name__}._impl.pool.worker_main"), "_by_value_module", None)
    failures = [ImportError("cannot import name")]
    load = builtins.__import__

    def fail_once(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if failures and "by_value" in (fromlist or ()):
            raise failures.pop()
        return load(name, globals, locals, fromlist, level)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", fail_once)
        assert pool.apply(lambda: 5) == 5
    assert not failures


@pytest.mark.parametrize("kind", ["fork"], indirect=True)
def test_calls_while_another_thread_imports_the_queues(
    new_pool: NewPool, mp: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = new_pool(1)
    with monkeypatch.context() as patched:
        # The state of a module whose import has just begun.
        patched.setitem(sys.modules, f"{mp.__name__}.queues", ModuleType("queues"))
        assert pool.map(square, [1, 2]) == [1, 4]
        assert pool.apply(dict, (), {"a": object}) == {"a": object}


@pytest.mark.better_than_standard("has no links")
def test_a_start_that_fails_without_a_shortage_raises_at_once(mp_package: str) -> None:
    assert outcome(mp_package, "fork", "a_process_that_cannot_be_made") == "ok"


@pytest.mark.better_than_standard("has no such pipes")
def test_an_unsent_pipe_stays_its_owners(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the number would be closed twice, the second time as another descriptor, such as a process's
    sentinel."""
    output = importlib.import_module(f"{mp.__name__}._impl.start.late_output")
    refused_pipe, write = os.pipe()
    os.close(write)
    with refused(monkeypatch), pytest.raises(RuntimeError, match="start new thread"):
        output.forward(refused_pipe)
    with monkeypatch.context() as patched:
        patched.setattr(output, "pipe", lambda: os.open("/none", os.O_RDONLY))
        with pytest.raises(OSError):
            output.forward(refused_pipe)
    given, write = os.pipe()
    os.close(write)
    output.forward(given)
    for thread in threading.enumerate():
        if thread.name == "maniple-late-output":
            thread.join(PATIENCE)
    os.close(refused_pipe)
    with pytest.raises(OSError):
        os.fstat(given)
