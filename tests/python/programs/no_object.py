"""A program in which the interpreter has no memory for one object, or for three in a row: the n-th allocation fails, for n = 0, 1, 2 ...
until the operation no longer meets the failure.

Arguments: package, and names of operations; none means all. Says `ok` or what went wrong.

Each run returns the right result, or raises MemoryError; or SystemError, which the interpreter itself raises if it has no memory for the
frame of a function. The same objects work afterwards.
"""

from __future__ import annotations

import _testcapi
import faulthandler
import importlib
import sys
from collections.abc import Callable
from typing import Any

# The greatest n, and the number of right results in a row after which an operation no longer meets the failure.
MOST = 1500
CLEAN = 25

OBJECT = {"list": [1, 2.5, None, "text", (1, 2), b"bytes"], "set": {3, 4}, "long": "x" * 2000}


def same(item: Any) -> Any:
    return item


class Objects:
    """What the operations use."""

    def __init__(self, package: str) -> None:
        mp = importlib.import_module(package)
        self.memory = importlib.import_module(f"{package}.shared_memory")
        self.threads, self.cancelled = importlib.import_module(f"{package}.pool").ThreadPool(2), mp.CancelledError
        self.context = context = mp.get_context("fork")
        self.pool = context.Pool(2)
        self.reader, self.writer = context.Pipe(False)
        self.here, self.there = context.Pipe()
        self.queue, self.simple, self.joinable = context.Queue(), context.SimpleQueue(), context.JoinableQueue()
        self.lock, self.rlock, self.semaphore = context.Lock(), context.RLock(), context.Semaphore(2)
        self.event, self.condition = context.Event(), context.Condition()
        self.value, self.array = context.Value("i", 0), context.Array("d", 5)
        self.manager = context.Manager()
        self.managed = self.manager.dict()
        self.list = self.memory.ShareableList(["a", 5, 2.5])
        self.executor = mp.ProcessPoolExecutor(1, mp_context=context)
        self.executor.submit(same, 1).result()

    def drain(self) -> None:
        """Remove what an operation that failed has left."""
        for end in (self.reader, self.here, self.there):
            while end.poll():
                end.recv_bytes()
        for queue in (self.queue, self.simple, self.joinable):
            while not queue.empty():
                queue.get()

    def close(self) -> None:
        self.pool.terminate()
        self.threads.terminate()
        self.manager.shutdown()
        self.executor.shutdown()
        self.list.shm.close()
        self.list.shm.unlink()

    def made_lock(self) -> bool:
        lock = self.context.Lock()
        return bool(lock.acquire()) and lock.release() is None

    def made_queue(self) -> bool:
        queue = self.context.Queue()
        queue.put(OBJECT)
        got = queue.get()
        queue.close()
        return bool(got == OBJECT)

    def made_memory(self) -> bool:
        memory = self.memory.SharedMemory(create=True, size=100)
        memory.buf[0] = 7
        is_seven = memory.buf[0] == 7
        memory.close()
        memory.unlink()
        return bool(is_seven)

    def made_process(self) -> bool:
        process = self.context.Process(target=same, args=(1,))
        process.start()
        process.join(20)
        is_fine = process.exitcode == 0
        process.close()
        return is_fine

    def made_pipe(self) -> bool:
        reader, writer = self.context.Pipe(False)
        with reader, writer:
            writer.send(1)
            return bool(reader.recv() == 1)

    def cancelled_by(self, call: str) -> bool:
        """Cancel a call of the threads while it runs, or before; it ends."""
        if call == "map":
            result = self.threads.map_async(same, [1] * 60, 1)
            result.cancel()
            try:
                return bool(result.get(20) == [1] * 60)
            except self.cancelled:
                return True
        results = getattr(self.threads, call)(same, [1] * 60)
        results.next(20)
        results.cancel()
        while True:
            try:
                results.next(20)
            except self.cancelled:
                pass
            except StopIteration:
                return True

    def operations(self) -> dict[str, Callable[[], bool]]:
        def into() -> bool:
            room = bytearray(50)
            self.writer.send_bytes(b"x" * 40)
            return bool(self.reader.recv_bytes_into(room) == 40 and room[:40] == b"x" * 40)

        def with_condition() -> bool:
            with self.condition:
                self.condition.notify_all()
            return True

        # Python 3.12 and 3.13 themselves crash if they make a nested function or a generator expression without memory.
        with_nested: dict[str, Callable[[], bool]] = {
            "map_with_options": lambda: self.pool.map(same, [1, 2], retries=1, return_exceptions=True) == [1, 2],
            "new_process": self.made_process,
            "new_queue": self.made_queue,
        }
        # They start threads, or need those that the pool has for a while. A thread that the standard library starts may end at its first
        # steps without a trace if there is no memory, and its starter then waits for it forever. So these run only if they are named.
        with_threads: dict[str, Callable[[], bool]] = {
            "futures": lambda: list(self.executor.map(same, [1, 2, 3])) == [1, 2, 3],
            "apply_async": lambda: self.pool.apply_async(same, (OBJECT,), {}, same).get(20) == OBJECT,
            "imap_of_iterator": lambda: list(self.pool.imap(same, map(same, [OBJECT] * 3))) == [OBJECT] * 3,
            "thread_imap_of_iterator": lambda: list(self.threads.imap(same, map(same, [1, 2, 3]))) == [1, 2, 3],
            "future": lambda: self.executor.submit(same, OBJECT).result(20) == OBJECT,
        }
        if sys.argv[2:]:
            with_nested.update(with_threads)
        return {
            **(with_nested if sys.version_info < (3, 12) else {}),
            "pipe": lambda: (self.writer.send(OBJECT), self.reader.recv())[1] == OBJECT,
            "bytes": lambda: (self.writer.send_bytes(b"x" * 50), self.reader.recv_bytes())[1] == b"x" * 50,
            "into": into,
            "two_way": lambda: (self.here.send(OBJECT), self.there.recv())[1] == OBJECT,
            "poll": lambda: self.reader.poll() is False,
            "apply": lambda: self.pool.apply(same, (OBJECT,)) == OBJECT,
            "map": lambda: self.pool.map(same, [OBJECT] * 3) == [OBJECT] * 3,
            "starmap": lambda: self.pool.starmap(same, [(OBJECT,)] * 3) == [OBJECT] * 3,
            "imap": lambda: list(self.pool.imap(same, [OBJECT] * 3)) == [OBJECT] * 3,
            "queue": lambda: (self.queue.put(OBJECT), self.queue.get())[1] == OBJECT,
            "simple_queue": lambda: (self.simple.put(OBJECT), self.simple.get())[1] == OBJECT,
            "joinable_queue": lambda: (self.joinable.put(OBJECT), self.joinable.get(timeout=20))[1] == OBJECT,
            "lock": lambda: self.lock.acquire(timeout=20) and self.lock.release() is None,
            "rlock": lambda: self.rlock.acquire() and self.rlock.release() is None,
            "semaphore": lambda: self.semaphore.acquire() and self.semaphore.release() is None,
            "event": lambda: self.event.set() is None and self.event.wait(20) and self.event.clear() is None,
            "condition": with_condition,
            "value": lambda: setattr(self.value, "value", 5) is None and self.value.value == 5,
            "array": lambda: self.array.__setitem__(1, 2.0) is None and self.array[1] == 2.0,
            "thread_map_cancelled": lambda: self.cancelled_by("map"),
            "thread_imap_cancelled": lambda: self.cancelled_by("imap"),
            "thread_unordered_cancelled": lambda: self.cancelled_by("imap_unordered"),
            "thread_apply": lambda: self.threads.apply(same, (OBJECT,)) is OBJECT,
            "thread_map": lambda: self.threads.map(same, [OBJECT] * 3) == [OBJECT] * 3,
            "thread_imap": lambda: list(self.threads.imap(same, [OBJECT] * 3)) == [OBJECT] * 3,
            "thread_unordered": lambda: list(self.threads.imap_unordered(same, [OBJECT] * 3)) == [OBJECT] * 3,
            # The call itself may lack memory, and its exception is its result.
            "thread_failing": lambda: isinstance(
                list(self.threads.imap(int, ["x"] * 3, return_exceptions=True))[2], ValueError | MemoryError
            ),
            "shareable_list": lambda: self.list.__setitem__(0, "b") is None and self.list[0] == "b",
            "managed": lambda: self.managed.update(a=OBJECT) is None and self.managed["a"] == OBJECT,
            "new_lock": self.made_lock,
            "new_barrier": lambda: self.context.Barrier(1).wait() == 0,
            "new_array": lambda: list(self.context.RawArray("i", [1, 2, 3])) == [1, 2, 3],
            "new_memory": self.made_memory,
            "new_pipe": self.made_pipe,
        }


def main() -> str:
    objects = Objects(sys.argv[1])
    operations = objects.operations()
    wrong: list[str] = []
    for name in sys.argv[2:] or operations:
        work = operations[name]
        if not work():
            wrong.append(f"{name} is wrong before")
        for width in (1, 3):
            clean = met = 0
            for n in range(MOST):
                result: Any = None
                error: BaseException | None = None
                _testcapi.set_nomemory(n, n + width)
                try:
                    result = work()
                except BaseException as raised:
                    error = raised
                _testcapi.remove_mem_hooks()
                if error is None and not result:
                    wrong.append(f"{name}, {width} from {n}: returned {result!r}")
                elif error is not None and not isinstance(error, MemoryError | SystemError):
                    wrong.append(f"{name}, {width} from {n}: {type(error).__name__}: {error}")
                met += error is not None
                clean = 0 if error is not None else clean + 1
                error = None
                objects.drain()
                if clean > CLEAN:
                    break
            else:
                wrong.append(f"{name} still meets the failure after {MOST} runs")
        if not work():
            wrong.append(f"{name} is wrong afterwards")
    objects.close()
    return "; ".join(wrong[:10]) or "ok"


if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.dump_traceback_later(80, exit=True)
    print(main())
