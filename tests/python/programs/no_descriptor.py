"""A program or its children without a single descriptor left. Prints "ok" or what was seen; `test_scarcity.py` runs it:
PACKAGE METHOD WHAT WHO [warm] [contained]: under a filter as containers have it."""

from __future__ import annotations

import errno
import faulthandler
import importlib
import os
import pickle
import resource
import sys
import threading
from typing import Any

PACKAGE, METHOD, WHAT, WHO, *HOW = sys.argv[1:]
mp: Any = importlib.import_module(PACKAGE)
ctx: Any = mp.get_context(METHOD)
SIZES = (10, 100_000, 900_000, 3_000_000, 20_000_000)
TAKEN: list[int] = []


class Large:
    """Bytes that may travel apart from their pickle, as an array's do."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: int) -> Any:
        return Large, (pickle.PickleBuffer(self.data) if protocol >= 5 else bytes(self.data),)

    def is_all(self, value: int, size: int) -> bool:
        data = bytes(self.data)
        return len(data) == size and data.count(value) == size


def large(size: int, value: int = 3) -> Large:
    return Large(bytearray([value]) * size)


def take_all(whether: bool = True) -> None:
    """Open files until there is no descriptor left."""
    try:
        while whether:
            TAKEN.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as problem:
        if problem.errno != errno.EMFILE:
            raise


def give_back() -> None:
    while TAKEN:
        os.close(TAKEN.pop())


def echo(conn: Any, results: Any, without: bool) -> None:
    conn.send(conn.recv())
    take_all(without)
    while (item := conn.recv()) is not None:
        conn.send(item)
        results.put(item)


def make(size: int) -> Large:
    return large(size, 7)


def check(item: tuple[Large, int]) -> bool:
    return item[0].is_all(3, item[1])


def pipe_and_queue() -> str:
    here, there = ctx.Pipe()
    results = ctx.Queue()
    process = ctx.Process(target=echo, args=(there, results, WHO != "parent"), daemon=True)
    process.start()
    there.close()
    here.send([large(2_000_000), large(300_000)] if HOW else "begin")
    here.recv()
    results.put(1)
    results.get()

    def exchange(size: int) -> str:
        most = 40 if size < 1_000_000 else 3
        here.send([large(size), large(size, 5), *(large(size) for _ in range(most + 1))])
        first, second, *rest = here.recv()
        if not (
            first.is_all(3, size) and second.is_all(5, size) and len(rest) == most + 1 and rest[-1].is_all(3, size)
        ):
            return f"wrong bytes over the pipe: {size}"
        first, second, *rest = results.get(timeout=20)
        if not (first.is_all(3, size) and second.is_all(5, size) and rest[-1].is_all(3, size)):
            return f"wrong bytes through the queue: {size}"
        return ""

    take_all(WHO != "child")
    wrong = [exchange(size) for size in SIZES]
    # In a row, of which none is lost.
    for size in (200_000, 2_000_000):
        sending = threading.Thread(target=lambda: [here.send(large(size, value)) for value in (3, 4)])  # noqa: B023
        sending.start()
        wrong += [] if here.recv().is_all(3, size) and here.recv().is_all(4, size) else [f"two in a row: {size}"]
        sending.join()
        wrong += [] if results.get().is_all(3, size) and results.get().is_all(4, size) else [f"two, queue: {size}"]
    give_back()
    wrong += [exchange(size) for size in SIZES]
    here.send(None)
    process.join()
    return "\n".join(filter(None, wrong)) or "ok"


def pool() -> str:
    with ctx.Pool(2, take_all, (WHO != "parent",)) as pool:
        wrong = []
        pool.map(check, [(large(10), 10)] * 4, 1)
        if HOW:
            pool.map(make, [3_000_000] * 4, 1)
            pool.map(check, [(large(3_000_000), 3_000_000)] * 4, 1)

        def exchange(size: int) -> None:
            if not all(one.is_all(7, size) for one in pool.map(make, [size] * 6, 1)):
                wrong.append(f"results of {size}")
            if not all(pool.map(check, [(large(size), size)] * 6, 1)):
                wrong.append(f"arguments of {size}")
            if not pool.apply(Large.is_all, (Large(bytes([9]) * size), 9, size)):
                wrong.append(f"a call's argument of {size}")

        take_all(WHO != "child")
        workers = sorted(process.pid for process in pool._pool)
        for size in SIZES:
            exchange(size)
        give_back()
        for size in SIZES:
            exchange(size)
        if sorted(process.pid for process in pool._pool) != workers:
            wrong.append("a worker has ended")
    return "\n".join(wrong) or "ok"


def main() -> None:
    faulthandler.dump_traceback_later(30, exit=True)
    # Far above the first descriptors: what was the case when they were opened must not count.
    if "contained" in HOW:
        from conditions import deny

        deny(["unshare"], errno.EPERM)
    resource.setrlimit(resource.RLIMIT_NOFILE, (700, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print({"pipe": pipe_and_queue, "pool": pool}[WHAT](), flush=True)


if __name__ == "__main__":
    main()
