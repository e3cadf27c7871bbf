"""Workers that die: while busy, while idle, in numbers, and while sending."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import time
from pathlib import Path

from . import tasks
from .bench import WORKERS, Bench, until
from .registry import scenario


@scenario("task ends its worker: {way}", way=list(tasks.WAYS_TO_DIE))
def busy_worker(bench: Bench, way: str) -> None:
    with bench.pool() as pool:
        log = bench.log()
        jobs = [(log, item, way if item == 3 else "") for item in range(8)]
        outcome = pool.map_async(tasks.step, jobs, chunksize=1)
        bench.expect_lost(outcome.get, exitcode=tasks.WAYS_TO_DIE[way], function="step", index=3)
        bench.assert_each_ran_once(log, range(8))


@scenario("busy worker SIGKILLed from outside")
def busy_worker_killed(bench: Bench) -> None:
    with bench.pool() as pool:
        folder = bench.folder()
        outcome = pool.apply_async(tasks.announce_and_sleep, (folder,))
        [pid] = bench.announced(folder, 1)
        os.kill(pid, signal.SIGKILL)
        bench.expect_lost(outcome.get, exitcode=-signal.SIGKILL, function="announce_and_sleep", pid=pid)


@scenario("worker in a loop that never yields SIGKILLed from outside")
def deaf_worker_killed(bench: Bench) -> None:
    with bench.pool() as pool:
        folder = bench.folder()
        outcome = pool.apply_async(tasks.announce_and_hold_the_interpreter, (folder,))
        [pid] = bench.announced(folder, 1)
        os.kill(pid, signal.SIGKILL)
        bench.expect_lost(outcome.get, exitcode=-signal.SIGKILL, function="announce_and_hold_the_interpreter", pid=pid)


@scenario("idle workers SIGKILLed")
def idle_workers(bench: Bench) -> None:
    with bench.pool() as pool:
        bench.assert_sound(pool)
        for victims in (1, WORKERS):
            for pid in bench.worker_pids(pool)[:victims]:
                os.kill(pid, signal.SIGKILL)
            # Without a pause: the pool may not know yet, and no task had begun.
            bench.at(f"map after {victims} idle workers were killed")
            log = bench.log()
            jobs = [(log, item, "") for item in range(40)]
            assert pool.map(tasks.step, jobs, chunksize=1) == [item * 10 for item in range(40)]
            bench.assert_each_ran_once(log, range(40))
            bench.assert_sound(pool)


@scenario("idle worker SIGKILLed, noticed before the next call")
def idle_worker_noticed(bench: Bench) -> None:
    with bench.pool() as pool:
        bench.assert_sound(pool)
        before = set(bench.worker_pids(pool))
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        # A replacement comes without a call that would ask for one.
        until(
            lambda: len(now := set(bench.worker_pids(pool))) == WORKERS and victim not in now,
            f"another worker in place of {victim}",
        )


@scenario("all workers die at the same time")
def all_at_once(bench: Bench) -> None:
    with bench.pool() as pool:
        folder = bench.folder()
        outcomes = [pool.apply_async(tasks.announce_and_sleep, (folder,)) for _ in range(WORKERS)]
        waiting = pool.map_async(abs, [-3, -4], chunksize=1)
        for pid in bench.announced(folder, WORKERS):
            os.kill(pid, signal.SIGKILL)
        for outcome in outcomes:
            bench.expect_lost(outcome.get, exitcode=-signal.SIGKILL, function="announce_and_sleep")
        bench.at("the call that was waiting behind the dead")
        assert waiting.get() == [3, 4]


@scenario("every task of a map ends its worker")
def all_tasks_die(bench: Bench) -> None:
    with bench.pool() as pool:
        log = bench.log()
        jobs = [(log, item, "sigkill") for item in range(8)]
        bench.expect_lost(lambda: pool.map(tasks.step, jobs, chunksize=1), exitcode=-signal.SIGKILL, function="step")
        # map may raise before its other items have run, so wait for them.
        until(lambda: sum(bench.ran(log).values()) >= len(jobs), "all items to run")
        bench.assert_each_ran_once(log, range(8))


@scenario("scattered deaths in a long imap_unordered")
def scattered(bench: Bench) -> None:
    with bench.pool() as pool:
        log = bench.log()
        doomed = set(range(7, 100, 16))
        jobs = [(log, item, "sigkill" if item in doomed else "") for item in range(100)]
        results, losses = drain(pool.imap_unordered(tasks.step, jobs, chunksize=1))
        assert sorted(results) == [item * 10 for item in range(100) if item not in doomed]
        assert len(losses) == len(doomed), losses
        for error in losses:
            bench.check_lost(error, exitcode=-signal.SIGKILL, function="step")
        bench.assert_each_ran_once(log, range(100))


@scenario("death in the middle of a chunk")
def inside_a_chunk(bench: Bench) -> None:
    with bench.pool() as pool:
        log = bench.log()
        jobs = [(log, item, "sigkill" if item == 7 else "") for item in range(20)]
        outcome = pool.map_async(tasks.step, jobs, chunksize=5)
        bench.expect_lost(outcome.get, exitcode=-signal.SIGKILL, function="step", index=7)
        ran = bench.ran(log)
        assert max(ran.values()) == 1, f"ran twice: {ran}"
        expected = set(range(8)) | set(range(10, 20))
        assert expected <= set(ran), f"never ran: {sorted(expected - set(ran))}"


@scenario("what a dying worker said on stderr")
def last_words(bench: Bench) -> None:
    capture = Path(bench.workdir, "stderr")
    keep = os.dup(2)
    sink = os.open(capture, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(sink, 2)
    os.close(sink)
    try:
        with bench.pool() as pool:
            pool.map(tasks.print_and_die, [], chunksize=1)
            lines = [f"last words {number}" for number in range(6)]
            error = bench.expect_lost(
                lambda: pool.apply(tasks.print_and_die, (lines, "abort")),
                exitcode=-signal.SIGABRT,
                function="print_and_die",
            )
            for line in lines:
                assert line in error.stderr_tail, f"{line!r} is not in {error.stderr_tail!r}"
                assert line in str(error)
            bench.at("waiting for the text on the real stderr")
            until(lambda: all(line in capture.read_text() for line in lines), "the lines on the pool's own stderr")
            bench.at("a worker that says a megabyte")
            flood = [f"{number:07d}" + "." * 1016 for number in range(1024)]
            assert pool.apply(tasks.print_and_die, (flood, "")) is None
            error = bench.expect_lost(
                lambda: pool.apply(tasks.print_and_die, ([*flood, "the end"], "exit_3")),
                exitcode=3,
                function="print_and_die",
            )
            assert error.stderr_tail.rstrip().endswith("the end"), error.stderr_tail[-200:]
            assert len(error.stderr_tail) <= 65536, f"a tail of {len(error.stderr_tail)} characters"
            assert "last words" not in error.stderr_tail, "the tail of another worker"
    finally:
        os.dup2(keep, 2)
        os.close(keep)


@scenario("task closes every descriptor of its worker")
def descriptors_closed(bench: Bench) -> None:
    with bench.pool() as pool:
        outcome = pool.apply_async(tasks.close_every_descriptor)
        # Whether such a worker can still deliver is its own affair; the call must return.
        try:
            assert outcome.get() is None
        except Exception as error:
            bench.check_lost(error, exitcode=error.exitcode, function="close_every_descriptor")


class DiesWhenPickled:
    def __reduce__(self):
        tasks.die("sigkill")


class DiesWhenUnpickled:
    def __reduce__(self):
        return tasks.die, ("sigkill",)


def make_deadly() -> DiesWhenPickled:
    return DiesWhenPickled()


@scenario("worker dies while it pickles its result")
def while_encoding(bench: Bench) -> None:
    with bench.pool() as pool:
        bench.expect_lost(lambda: pool.apply(make_deadly), exitcode=-signal.SIGKILL, function="make_deadly")


@scenario("worker dies while it unpickles its argument")
def while_decoding(bench: Bench) -> None:
    with bench.pool() as pool:
        bench.expect_lost(
            lambda: pool.apply(tasks.identity, (DiesWhenUnpickled(),)), exitcode=-signal.SIGKILL, function="identity"
        )
        results, losses = drain(pool.imap(tasks.identity, [1, DiesWhenUnpickled(), 3, 4, 5], chunksize=1))
        assert results == [1, 3, 4, 5] and len(losses) == 1, (results, losses)
        bench.check_lost(losses[0], exitcode=-signal.SIGKILL, function="identity", index=1)


@scenario("workers SIGKILLed at random while large results stream")
def while_streaming(bench: Bench) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    chance = random.Random(seed)
    size, count = 1 << 20, 60
    with bench.pool() as pool:
        log, folder = bench.log(), bench.folder()
        stop = threading.Event()

        def kill_now_and_then() -> None:
            for _ in range(8):
                if stop.wait(chance.uniform(0.005, 0.05)):
                    return
                # Only those that have worked: a pool may give up if none ever gets so far.
                known = set(map(int, os.listdir(folder))) & set(bench.worker_pids(pool))
                if known:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(sorted(known)), signal.SIGKILL)

        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        try:
            jobs = [(log, folder, item, size) for item in range(count)]
            results, losses = drain(pool.imap_unordered(tasks.fill, jobs, chunksize=1))
        finally:
            stop.set()
            killer.join()
        assert len(results) + len(losses) == count, f"{len(results)} results, {len(losses)} losses of {count}: {losses}"
        for value in results:
            assert len(value) == size and value == value[:1] * size, "a torn result"
        assert len({value[0] for value in results}) == len(results), "a result came twice"
        for error in losses:
            bench.check_lost(error, exitcode=-signal.SIGKILL, function="fill")
        ran = bench.ran(log)
        assert max(ran.values()) == 1, f"ran twice: {[item for item in ran if ran[item] > 1]}"


@scenario("workers die while many threads use the pool")
def many_threads(bench: Bench) -> None:
    with bench.pool() as pool:
        log = bench.log()
        wrong: list[object] = []

        def use(first: int) -> None:
            for item in range(first, first + 15):
                doomed = item % 15 == 7
                try:
                    value = pool.apply(tasks.step, ((log, item, "sigkill" if doomed else ""),))
                    if doomed or value != item * 10:
                        wrong.append((item, value))
                except Exception as error:
                    if not doomed:
                        wrong.append((item, error))

        # Daemons, so that threads which hang do not keep this process from reporting it.
        users = [threading.Thread(target=use, args=(100 * n,), daemon=True) for n in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert not wrong, wrong
        bench.assert_each_ran_once(log, itertools.chain(*(range(100 * n, 100 * n + 15) for n in range(4))))


@scenario("maxtasksperchild together with deaths")
def recycled_and_dying(bench: Bench) -> None:
    with bench.pool(maxtasksperchild=3) as pool:
        log = bench.log()
        doomed = {5, 6, 20}
        jobs = [(log, item, "exit_3" if item in doomed else "") for item in range(30)]
        results, losses = drain(pool.imap(tasks.step, jobs, chunksize=1))
        assert results == [item * 10 for item in range(30) if item not in doomed]
        assert len(losses) == len(doomed), losses
        for error, item in zip(losses, sorted(doomed)):
            bench.check_lost(error, exitcode=3, function="step", index=item)
        bench.assert_each_ran_once(log, range(30))


@scenario("worker frozen by SIGSTOP is killed")
def frozen_worker(bench: Bench) -> None:
    with bench.pool() as pool:
        folder = bench.folder()
        outcome = pool.apply_async(tasks.announce_and_sleep, (folder,))
        [pid] = bench.announced(folder, 1)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.05)
        assert pool.apply(abs, (-5,)) == 5, "the other worker goes on"
        os.kill(pid, signal.SIGKILL)
        bench.expect_lost(outcome.get, exitcode=-signal.SIGKILL, function="announce_and_sleep", pid=pid)


def drain(iterator) -> tuple[list, list[Exception]]:
    """All results, and all errors met on the way, which do not end the iteration."""
    results, errors = [], []
    while True:
        try:
            results.append(next(iterator))
        except StopIteration:
            return results, errors
        except Exception as error:
            errors.append(error)
