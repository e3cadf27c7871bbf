"""What a type checker makes of programs that use the package; `make lint` has it checked, nothing runs it."""

from __future__ import annotations

import ctypes
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, assert_type

import maniple
from maniple import Pool, ResultDecodeError, WorkerLostError, spawn
from maniple.connection import Client, Connection, Listener
from maniple.context import BaseContext, DefaultContext, ForkContext, ManipleError, SpawnContext
from maniple.managers import (
    ArrayProxy,
    DictProxy,
    ListProxy,
    Namespace,
    RemoteError,
    SetProxy,
    SyncManager,
    ValueProxy,
)
from maniple.pool import (
    AsyncResult,
    IMapIterator,
    IMapUnorderedIterator,
    MapResult,
    MaybeEncodingError,
    RemoteTraceback,
    ThreadPool,
)
from maniple.process import BaseProcess
from maniple.queues import JoinableQueue, Queue, SimpleQueue
from maniple.shared_memory import ShareableList, SharedMemory
from maniple.sharedctypes import Synchronized, SynchronizedArray, SynchronizedString


def length(text: str) -> int:
    return len(text)


def power(base: float, exponent: int) -> float:
    return float(base**exponent)


def told(lengths: list[int]) -> None: ...


async def in_an_event_loop(queue: Queue[int], connection: Connection[str, int]) -> None:
    async with Pool(2) as pool:
        assert_type(pool, maniple.pool.Pool)
        assert_type(await pool.apply_async(length, ("a",)), int)
        assert_type(await pool.map_async(length, ["a"]), list[int])
        assert_type(await pool.starmap_async(power, [(1.5, 2)]), list[float])
        assert_type([result async for result in pool.imap(length, ["a"])], list[int])
        async for result in pool.imap_unordered(length, ["a"], chunksize=2):
            assert_type(result, int)
        assert_type(await pool.join_async(timeout=1), bool)
    assert_type(await queue.get_async(), int)
    await queue.put_async(3)
    await queue.put_async("text")  # type: ignore[arg-type]
    assert_type(await queue.get_async(timeout=1), int)
    assert_type(await queue.get_many_async(5, timeout=1), list[int])
    await queue.put_async(3, timeout=None)
    await queue.put_many_async([3], timeout=1)
    await queue.put_many_async(["text"])  # type: ignore[list-item]
    assert_type(await connection.recv_async(), int)
    await connection.send_async("text")
    await maniple.Process().join_async()
    assert_type(await maniple.Lock().acquire_async(), bool)


def several_items(queue: Queue[int], simple: SimpleQueue[str]) -> None:
    assert_type(queue.get_many(5, timeout=1), list[int])
    assert_type(simple.get_many(), list[str])
    queue.put_many(range(3), block=False)
    simple.put_many([3])  # type: ignore[list-item]
    try:
        queue.shutdown(immediate=True)
    except maniple.ShutDown:
        pass


def pools() -> None:
    with Pool(2) as pool:
        assert_type(pool, maniple.pool.Pool)
        assert_type(pool.map(length, ["a"]), list[int])
        assert_type(pool.starmap(power, [(1.5, 2)]), list[float])
        assert_type(pool.apply(power, (1.5, 2)), float)
        assert_type(pool.apply_async(length, ("a",)), AsyncResult[int])
        assert_type(pool.apply_async(length, ("a",)).get(timeout=1), int)
        assert_type(pool.map_async(length, ["a"], callback=told), MapResult[int])
        assert_type(pool.map_async(length, ["a"]).get(), list[int])
        assert_type(pool.imap(length, ["a"]), IMapIterator[int])
        assert_type(pool.imap_unordered(length, ["a"]), IMapUnorderedIterator[int])
        for number in pool.imap_unordered(length, ["a"], chunksize=5):
            assert_type(number, int)
        pool.map(length, [1])  # type: ignore[arg-type]
    with ThreadPool() as threads:
        assert_type(threads, ThreadPool)
        assert_type(threads.map(length, ["a"]), list[int])
        assert_type(threads.map(length, ["a"], return_exceptions=True, retries=2), list[int | BaseException])
        ThreadPool(2, retries=maniple.Retries(2, on=OSError), return_exceptions=True)
        ThreadPool(2, env={})  # type: ignore[call-arg]
    Pool(2, seed=ctypes.c_int(3).value, retries=maniple.Retries(2, on=[OSError, KeyError]))
    maniple.Retries(2, on=["OSError"])  # type: ignore[list-item]


def told_with_exceptions(lengths: list[int | BaseException]) -> None: ...


def one_told_with_exceptions(length: int | BaseException) -> None: ...


def exceptions_as_results(pool: maniple.Pool, choice: bool) -> None:
    found = pool.map(length, ["a"], return_exceptions=True)
    assert_type(found, list[int | BaseException])
    for result in found:
        if isinstance(result, BaseException):
            assert_type(result, BaseException)
        else:
            assert_type(result, int)
    assert_type(pool.map(length, ["a"], 3, return_exceptions=choice, retries=2), list[int | BaseException])
    assert_type(pool.map(length, ["a"], return_exceptions=False, task_timeout=3), list[int])
    assert_type(pool.starmap(power, [(1.5, 2)], return_exceptions=True), list[float | BaseException])
    assert_type(pool.starmap(power, [(1.5, 2)], soft_timeout=1, priority=1), list[float])
    assert_type(pool.apply(power, (1.5, 2), return_exceptions=True), float | BaseException)
    assert_type(pool.apply(power, (1.5, 2), {}, return_exceptions=False), float)
    one = pool.apply_async(length, ("a",), callback=one_told_with_exceptions, return_exceptions=True)
    assert_type(one, AsyncResult[int | BaseException])
    assert_type(one.get(timeout=1), int | BaseException)
    assert_type(pool.apply_async(length, ("a",), return_exceptions=choice).get(), int | BaseException)
    many = pool.map_async(length, ["a"], callback=told_with_exceptions, return_exceptions=True)
    assert_type(many, MapResult[int | BaseException])
    assert_type(many.get(), list[int | BaseException])
    assert_type(pool.starmap_async(power, [(1.5, 2)], return_exceptions=True).get(), list[float | BaseException])
    assert_type(pool.starmap_async(power, [(1.5, 2)], callback=print).get(), list[float])
    assert_type(pool.imap(length, ["a"], return_exceptions=True), IMapIterator[int | BaseException])
    assert_type(pool.imap(length, ["a"], 2, buffersize=3, return_exceptions=False), IMapIterator[int])
    assert_type(
        pool.imap_unordered(length, ["a"], return_exceptions=choice), IMapUnorderedIterator[int | BaseException]
    )
    pool.map_async(length, ["a"], callback=told, return_exceptions=True)  # type: ignore[arg-type]
    pool.map(length, ["a"], return_exceptions="yes")  # type: ignore[call-overload]
    pool.map(length, ["a"], return_exception=True)  # type: ignore[call-overload]
    pool.map(length, [1], return_exceptions=True)  # type: ignore[arg-type]


def queues(context: BaseContext) -> None:
    words: Queue[str] = context.Queue()
    assert_type(words.get(), str)
    words.put(1)  # type: ignore[arg-type]
    jobs: JoinableQueue[bytes] = maniple.JoinableQueue(3)
    assert_type(jobs.get_nowait(), bytes)
    numbers: SimpleQueue[int] = maniple.SimpleQueue()
    assert_type(numbers.get(), int)
    left, right = maniple.Pipe()
    assert_type(left, Connection)
    right.send({"any": "thing"})


def named_connection(talk: Connection[str, int]) -> None:
    talk.send("how many?")
    assert_type(talk.recv(), int)
    talk.send(1)  # type: ignore[arg-type]


def named(
    words: maniple.Queue[str],
    jobs: maniple.JoinableQueue[bytes] | None,
    ready: maniple.Event,
    lock: maniple.Lock | maniple.RLock,
    pool: maniple.Pool,
) -> maniple.SimpleQueue[int] | None:
    assert_type(words.get(), str)
    words.put(1)  # type: ignore[arg-type]
    assert_type(ready.is_set(), bool)
    with lock:
        assert_type(lock.acquire(timeout=1.0), bool)
    assert_type(pool.map(length, ["a"]), list[int])
    return None


def made_for_names(context: SpawnContext) -> None:
    words: maniple.Queue[str] = maniple.Queue(maxsize=3)
    jobs: maniple.JoinableQueue[bytes] = context.JoinableQueue()
    named(words, jobs, maniple.Event(), maniple.Lock(), maniple.Pool(2))
    named(context.Queue(), None, context.Event(), context.RLock(), context.Pool(2))
    changed: maniple.Condition = maniple.Condition(maniple.Lock())
    with changed:
        changed.wait_for(lambda: True, timeout=0.5)
    places: maniple.Semaphore = maniple.BoundedSemaphore(3)
    places.acquire(False)
    gate: maniple.Barrier = maniple.Barrier(2, timeout=5)
    assert_type(gate.wait(), int)
    assert_type(maniple.__version__, str)
    assert_type(maniple.task_seed(), int)


def misspelt(pool: maniple.Pool, ready: maniple.Event, gate: maniple.Barrier, words: maniple.Queue[str]) -> None:
    pool.mapp  # type: ignore[attr-defined]  # noqa: B018
    ready.sett  # type: ignore[attr-defined]  # noqa: B018
    gate.waite  # type: ignore[attr-defined]  # noqa: B018
    words.putt  # type: ignore[attr-defined]  # noqa: B018
    maniple.Poool  # type: ignore[attr-defined]  # noqa: B018
    maniple.Value("i").get_lok  # type: ignore[attr-defined]  # noqa: B018


def errors(pool: maniple.Pool) -> None:
    try:
        pool.apply(length, ("a",))
    except WorkerLostError as lost:
        assert_type(lost.pid, int)
        assert_type(lost.exitcode, int | None)
    except (ResultDecodeError, maniple.TimeoutError, maniple.WorkerLostError) as error:
        print(error.args)
    try:
        pool.apply(length, ("a",))
    except maniple.pool.WorkerLostError as lost:
        assert_type(lost.signal, signal.Signals | None)
        assert_type(lost.task, str)
        assert_type(lost.stderr_tail, str)
    except MaybeEncodingError as refused:
        assert_type(refused.exc, str)
        assert_type(refused.exception_type, str | None)
    except (maniple.AuthenticationError, maniple.BufferTooShort, RemoteError, RemoteTraceback):
        raise
    except maniple.ProcessError as error:
        base: maniple.ManipleError = error
        print(base)
    except maniple.ManipleError as error:
        same: ManipleError = error
        print(same)
    lost_error: RuntimeError = WorkerLostError("it died", 1, -9, "", "")
    print(lost_error)


def shared() -> None:
    assert_type(maniple.Value("i", 1), Synchronized[int])
    assert_type(maniple.Value(ctypes.c_double, 1.0).value, float)
    assert_type(maniple.Value(ctypes.c_int, lock=False), ctypes.c_int)
    assert_type(maniple.Array("d", 3), SynchronizedArray[float])
    assert_type(maniple.Array("d", 3)[0], float)
    assert_type(maniple.Array(ctypes.c_long, [1, 2])[:], list[int])
    assert_type(maniple.Array("c", 10), SynchronizedString)
    assert_type(maniple.RawValue(ctypes.c_int, 1), ctypes.c_int)
    memory = SharedMemory(create=True, size=3, track=False)
    assert_type(memory.buf, memoryview)
    assert_type(ShareableList([1, "a"]).shm, SharedMemory)


def managers() -> None:
    with maniple.Manager() as manager:
        assert_type(manager, SyncManager)
        assert_type(manager.dict({"a": 1}), DictProxy[str, int])
        assert_type(manager.dict({"a": 1})["a"], int)
        assert_type(manager.list([1.5]), ListProxy[float])
        assert_type(manager.set("ab"), SetProxy[str])
        assert_type(manager.Value("i", 3).value, int)
        assert_type(manager.Value("i", 3), ValueProxy[int])
        assert_type(manager.Array("d", [1.0]), ArrayProxy[float])
        assert_type(manager.dict({"a": 1}).keys()[0], str)
        assert_type(manager.dict({"a": 1}).items(), list[tuple[str, int]])
        names: Namespace = manager.Namespace()
        assert_type(names.anything, Any)


def processes() -> None:
    process = maniple.Process(target=length, args=("a",), daemon=True)
    assert_type(process.exitcode, int | None)
    assert_type(process.name, str)
    assert_type(process.daemon, bool)
    assert_type(process.authkey, bytes)
    assert_type(process.pid, int | None)
    assert_type(maniple.active_children(), list[BaseProcess])
    assert_type(maniple.get_context("spawn"), SpawnContext)
    assert_type(maniple.get_context("fork"), ForkContext)
    assert_type(maniple.get_context(), DefaultContext)
    executable: str = spawn.get_executable()
    print(executable)
    process.name = 3  # type: ignore[assignment]


def connections() -> None:
    with Listener(("localhost", 0), authkey=b"key") as listener, listener.accept() as connection:
        assert_type(connection.recv(), Any)
    assert_type(Client(("localhost", 1)), Connection)


def executors() -> None:
    ProcessPoolExecutor(mp_context=maniple.get_context("spawn"))
    ProcessPoolExecutor(mp_context=maniple.get_context())
    with maniple.ProcessPoolExecutor(2, task_timeout=1, retries=maniple.Retries(2), memory_limit="1GB") as executor:
        numbers = {executor.submit(length, "a" * number): number for number in range(3)}
        for future in as_completed(numbers):
            assert_type(numbers[future], int)
            assert_type(future.result(), int)
        assert_type(list(executor.map(length, ["a"])), list[int])
        executor.submit(length, 3)  # type: ignore[arg-type]
        executor.submit(length)  # type: ignore[call-arg]
        maniple.ProcessPoolExecutor(2, affinity="all")  # type: ignore[arg-type]
        view = executor.options(task_timeout=3, retries=2, priority=1, soft_timeout=None)
        assert_type(view.submit(length, "a").result(), int)
        assert_type(list(view.options(retries=maniple.Retries(2)).map(length, ["a"])), list[int])
        view.submit(length, 3)  # type: ignore[arg-type]
        executor.options(memory_limit="1GB")  # type: ignore[call-arg]
