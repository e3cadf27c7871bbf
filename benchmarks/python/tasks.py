"""The functions that run in the workers.

They sit in a module of their own, with light imports, so that every library
can name them in a child under every start method, and so that the time to
start a worker is the library's and not this file's.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The large array that `ready_array` answers with: made once per process, so
# that a case which returns it measures the way back and not the making.
_ready: dict[int, Any] = {}

# What `keep` has kept.
_kept: list[Any] = []


def double(number: int) -> int:
    """Do as little as a task can: what is left is the pool's own cost."""
    return number * 2


async def double_later(number: int) -> int:
    """`double` for a library that takes only coroutines."""
    return number * 2


COROUTINES = {double: double_later}


def nap(seconds: float) -> float:
    """Sleep."""
    import time

    time.sleep(seconds)
    return seconds


def die(_: Any) -> None:
    """Kill this process."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def identity(value: Any) -> Any:
    """Send back what came."""
    return value


def burn(loops: int) -> int:
    """Keep a core busy for a fixed amount of work, also while other processes run."""
    value = loops
    for _ in range(loops):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return value


def ends(array: Any) -> tuple[int, float, float]:
    """Look at an array's size in bytes, its first and its last element."""
    return array.nbytes, float(array[0]), float(array[-1])


def touch(array: Any) -> tuple[int, float]:
    """Read one element of every 4 KiB page, so that each library has to map them."""
    return array.nbytes, float(array[:: 4096 // array.itemsize].sum())


def ready_array(length: int) -> Any:
    """Answer with `arange(length)` as float64, made on this process's first call."""
    if length not in _ready:
        import numpy

        _ready[length] = numpy.arange(length, dtype=numpy.float64)
    return _ready[length]


def nothing(*_: Any) -> None:
    """Do nothing with what came."""


def ints(count: int) -> list[int]:
    """Answer with so many numbers."""
    return list(range(count))


def lists(count: int) -> list[list[Any]]:
    """Answer with so many lists of plain values."""
    return [[number, number + 1, "x", None, 2.5] for number in range(count)]


def records(count: int) -> list[dict[str, Any]]:
    """Answer with so many records, as a reader of JSON or of a table makes them."""
    return [{"id": number, "name": f"user{number}", "score": number / 3, "tags": ["a", "b"]} for number in range(count)]


def forget_arrays() -> None:
    """Give the memory of `ready_array` back."""
    _ready.clear()


def keep(array: Any) -> tuple[int, float, float]:
    """`ends`, of an array that stays until this process is asked to `let_go`."""
    _kept.append(array)
    return ends(array)


def let_go(number: int) -> int:
    """Drop what `keep` kept in this process."""
    _kept.clear()
    return number


def pick(array: Any, index: int) -> float:
    """One element of an array that travels inside a `functools.partial`."""
    return float(array[index])


# What a process does at the other end of a queue, a pipe or a value. Each says that it is up before it is asked to go.


def produce(queue: Any, gate: Any, count: int) -> None:
    """Put so many numbers."""
    gate.send("up")
    gate.recv()
    for number in range(count):
        queue.put(number)


def produce_arrays(queue: Any, gate: Any, count: int, length: int) -> None:
    """Put so many arrays, each made before and with its number in every element."""
    import numpy

    arrays = [numpy.full(length, number, dtype=numpy.float64) for number in range(count)]
    gate.send("up")
    gate.recv()
    for array in arrays:
        queue.put(array)


def put_again_and_again(queue: Any, gate: Any, count: int, length: int, times: int) -> None:
    """Put `ready_array(length)` so many times, each time that the gate says so."""
    array = ready_array(length)
    gate.send("up")
    for _ in range(times):
        gate.recv()
        for _ in range(count):
            queue.put(array)


def send_again_and_again(gate: Any, count: int, length: int, times: int) -> None:
    """The same, through the gate itself."""
    array = ready_array(length)
    gate.send("up")
    for _ in range(times):
        gate.recv()
        for _ in range(count):
            gate.send(array)


def echo(pipe: Any) -> None:
    """Send everything back, until None comes."""
    pipe.send("up")
    while (value := pipe.recv()) is not None:
        pipe.send(value)


def count_up(value: Any, gate: Any, times: int) -> None:
    """Count, when told to; say when done."""
    gate.send("up")
    gate.recv()
    add_ones(value, times)
    gate.send("done")


def add_ones(value: Any, times: int) -> None:
    for _ in range(times):
        with value.get_lock():
            value.value += 1
