"""The program that `chaos.py` torments: pools, queues, locks, pipes and a manager at work in threads, with accounts of all that they do.

    python arena.py PACKAGE METHOD SEED LEDGER

It works until a line comes on its standard input. Then each part comes to its end, and one line of JSON tells what was done and
what was wrong. Errors that a shortage or a death explains are counted; wrong values, lost and doubled work, and other errors are faults.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import gc
import importlib
import json
import mmap
import os
import queue as standard_queue
import random
import resource
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHORTAGES = {
    getattr(errno, name)
    for name in "EMFILE ENFILE ENOMEM EAGAIN ENOSPC EFBIG ENOBUFS ETOOMANYREFS ECONNREFUSED ECONNRESET EPIPE ENOENT".split()
}
TASKS = 200_000
SIZES = (10, 10, 10, 3000, 40_000, 300_000, 2_000_000)
GO = threading.Event()
COUNTS: Counter[str] = Counter()
FAULTS: list[str] = []
#: how the names begin that this program makes in /dev/shm; `chaos.py` looks for them
NAMES = ""


class Ledger:
    """How often each task has begun: one byte each, in a file that all processes map."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self.bytes = mmap.mmap(file.fileno(), TASKS)

    def begin(self, number: int) -> None:
        self.bytes[number] = self.bytes[number] + 1

    def times(self, number: int) -> int:
        return self.bytes[number]


LEDGER: Ledger | None = None


def open_ledger(path: str) -> None:
    global LEDGER
    LEDGER = Ledger(path)


def body(number: int, size: int) -> bytes:
    return (b"%08d" % (number % 100_000_000)) * (size // 8 + 1)


def task(number: int, data: bytes, seconds: float) -> tuple[int, bytes]:
    assert LEDGER is not None
    LEDGER.begin(number)
    if seconds < 0:
        os._exit(7)
    if seconds:
        time.sleep(seconds)
    return number, data[::-1]


def put_numbers(queue: Any, ledger: str, base: int, count: int, seed: int) -> None:
    """A writer: notes an item in the ledger as soon as `put` has accepted it."""
    rng, book = random.Random(seed), Ledger(ledger)
    for number in range(base, base + count):
        queue.put((number, body(number, rng.choice(SIZES))))
        book.begin(number)
        time.sleep(rng.random() * 0.01)


def take_turns(lock: Any, inside: Any, total: Any, turns: int) -> None:
    for _ in range(turns):
        with lock:
            enter(inside, total)
        time.sleep(0.002)


def enter(inside: Any, total: Any) -> None:
    """What only one may be in; `inside` has the process that is."""
    there = inside.value
    if there and there != os.getpid() and lives(there):
        os.write(2, b"CHAOS: two are inside at once\n")
    inside.value = os.getpid()
    total.value += 1
    time.sleep(0.001)
    inside.value = 0


def lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


def echo(connection: Any) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(connection.recv())


def reverse_memory(package: str, name: str, size: int) -> None:
    memory = shared_memory_of(package).SharedMemory(name)
    memory.buf[:size] = bytes(memory.buf[:size])[::-1]
    memory.close()


def shared_memory_of(package: str) -> Any:
    return importlib.import_module(f"{package}.shared_memory")


class Part:
    """One thing at work, in a thread of its own."""

    def __init__(self, mp: Any, method: str, seed: int, ledger: str) -> None:
        self.mp, self.ctx, self.rng, self.ledger = mp, mp.get_context(method), random.Random(seed), ledger
        self.expected_errors = (
            EOFError,
            MemoryError,
            ConnectionError,
            mp.WorkerLostError,
            mp.ProcessError,
            standard_queue.Empty,
            Ended,
        )

    def run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                self.stack = stack
                self.begin()
                while not GO.is_set():
                    self.once(self.round)
                self.end()
        except BaseException as e:
            FAULTS.append(f"{type(self).__name__}: {''.join(traceback.format_exception(e))[-1500:]}")

    def begin(self) -> None:
        pass

    def end(self) -> None:
        pass

    def round(self) -> None:
        raise NotImplementedError

    def once(self, what: Callable[[], Any]) -> Any:
        """Return the result, or None after an error that a shortage or a death explains."""
        try:
            return what()
        except Exception as e:
            if not self.explained(e):
                raise Unexplained from e
            COUNTS[f"{type(self).__name__}: {type(e).__name__}"] += 1
            time.sleep(0.02)
            return None

    def explained(self, e: BaseException) -> bool:
        if isinstance(e, self.mp.TimeoutError):
            return False
        if isinstance(e, self.expected_errors) or any(
            words in str(e) for words in ("can't start new thread", "end of file during message")
        ):
            return True
        if isinstance(e, OSError) and e.errno in SHORTAGES:
            return True
        text = str(e)
        return any(f"os error {number}" in text or f"Errno {number}" in text for number in SHORTAGES) or bool(
            e.__cause__ and self.explained(e.__cause__)
        )

    def patiently(self, what: Callable[[], Any]) -> Any:
        """It will succeed at the latest when the limits are loose again."""
        deadline = time.monotonic() + 40
        while (given := self.once(what)) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} does not succeed")
        return given


class Unexplained(Exception):
    """An error that neither a shortage nor a death explains."""


class Ended(Exception):
    """A process has ended with another code than 0."""


class Pools(Part):
    """Calls and their outcomes: each call has exactly one, and begins once at most."""

    options: dict[str, Any] = {}
    base = 0
    given_up = False

    def begin(self) -> None:
        self.number = self.base
        self.pool = self.patiently(self.new)

    def explained(self, e: BaseException) -> bool:
        # As many workers in a row were ended while they started as it takes; each later call says so.
        self.given_up = self.given_up or "the pool has failed; the last" in str(e)
        return super().explained(e)

    def new(self) -> Any:
        return self.ctx.Pool(2, open_ledger, (self.ledger,), **self.options)

    def round(self) -> None:
        rng = self.rng
        calls = []
        # Small numbers in a list of fixed length: a callback that had to allocate would fail for lack of memory, and tell nothing.
        outcomes = [0] * 12
        failed = None
        for _ in range(rng.randrange(1, 12)):
            self.number += 1
            number = self.number
            data = body(number, rng.choice(SIZES))
            seconds = -1.0 if rng.random() < 0.01 else rng.choice((0, 0, 0, 0.001, 0.03))

            def note(_value: Any, place: int = len(calls)) -> None:
                outcomes[place] += 1

            try:
                calls.append((number, data, self.pool.apply_async(task, (number, data, seconds), {}, note, note)))
            except Exception as e:
                failed = e  # refused at once: no outcome is due
        for number, data, result in calls:
            COUNTS["calls"] += 1
            result.wait(20)
            if not result.ready():
                raise Unexplained(
                    f"call {number}, begun {self._book().times(number)} times, has no outcome; {self._state()}"
                )
            value = self.once(result.get)
            if value is not None and value != (number, data[::-1]):
                FAULTS.append(f"call {number} got {str(value)[:80]}")
        deadline = time.monotonic() + 10
        while sum(outcomes) < len(calls) and time.monotonic() < deadline:
            time.sleep(0.002)
        if outcomes != [place < len(calls) for place in range(12)]:
            FAULTS.append(f"{len(calls)} calls, outcomes told: {outcomes}")
        book = self._book()
        FAULTS.extend(f"call {number} began twice" for number, _, _ in calls if book.times(number) > 1)
        if failed is not None:
            raise failed

    def _state(self) -> str:
        """Where the workers are, for a report."""
        found = []
        for worker in self.pool._pool:
            with contextlib.suppress(OSError):
                with open(f"/proc/{worker.pid}/stat") as stat, open(f"/proc/{worker.pid}/wchan") as waits:
                    found.append(f"worker {worker.pid} {stat.read().rpartition(')')[2].split()[0]} in {waits.read()}")
                if "fork" in str(self.ctx.get_start_method()):
                    os.kill(worker.pid, signal.SIGUSR1)
        time.sleep(0.5)
        threads = [thread.name for thread in threading.enumerate()]
        hub = getattr(getattr(self.pool, "_workers", None), "hub", None)
        known = "" if hub is None else hub.describe()
        known += f" now {time.monotonic()}"
        return f"{len(self.pool._pool)} workers: {'; '.join(found)}; threads: {threads}; {known}"

    def _book(self) -> Ledger:
        if not hasattr(self, "book"):
            self.book = self.patiently(lambda: Ledger(self.ledger))
        return self.book

    def end(self) -> None:
        # The same pool, without disturbance.
        wanted = [i * i for i in range(30)]
        deadline = time.monotonic() + 30
        while True:
            try:
                found = self.once(lambda: self.pool.map_async(square, range(30)).get(20))
            except Unexplained as e:
                FAULTS.append(f"the pool does not answer afterwards: {e.__cause__!r}; {self._state()}")
                break
            if found == wanted or self.given_up:
                break
            if found is not None or time.monotonic() > deadline:
                FAULTS.append(f"{type(self).__name__}: the pool does not work afterwards: {found}")
                break
        self.pool.close()
        self.pool.join()
        del self.pool


def square(number: int) -> int:
    return number * number


class Recycled(Pools):
    options = {"maxtasksperchild": 5}
    base = 50_000


class Maps(Pools):
    base = 100_000

    def round(self) -> None:
        count = self.rng.randrange(1, 200)
        chunk = self.rng.choice((None, 1, 7))
        size = self.rng.choice(SIZES[:-1])
        items = [(self.number + i, body(i, size), 0) for i in range(count)]
        self.number += count
        if self.number > 148_000:
            time.sleep(0.1)
            return
        COUNTS["items"] += count
        if self.rng.random() < 0.5:
            found = self.pool.starmap(task, items, chunk)
        else:
            found = list(self.pool.imap(task_of, items, chunk or 1))
        if found != [(number, data[::-1]) for number, data, _ in items]:
            FAULTS.append(f"a map of {count} gave another result")
        book = self._book()
        FAULTS.extend(f"item {number} began twice" for number, _, _ in items if book.times(number) > 1)


def task_of(item: tuple[int, bytes, float]) -> tuple[int, bytes]:
    return task(*item)


class Queues(Part):
    """Writers that are killed: what `put` has accepted arrives, once, in order."""

    base = 150_000

    def begin(self) -> None:
        self.queue = self.patiently(self.ctx.Queue)
        self.number = self.base

    def round(self) -> None:
        count = self.rng.randrange(1, 60)
        if self.number + count >= TASKS:
            time.sleep(0.1)
            return
        base, self.number = self.number, self.number + count
        writer = self.ctx.Process(target=put_numbers, args=(self.queue, self.ledger, base, count, base))
        writer.start()
        found: list[int] = []
        try:
            # The end first: what has been accepted by then is there.
            while True:
                ended = not writer.is_alive()
                try:
                    number, data = self.queue.get(timeout=0.2)
                except standard_queue.Empty:
                    if ended:
                        break
                    continue
                except (OSError, MemoryError) as e:
                    if not self.explained(e):
                        raise
                    COUNTS["Queues: an item could not be taken for now"] += 1
                    time.sleep(0.01)
                    continue
                if not data.startswith(body(number, 0)):
                    FAULTS.append(f"queue: item {number} is another")
                found.append(number)
        finally:
            writer.kill()
            writer.join()
            writer.close()
        COUNTS["items through a queue"] += len(found)
        if found != sorted(set(found)) or any(not base <= number < base + count for number in found):
            FAULTS.append(f"queue: {base} to {base + count} gave {found}")
        book = self.patiently(lambda: Ledger(self.ledger))
        if lost := [n for n in range(base, base + count) if book.times(n) and n not in set(found)]:
            FAULTS.append(f"queue: accepted and lost: {lost}")

    def end(self) -> None:
        self.queue.close()
        self.queue.join_thread()
        del self.queue


class Locks(Part):
    """Holders that are killed: the next one gets the lock, and two never have it."""

    def begin(self) -> None:
        self.lock = self.patiently(self.ctx.Lock)
        self.inside = self.patiently(lambda: self.ctx.RawValue("i", 0))
        self.total = self.patiently(lambda: self.ctx.RawValue("i", 0))

    def round(self) -> None:
        others = []
        try:
            for _ in range(2):
                args = (self.lock, self.inside, self.total, self.rng.randrange(5, 40))
                other = self.ctx.Process(target=take_turns, args=args)
                other.start()
                others.append(other)
            for _ in range(20):
                with self.lock:
                    enter(self.inside, self.total)
                COUNTS["turns with a lock"] += 1
        finally:
            for other in others:
                other.join(self.rng.random())
                other.kill()
                other.join()
                other.close()

    def end(self) -> None:
        if not self.lock.acquire(timeout=20):
            FAULTS.append("a lock whose holders are dead is not handed on")
        del self.lock


class Pipes(Part):
    """A peer that is killed: the process that waits for it gets an error."""

    def round(self) -> None:
        here, there = self.ctx.Pipe()
        # Forked, it has both ends: only as a daemon does it end with a program that is killed.
        peer = self.ctx.Process(target=echo, args=(there,), daemon=True)
        try:
            peer.start()
            there.close()
            for _ in range(self.rng.randrange(1, 80)):
                self.rng.random()
                sent = body(self.rng.randrange(10**8), self.rng.choice(SIZES))
                here.send(sent)
                # Forked, the peer has this end, too: only its end tells of its death.
                while not here.poll(0.2):
                    if not peer.is_alive() and not here.poll(0):
                        raise Ended("the peer is dead")
                if here.recv() != sent:
                    FAULTS.append("a pipe gave another message")
                COUNTS["messages through a pipe"] += 1
        finally:
            here.close()
            there.close()
            if peer.pid is not None:
                peer.kill()
                peer.join()
            peer.close()


class Managers(Part):
    """A server that is killed: its clients get an error, and another server can be started."""

    def round(self) -> None:
        with self.ctx.Manager() as manager:
            items, table = manager.list(), manager.dict()
            for turn in range(self.rng.randrange(5, 60)):
                items.append(turn)
                data = body(turn, self.rng.choice(SIZES[:-1]))
                table["a"] = data
                if table["a"] != data or len(items) != turn + 1:
                    FAULTS.append("a manager gave another value")
                COUNTS["manager calls"] += 4

    def explained(self, e: BaseException) -> bool:
        # The server's own error comes as the text of its traceback.
        return super().explained(e) or type(e).__name__ == "RemoteError" and "MemoryError" in str(e)


class Memories(Part):
    """Named memory: another process sees what was written, and no name is left, also if the program is killed."""

    def round(self) -> None:
        package = self.mp.__name__
        data = body(self.rng.randrange(10**8), self.rng.choice(SIZES))
        name = f"{NAMES}{self.rng.getrandbits(64):016x}"
        memory = shared_memory_of(package).SharedMemory(name, create=True, size=len(data))
        try:
            memory.buf[: len(data)] = data
            other = self.ctx.Process(target=reverse_memory, args=(package, name, len(data)), daemon=True)
            other.start()
            other.join()
            code = other.exitcode
            other.close()
            if code:
                raise Ended(f"the other process has ended with {code}")
            if bytes(memory.buf[: len(data)]) != data[::-1]:
                FAULTS.append("a memory has other bytes than were written")
            COUNTS["named memories"] += 1
        finally:
            memory.close()
            memory.unlink()


PARTS = (Pools, Recycled, Maps, Queues, Locks, Pipes, Managers, Memories)


def main() -> None:
    package, method, seed, ledger = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faults"))
    from watched import MARK, end_with_parent, names_of

    global NAMES
    NAMES = names_of(os.environ[MARK])
    end_with_parent()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    mp = importlib.import_module(package)
    rng = random.Random(int(seed))
    # The helpers that stay, all that is imported late, and what is kept once descriptors have been few.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    with mp.get_context(method).Pool(1) as pool:
        pool.map(square, [1])
    pool.join()
    with mp.get_context(method).Manager() as manager:
        manager.list()
    del pool, manager
    mp.RawValue("i", 0)
    memory = shared_memory_of(package).SharedMemory(f"{NAMES}first", create=True, size=1)
    memory.close()
    memory.unlink()
    del memory
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    gc.collect()
    print("ready", flush=True)
    sys.stdin.readline()
    chosen = rng.sample(PARTS, rng.randrange(1, len(PARTS) + 1))
    threads = [
        threading.Thread(target=part(mp, method, rng.randrange(2**32), ledger).run, name=part.__name__)
        for part in chosen
    ]
    for thread in threads:
        thread.start()
    print("at work", flush=True)
    sys.stdin.readline()
    GO.set()
    for thread in threads:
        thread.join(60)
        if thread.is_alive():
            FAULTS.append(f"{thread.name} does not come to its end")
            faulthandler.dump_traceback(all_threads=True)
    if not any(thread.is_alive() for thread in threads):
        del thread, threads
        gc.collect()
    # A fork server that was killed is seen to be gone, and buried, when the next process is started.
    with contextlib.suppress(Exception):
        last = mp.get_context(method).Process(target=square, args=(1,))
        last.start()
        last.join()
        last.close()
    print(json.dumps({"parts": [part.__name__ for part in chosen], "counts": COUNTS, "faults": FAULTS}), flush=True)
    while sys.stdin.readline():
        gc.collect()
        print("rested", flush=True)
    if FAULTS:
        os._exit(1)


if __name__ == "__main__":
    main()
