"""Pools, queues, connections, processes and locks in tasks of asyncio, trio and anyio."""

from __future__ import annotations

import asyncio
import builtins
import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from queue import Empty, Full
from types import ModuleType
from typing import Any

import anyio
import pytest
import trio
from footprint import Footprint, leaks_since
from pools import METHODS, POOL_KINDS, end_pool, make_pool, square, wait_for_file

pytestmark = pytest.mark.better_than_standard("it has no asynchronous methods")

Main = Callable[[], Coroutine[Any, Any, Any]]


def under_asyncio(main: Main) -> Any:
    return asyncio.run(main())


def under_anyio_on_trio(main: Main) -> Any:
    return anyio.run(main, backend="trio")


LOOPS: dict[str, Callable[[Main], Any]] = {
    "asyncio": under_asyncio,
    "trio": trio.run,
    "anyio": anyio.run,
    "anyio on trio": under_anyio_on_trio,
}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Main], Any]:
    return LOOPS[request.param]


@pytest.fixture(params=POOL_KINDS)
def any_pool(request: pytest.FixtureRequest, mp: ModuleType) -> Iterator[Any]:
    pool = make_pool(mp, request.param, 2)
    yield pool
    end_pool(pool)


@pytest.fixture(params=METHODS)
def pool(request: pytest.FixtureRequest, mp: ModuleType) -> Iterator[Any]:
    pool = make_pool(mp, request.param, 2)
    yield pool
    end_pool(pool)


@pytest.fixture
def forked(mp: ModuleType) -> Iterator[Any]:
    pool = make_pool(mp, "fork", 2)
    yield pool
    end_pool(pool)


async def together(*calls: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run tasks of any loop."""
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call)


def raise_it(error: Exception) -> None:
    raise error


def fail(text: str) -> None:
    raise ValueError(text)


def die() -> None:
    os._exit(3)


def sleep_with_note(path: str) -> None:
    """Note the process, and sleep until it is killed."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def raise_timeout(_: int) -> None:
    from maniple import TimeoutError

    raise TimeoutError("of the function")


async def soon(condition: Callable[[], Any]) -> None:
    while not condition():
        await anyio.sleep(0.01)


# ---------------------------------------------------------------- results


def test_a_result_is_awaited(run: Any, any_pool: Any) -> None:
    async def main() -> None:
        assert await any_pool.apply_async(square, (7,)) == 49
        assert await any_pool.map_async(square, range(5)) == [0, 1, 4, 9, 16]
        assert await any_pool.starmap_async(pow, [(2, 3), (3, 2)]) == [8, 9]
        with pytest.raises(ValueError, match="it fails"):
            await any_pool.apply_async(fail, ("it fails",))

    run(main)


def test_a_result_is_awaited_after_its_end_and_again(run: Any, any_pool: Any) -> None:
    async def main() -> None:
        result = any_pool.apply_async(square, (3,))
        result.wait()
        assert await result == 9
        assert await result == 9 == result.get()

    run(main)


def test_a_result_with_a_callback_is_awaited_until_the_callback_has_returned(run: Any, any_pool: Any) -> None:
    called: list[int] = []

    def call(value: int) -> None:
        time.sleep(0.1)
        called.append(value)

    async def main() -> None:
        assert await any_pool.apply_async(square, (3,), callback=call) == 9
        assert called == [9]

    run(main)


def test_the_results_of_a_pool_of_queues_are_awaited(run: Any, pool_module: ModuleType) -> None:
    class Own(pool_module.Pool):
        def _repopulate_pool(self) -> None:  # so that the pool has the standard package's parts
            super()._repopulate_pool()

    async def main() -> None:
        async with Own(2) as pool:
            assert await pool.apply_async(square, (3,)) == 9
            assert await pool.map_async(square, range(3)) == [0, 1, 4]
            assert [value async for value in pool.imap(square, range(9))] == [n * n for n in range(9)]
            assert [value async for value in pool.imap(square, range(9), 2)] == [n * n for n in range(9)]

    run(main)


def test_the_loop_runs_while_a_task_awaits(run: Any, forked: Any) -> None:
    turns = 0
    is_over = False

    async def count() -> None:
        nonlocal turns
        while not is_over:
            turns += 1
            await anyio.sleep(0.01)

    async def call() -> None:
        nonlocal is_over
        await forked.apply_async(time.sleep, (0.5,))
        is_over = True

    async def main() -> None:
        await together(count, call)

    run(main)
    assert turns > 5


def test_many_results_are_awaited_by_no_further_thread(forked: Any) -> None:
    threads = []

    async def one(number: int) -> int:
        value: int = await forked.apply_async(square, (number,))
        if number % 1000 == 0:
            threads.append(threading.active_count())
        return value

    async def main() -> None:
        assert await asyncio.gather(*map(one, range(10_000))) == [n * n for n in range(10_000)]

    before = threading.active_count()
    asyncio.run(main())
    assert set(threads) == {before}


def test_several_tasks_await_one_result(run: Any, forked: Any) -> None:
    values: list[float] = []

    async def main() -> None:
        result = forked.apply_async(time.sleep, (0.2,))

        async def wait() -> None:
            values.append(await result)

        await together(wait, wait, wait)

    run(main)
    assert values == [None] * 3


def test_loops_in_several_threads_await_one_pool(forked: Any) -> None:
    shared = forked.apply_async(time.sleep, (0.3,))
    sums: list[int] = []

    async def main() -> None:
        assert await shared is None
        sums.append(sum(await asyncio.gather(*(forked.apply_async(square, (n,)) for n in range(200)))))

    threads = [threading.Thread(target=lambda run=run: run(main)) for run in (under_asyncio, under_asyncio)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [sum(n * n for n in range(200))] * 2


def test_outside_of_a_loop_the_error_says_what_is_missing(forked: Any) -> None:
    with pytest.raises(RuntimeError, match="event loop of asyncio or trio"):
        forked.apply_async(square, (3,)).__await__().send(None)


def test_a_killed_worker_fails_the_await(mp: ModuleType, run: Any, pool: Any) -> None:
    async def main() -> None:
        with pytest.raises(mp.WorkerLostError, match="exit code 3|status 3|exited"):
            await pool.apply_async(die)
        assert await pool.apply_async(square, (3,)) == 9

    run(main)


def test_the_pools_end_fails_the_await(run: Any, forked: Any) -> None:
    async def call() -> None:
        with pytest.raises(ValueError, match="terminated"):
            await forked.apply_async(time.sleep, (600,))

    async def end() -> None:
        await anyio.sleep(0.1)
        forked.terminate()

    async def main() -> None:
        await together(call, end)

    run(main)


# ---------------------------------------------------------------- cancelling


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_cancelling_a_task_cancels_its_call(run: Any, pool: Any, tmp_path: Path) -> None:
    note = tmp_path / "pid"

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def call() -> None:
                await pool.apply_async(sleep_with_note, (str(note),))

            group.start_soon(call)
            await soon(lambda: note.exists() and note.read_text())
            group.cancel_scope.cancel()
        # The sleep takes ten minutes.
        await soon(lambda: not is_running(int(note.read_text())))
        assert await pool.apply_async(square, (3,)) == 9

    run(main)


def test_cancelling_a_task_withdraws_a_call_that_has_not_begun(mp: ModuleType, run: Any, tmp_path: Path) -> None:
    with make_pool(mp, "fork", 1) as pool:

        async def main() -> None:
            first = pool.apply_async(wait_for_file, (str(tmp_path / "go"),))
            second = pool.apply_async(sleep_with_note, (str(tmp_path / "pid"),))
            with anyio.move_on_after(0.1):
                await second
            (tmp_path / "go").touch()
            assert await first
            assert second.cancelled()
            assert await pool.apply_async(square, (3,)) == 9

        run(main)
    assert not (tmp_path / "pid").exists()


def test_one_of_two_awaiting_tasks_is_cancelled_and_the_other_gets_the_result(
    run: Any, forked: Any, tmp_path: Path
) -> None:
    values = []

    async def main() -> None:
        result = forked.apply_async(wait_for_file, (str(tmp_path / "go"),))

        async def wait() -> None:
            values.append(await result)

        async def give_up() -> None:
            with anyio.move_on_after(0.1):
                await result
            (tmp_path / "go").touch()

        await together(wait, give_up)

    run(main)
    assert values == [True]


def test_a_shielded_call_goes_on(tmp_path: Path) -> None:
    import maniple

    async def main() -> None:
        async with maniple.Pool(1) as pool:
            result = pool.apply_async(wait_for_file, (str(tmp_path / "go"),))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(result), 0.1)
            (tmp_path / "go").touch()
            assert await result

    asyncio.run(main())


def test_cancel_by_another_task_fails_the_await(mp: ModuleType, run: Any, forked: Any) -> None:
    async def main() -> None:
        result = forked.apply_async(time.sleep, (600,))

        async def wait() -> None:
            with pytest.raises(mp.CancelledError):
                await result

        async def cancel() -> None:
            await soon(result.running)
            assert result.cancel(kill=True)

        await together(wait, cancel)

    run(main)


def test_cancelling_a_task_of_a_thread_pool_returns_at_once(run: Any, pool_module: ModuleType) -> None:
    done = threading.Event()
    with pool_module.ThreadPool(1) as pool:

        async def main() -> None:
            with anyio.move_on_after(0.1) as scope:
                await pool.apply_async(done.wait, (60,))
            assert scope.cancelled_caught

        run(main)
        done.set()
        assert pool.apply(square, (3,)) == 9


# ---------------------------------------------------------------- imap


def test_the_results_of_imap_are_an_asynchronous_iterator(run: Any, any_pool: Any) -> None:
    squares = [n * n for n in range(300)]

    async def main() -> None:
        assert [value async for value in any_pool.imap(square, range(300))] == squares
        assert [
            value async for value in any_pool.imap(square, map(int, range(300)), chunksize=7, buffersize=20)
        ] == squares
        assert sorted([value async for value in any_pool.imap_unordered(square, range(300), chunksize=4)]) == squares
        assert [value async for value in any_pool.imap(square, [])] == []

    run(main)


def test_an_endless_input_of_imap(run: Any, pool: Any) -> None:
    def numbers() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    async def main() -> None:
        seen = 0
        async for value in pool.imap(square, numbers(), buffersize=10):
            assert value == seen * seen
            seen += 1
            if seen == 50:
                break

    run(main)


def test_the_iteration_continues_after_a_failed_item(run: Any, any_pool: Any) -> None:
    async def main() -> None:
        results = any_pool.imap(square, [1, "x", 3])
        assert await anext(results) == 1
        with pytest.raises(TypeError):
            await anext(results)
        assert await anext(results) == 9
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    run(main)


def test_a_time_out_that_the_function_raises_is_an_items_error(mp: ModuleType, run: Any, any_pool: Any) -> None:
    async def main() -> None:
        results = any_pool.imap(raise_timeout, range(2))
        for _ in range(2):
            with pytest.raises(mp.TimeoutError, match="of the function"):
                await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)

    run(main)


def test_cancelling_an_iteration_cancels_its_calls(run: Any, pool: Any, tmp_path: Path) -> None:
    notes = [tmp_path / str(number) for number in range(4)]

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def iterate() -> None:
                async for _ in pool.imap(sleep_with_note, map(str, notes)):
                    pass

            group.start_soon(iterate)
            await soon(lambda: sum(note.exists() and bool(note.read_text()) for note in notes) == 2)
            group.cancel_scope.cancel()
        await soon(lambda: not any(is_running(int(note.read_text())) for note in notes if note.exists()))
        assert await pool.apply_async(square, (3,)) == 9
        assert sum(note.exists() for note in notes) == 2

    run(main)


# ---------------------------------------------------------------- the pool itself


@pytest.mark.parametrize("kind", POOL_KINDS)
def test_async_with_ends_the_pool(mp: ModuleType, run: Any, kind: str) -> None:
    async def main() -> None:
        entered = make_pool(mp, kind, 2)
        async with entered as pool:
            assert pool is entered and await pool.apply_async(square, (3,)) == 9
        with pytest.raises(ValueError, match="not running"):
            pool.apply_async(square, (3,))

    run(main)


def ignore_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def test_the_loop_runs_while_async_with_ends_a_stubborn_pool(mp: ModuleType, run: Any, tmp_path: Path) -> None:
    turns = 0
    note = tmp_path / "pid"

    async def main() -> None:
        is_over = False

        async def end() -> None:
            nonlocal is_over, turns
            async with make_pool(mp, "fork", 1, initializer=ignore_sigterm) as pool:
                pool.apply_async(sleep_with_note, (str(note),))
                await soon(lambda: note.exists() and note.read_text())
                turns = 0
            is_over = True

        async def count() -> None:
            nonlocal turns
            while not is_over:
                turns += 1
                await anyio.sleep(0.01)

        await together(end, count)

    run(main)
    # The pool kills the worker only after a while.
    assert turns > 5


def test_join_async_waits_for_the_end(run: Any, any_pool: Any) -> None:
    async def main() -> None:
        result = any_pool.apply_async(time.sleep, (0.2,))
        any_pool.close()
        assert await any_pool.join_async()
        assert result.ready()

    run(main)


def test_a_cancelled_join_returns_at_once(run: Any, forked: Any) -> None:
    async def main() -> None:
        forked.apply_async(time.sleep, (600,))
        forked.close()
        with anyio.move_on_after(0.1) as scope:
            await forked.join_async()
        assert scope.cancelled_caught

    run(main)


# ---------------------------------------------------------------- loops that end


def test_a_closed_loop_leaves_the_pool_to_the_next(forked: Any) -> None:
    async def wait() -> None:
        await forked.apply_async(time.sleep, (600,))

    for _ in range(3):
        loop = asyncio.new_event_loop()
        task = loop.create_task(wait())
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()
        # The loop is closed in the middle of the wait; asyncio would tell of the pending task.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task, loop
        gc.collect()

    async def main() -> None:
        assert await forked.apply_async(square, (3,)) == 9

    # The tasks are gone, so their calls were cancelled.
    asyncio.run(main())


@pytest.mark.parametrize(("limit", "kind"), [("1", TypeError), ([], TypeError), (10**400, ValueError)], ids=repr)
@pytest.mark.parametrize("call", ["get_async", "get_many_async", "put_async", "put_many_async"])
def test_a_time_limit_that_cannot_be(run: Any, call: str, limit: Any, kind: type[Exception]) -> None:
    queue: Any = __import__("maniple").Queue()
    arguments = {"put_async": (1,), "put_many_async": ([1],)}.get(call, ())

    async def main() -> None:
        with pytest.raises(kind, match="timeout (must be a number of seconds or None, not|is too large)"):
            await getattr(queue, call)(*arguments, timeout=limit)

    run(main)
    assert queue.empty()


def test_loops_leave_no_descriptors(run: Any, forked: Any) -> None:
    queue: Any = __import__("maniple").Queue()

    async def main() -> None:
        assert await forked.apply_async(square, (3,)) == 9
        queue.put(1)
        assert await queue.get_async() == 1
        with anyio.move_on_after(0.01):
            await queue.get_async()

    run(main)
    gc.collect()
    before = Footprint.take()
    for _ in range(3):
        run(main)
    gc.collect()
    assert not leaks_since(before)


def test_a_forked_child_is_told_that_the_pool_is_its_parents(mp: ModuleType, forked: Any) -> None:
    result = forked.apply_async(time.sleep, (600,))
    told: Any = mp.get_context("fork").SimpleQueue()

    async def main() -> None:
        try:
            await result
        except RuntimeError as error:
            told.put(str(error))

    child = mp.get_context("fork").Process(target=lambda: asyncio.run(main()))
    child.start()
    assert "fork" in told.get()
    child.join()


# ---------------------------------------------------------------- processes


@pytest.mark.parametrize("method", METHODS)
def test_join_async_of_a_process(mp: ModuleType, run: Any, method: str) -> None:
    async def main() -> None:
        process = mp.get_context(method).Process(target=time.sleep, args=(0.1,))
        with pytest.raises(AssertionError, match="started"):
            await process.join_async()
        process.start()
        await process.join_async()
        assert process.exitcode == 0
        await process.join_async()
        process.close()

    run(main)


def test_a_process_outlives_a_cancelled_join(mp: ModuleType, run: Any) -> None:
    async def main() -> None:
        process = mp.Process(target=time.sleep, args=(600,))
        process.start()
        with anyio.move_on_after(0.1) as scope:
            await process.join_async()
        assert scope.cancelled_caught and process.is_alive()
        process.kill()
        await process.join_async()
        assert process.exitcode == -signal.SIGKILL
        process.close()

    run(main)


# ---------------------------------------------------------------- queues


def put_slowly(queue: Any, count: int) -> None:
    for number in range(count):
        queue.put(number)
        time.sleep(0.01)


def take(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.get()


def put_forever(queue: Any) -> None:
    while True:
        queue.put(7)


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
@pytest.mark.parametrize("method", METHODS)
def test_get_async_waits_for_another_process(mp: ModuleType, run: Any, method: str, kind: str) -> None:
    ctx = mp.get_context(method)

    async def main() -> None:
        queue = getattr(ctx, kind)()
        process = ctx.Process(target=put_slowly, args=(queue, 20))
        process.start()
        assert [await queue.get_async() for _ in range(20)] == list(range(20))
        await process.join_async()
        process.close()
        queue.close()

    run(main)


def test_put_async_waits_for_room(mp: ModuleType, run: Any) -> None:
    async def main() -> None:
        queue = mp.Queue(2)
        process = mp.Process(target=take, args=(queue, 60))

        async def put() -> None:
            for number in range(20):
                await queue.put_async(number)

        async def begin() -> None:
            await anyio.sleep(0.1)
            process.start()

        await together(put, put, put, begin)
        await process.join_async()
        assert process.exitcode == 0 and queue.empty()
        process.close()
        queue.close()

    run(main)


def test_tasks_of_one_loop_share_a_queue(mp: ModuleType, run: Any) -> None:
    got: list[int] = []

    async def main() -> None:
        queue = mp.Queue(3)

        async def get() -> None:
            for _ in range(50):
                got.append(await queue.get_async())

        async def put() -> None:
            for number in range(50):
                await queue.put_async(number)

        await together(get, put, get, put)

    run(main)
    assert sorted(got) == sorted([*range(50)] * 2)


def test_waits_for_items_and_room_have_time_limits(mp: ModuleType, run: Any) -> None:
    async def main() -> None:
        queue, simple = mp.Queue(2), mp.SimpleQueue()
        for limit in (-1, 0, 0.05):
            for wait in (queue.get_async, queue.get_many_async, simple.get_async, simple.get_many_async):
                with pytest.raises(Empty, match=rf"^the queue was empty for {max(0, limit)} s$"):
                    await wait(timeout=limit)
        await queue.put_many_async(["a", "b"], timeout=60)
        for limit in (-1, 0, 0.05):
            with pytest.raises(Full, match=rf"^the queue \(maxsize=2\) had no room for {max(0, limit)} s$"):
                await queue.put_async("c", timeout=limit)
            with pytest.raises(Full, match="had no room") as raised:
                await queue.put_many_async(["c", "d"], timeout=limit)
            assert (raised.value.items_put, raised.value.next_items) == (0, ["c"])  # type: ignore[attr-defined]
        assert await queue.get_async(timeout=60) == "a"
        with pytest.raises(Full, match="had no room") as raised:
            await queue.put_many_async(iter("cde"), timeout=0.05)
        assert (raised.value.items_put, raised.value.next_items) == (1, ["d"])  # type: ignore[attr-defined]
        assert await queue.get_many_async(timeout=60) == ["b", "c"]

        async def put() -> None:
            await anyio.sleep(0.2)
            await queue.put_async("late")

        async def get() -> None:
            assert await queue.get_async(timeout=60) == "late"

        await together(put, get)

    run(main)


def test_a_wait_whose_time_is_up_takes_no_item_from_the_next(mp: ModuleType, run: Any) -> None:
    """Waits end at all moments while another process puts; no item is lost, and none is left with a wait that is over."""

    async def main() -> None:
        queue = mp.Queue()
        count, got = 300, []
        process = mp.Process(target=put_slowly, args=(queue, count))
        process.start()

        async def get() -> None:
            while len(got) < count:
                try:
                    got.append(await queue.get_async(timeout=0.003))
                except Empty:
                    pass

        await together(get, get, get)
        assert sorted(got) == list(range(count))
        await process.join_async()
        process.close()
        queue.close()

    run(main)


def test_waits_that_time_out_leave_nothing_behind(mp: ModuleType) -> None:
    from maniple._impl.aio.doors import door

    async def main() -> None:
        queue = mp.Queue()
        for _ in range(20):
            with pytest.raises(Empty):
                await queue.get_async(timeout=0.001)
        assert not door()._readers and not door()._waiting

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_several_items_at_a_time_in_a_loop(mp: ModuleType, run: Any, kind: str) -> None:
    async def main() -> None:
        queue = getattr(mp, kind)(*([7] if kind != "SimpleQueue" else []))
        got: list[int] = []

        async def put() -> None:
            await queue.put_many_async(range(1000))

        async def get() -> None:
            while len(got) < 2000:
                got.extend(await queue.get_many_async(5))

        await together(put, get, put)
        assert sorted(got) == sorted([*range(1000)] * 2)
        with pytest.raises(ValueError, match="max_items must be 1 or more"):
            await queue.get_many_async(0)
        queue.close()

    run(main)


def test_put_many_async_stops_with_the_queue_or_the_iterable(mp: ModuleType, run: Any) -> None:
    def failing() -> Any:
        yield from range(3)
        raise KeyError("of the iterable")

    def full() -> Any:
        yield 1
        raise Full("of another queue")

    async def main() -> None:
        queue = mp.Queue(5)
        with pytest.raises(KeyError):
            await queue.put_many_async(failing())
        assert queue.get_many() == [0, 1, 2]
        with pytest.raises(Full, match="of another queue") as of_iterable:
            await queue.put_many_async(full())
        assert of_iterable.value.next_items == [] and queue.get_many() == [1]  # type: ignore[attr-defined]

        async def end() -> None:
            await anyio.sleep(0.2)
            queue.shutdown()

        async def put() -> None:
            with pytest.raises(mp.ShutDown) as raised:
                await queue.put_many_async(range(9))
            assert (raised.value.items_put, raised.value.next_items) == (5, [5])

        await together(put, end)
        assert await queue.get_many_async() == list(range(5))
        with pytest.raises(mp.ShutDown):
            await queue.get_many_async()

    run(main)


def test_asyncio_s_error_says_how_a_result_becomes_a_task(forked: Any) -> None:
    async def main() -> None:
        result = forked.apply_async(abs, (-1,))
        with pytest.raises(TypeError, match="use asyncio.ensure_future in the place of create_task"):
            asyncio.create_task(result)
        with pytest.raises(AttributeError, match=r"pass asyncio.ensure_future\(result\)"):
            await asyncio.wait([result])
        assert await asyncio.ensure_future(result) == 1
        assert "ensure_future" not in repr(result) and not hasattr(result, "add_done_callback")

    asyncio.run(main())


def test_cancelling_a_get_loses_no_item(mp: ModuleType, run: Any) -> None:
    """Gets are cancelled at all moments while another process puts."""

    async def main() -> None:
        queue = mp.Queue()
        count = 300
        process = mp.Process(target=put_slowly, args=(queue, count))
        process.start()
        got = []
        while len(got) < count:
            with anyio.move_on_after(0.003):
                got.append(await queue.get_async())
        assert got == list(range(count)) and queue.empty()
        await process.join_async()
        process.close()

    run(main)


def test_cancelling_a_woken_task_leaves_the_item_to_the_next() -> None:
    import maniple

    async def main() -> None:
        queue: maniple.Queue[int] = maniple.Queue()
        first, second = asyncio.create_task(queue.get_async()), asyncio.create_task(queue.get_async())
        await asyncio.sleep(0.05)
        queue.put(7)
        # The loop wakes the first task in its next turn; the task has not run when it is cancelled.
        await asyncio.sleep(0)
        first.cancel()
        assert await second == 7
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())


def test_cancelling_a_put_puts_nothing(mp: ModuleType, run: Any) -> None:
    async def main() -> None:
        queue = mp.Queue(1)
        queue.put("first")

        async def put() -> None:
            await queue.put_async("third")

        with anyio.move_on_after(0.1) as scope:
            await queue.put_async("second")
        assert scope.cancelled_caught
        async with anyio.create_task_group() as group:
            group.start_soon(put)
            assert [await queue.get_async(), await queue.get_async()] == ["first", "third"]
        assert queue.empty()

    run(main)


def test_a_killed_writer_does_not_stop_get_async(mp: ModuleType, run: Any) -> None:
    async def main() -> None:
        queue = mp.Queue(100)
        for _ in range(3):
            process = mp.Process(target=put_forever, args=(queue,))
            process.start()
            assert [await queue.get_async() for _ in range(500)] == [7] * 500
            process.kill()
            await process.join_async()
            process.close()
        while not queue.empty():
            assert await queue.get_async() == 7
        await queue.put_async(8)
        assert await queue.get_async() == 8

    run(main)


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_ends_waiting_tasks(mp: ModuleType, run: Any, immediate: bool) -> None:
    ended = []

    async def main() -> None:
        empty, full = mp.Queue(), mp.Queue(1)
        full.put(1)

        async def get() -> None:
            with pytest.raises(mp.ShutDown):
                await empty.get_async()
            ended.append("get")

        async def put() -> None:
            with pytest.raises(mp.ShutDown):
                await full.put_async(2)
            ended.append("put")

        async def end() -> None:
            await anyio.sleep(0.1)
            empty.shutdown(immediate)
            full.shutdown(immediate)

        await together(get, get, put, put, end)

    run(main)
    assert sorted(ended) == ["get", "get", "put", "put"]


def test_a_program_watches_the_same_queue_with_its_loop() -> None:
    import maniple

    async def main() -> None:
        queue: Any = maniple.Queue()
        seen = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(queue._reader.fileno(), seen.set)
        task = asyncio.create_task(queue.get_async())
        await asyncio.sleep(0.05)
        queue.put(7)
        assert await task == 7
        await seen.wait()
        loop.remove_reader(queue._reader.fileno())

    asyncio.run(main())


def test_a_queue_of_the_standard_form_has_the_asynchronous_calls(mp: ModuleType, run: Any) -> None:
    from maniple.queues import Queue

    class Own(Queue):  # type: ignore[type-arg]
        _uses_parts = True

    async def main() -> None:
        queue = Own(1, ctx=mp.get_context("fork"))

        async def put() -> None:
            for number in range(5):
                await queue.put_async(number)

        async def get() -> None:
            assert [await queue.get_async() for _ in range(5)] == list(range(5))

        await together(put, get)
        queue.close()
        queue.join_thread()

    run(main)


# ---------------------------------------------------------------- connections


def echo(connection: Any) -> None:
    while (message := connection.recv()) is not None:
        connection.send(message)


def test_messages_of_all_sizes_go_both_ways(mp: ModuleType, run: Any) -> None:
    async def main() -> None:
        ours, theirs = mp.Pipe()
        process = mp.Process(target=echo, args=(theirs,))
        process.start()
        theirs.close()
        for size in (1, 3_000, 100_000, 5_000_000):
            message = os.urandom(size)
            await ours.send_async(message)
            assert await ours.recv_async() == message
        await ours.send_async(None)
        ours.close()
        await process.join_async()
        process.close()

    run(main)


@pytest.mark.parametrize("duplex", [True, False])
def test_both_ends_of_a_pipe_in_one_loop(mp: ModuleType, run: Any, duplex: bool) -> None:
    sent = [os.urandom(size) for size in (10, 300_000, 10, 2_000_000, 10)]

    async def main() -> None:
        reader, writer = mp.Pipe(duplex)

        async def send() -> None:
            for message in sent:
                await writer.send_async(message)
            writer.close()

        async def receive() -> None:
            for message in sent:
                assert await reader.recv_async() == message
            with pytest.raises(EOFError):
                await reader.recv_async()

        await together(send, receive)
        reader.close()

    run(main)


def test_a_message_stays_if_its_receiver_is_cancelled(mp: ModuleType, run: Any) -> None:
    async def main() -> None:
        reader, writer = mp.Pipe(False)
        with anyio.move_on_after(0.05) as scope:
            await reader.recv_async()
        assert scope.cancelled_caught
        writer.send("there")
        assert await reader.recv_async() == "there"
        reader.close()
        writer.close()

    run(main)


def test_an_exception_that_means_an_end_does_not_end_an_imap(any_pool: Any, run: Any) -> None:
    async def main() -> None:
        for name in ("StopIteration", "StopAsyncIteration"):
            errors = [getattr(builtins, name)("mine")] * 2
            results = any_pool.imap(raise_it, errors)
            with pytest.raises(RuntimeError, match=f"a task raised {name}") as caught:
                async for _ in results:
                    pass
            assert isinstance(caught.value.__cause__, type(errors[0]))

    run(main)


@pytest.mark.parametrize("duplex", [False, True])
def test_loops_that_share_a_connection_never_wait_for_another_loops_message(mp: ModuleType, duplex: bool) -> None:
    reader, writer = mp.Pipe(duplex)
    rounds, loops = 60, 3
    meet = threading.Barrier(loops + 1)
    received: list[int] = []

    async def turn() -> None:
        with anyio.move_on_after(0.03):
            received.append(await reader.recv_async())

    def loop() -> None:
        for _ in range(rounds):
            meet.wait(60)
            asyncio.run(turn())

    threads = [threading.Thread(target=loop, daemon=True) for _ in range(loops)]
    for thread in threads:
        thread.start()
    for number in range(rounds):
        meet.wait(60)  # fails if a loop waits in `recv` for a message of its own
        writer.send(number)
    for thread in threads:
        thread.join(60)
    while reader.poll():
        received.append(reader.recv())
    assert sorted(received) == list(range(rounds))
    reader.close()
    writer.close()


def test_a_full_connection_does_not_block_the_loop_and_keeps_the_order(mp: ModuleType, run: Any) -> None:
    fill = "x" * 3000  # so that the pipe is full after some messages

    async def main() -> None:
        reader, writer = mp.Pipe(False)
        count = 0

        async def send() -> None:
            nonlocal count
            while True:
                await writer.send_async((count, fill))
                count += 1

        await writer.send_async("first")
        assert await reader.recv_async() == "first"
        async with anyio.create_task_group() as group:
            group.start_soon(send)
            before = -1
            while count != before or writer._sender.is_free:
                before = count
                await anyio.sleep(0.05)
            group.cancel_scope.cancel()
        # The message of the cancelled call is sent nevertheless.
        assert [await reader.recv_async() for _ in range(count + 1)] == [(n, fill) for n in range(count + 1)]
        await writer.send_async("last")
        assert await reader.recv_async() == "last"
        reader.close()
        writer.close()

    run(main)


def test_wrong_directions_and_closed_ends(mp: ModuleType, run: Any) -> None:
    async def main() -> None:
        reader, writer = mp.Pipe(False)
        with pytest.raises(OSError, match="write-only"):
            await writer.recv_async()
        with pytest.raises(OSError, match="read-only"):
            await reader.send_async(1)
        reader.close()
        with pytest.raises(OSError, match="closed"):
            await reader.recv_async()
        with pytest.raises(BrokenPipeError):
            await writer.send_async(1)
        writer.close()

    run(main)


# ---------------------------------------------------------------- locks


def hold(lock: Any, ready: Any) -> None:
    with lock:
        ready.send(1)
        time.sleep(0.2)


@pytest.mark.parametrize("kind", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_acquire_async_waits_for_another_process(mp: ModuleType, run: Any, kind: str) -> None:
    async def main() -> None:
        lock = getattr(mp, kind)()
        reader, writer = mp.Pipe(False)
        process = mp.Process(target=hold, args=(lock, writer))
        process.start()
        await reader.recv_async()
        assert not lock.acquire(False)
        assert await lock.acquire_async()
        lock.release()
        await process.join_async()
        process.close()

    run(main)


def test_an_rlock_has_no_acquire_async(mp: ModuleType, run: Any) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="use a Lock"):
            await mp.RLock().acquire_async()

    run(main)


# ---------------------------------------------------------------- the door


def test_a_descriptor_that_is_closed_during_the_wait_and_used_anew() -> None:
    from maniple._impl.aio.doors import door

    async def main() -> None:
        one, other = os.pipe()
        lost = asyncio.create_task(door().readable(one))
        await asyncio.sleep(0.02)
        copy = os.dup(one)  # the open file stays, as in a forked child
        os.close(one)
        again, writer = os.pipe()
        assert again == one
        task = asyncio.create_task(door().readable(again))
        await asyncio.sleep(0.02)
        os.write(writer, b"x")
        # The first is woken, too: it finds that its connection is closed.
        await lost
        await task
        os.write(other, b"x")
        await asyncio.sleep(0.02)
        for fd in (copy, other, again, writer):
            os.close(fd)

    asyncio.run(main())
