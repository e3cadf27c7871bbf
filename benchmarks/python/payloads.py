"""What a payload costs at each size: through pools, queues and pipes, looked at once or kept, beside one copy of its bytes.

All sizes are of float64 arrays.  A case moves so many of them that some tens of megabytes are on their way, and its figure is the
time of one.  "once" means that the receiver looks at both ends of an array and lets it go before it takes the next one, "kept" that
it has all of them at the end.  What is timed is the third round: in the first all memory is fresh, and in the second a sender maps
the memory that it uses again.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import tasks
from exchange import beside
from stage import Stage, expect

#: bytes, by what the tables call them
SIZES = {
    "1K": 1_000,
    "5K": 5_000,
    "20K": 20_000,
    "100K": 100_000,
    "300K": 300_000,
    "1M": 1_000_000,
    "5M": 5_000_000,
    "64M": 64_000_000,
}
_VOLUME = 64_000_000  # bytes that a case moves, as far as the most and the fewest arrays allow
_MOST, _FEWEST = 1_000, 3
#: times that a case moves them; the last is timed
ROUNDS = 3


def floor(size: int) -> float:
    """How many times as fast as the standard package a payload of so many bytes has to be."""
    return 2 if size < 20_000 else 4 if size < 5_000_000 else 10


def _number(size: int) -> int:
    return max(_FEWEST, min(_MOST, _VOLUME // size))


def _look(arrays: Iterator[Any], length: int) -> int:
    """The number of arrays; each is read and released before the next is taken."""
    wanted = length * 8, 0.0, length - 1.0
    seen = 0
    for array in arrays:
        expect(tasks.ends(array), wanted)
        del array
        seen += 1
    return seen


def _check(arrays: list[Any], length: int, number: int) -> None:
    expect(_look(iter(arrays), length), number)


def argument(size: int, kept: bool) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        length, number = size // 8, _number(size)
        array = tasks.ready_array(length)
        function = tasks.keep if kept else tasks.ends
        with stage.pool() as pool:
            for repeat in range(ROUNDS):
                call = lambda: list(stage.library.imap(pool, function, [array] * number))  # noqa: E731
                got = stage.timed(call, number) if repeat == ROUNDS - 1 else call()
                expect(got, [tasks.ends(array)] * number)
                list(stage.library.map(pool, tasks.let_go, list(range(2 * stage.setting.workers)), 1))

    return run


def result(size: int, kept: bool) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        length, number = size // 8, _number(size)
        tasks.ready_array(length)  # so that forked workers have it
        wanted = [length] * number
        with stage.pool() as pool:
            for repeat in range(ROUNDS):
                if kept:
                    call: Callable[[], Any] = lambda: stage.library.map(pool, tasks.ready_array, wanted, 1)  # noqa: E731
                else:
                    call = lambda: _look(stage.library.imap(pool, tasks.ready_array, wanted), length)  # noqa: E731
                got = stage.timed(call, number) if repeat == ROUNDS - 1 else call()
                if kept:
                    _check(got, length, number)
                else:
                    expect(got, number)
                del got

    return run


def _received(receive: Callable[[], Any], number: int) -> Iterator[Any]:
    for _ in range(number):
        yield receive()


def _stream(stage: Stage, gate: Any, receive: Callable[[], Any], size: int, kept: bool) -> None:
    """Time the messages of a process, which sends one for each request."""
    length, number = size // 8, _number(size)

    def take() -> Any:
        gate.send("go")
        return [receive() for _ in range(number)] if kept else _look(_received(receive, number), length)

    for repeat in range(ROUNDS):
        got = stage.timed(take, number) if repeat == ROUNDS - 1 else take()
        if kept:
            _check(got, length, number)
        else:
            expect(got, number)
        del got


def queue(size: int, kept: bool) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        context = stage.context()
        items = context.Queue()
        with beside(context, tasks.put_again_and_again, items, ..., _number(size), size // 8, ROUNDS) as gate:
            _stream(stage, gate, items.get, size, kept)

    return run


def pipe(size: int, kept: bool) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        with beside(stage.context(), tasks.send_again_and_again, ..., _number(size), size // 8, ROUNDS) as gate:
            _stream(stage, gate, gate.recv, size, kept)

    return run


def copy(size: int) -> Callable[[Stage], None]:
    """One copy of the bytes between two arrays that are in memory already."""

    def run(stage: Stage) -> None:
        import numpy

        here, number = tasks.ready_array(size // 8), _number(size)
        there = numpy.zeros_like(here)

        def copies() -> None:
            for _ in range(number):
                numpy.copyto(there, here)

        copies()
        stage.timed(copies, number)

    return run


def mapping(size: int) -> Callable[[Stage], None]:
    """A mapping of so many bytes that are in memory already: made, read on every page, and released."""

    def run(stage: Stage) -> None:
        import numpy

        here = tasks.ready_array(size // 8)
        descriptor = os.memfd_create("mapping")
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(here)
            for _ in range(2 + stage.setting.repeats):
                begun = perf_counter()
                memory = mmap.mmap(descriptor, here.nbytes, mmap.MAP_PRIVATE)
                array = numpy.frombuffer(memory)
                tasks.touch(array)
                del array
                memory.close()
                stage.seconds += perf_counter() - begun
                stage.units += 1
        finally:
            os.close(descriptor)

    return run


#: by the end of a case's key: the title, and what makes its function
WAYS: dict[str, tuple[str, Callable[[int], Callable[[Stage], None]]]] = {
    "argument": ("argument", lambda size: argument(size, kept=False)),
    "argument-kept": ("argument, kept", lambda size: argument(size, kept=True)),
    "result": ("result", lambda size: result(size, kept=False)),
    "result-kept": ("result, kept", lambda size: result(size, kept=True)),
    "queue": ("Queue", lambda size: queue(size, kept=False)),
    "queue-kept": ("Queue, kept", lambda size: queue(size, kept=True)),
    "pipe": ("Pipe", lambda size: pipe(size, kept=False)),
    "pipe-kept": ("Pipe, kept", lambda size: pipe(size, kept=True)),
}
