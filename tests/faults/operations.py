"""What is done while calls fail: each part of the package's public surface as an operation that can be repeated.

`set_up` makes the objects, `act` uses them and returns what must be `expected`, `tear_down` ends them. `act` may be called again
after it has failed, on the same objects. What it starts itself it ends itself, also when it fails half-way.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from typing import Any

METHODS = ("fork", "spawn", "forkserver")


def add(a: int, b: int) -> int:
    return a + b


def square(number: int) -> int:
    return number * number


def turned(data: bytes) -> bytes:
    return data[::-1]


def leave(code: int) -> None:
    os._exit(code)


def put_all(queue: Any, items: list[Any]) -> None:
    for item in items:
        queue.put(item)


def echo(connection: Any) -> None:
    with contextlib.suppress(EOFError):
        while True:
            connection.send(connection.recv())


def hold_when_told(lock: Any, connection: Any) -> None:
    with contextlib.suppress(EOFError):
        while True:
            connection.recv()
            with lock:
                connection.send("held")
                time.sleep(0.02)


def write_value(value: Any, array: Any, event: Any) -> None:
    with value.get_lock():
        value.value += 1
    array[0] = 2.5
    event.set()


class Died(Exception):
    """A process that was started ended with another exit code than 0."""


class Operation:
    methods: tuple[str, ...] = METHODS
    expected: Any = None

    def __init__(self, mp: Any, method: str) -> None:
        self.mp = mp
        self.ctx = mp.get_context(method)
        self.turn = 0

    def set_up(self) -> None:
        pass

    def act(self) -> Any:
        raise NotImplementedError

    def renew(self) -> None:
        """Make anew, after a failure, what is the operation's own: processes, connections that carried half a message."""

    def tear_down(self) -> None:
        pass


OPERATIONS: dict[str, type[Operation]] = {}


def operation(cls: type[Operation]) -> type[Operation]:
    name = "".join("_" + letter.lower() if letter.isupper() else letter for letter in cls.__name__).strip("_")
    OPERATIONS[name] = cls
    return cls


def run_to_end(process: Any) -> None:
    """Start it and wait for its end, also after a failure."""
    try:
        process.start()
        process.join()
        if process.exitcode != 0:
            raise Died(f"exit code {process.exitcode}")
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        process.close()


@operation
class ProcessStart(Operation):
    expected = 0

    def act(self) -> Any:
        run_to_end(self.ctx.Process(target=add, args=(1, 2)))
        return 0


@operation
class DaemonStart(Operation):
    expected = True

    def act(self) -> Any:
        process = self.ctx.Process(target=time.sleep, args=(60,), daemon=True)
        try:
            process.start()
            alive = process.is_alive()
            process.terminate()
            process.join()
            return alive and process.exitcode == -15
        finally:
            if process.pid is not None:
                process.kill()
                process.join()


@operation
class PoolStart(Operation):
    expected = [0, 1, 4, 9]

    def act(self) -> Any:
        pool = self.ctx.Pool(2)
        try:
            return pool.map(square, range(4))
        finally:
            pool.close()
            pool.join()


@operation
class PoolTerminate(Operation):
    expected = None

    def act(self) -> Any:
        with self.ctx.Pool(2) as pool:
            pool.apply_async(time.sleep, (30,))
        pool.join()


class WithPool(Operation):
    options: dict[str, Any] = {}

    def set_up(self) -> None:
        self.pool = self.ctx.Pool(2, **self.options)
        self.pool.map(square, range(4))

    def tear_down(self) -> None:
        self.pool.close()
        self.pool.join()


@operation
class Apply(WithPool):
    expected = 7

    def act(self) -> Any:
        return self.pool.apply(add, (3, 4))


@operation
class ApplyAsync(WithPool):
    expected = [[0, 1, 2, 3, 4, 5, 6, 7], 8]

    def act(self) -> Any:
        called: list[Any] = []
        results = [self.pool.apply_async(add, (i, 0), callback=called.append) for i in range(8)]
        values = [result.get() for result in results]
        deadline = time.monotonic() + 5
        while len(called) < 8 and time.monotonic() < deadline:
            time.sleep(0.001)
        return [values, len(called)]


@operation
class Map(WithPool):
    expected = [i * i for i in range(40)]

    def act(self) -> Any:
        return self.pool.map(square, range(40))


SMALL, MIDDLE, LARGE = b"ab" * 50, b"cd" * 20_000, b"ef" * 400_000


@operation
class MapMiddle(WithPool):
    expected = [MIDDLE[::-1]] * 6

    def act(self) -> Any:
        return self.pool.map(turned, [MIDDLE] * 6)


@operation
class MapLarge(WithPool):
    expected = [LARGE[::-1]] * 4

    def act(self) -> Any:
        return self.pool.map(turned, [LARGE] * 4)


@operation
class Imap(WithPool):
    expected = [i * i for i in range(20)]

    def act(self) -> Any:
        return list(self.pool.imap(square, range(20)))


@operation
class ImapUnordered(WithPool):
    expected = sorted(i * i for i in range(20))

    def act(self) -> Any:
        return sorted(self.pool.imap_unordered(square, range(20), chunksize=3))


@operation
class Starmap(WithPool):
    expected = [1, 3, 5]

    def act(self) -> Any:
        return self.pool.starmap(add, [(0, 1), (1, 2), (2, 3)], chunksize=1)


@operation
class Recycling(WithPool):
    """Each task has a worker of its own."""

    options = {"maxtasksperchild": 1}
    expected = [0, 1, 4, 9]

    def act(self) -> Any:
        return self.pool.map(square, range(4), chunksize=1)


@operation
class OverdueTask(WithPool):
    """A task is ended at its time limit, and the pool continues."""

    expected = ["TaskTimeoutError", [0, 1, 4, 9]]

    def act(self) -> Any:
        raised = "none"
        try:
            self.pool.apply(time.sleep, (30,), task_timeout=0.1)
        except self.mp.TaskTimeoutError as error:
            raised = type(error).__name__
        return [raised, self.pool.map(square, range(4))]


@operation
class CancelledTask(WithPool):
    """A running task is cancelled, and the pool continues."""

    expected = [True, "CancelledError", [0, 1, 4, 9]]

    def act(self) -> Any:
        result = self.pool.apply_async(time.sleep, (30,))
        deadline = time.monotonic() + 10
        while not result.running() and not result.ready() and time.monotonic() < deadline:
            time.sleep(0.001)
        cancelled = result.cancel(kill=True)
        raised = "none"
        try:
            result.get()
        except self.mp.CancelledError as error:
            raised = type(error).__name__
        return [cancelled, raised, self.pool.map(square, range(4))]


@operation
class Resize(WithPool):
    expected = [i * i for i in range(12)]

    def act(self) -> Any:
        try:
            self.pool.resize(4)
            return self.pool.map(square, range(12), chunksize=1)
        finally:
            self.pool.resize(2)
            # Until surplus workers have ended: what is counted afterwards has to be the same again.
            deadline = time.monotonic() + 10
            while len(self.pool._pool) > 2 and time.monotonic() < deadline:
                time.sleep(0.001)


@operation
class LostWorker(WithPool):
    expected = ["WorkerLostError", [0, 1, 4, 9]]

    def act(self) -> Any:
        try:
            self.pool.apply(leave, (3,))
        except self.mp.WorkerLostError as e:
            lost = type(e).__name__
        return [lost, self.pool.map(square, range(4))]


class Tagged(Operation):
    """What is sent has the number of its turn, since what was sent in a turn that failed may still be there."""

    def through(self, put: Any, get: Any, body: Any) -> Any:
        self.turn += 1
        put((self.turn, body))
        while True:
            turn, found = get()
            if turn == self.turn:
                return found
            if turn > self.turn or found != body:
                raise AssertionError(f"turn {self.turn}: got {turn}")


@operation
class QueueNew(Operation):
    methods = ("fork",)
    expected = [1, b"x" * 70_000]

    def act(self) -> Any:
        queue = self.ctx.Queue()
        try:
            put_all(queue, self.expected)
            return [queue.get(), queue.get()]
        finally:
            queue.close()
            queue.join_thread()


@operation
class QueueItems(Tagged):
    methods = ("fork",)
    expected = [SMALL, MIDDLE, LARGE, LARGE * 3, LARGE]

    def set_up(self) -> None:
        self.queue = self.ctx.Queue()

    def act(self) -> Any:
        self.turn += 1
        for place, body in enumerate(self.expected):
            self.queue.put((self.turn, place, body))
        found = []
        while len(found) < len(self.expected):
            turn, place, body = self.queue.get()
            if body != self.expected[place]:
                raise AssertionError(f"item {place} of turn {turn} is another")
            if turn == self.turn:
                found.append(body)
        return found

    def tear_down(self) -> None:
        self.queue.close()
        self.queue.join_thread()


@operation
class QueueBounded(QueueItems):
    expected = [SMALL, LARGE]

    def set_up(self) -> None:
        self.queue = self.ctx.JoinableQueue(50)


@operation
class SimpleQueueItems(QueueItems):
    def set_up(self) -> None:
        self.queue = self.ctx.SimpleQueue()

    def tear_down(self) -> None:
        self.queue.close()


@operation
class QueueToProcess(Operation):
    expected = [1, MIDDLE]

    def act(self) -> Any:
        queue = self.ctx.Queue()
        try:
            run_to_end(self.ctx.Process(target=put_all, args=(queue, self.expected)))
            return [queue.get(), queue.get()]
        finally:
            queue.close()
            queue.join_thread()


@operation
class PipeNew(Operation):
    methods = ("fork",)
    expected = [SMALL, MIDDLE]

    def act(self) -> Any:
        got = []
        for duplex, body in zip((False, True), self.expected):
            reader, writer = self.ctx.Pipe(duplex)
            with reader, writer:
                writer.send(body)
                got.append(reader.recv())
        return got


@operation
class PipeEcho(Tagged):
    """Another process sends back what it is sent."""

    expected = [SMALL, MIDDLE, LARGE]

    def set_up(self) -> None:
        self.here, there = self.ctx.Pipe()
        self.process = self.ctx.Process(target=echo, args=(there,))
        self.process.start()
        there.close()
        for body in self.expected:
            self.through(self.here.send, self.here.recv, body)

    def renew(self) -> None:
        self.tear_down()
        self.set_up()

    def act(self) -> Any:
        return [self.through(self.here.send, self.here.recv, body) for body in self.expected]

    def tear_down(self) -> None:
        self.here.close()
        # A forked process has this end of the pipe as well, and would wait forever.
        self.process.kill()
        self.process.join()
        self.process.close()


@operation
class SendConnection(Operation):
    methods = ("fork",)
    expected = "over there"

    def act(self) -> Any:
        with contextlib.ExitStack() as stack:
            reader, writer = map(stack.enter_context, self.ctx.Pipe(False))
            inner, end = map(stack.enter_context, self.ctx.Pipe(False))
            writer.send(end)
            with reader.recv() as copy:
                copy.send("over there")
            return inner.recv()

    def renew(self) -> None:
        # What was offered and not fetched is kept for a receiver that may still come, until this.
        sys.modules[f"{self.mp.__name__}.resource_sharer"].stop(5)


@operation
class LockAcquire(Operation):
    methods = ("fork",)
    expected = True

    def set_up(self) -> None:
        self._make()
        self.act()

    def _make(self) -> None:
        self.lock = self.ctx.Lock()
        self.here, there = self.ctx.Pipe()
        self.process = self.ctx.Process(target=hold_when_told, args=(self.lock, there))
        self.process.start()
        there.close()

    def renew(self) -> None:
        # The same lock, with another process.
        self.tear_down()
        self._make()

    def act(self) -> Any:
        self.here.send("hold")
        self.here.recv()
        taken = self.lock.acquire()
        self.lock.release()
        return taken

    def tear_down(self) -> None:
        self.here.close()
        # A forked process has this end of the pipe as well, and would wait forever.
        self.process.kill()
        self.process.join()
        self.process.close()


@operation
class Synchronizers(Operation):
    methods = ("fork",)
    expected = [True] * 6

    def act(self) -> Any:
        ctx = self.ctx
        lock, again, count, event = ctx.Lock(), ctx.RLock(), ctx.Semaphore(2), ctx.Event()
        condition, barrier = ctx.Condition(), ctx.Barrier(1)
        event.set()
        with condition:
            condition.notify_all()
        barrier.wait()
        return [lock.acquire(), again.acquire(), again.acquire(), count.acquire(), event.wait(), count.acquire()]


@operation
class SharedValues(Operation):
    expected = [1, 2.5]

    def act(self) -> Any:
        value, array, event = self.ctx.Value("i", 0), self.ctx.Array("d", 20_000), self.ctx.Event()
        run_to_end(self.ctx.Process(target=write_value, args=(value, array, event)))
        return [value.value, array[0]]


@operation
class SharedMemoryBlock(Operation):
    methods = ("fork",)
    expected = b"written"

    def act(self) -> Any:
        shared_memory = sys.modules[f"{self.mp.__name__}.shared_memory"]
        block = shared_memory.SharedMemory(create=True, size=9000)
        try:
            other = shared_memory.SharedMemory(block.name)
            try:
                block.buf[:7] = b"written"
                return bytes(other.buf[:7])
            finally:
                other.close()
        finally:
            block.close()
            block.unlink()

    def set_up(self) -> None:
        __import__(f"{self.mp.__name__}.shared_memory")


@operation
class ManagerStart(Operation):
    expected = [1, 2]

    def act(self) -> Any:
        with self.ctx.Manager() as manager:
            items = manager.list([1])
            items.append(2)
            return list(items)


class WithManager(Operation):
    methods = ("fork",)

    def set_up(self) -> None:
        self.manager = self.ctx.Manager()
        self.shared = self.manager.dict()
        self.act()

    def tear_down(self) -> None:
        del self.shared
        self.manager.shutdown()


@operation
class ManagerCall(WithManager):
    expected = [5, MIDDLE]

    def act(self) -> Any:
        self.shared["a"] = 5
        self.shared["b"] = MIDDLE
        return [self.shared["a"], self.shared.get("b")]


@operation
class ManagerObject(WithManager):
    expected = [[1], True, 3]

    def act(self) -> Any:
        items, lock, queue = self.manager.list([1]), self.manager.Lock(), self.manager.Queue()
        queue.put(3)
        with lock:
            return [list(items), True, queue.get()]


@operation
class ListenerClient(Operation):
    methods = ("fork",)
    expected = [SMALL, LARGE]

    def act(self) -> Any:
        connection = sys.modules[f"{self.mp.__name__}.connection"]
        failures: list[BaseException] = []
        with connection.Listener(authkey=b"key") as listener:
            thread = threading.Thread(target=serve_one, args=(listener, failures))
            got = []
            thread.start()
            try:
                with connection.Client(listener.address, authkey=b"key") as client:
                    for body in self.expected:
                        client.send(body)
                        got.append(client.recv())
            except Exception as e:
                # Where both have failed, it may have begun there.
                thread.join(0.5)
                if failures:
                    e.__context__ = failures[0]
                failures.append(e)
                raise
            finally:
                thread.join(0 if failures else None)
                # A listener whose client has failed gets other clients, and so does not wait forever.
                while thread.is_alive():
                    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
                        knock.connect(listener.address)
                    thread.join(0.05)
        return got

    def set_up(self) -> None:
        __import__(f"{self.mp.__name__}.connection")


def serve_one(listener: Any, failures: list[BaseException]) -> None:
    """Serve one client, as a server does that continues after a failed accept."""
    for _ in range(100):
        try:
            with listener.accept() as served:
                echo(served)
                return
        except Exception as e:
            failures.append(e)
            time.sleep(0.01)
