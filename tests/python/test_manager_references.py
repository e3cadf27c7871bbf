"""The references that keep an object in a manager's server: proxies in processes, in each other, and in transit; and
the objects that a death frees."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import psutil
import pytest
from conftest import nothing_left
from pools import eventually

METHODS = ("fork", "spawn", "forkserver")


@pytest.fixture(params=METHODS)
def context(request: pytest.FixtureRequest, mp: ModuleType) -> Any:
    return mp.get_context(request.param)


@pytest.fixture
def manager(request: pytest.FixtureRequest, context: Any) -> Iterator[Any]:
    """A started manager whose clients and calls leave nothing in this process."""
    context.Manager().shutdown()  # starts the helpers that start once
    with nothing_left(request.config):
        made = context.Manager()
        yield made
        made.shutdown()
        made.join()
        del made


@pytest.fixture
def forked(mp: ModuleType, request: pytest.FixtureRequest) -> Iterator[Any]:
    mp.get_context("fork").Manager().shutdown()  # starts the helpers that start once
    with nothing_left(request.config):
        made = mp.get_context("fork").Manager()
        yield made
        made.shutdown()
        made.join()
        del made


def resident(manager: Any) -> int:
    """Return the server's memory, in MiB."""
    return psutil.Process(manager._process.pid).memory_info().rss >> 20


# Proxies within managed objects.


@pytest.mark.better_than_standard("it stays in the server")
def test_a_nested_list_is_freed_with_its_item(forked: Any) -> None:
    box = forked.list([0])
    held = resident(forked)
    for n in range(30):
        box[0] = forked.dict({"deep": forked.list(["x" * 10_000_000])})
        box[0]["deep"].append(n)
    assert resident(forked) < held + 100


@pytest.mark.better_than_standard("it stays in the server")
def test_a_cycle_of_proxies_is_collected(forked: Any) -> None:
    def cycle() -> None:
        one, other = forked.list(["x" * 1_000_000]), forked.dict()
        one.append(other)
        other["one"] = one
        one.append(one)
        assert one[1]["one"][2][0] == "x" * 1_000_000

    for _ in range(5):
        cycle()
    before = resident(forked)
    for _ in range(200):
        cycle()
    assert resident(forked) < before + 100
    assert forked._number_of_objects() == 0


def test_a_nested_object_outlives_its_proxies(manager: Any) -> None:
    tree = manager.dict(branch=manager.dict(leaves=manager.list([1])))
    gc.collect()
    tree["branch"]["leaves"].append(manager.list([2]))
    assert tree["branch"]["leaves"][1][0] == 2
    assert tree.copy()["branch"].copy()["leaves"][0] == 1
    taken = tree.pop("branch")
    assert taken["leaves"][0] == 1
    del taken, tree


@pytest.mark.better_than_standard("it grows by what was put into others")
def test_memory_is_flat_over_many_rounds(forked: Any) -> None:
    def rounds(count: int) -> None:
        for _ in range(count):
            outer = forked.list([forked.dict(a=forked.list(["x" * 30_000]))])
            outer[0]["a"].append(pickle.loads(pickle.dumps(outer)))
            del outer

    rounds(100)
    before = resident(forked)
    rounds(600)
    assert resident(forked) < before + 12
    assert forked._number_of_objects() == 0


# Proxies in transit.


def first(proxy: Any) -> Any:
    time.sleep(0.02)
    return proxy[0]


def first_of(proxy: Any, _: Any) -> Any:
    return first(proxy)


def inner(proxy: Any) -> Any:
    return proxy[0]


class Failure(Exception):
    pass


def fail_with(proxy: Any) -> None:
    raise Failure(proxy)


@pytest.mark.better_than_standard("its object may be gone when it arrives")
def test_proxies_in_tasks_and_results_of_a_pool(context: Any, manager: Any) -> None:
    with context.Pool(2) as pool:
        waiting = [pool.apply_async(first, (manager.list([n]),)) for n in range(12)]
        assert [task.get() for task in waiting] == list(range(12))
        result = pool.apply(inner, (manager.list([manager.list(["in"])]),))
        assert result[0] == "in"
        try:
            pool.apply(fail_with, (manager.list(["raised"]),))
        except Failure as failure:
            assert failure.args[0][0] == "raised"
        del result
    with context.Pool(1, maxtasksperchild=1) as pool:
        assert pool.map_async(partial(first_of, manager.list([7])), range(3), 1).get() == [7] * 3
        assert list(pool.imap(partial(first_of, manager.list([8])), range(3))) == [8] * 3
        pool.close()
        pool.join()
    gc.collect()
    eventually(lambda: manager._number_of_objects() == 0)


def put_and_end(target: Any, box: Any) -> None:
    target.put(box["in"])


def answer(proxy: Any, pipe: Any) -> None:
    gc.collect()
    pipe.send(proxy[:])


@pytest.mark.better_than_standard("its object may be gone when it arrives")
def test_proxies_in_queues_pipes_and_arguments(context: Any, manager: Any) -> None:
    waiting, (ours, its) = context.Queue(), context.Pipe()
    waiting.put(manager.list(["queued"]))
    gc.collect()
    assert waiting.get()[0] == "queued"
    box = manager.dict()
    box["in"] = manager.list(["by one that has ended"])
    child = context.Process(target=put_and_end, args=(waiting, box))
    child.start()
    child.join()
    box.clear()
    assert waiting.get()[0] == "by one that has ended"
    child = context.Process(target=answer, args=(manager.list(["argument"]), its))
    child.start()
    gc.collect()
    assert ours.recv() == ["argument"]
    child.join()
    child.close()
    waiting.close()
    del box, child
    gc.collect()
    eventually(lambda: manager._number_of_objects() == 0)


@pytest.mark.better_than_standard("its object is gone")
def test_a_pickle_is_loaded_once_or_while_its_object_lives(forked: Any) -> None:
    pickled = pickle.dumps(forked.list([1]))
    once = pickle.loads(pickled)
    again = pickle.loads(pickled)
    assert once[0] == again[0] == 1
    del once, again
    gc.collect()
    assert forked._number_of_objects() == 0
    with pytest.raises(Exception, match="KeyError"):
        pickle.loads(pickled)


# Processes that end, are killed, or fork.


def hold(proxy: Any, pipe: Any) -> None:
    proxy.append(1)
    pipe.send("holds")
    time.sleep(3600)


@pytest.mark.better_than_standard("what a killed client held stays for ever")
def test_a_killed_clients_objects_are_freed(context: Any, manager: Any) -> None:
    ours, its = context.Pipe()
    child = context.Process(target=hold, args=(manager.list(), its))
    child.start()
    assert ours.recv() == "holds"
    assert manager._number_of_objects() == 1
    child.kill()
    child.join()
    child.close()
    eventually(lambda: manager._number_of_objects() == 0)


def in_fork(work: Callable[[], Any]) -> int:
    """Call a function in a child that the program itself forks; return the child's exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.better_than_standard("the two take each other's answers")
def test_a_forked_child_and_its_parent_get_their_own_answers(manager: Any) -> None:
    shared = manager.dict()
    shared["before"] = 1

    def use(key: str) -> bool:
        for n in range(300):
            shared[key] = n
            if shared[key] != n:
                return False
        return True

    thread = threading.Thread(target=use, args=("other thread",))
    thread.start()
    assert in_fork(lambda: use("child") and use("child again") and in_fork(lambda: use("grandchild")) == 0) == 0
    assert use("parent")
    thread.join()
    assert shared.copy() == {"before": 1} | dict.fromkeys(
        ("other thread", "child", "child again", "grandchild", "parent"), 299
    )


@pytest.mark.better_than_standard("its proxies hold nothing")
def test_a_forked_child_keeps_objects_that_its_parent_drops(forked: Any) -> None:
    shared = forked.list([1])
    go_r, go_w = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.read(go_r, 1)
            status = 0 if shared[0] == 1 else 2
        finally:
            os._exit(status)
    del shared
    gc.collect()
    assert forked._number_of_objects() == 1
    os.write(go_w, b"!")
    assert os.waitpid(child, 0)[1] == 0
    eventually(lambda: forked._number_of_objects() == 0)
    os.close(go_r)
    os.close(go_w)


def test_a_fork_succeeds_although_the_server_is_dead_or_stopped(mp: ModuleType) -> None:
    made = mp.get_context("fork").Manager()
    shared = made.list([1])
    server = made._process.pid
    os.kill(server, signal.SIGSTOP)
    assert in_fork(lambda: True) == 0
    os.kill(server, signal.SIGCONT)
    assert shared[0] == 1
    os.kill(server, signal.SIGKILL)
    assert in_fork(lambda: True) == 0
    made.shutdown()


def print_unraisable(raised: sys.UnraisableHookArgs) -> None:
    print(raised.exc_value)


@pytest.mark.better_than_standard("an exception ends the connection, and what it counts")
def test_an_interrupted_creation_loses_nothing(mp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # Some handlers run in finalizers; pytest's own hook for those is Python code, in which handlers run too.
    monkeypatch.setattr(sys, "unraisablehook", print_unraisable)
    manager = mp.get_context("fork").Manager()
    shared = manager.list([1])

    def handler(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, handler)
    seen = 0
    try:
        for _ in range(20):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.004, 0.01)
                while True:
                    pickle.loads(pickle.dumps(manager.list()))
            except TimeoutError:
                seen += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen == 20
    assert shared[0] == 1 and pickle.loads(pickle.dumps(shared))[0] == 1
    # A connection that was interrupted between two steps may leave a descriptor, so this test does not use
    # `nothing_left`.
    manager.shutdown()


# Locks, and calls that wait.


def call_and_stay(proxy: Any, method: str, pipe: Any) -> None:
    pipe.send("calls")
    getattr(proxy, method)()
    pipe.send("done")
    time.sleep(3600)


@contextlib.contextmanager
def client(context: Any, proxy: Any, method: str, done: bool) -> Iterator[Any]:
    """A process that has called a method, or waits in it; the end of the block kills it."""
    ours, its = context.Pipe()
    child = context.Process(target=call_and_stay, args=(proxy, method, its))
    child.start()
    assert ours.recv() == "calls"
    if done:
        assert ours.recv() == "done"
    else:
        time.sleep(0.2)
    yield child
    child.kill()
    child.join()
    child.close()


@pytest.mark.better_than_standard("it stays locked")
@pytest.mark.parametrize("kind", ["Lock", "RLock", "Condition", "BoundedSemaphore"])
def test_a_lock_of_a_killed_client_is_free_again(mp: ModuleType, forked: Any, kind: str) -> None:
    lock = getattr(forked, kind)()
    with client(mp.get_context("fork"), lock, "acquire", done=True):
        assert not lock.acquire(False)
    assert lock.acquire() is True
    lock.release()


def test_a_semaphore_keeps_the_units_of_killed_clients_acquired(mp: ModuleType, forked: Any) -> None:
    semaphore = forked.Semaphore(2)
    with client(mp.get_context("fork"), semaphore, "acquire", done=True):
        pass
    time.sleep(0.3)
    assert semaphore.acquire(False) and not semaphore.acquire(False)


def acquire_and_end(lock: Any) -> None:
    lock.acquire()


def test_another_process_may_release_a_lock(mp: ModuleType, forked: Any) -> None:
    lock = forked.Lock()
    child = mp.get_context("fork").Process(target=acquire_and_end, args=(lock,))
    child.start()
    child.join()
    time.sleep(0.3)
    assert not lock.acquire(False)
    lock.release()
    assert lock.acquire(False)


@pytest.mark.better_than_standard("they take what others wait for")
def test_dead_clients_acquire_neither_locks_nor_items(mp: ModuleType, forked: Any) -> None:
    lock, items, event = forked.Lock(), forked.Queue(), forked.Event()
    lock.acquire()
    threads = psutil.Process(forked._process.pid).num_threads()
    context = mp.get_context("fork")
    with (
        client(context, lock, "acquire", done=False),
        client(context, items, "get", done=False),
        client(context, event, "wait", done=False),
    ):
        pass
    lock.release()
    items.put("item")
    assert lock.acquire() and items.get() == "item"
    eventually(lambda: psutil.Process(forked._process.pid).num_threads() <= threads)


def test_time_limits_of_calls_that_wait(forked: Any) -> None:
    items, bounded, event, lock = forked.Queue(), forked.Queue(1), forked.Event(), forked.Lock()
    lock.acquire()
    bounded.put(False)
    for limit in (0.05, 1.3):
        started = time.monotonic()
        with pytest.raises(queue.Empty):
            items.get(timeout=limit)
        with pytest.raises(queue.Full):
            bounded.put(1, True, limit)
        assert event.wait(limit) is False and lock.acquire(True, limit) is False
        assert time.monotonic() - started >= 4 * limit - 0.01
    assert bounded.get() is False
    with pytest.raises(ValueError):
        lock.acquire(True, -5)
    threading.Timer(1.2, items.put, (None,)).start()
    assert items.get() is None


def test_a_proxy_that_ends_with_its_thread_leaves_no_thread(forked: Any) -> None:
    class Keeping(threading.Thread):
        def __init__(self, items: Any, may_end: threading.Event) -> None:
            super().__init__()
            self.items, self.may_end = items, may_end

        def run(self) -> None:
            self.items.put(1)
            self.may_end.wait()

    may_end = threading.Event()
    thread = Keeping(forked.Queue(), may_end)
    thread.start()
    # The thread frees its own object, and the proxy with it, when `threading` knows it no more.
    del thread
    may_end.set()
    deadline = time.monotonic() + 20
    while any(isinstance(thread, Keeping) for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert threading.enumerate() == [threading.current_thread()]


# The standard package at one end.

STOCK_CLIENT = """
import sys
from multiprocessing import current_process
from multiprocessing.managers import SyncManager
current_process().authkey = b"key"
manager = SyncManager(address=sys.argv[1], authkey=b"key")
manager.connect()
outer = manager.dict(inner=manager.list([1]))
outer["deep"] = manager.dict()
outer["deep"]["leaf"] = manager.list(["leaf"])
assert outer["deep"]["leaf"][0] == "leaf"
assert outer.copy()["deep"].copy()["leaf"][:] == ["leaf"]
for n in range(20):
    outer["deep"]["leaf"] = manager.list([n])
    assert outer["deep"]["leaf"][0] == n
assert manager._number_of_objects() == 1, manager._debug_info()
"""


def test_a_standard_client_of_nested_objects(tmp_path: Any, mp: ModuleType) -> None:
    managers = __import__(f"{mp.__name__}.managers", fromlist=["SyncManager"])
    program = tmp_path / "client.py"
    program.write_text(STOCK_CLIENT)
    with managers.SyncManager(address=str(tmp_path / "socket"), authkey=b"key") as manager:
        line = [sys.executable, "-I", str(program), manager.address]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        if mp.__name__ == "multiprocessing":
            return
        assert (done.returncode, done.stderr) == (0, "")
        assert manager._number_of_objects() == 0
