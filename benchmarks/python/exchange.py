"""The cases beside the pool: queues, pipes, locks, values, managers, processes.

Where two processes take part, one of them is the agent itself; the other is up
and waits at a gate before the time begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import tasks
from adapters.base import NotOffered, PoolAdapter
from stage import MEDIUM, MIDDLE, Stage, WrongAnswer, expect, expect_array

ARRAYS = 64  # of 1 MiB through a queue
LONGER = 5  # times as many round trips as through a pool: two processes need a while to settle on their cores
KEYS = 64  # in a manager's dict


@contextmanager
def beside(context: Any, target: Callable[..., None], *args: Any) -> Iterator[Any]:
    """A process that runs `target(*args)`; one end of a pipe replaces Ellipsis among the arguments.

    The block has the other end, over which the process has said that it is up. After the block the process must end by
    itself, without an error.
    """
    ours, its = context.Pipe()
    process = context.Process(target=target, args=tuple(its if arg is ... else arg for arg in args))
    process.start()
    its.close()
    try:
        expect(ours.recv(), "up")
        yield ours
        ours.close()
        process.join()
    except BaseException:
        process.kill()
        process.join()
        raise
    ended(process)


def ended(process: Any) -> None:
    if process.exitcode != 0:
        raise WrongAnswer(f"the process ended with {process.exitcode}")
    process.close()


def queue_small(stage: Stage) -> None:
    count = stage.setting.items
    context = stage.context()
    queue = context.Queue()

    def take_all() -> list[int]:
        gate.send("go")
        return [queue.get() for _ in range(count)]

    with beside(context, tasks.produce, queue, ..., count) as gate:
        got = stage.timed(take_all, count)
    expect(got, list(range(count)))


def queue_arrays(stage: Stage) -> None:
    context = stage.context()
    queue = context.Queue()

    def take_all() -> list[tuple[int, float, float]]:
        gate.send("go")
        return [tasks.ends(queue.get()) for _ in range(ARRAYS)]

    with beside(context, tasks.produce_arrays, queue, ..., ARRAYS, MEDIUM) as gate:
        got = stage.timed(take_all, ARRAYS)
    expect(got, [(MEDIUM * 8, float(number), float(number)) for number in range(ARRAYS)])


def round_trip(pipe: Any, value: Any) -> Any:
    pipe.send(value)
    return pipe.recv()


def pipe_small(stage: Stage) -> None:
    count = stage.setting.calls * LONGER
    with beside(stage.context(), tasks.echo, ...) as pipe:
        expect(round_trip(pipe, "hello"), "hello")
        got = stage.timed(lambda: [round_trip(pipe, number) for number in range(count)], count)
        pipe.send(None)
    expect(got, list(range(count)))


def pipe_arrays(stage: Stage) -> None:
    array = tasks.ready_array(MIDDLE)
    with beside(stage.context(), tasks.echo, ...) as pipe:
        for _ in range(2):
            expect_array(round_trip(pipe, array), array)
        for _ in range(2 * stage.setting.repeats):
            expect_array(stage.timed(lambda: round_trip(pipe, array)), array)
        pipe.send(None)


def lock_alone(stage: Stage) -> None:
    lock = stage.context().Lock()
    count = stage.setting.calls * 100

    def take_and_give() -> None:
        for _ in range(count):
            with lock:
                pass

    stage.timed(take_and_give, count)
    expect(lock.acquire(False), True)


def value_contended(stage: Stage) -> None:
    context = stage.context()
    count = stage.setting.calls * 10
    value = context.Value("q", 0)

    def both() -> str:
        gate.send("go")
        tasks.add_ones(value, count)
        done: str = gate.recv()
        return done

    with beside(context, tasks.count_up, value, ..., count) as gate:
        expect(stage.timed(both, 2 * count), "done")
    expect(value.value, 2 * count)


def manager_dict(stage: Stage) -> None:
    count = stage.setting.calls * LONGER

    def set_and_get() -> list[int]:
        answers = []
        for number in range(count):
            shared[number % KEYS] = number
            answers.append(shared[number % KEYS])
        return answers

    with stage.context().Manager() as manager:
        shared = manager.dict()
        shared["up"] = True
        got = stage.timed(set_and_get, 2 * count)
        expect(len(shared), KEYS + 1)
    expect(got, list(range(count)))


def manager_life(stage: Stage) -> None:
    context = stage.context()

    def life() -> None:
        context.Manager().shutdown()

    life()
    for _ in range(4 * stage.setting.repeats):
        stage.timed(life)


def shared_memory_life(stage: Stage) -> None:
    if not isinstance(stage.library, PoolAdapter):
        raise NotOffered("no shared memory")
    module = import_module(f"{stage.library.module_name}.shared_memory")
    count = stage.setting.calls

    def life() -> None:
        for _ in range(count):
            made = module.SharedMemory(create=True, size=4096)
            module.SharedMemory(made.name).close()
            made.close()
            made.unlink()

    stage.timed(life, count)


def shareable_list(stage: Stage) -> None:
    """Items of all kinds, each replaced and read."""
    if not isinstance(stage.library, PoolAdapter):
        raise NotOffered("no shared memory")
    module = import_module(f"{stage.library.module_name}.shared_memory")
    values = [1, 2.5, "text", b"bytes", None, True]
    count = stage.setting.calls // len(values)
    items = module.ShareableList(values * count)

    def pass_over() -> list[Any]:
        for place, value in enumerate(values * count):
            items[place] = value
        return list(items)

    try:
        expect(stage.timed(pass_over, len(items)), values * count)
    finally:
        items.shm.close()
        items.shm.unlink()


def pipe_life(stage: Stage) -> None:
    context = stage.context()
    count = stage.setting.calls

    def life() -> None:
        for number in range(count):
            here, there = context.Pipe()
            here.send(number)
            expect(there.recv(), number)

    stage.timed(life, count)


def process_life(method: str) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        context = stage.context(method)

        def life() -> Any:
            process = context.Process(target=tasks.double, args=(1,))
            process.start()
            process.join()
            return process

        ended(life())  # starts what is started once: a fork server, a tracker
        for _ in range(4 * stage.setting.repeats):
            ended(stage.timed(life))

    return run
