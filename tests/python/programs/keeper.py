"""A pool whose keeper or callers meet a want of memory. Prints "ok" or what was seen; `test_refused_threads.py` runs it: PACKAGE METHOD CASE."""

from __future__ import annotations

import errno
import faulthandler
import importlib
import os
import resource
import sys
import threading
from typing import Any

PACKAGE, METHOD, *WHAT = sys.argv[1:]
mp: Any = importlib.import_module(PACKAGE)
ctx: Any = mp.get_context(METHOD)
# More than the allocator keeps for a thread (64 MiB of addresses).
LARGE = 100_000_000


def square(number: int) -> int:
    return number * number


def die() -> None:
    os._exit(3)


def large(kind: str) -> Any:
    return {"bytes": b"1" * LARGE, "str": "1" * LARGE, "tuple": (1, "1" * LARGE)}[kind]


def result_without_memory(kind: str) -> str:
    """There is memory for the arriving bytes, and none for the value that they encode."""
    with ctx.Pool(1) as pool:
        result = pool.apply_async(large, (kind,))
        result.wait()
        with open("/proc/self/statm") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (mapped + LARGE // 2, hard))
        try:
            result.get()
            return "there was memory"
        except MemoryError as problem:
            if "request it again" not in str(problem):
                return repr(problem)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        if result.get() != large(kind) or pool.apply(large, (kind,)) != large(kind):
            return "another value"
    return "ok"


class Lacking:
    """Replaces an object: every second call of `name` fails for lack of memory, as its own allocation or one of its caller may."""

    def __init__(self, whole: Any, name: str) -> None:
        self._whole, self._name, self._calls = whole, name, 0

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_whole", "_name", "_calls"):
            super().__setattr__(name, value)
        else:
            setattr(self._whole, name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._whole, name)
        if name != self._name:
            return found

        def sometimes(*args: Any) -> Any:
            self._calls += 1
            if self._calls % 2:
                raise MemoryError
            return found(*args)

        return sometimes


def keeper_without_memory(part: str, name: str) -> str:
    """All work of the pool's thread continues after a moment: callbacks, replacements, the end."""
    pool = ctx.Pool(2, maxtasksperchild=3)
    workers = pool._workers
    if part == "hub":
        workers.hub = Lacking(workers.hub, name)
    else:
        setattr(workers, part, Lacking(getattr(workers, part), name))
    told: list[int] = []
    for number in range(20):
        result = pool.apply_async(square, (number,), callback=told.append)
        result.wait(20)
        if not result.ready() or result.get() != number * number:
            return f"call {number} has no answer"
    lost = pool.apply_async(die)
    lost.wait(20)
    if not lost.ready() or lost.successful():
        return "the loss of a worker is not told"
    if told != [number * number for number in range(20)]:
        return f"callbacks: {told}"
    if pool.map(square, range(50)) != [number * number for number in range(50)]:
        return "a map gives another result"
    pool.close()
    pool.join()
    if any(thread.name == "maniple-pool-keeper" for thread in threading.enumerate()):
        return "the keeper is left"
    return "ok"


def a_process_that_cannot_be_made() -> str:
    """An error that is no shortage: the start is not postponed, and the hub asks for another one."""
    pool = ctx.Pool(1, maxtasksperchild=2)
    make, made = pool._workers.make_process, []

    def sometimes(*args: Any, **kwds: Any) -> Any:
        made.append(args)
        if len(made) % 2:
            raise OSError(errno.EIO, "Input/output error")
        return make(*args, **kwds)

    pool._workers.make_process = sometimes
    results = [pool.apply_async(square, (number,)) for number in range(8)]
    for number, result in enumerate(results):
        result.wait(20)
        if not result.ready():
            return f"call {number} has no answer"
    if len(pool._pool) > 1:
        return "a worker too many"
    pool.terminate()
    pool.join()
    return "ok"


def by_value_without_descriptors() -> str:
    """What is to go by value needs a module that is not there yet, and cannot be read now."""
    with ctx.Pool(1) as pool:
        pool.apply(square, (2,))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            pool.apply_async(lambda: 5)
            return "there were descriptors"
        except OSError as problem:
            if problem.errno != errno.EMFILE:
                return repr(problem)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return "ok" if pool.apply(lambda: 5) == 5 else "another value"


if __name__ == "__main__":
    faulthandler.dump_traceback_later(80, exit=True)
    case, *arguments = WHAT
    print(globals()[case](*arguments), flush=True)
