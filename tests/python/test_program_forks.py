"""Children that a program forks by itself: they do not use their parent's private objects."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest


def in_fork(work: Callable[[], Any]) -> int:
    """Call a function in a forked child; return its exit status: 0 if it returns true, 2 otherwise, 1 after an
    exception."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def raises(error: type[BaseException], call: Callable[[], Any], text: str) -> bool:
    try:
        call()
    except error as raised:
        return text in str(raised)
    return False


def double(number: int) -> int:
    return 2 * number


@pytest.mark.better_than_standard("it waits for ever")
@pytest.mark.timeout(30)
def test_a_parents_pool_raises_an_error(mp: ModuleType, pool_module: ModuleType) -> None:
    with mp.get_context("fork").Pool(1) as pool, pool_module.ThreadPool(1) as threads:
        for mine in (pool, threads):
            pending = mine.apply_async(double, (1,))
            assert pending.get() == 2
            assert in_fork(lambda mine=mine: raises(RuntimeError, lambda: mine.apply(double, (1,)), "forked")) == 0
            told = lambda mine=mine: mine.apply_async(double, (1,), callback=print)  # noqa: E731
            assert in_fork(lambda told=told: raises(RuntimeError, told, "forked")) == 0
            assert in_fork(lambda mine=mine: mine.terminate() is None) == 0
            assert mine.map(double, [1, 2]) == [2, 4]


def next_two(results: Any) -> bool:
    return [next(results), next(results)] == [2, 4]


@pytest.mark.better_than_standard("it waits for ever")
@pytest.mark.timeout(60)
def test_a_child_does_not_touch_its_parents_busy_pool(mp: ModuleType) -> None:
    """A child finds every lock free, sends nothing to the workers, and receives nothing from them."""
    with mp.get_context("fork").Pool(2) as pool:
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                assert list(pool.imap(double, range(100))) == list(range(0, 200, 2))

        busy = threading.Thread(target=work)
        busy.start()
        try:
            for _ in range(15):
                done = pool.apply_async(double, (4,))
                done.wait()
                results = pool.imap(double, range(500), 1)
                assert next(results) == 0
                for use in (done.get, pool.close, pool.terminate, partial(next_two, results), partial(repr, pool)):
                    assert in_fork(lambda use=use: use() is not False) in (
                        0,
                        1,
                    )  # 1: the error that it is not the child's
                assert list(results) == list(range(2, 1000, 2))
        finally:
            over.set()
            busy.join()
        assert pool.map(double, range(5)) == [0, 2, 4, 6, 8]


@pytest.mark.better_than_standard("the child's end terminates its parent's daemonic children")
def test_the_parents_children_are_not_the_childs(mp: ModuleType) -> None:
    context = mp.get_context("fork")
    end = context.Event()
    daemon = context.Process(target=end.wait, daemon=True)
    daemon.start()
    util = importlib.import_module(f"{mp.__name__}.util")
    assert in_fork(lambda: mp.active_children() == []) == 0
    assert in_fork(lambda: util._exit_function() is None) == 0
    assert daemon.is_alive()
    end.set()
    daemon.join()
    assert daemon.exitcode == 0


@pytest.mark.better_than_standard("the parent's descriptor is fetched")
def test_a_forked_child_offers_its_own_descriptors(mp: ModuleType) -> None:
    reduction = importlib.import_module(f"{mp.__name__}.reduction")
    sharer = importlib.import_module(f"{mp.__name__}.resource_sharer")
    pipes = {name: os.pipe() for name in ("parent", "child")}
    told_r, told_w = os.pipe()
    for name, (_, writer) in pipes.items():
        os.write(writer, name.encode())
    reduction.DupFd(pipes["parent"][0])  # starts the thread that serves them
    child = os.fork()
    if child == 0:
        try:
            os.write(told_w, pickle.dumps(reduction.DupFd(pipes["child"][0])))
            threading.Event().wait(20)
        finally:
            os._exit(0)
    own = reduction.DupFd(pipes["parent"][0])
    try:
        fetched = pickle.loads(os.read(told_r, 65536)).detach()
        assert os.read(fetched, 16) == b"child"
        os.close(fetched)
        fetched = own.detach()
        assert os.read(fetched, 16) == b"parent"
        os.close(fetched)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        sharer.stop()
        for fd in (told_r, told_w, *pipes["parent"], *pipes["child"]):
            os.close(fd)


def test_a_child_does_not_remove_its_parents_temporary_folder(mp: ModuleType) -> None:
    util = importlib.import_module(f"{mp.__name__}.util")
    folder = util.get_temp_dir()

    def other() -> bool:
        mine = util.get_temp_dir()
        util._run_finalizers(minpriority=None)
        return bool(mine != folder and not os.path.exists(mine) and os.path.exists(folder))

    if mp.__name__ != "multiprocessing":
        assert in_fork(other) == 0
    assert os.path.exists(folder)


def test_a_programs_fork_calls_only_the_packages_functions(mp: ModuleType, tmp_path: Any) -> None:
    util = importlib.import_module(f"{mp.__name__}.util")
    called: list[Any] = []
    util.register_after_fork(test_a_programs_fork_calls_only_the_packages_functions, called.append)
    assert in_fork(lambda: not called) == 0
    child = mp.get_context("fork").Process(target=lambda: os._exit(3 if len(called) == 1 else 4))
    child.start()
    child.join()
    assert child.exitcode == 3


@pytest.mark.better_than_standard("each thread has its own")
def test_threads_get_one_temporary_folder(mp: ModuleType, tmp_path: Any) -> None:
    """In a program of its own, which has no such folder yet."""
    program = f"""
import os, tempfile, threading, {mp.__name__}.util as util
folders, together = [], threading.Barrier(4)
os_mkdir = os.mkdir
def mkdir(*args, **kwds):
    together.wait(5)  # each thread has found that there is none
    os_mkdir(*args, **kwds)
os.mkdir = mkdir
threads = [threading.Thread(target=lambda: folders.append(util.get_temp_dir())) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(folders), len(set(folders)), os.listdir(tempfile.gettempdir()) == [os.path.basename(folders[0])])
"""
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["4", "1", "True"], done.stderr
    assert not os.listdir(tmp_path)
