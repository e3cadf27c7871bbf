"""What is measured: each case is one function that runs once and reports seconds.

A case opens its own pool, warms it up, takes the time of the call alone and
checks every result outside of that time. So a library that answers wrongly is
found out, and nothing of one case is left for the next. The cases of pools are
here, those of queues, pipes, locks, managers and processes in exchange.py.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import awaits
import exchange
import loops
import payloads
import plain
import tasks
from adapters.base import NotOffered
from stage import LARGE, MEDIUM, Stage, doubled, expect, expect_array


def map_one_by_one(threads: bool = False) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        count = stage.setting.items
        numbers = list(range(count))
        with stage.pool(threads=threads) as pool:
            got = stage.timed(lambda: stage.library.map(pool, tasks.double, numbers, 1), count)
        expect(got, doubled(count))

    return run


def map_without_counters(stage: Stage) -> None:
    """The same while maniple does not count."""
    if stage.library.distribution != "maniple":
        raise NotOffered("no counters")
    os.environ["MANIPLE_COUNTERS"] = "0"
    try:
        map_one_by_one()(stage)
    finally:
        del os.environ["MANIPLE_COUNTERS"]


def map_default(stage: Stage) -> None:
    count = stage.setting.many
    numbers = list(range(count))
    with stage.pool() as pool:
        got = stage.timed(lambda: stage.library.map(pool, tasks.double, numbers), count)
    expect(got, doubled(count))


def imap_case(ordered: bool, generator: bool, threads: bool = False) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        count = stage.setting.items
        method = stage.library.imap if ordered else stage.library.imap_unordered
        items: Any = (number for number in range(count)) if generator else list(range(count))
        with stage.pool(unordered=not ordered, threads=threads) as pool:
            got = stage.timed(lambda: list(method(pool, tasks.double, items)), count)
        expect(got if ordered else sorted(got), doubled(count))

    return run


def apply_burst(threads: bool = False) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        count = stage.setting.burst
        submit = stage.library.submit

        def burst() -> list[int]:
            waiting = [submit(pool, tasks.double, number) for number in range(count)]
            return [wait() for wait in waiting]

        with stage.pool(threads=threads) as pool:
            got = stage.timed(burst, count)
        expect(got, doubled(count))

    return run


def maps_burst(stage: Stage) -> None:
    """Many maps for which no thread waits."""
    count = stage.setting.burst // 20
    numbers = range(10)
    results: list[list[int]] = []

    def burst() -> None:
        results.clear()
        all_ended = threading.Event()

        def ended(result: list[int]) -> None:
            results.append(result)
            if len(results) == count:
                all_ended.set()

        for _ in range(count):
            stage.library.submit_map(pool, tasks.double, numbers, ended)
        all_ended.wait()

    with stage.pool() as pool:
        stage.timed(burst, count)
    expect(results, [doubled(10)] * count)


def streams_burst(threads: bool = False, generators: bool = False) -> Callable[[Stage], None]:
    """Many streams over short iterators, opened at once and then read."""
    items: Callable[[], Any] = (lambda: (n for n in range(3))) if generators else (lambda: iter(range(3)))

    def run(stage: Stage) -> None:
        count = stage.setting.burst // 20

        def burst() -> list[list[int]]:
            streams = [stage.library.imap(pool, tasks.double, items()) for _ in range(count)]
            return [list(stream) for stream in streams]

        with stage.pool(threads=threads) as pool:
            got = stage.timed(burst, count)
        expect(got, [doubled(3)] * count)

    return run


def futures_burst(stage: Stage) -> None:
    count = stage.setting.burst
    submit = stage.library.future

    def burst() -> list[int]:
        futures = [submit(executor, tasks.double, number) for number in range(count)]
        return [future.result() for future in futures]

    with stage.executor() as executor:
        got = stage.timed(burst, count)
    expect(got, doubled(count))


def future_round_trip(stage: Stage) -> None:
    count = stage.setting.calls
    submit = stage.library.future
    with stage.executor() as executor:
        got = stage.timed(lambda: [submit(executor, tasks.double, number).result() for number in range(count)], count)
    expect(got, doubled(count))


def apply_round_trip(stage: Stage) -> None:
    count = stage.setting.calls
    call = stage.library.call
    with stage.pool() as pool:
        got = stage.timed(lambda: [call(pool, tasks.double, number) for number in range(count)], count)
    expect(got, doubled(count))


def limited_tasks(stage: Stage) -> None:
    """Small tasks, each with a time limit that none reaches."""
    count = stage.setting.burst // 4
    numbers = list(range(count))
    with stage.pool() as pool:
        got = stage.timed(lambda: stage.library.limited_map(pool, tasks.double, numbers, 60.0), count)
    expect(got, doubled(count))


def after_kill(stage: Stage) -> None:
    """From the end of a task at its time limit to the end of the next task."""
    limit = 0.1
    with stage.pool() as pool:
        for _ in range(4 * stage.setting.repeats):
            begun = perf_counter()
            expect(stage.library.limited_call(pool, tasks.nap, 60.0, limit), False)
            expect(stage.library.call(pool, tasks.double, 2), 4)
            stage.seconds += perf_counter() - begun - limit
            stage.units += 1


def after_loss(stage: Stage) -> None:
    """From the call of a task that kills its worker to the end of as many further tasks as there are workers."""
    workers = stage.setting.workers

    def recover() -> list[Any]:
        stage.library.lost_call(pool, tasks.die, 0)
        return [wait() for wait in [stage.library.submit(pool, tasks.double, number) for number in range(workers)]]

    with stage.pool() as pool:
        for _ in range(4 * stage.setting.repeats):
            expect(stage.timed(recover), doubled(workers))


def fairness(stage: Stage) -> None:
    """How long four short calls take while a long call has given its tasks to the pool first."""
    submit = stage.library.submit
    with stage.pool() as pool:
        for _ in range(stage.setting.repeats):
            long = [submit(pool, tasks.nap, 0.001) for _ in range(500)]
            begun = perf_counter()
            for _ in range(4):
                expect(stage.library.map(pool, tasks.double, list(range(8)), 1), doubled(8))
            stage.seconds += perf_counter() - begun
            stage.units += 1
            for wait in long:
                wait()


def array_argument(function: Callable[[Any], Any]) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        array = tasks.ready_array(LARGE)
        wanted = function(array)
        with stage.pool() as pool:
            expect(stage.library.call(pool, function, array), wanted)
            for _ in range(stage.setting.repeats):
                expect(stage.timed(lambda: stage.library.call(pool, function, array)), wanted)

    return run


def array_result(stage: Stage) -> None:
    wanted = tasks.ready_array(LARGE)  # made here, so that forked workers have it already
    with stage.pool() as pool:
        for _ in range(2 * stage.setting.workers):  # and so that the others make it now
            expect(stage.library.call(pool, tasks.ready_array, LARGE).nbytes, wanted.nbytes)
        for _ in range(stage.setting.repeats):
            expect_array(stage.timed(lambda: stage.library.call(pool, tasks.ready_array, LARGE)), wanted)


def arrays_and_back(stage: Stage) -> None:
    base = tasks.ready_array(MEDIUM)
    arrays = [base + number for number in range(32)]
    with stage.pool() as pool:
        stage.library.map(pool, tasks.identity, arrays)
        for _ in range(stage.setting.repeats):
            got = stage.timed(lambda: stage.library.map(pool, tasks.identity, arrays))
            expect(len(got), len(arrays))
            for one, wanted in zip(got, arrays):
                expect_array(one, wanted)


def array_in_function(stage: Stage) -> None:
    function = partial(tasks.pick, tasks.ready_array(LARGE))
    indices = [number * 1000 for number in range(32)]
    with stage.pool() as pool:
        got = stage.timed(lambda: stage.library.map(pool, function, indices, 1))
    expect(got, [float(index) for index in indices])


def skewed(chunksize: int | None) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        short, long = stage.setting.loops_per_ms // 10, stage.setting.loops_per_ms * 50
        work = [short] * 2000
        for place in random.Random(7).sample(range(len(work)), 4):
            work[place] = long
        work[1200:1204] = [long] * 4  # the other four come one after another
        answers = {loops: tasks.burn(loops) for loops in (short, long)}
        with stage.pool() as pool:
            got = stage.timed(lambda: stage.library.map(pool, tasks.burn, work, chunksize))
        expect(got, [answers[loops] for loops in work])

    return run


def start_to_exit(method: str) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        chosen = stage.library.method_for(method, exactly=True)
        numbers = list(range(100))

        def life() -> list[int]:
            with stage.library.session(stage.setting.workers, chosen) as pool:
                return stage.library.map(pool, tasks.double, numbers)

        expect(life(), doubled(100))  # starts what is started once: a fork server, a tracker
        for _ in range(stage.setting.repeats):
            expect(stage.timed(life), doubled(100))

    return run


def script(method: str) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        stage.library.method_for(method, exactly=True)
        name = type(stage.library).__module__.rpartition(".")[2]
        file = Path(__file__).with_name("oneshot.py")
        command = [sys.executable, str(file), name, method, str(stage.setting.workers)]

        def whole() -> str:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if done.returncode:
                last = done.stderr.strip().rpartition("\n")[2]
                raise RuntimeError(f"the script ended with {done.returncode}: {last}")
            return done.stdout.strip()

        expect(stage.timed(whole), str(sum(doubled(100))))

    return run


@dataclass(frozen=True)
class Case:
    """`unit` is "rate" (tasks or items per second), "ns", "us" or "ms" (time per call)."""

    key: str
    title: str
    unit: str
    run: Callable[[Stage], None]
    floor: float | None = None  # times as fast as the reference, at least


START_METHODS = ("fork", "spawn", "forkserver")

CASES: tuple[Case, ...] = (
    Case("map-1", "map, chunksize=1, small ints", "rate", map_one_by_one(), 10),
    Case("map-1-uncounted", "the same without maniple's counters", "rate", map_without_counters),
    Case("imap-list", "imap, list", "rate", imap_case(ordered=True, generator=False), 10),
    Case("imap-gen", "imap, generator", "rate", imap_case(ordered=True, generator=True), 10),
    Case("unordered-list", "imap_unordered, list", "rate", imap_case(ordered=False, generator=False), 10),
    Case("unordered-gen", "imap_unordered, generator", "rate", imap_case(ordered=False, generator=True), 10),
    Case("apply-async", "apply_async, burst then get all", "rate", apply_burst(), 8),
    Case("maps-async", "map_async of 10 items, a thousand at once", "rate", maps_burst, 1),
    Case("streams", "imap of 3 items, a thousand at once", "rate", streams_burst(), 1),
    Case("apply", "apply, round trip", "us", apply_round_trip, 8),
    Case("futures", "submit and gather of 20,000 futures", "rate", futures_burst, 4),
    Case("future", "submit, wait for the future, round trip", "us", future_round_trip, 3),
    *(Case(*case) for case in awaits.CASES),
    Case("deadline", "tasks with a time limit", "rate", limited_tasks),
    Case("after-kill", "from a task's end at its limit to the next task's", "ms", after_kill),
    Case("after-loss", "a worker is killed, and the pool goes on", "ms", after_loss),
    Case("fairness", "four short calls beside a long one", "ms", fairness, 2),
    Case("array-arg", "64 MB array as argument", "ms", array_argument(tasks.ends), 10),
    Case("array-arg-read", "the same, every page read", "ms", array_argument(tasks.touch)),
    Case("array-result", "64 MB array as result", "ms", array_result, 10),
    Case("arrays-echo", "32 arrays of 1 MB there and back", "ms", arrays_and_back, 6),
    Case("partial-64mb", "partial with 64 MB, 32 items", "ms", array_in_function, 80),
    Case("map-default", "map, default chunks, small ints", "rate", map_default, 1),
    Case("skewed", "skewed work, default chunks", "ms", skewed(None), 1),
    Case("skewed-1", "skewed work, chunksize=1", "ms", skewed(1), 1),
    *(Case(f"start-{name}", f"start, map, exit: {name}", "ms", start_to_exit(name), 1) for name in START_METHODS),
    *(Case(f"script-{name}", f"a whole script: {name}", "ms", script(name)) for name in START_METHODS),
    Case("queue-small", "Queue, small ints", "rate", exchange.queue_small, 4),
    Case("queue-array", "Queue, 1 MB arrays", "us", exchange.queue_arrays, 5),
    Case("pipe-small", "Pipe, round trip of an int", "us", exchange.pipe_small, 1.5),
    Case("pipe-array", "Pipe, round trip of an 8 MB array", "ms", exchange.pipe_arrays, 4),
    Case("lock", "lock, uncontended", "ns", exchange.lock_alone, 1),
    Case("value", "Value under its lock, two processes", "us", exchange.value_contended, 1.5),
    Case("manager-dict", "manager's dict, set and get", "us", exchange.manager_dict, 3),
    Case("manager-life", "Manager, start and end", "ms", exchange.manager_life, 1),
    Case("pipe-life", "Pipe, made for one message", "us", exchange.pipe_life, 1),
    Case("shm-life", "SharedMemory, made, attached, removed", "us", exchange.shared_memory_life, 1),
    Case("list-items", "ShareableList, items set and read", "us", exchange.shareable_list, 1.2),
    Case("thread-map-1", "ThreadPool: map, chunksize=1", "rate", map_one_by_one(threads=True), 1),
    Case("thread-imap-list", "ThreadPool: imap, list", "rate", imap_case(True, False, threads=True), 1),
    Case("thread-imap-gen", "ThreadPool: imap, generator", "rate", imap_case(True, True, threads=True), 1),
    Case("thread-streams", "ThreadPool: imap of 3 items, a thousand at once", "rate", streams_burst(threads=True)),
    Case(
        "thread-streams-gen",
        "ThreadPool: imap over a generator of 3 items, a thousand at once",
        "rate",
        streams_burst(threads=True, generators=True),
    ),
    Case("thread-apply-async", "ThreadPool: apply_async, burst", "rate", apply_burst(threads=True), 1),
    *(Case(key, title, "ms", run, least) for key, title, run, least in plain.CASES),
    *(Case(*case) for case in loops.CASES),
    *(
        Case(f"process-{name}", f"Process, start and join: {name}", "ms", exchange.process_life(name), 1)
        for name in START_METHODS
    ),
)
#: one way that a payload goes, at one size
PAYLOADS: tuple[Case, ...] = tuple(
    Case(f"{way}-{name}", f"{title}, {name}", "us", make(size), payloads.floor(size))
    for way, (title, make) in payloads.WAYS.items()
    for name, size in payloads.SIZES.items()
)
#: what they are held against: the same in every library
YARDSTICKS: tuple[Case, ...] = tuple(
    Case(f"{key}-{name}", f"one {key}, {name}", "us", make(size))
    for key, make in (("copy", payloads.copy), ("mapping", payloads.mapping))
    for name, size in payloads.SIZES.items()
)
BY_KEY = {case.key: case for case in (*CASES, *PAYLOADS, *YARDSTICKS)}


def chosen(patterns: list[str]) -> list[Case]:
    """The cases that the patterns name, in the table's order: each a key, or the beginning of some; `CASES` without patterns."""
    if not patterns:
        return list(CASES)
    keys: set[str] = set()
    for pattern in patterns:
        found = {pattern} if pattern in BY_KEY else {key for key in BY_KEY if key.startswith(pattern)}
        if not found:
            raise SystemExit(f"no case is called {pattern}; there are: {', '.join(BY_KEY)}")
        keys |= found
    return [case for case in BY_KEY.values() if case.key in keys]
