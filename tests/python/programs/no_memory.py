"""A program whose C library has no memory left, not even for the smallest allocations, and what maniple does there.

Arguments: package, start method, and how many small objects the interpreter has left. Says `ok` or what went wrong.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import random
import resource
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes = [ctypes.c_size_t]
LIBC.free.argtypes = [ctypes.c_void_p]
# What is taken is noted in memory that is there already.
TAKEN = (ctypes.c_void_p * 400_000)()
OBJECTS: list[bytes | None] = [None] * 200_000
SIZES = tuple(range(480, 0, -16))


def take_all() -> int:
    """Take what `malloc` has, and leave nothing of 16 bytes or more."""
    taken, size = 0, 1 << 24
    while size >= 16 and taken < len(TAKEN):
        if at := LIBC.malloc(size):
            TAKEN[taken] = at
            taken += 1
        else:
            size //= 2
    return taken


def return_all(taken: int) -> None:
    for at in range(taken):
        LIBC.free(TAKEN[at])


def take_objects(first: int, left: int) -> int:
    """Make small objects until the interpreter has no memory for any, and free `left` of them. Returns how many were made."""
    made = first
    for size in SIZES:
        try:
            while made < len(OBJECTS):
                OBJECTS[made] = bytes(size)
                made += 1
        except MemoryError:
            pass
    for _ in range(left if made else 0):
        OBJECTS[random.randrange(made)] = None
    return made


def answer(end: Any, other: Any) -> None:
    # Or the process would outlive a program that was ended.
    other.close()
    while (message := end.recv()) is not None:
        end.send(message)


def main() -> str:
    mp = importlib.import_module(sys.argv[1]).get_context(sys.argv[2])
    pool = mp.Pool(2)
    here, there = mp.Pipe()
    echo = mp.Process(target=answer, args=(there, here), daemon=True)
    echo.start()
    there.close()
    queue = mp.SimpleQueue()
    left = int(sys.argv[3]) if len(sys.argv) > 3 else None
    wrong: list[str] = []
    came: Counter[str] = Counter()

    def through_pipe(message: Any) -> Any:
        here.send(message)
        return here.recv()

    def through_queue(item: Any) -> Any:
        queue.put(item)
        return queue.get()

    works: dict[str, tuple[Callable[[], Any], Any]] = {
        "apply": (lambda: pool.apply(abs, (-5,)), 5),
        "apply_async": (lambda: pool.apply_async(abs, (-6,)).get(20), 6),
        "map": (lambda: pool.map(abs, range(-300, 0)), list(range(300, 0, -1))),
        "imap": (lambda: list(pool.imap(abs, range(-30, 0))), list(range(30, 0, -1))),
        "pipe": (lambda: through_pipe("text"), "text"),
        "queue": (lambda: through_queue("item"), "item"),
    }

    def round_(where: str, errors: tuple[type[BaseException], ...]) -> None:
        for name, (work, due) in works.items():
            try:
                got = work()
            except errors as e:
                came[type(e).__name__] += 1
                continue
            came["done"] += 1
            if got != due:
                wrong.append(f"{where}: {name} returned {got!r}")

    round_("before", ())
    loose = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), loose[1]))
    taken, made = take_all(), 0
    try:
        for _ in range(50):
            # This loop itself may find no memory for a name or a frame.
            try:
                if left is not None:
                    made = take_objects(made, left)
                round_("without memory", (MemoryError, OSError))
            except MemoryError:
                continue
    finally:
        resource.setrlimit(resource.RLIMIT_AS, loose)
        return_all(taken)
        OBJECTS.clear()
    came["done"] = 0
    round_("afterwards", ())
    if came["done"] != len(works):
        wrong.append(f"afterwards {came}")
    here.send(None)
    echo.join(20)
    pool.close()
    pool.join()
    return "; ".join(wrong) or "ok"


if __name__ == "__main__":
    faulthandler.dump_traceback_later(60, exit=True)
    print(main())
