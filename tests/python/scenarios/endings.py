"""close, join, terminate, deletion, and a fork: the ends of a pool, in bad moments."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings

from . import tasks
from .bench import Bench, full_text, until
from .registry import scenario


@scenario("close and join after deaths")
def close_after_deaths(bench: Bench) -> None:
    pool = bench.mp.Pool(2)
    log = bench.log()
    outcomes = [pool.apply_async(tasks.step, ((log, item, "sigkill" if item % 2 else ""),)) for item in range(6)]
    bench.at("close")
    pool.close()
    bench.at("join")
    pool.join()
    for item, outcome in enumerate(outcomes):
        assert outcome.ready(), f"join() returned before item {item} had ended"
        if item % 2:
            bench.expect_lost(outcome.get, exitcode=-signal.SIGKILL, function="step")
        else:
            assert outcome.get() == item * 10
    bench.assert_each_ran_once(log, range(6))


@scenario("worker SIGKILLed between close and join")
def death_after_close(bench: Bench) -> None:
    pool = bench.mp.Pool(2)
    folder, log = bench.folder(), bench.log()
    held = pool.apply_async(tasks.announce_and_sleep, (folder,))
    rest = pool.map_async(tasks.step, [(log, item, "") for item in range(10)], chunksize=1)
    pool.close()
    [pid] = bench.announced(folder, 1)
    os.kill(pid, signal.SIGKILL)
    bench.at("join")
    pool.join()
    assert rest.get() == [item * 10 for item in range(10)]
    bench.expect_lost(held.get, exitcode=-signal.SIGKILL, function="announce_and_sleep", pid=pid)


@scenario(
    "terminate with workers in {work}",
    work=["announce_and_sleep", "announce_and_hold_the_interpreter", "announce_and_ignore_sigterm"],
)
def terminate_busy(bench: Bench, work: str) -> None:
    pool = bench.mp.Pool(2)
    folder = bench.folder()
    pool.map_async(getattr(tasks, work), [folder] * 4, chunksize=1)
    workers = bench.announced(folder, 2)
    bench.at("terminate")
    pool.terminate()
    bench.at("join")
    pool.join()
    bench.assert_gone(workers)
    bench.expect(ValueError, lambda: pool.apply(abs, (-1,)))


@scenario("terminate with a stopped worker")
def terminate_stopped(bench: Bench) -> None:
    pool = bench.mp.Pool(2)
    folder = bench.folder()
    pool.apply_async(tasks.announce_and_sleep, (folder,))
    [pid] = bench.announced(folder, 1)
    os.kill(pid, signal.SIGSTOP)
    bench.at("terminate")
    pool.terminate()
    pool.join()
    bench.assert_gone([pid])


@scenario("terminate while another thread waits in {wait}", wait=["get", "map", "imap"])
def terminate_under_a_waiter(bench: Bench, wait: str) -> None:
    pool = bench.mp.Pool(2)
    folder = bench.folder()
    ended: list[object] = []
    jobs = [folder] * 4

    def wait_for_it() -> None:
        try:
            if wait == "get":
                ended.append(pool.apply_async(tasks.announce_and_sleep, (folder,)).get())
            elif wait == "map":
                ended.append(pool.map(tasks.announce_and_sleep, jobs, chunksize=1))
            else:
                ended.append(list(pool.imap(tasks.announce_and_sleep, jobs)))
        except Exception as error:
            ended.append(error)

    waiter = threading.Thread(target=wait_for_it, daemon=True)
    waiter.start()
    bench.announced(folder, 1)
    bench.at("terminate")
    pool.terminate()
    pool.join()
    bench.at("the thread that waits")
    waiter.join(8)
    assert not waiter.is_alive(), f"the thread still waits in {wait}()"
    assert isinstance(ended[0], Exception), ended
    assert "terminate" in full_text(ended[0]), full_text(ended[0])


@scenario("leaving the with block with busy workers")
def with_block(bench: Bench) -> None:
    folder = bench.folder()
    with bench.mp.Pool(2) as pool:
        pool.map_async(tasks.announce_and_sleep, [folder] * 4, chunksize=1)
        workers = bench.announced(folder, 2)
        bench.at("leaving the block")
    bench.assert_gone(workers)


@scenario("pool deleted without a close")
def deleted(bench: Bench) -> None:
    pool = bench.mp.Pool(2)
    assert pool.map(abs, [-1]) == [1]
    workers = bench.worker_pids(pool)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        bench.at("deleting the pool")
        del pool
        gc.collect()
    texts = [str(each.message) for each in heard if issubclass(each.category, ResourceWarning)]
    assert any("unclosed running multiprocessing pool" in text for text in texts), texts
    bench.at("waiting for the workers of the deleted pool to end")
    bench.assert_gone(workers)


@scenario("forked child uses its parent's pool")
def used_after_fork(bench: Bench) -> None:
    with bench.pool() as pool:
        bench.assert_sound(pool)
        said = os.path.join(bench.folder(), "said")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of a fork beside threads
            child = os.fork()
        if child == 0:
            try:
                tasks.note(said, f"returned {pool.apply(abs, (-3,))!r}")
            except BaseException as error:
                tasks.note(said, f"raised {type(error).__name__}: {error}")
            finally:
                os._exit(0)
        try:
            bench.at("the child's call")
            until(lambda: os.waitpid(child, os.WNOHANG)[0], "the forked child's call to end")
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        with open(said) as text:
            outcome = text.read()
        assert outcome == "returned 3\n" or outcome.startswith("raised") and "fork" in outcome, outcome


@scenario("forked child ends while its parent's pool works on")
def forked_bystander(bench: Bench) -> None:
    """A child that inherited the pool and leaves, as subprocesses do, must not disturb it."""
    with bench.pool() as pool:
        folder = bench.folder()
        outcome = pool.starmap_async(tasks.meet, [(folder, 3)] * 2, chunksize=1)
        bench.announced(folder, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            # Through the ordinary exit, which runs the pool's exit handlers if any are left.
            try:
                raise SystemExit(0)
            finally:
                gc.collect()
                os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.1)
        open(os.path.join(folder, "third"), "w").close()
        assert 0 not in outcome.get()


@scenario("close lets the rest of a slow imap input run")
def close_under_imap(bench: Bench) -> None:
    pool = bench.mp.Pool(2)
    gate = threading.Event()

    def slow():
        yield from range(5)
        assert gate.wait(20), "close() or a result waited for the input"
        yield from range(5, 10)

    results = pool.imap(tasks.identity, slow())
    bench.at("the results of an input that blocks")
    assert [next(results) for _ in range(5)] == list(range(5))
    bench.at("close")
    pool.close()
    gate.set()
    bench.at("the rest of the input")
    assert list(results) == list(range(5, 10))
    bench.at("join")
    pool.join()
