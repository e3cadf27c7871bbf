"""Odd arguments: the package treats them as the standard package does."""

from __future__ import annotations

import multiprocessing
import queue
import time
from types import ModuleType
from typing import Any

import pytest

ODD: dict[str, list[str]] = {
    "full({}).get({})": ["0", "1", "False", "True", "0, 5", "1, 5", "True, 0", "True, -1"],
    "empty().get({})": ["0", "False", "True, 0", "True, -1", "True, 0.01", "True, 'a'", "0, 'a'", "1, 0.01"],
    "full().put(1, {})": ["0", "False", "True, 0", "True, -1", "True, 0.01", "True, 'a'", "1, 0.01"],
    "ctx.Queue({}).full()": ["0", "-1", "1", "True", "False", "'a'", "1.5", "[]"],
    "ctx.Lock().acquire({})": ["0", "1", "True", "False", "True, -1", "True, 0", "True, 'a'", "True, False"],
    "ctx.Semaphore({}).get_value()": ["0", "-1", "True", "1.5", "None", "'a'", "2**70"],
    "ctx.BoundedSemaphore({}).get_value()": ["0", "-1", "1", "1.5", "None", "'a'", "2**70"],
    "ctx.Value('i', 1, lock={}).value": ["1", "True", "None", "0", "[]", "'a'", "ctx.Lock()"],
    "ctx.Array('i', 1, lock={})[0]": ["1", "True", "None", "0", "[]", "'a'", "ctx.RLock()"],
    "ctx.Array({})[:]": ["'i', 3", "'i', -1", "'i', 'ab'", "'c', b'ab'", "'x', 3", "5, 5", "'d', [1.5]", "'i', None"],
    "ctx.Barrier(2).wait({})": ["0", "-1", "0.01", "'a'"],
    "ctx.Event().wait({})": ["0", "-1", "0.01", "False", "'a'"],
    "connection.wait({})": ["[1.5]", "['a']", "None", "[], 0", "[], 'a'"],
    "ctx.Pipe()[0].send_bytes({})": ["1", "None", "'a'", "b'abc', 4", "b'abc', -1", "b'abc', 1, 3", "b'abc', 1.5"],
    "ctx.Pipe()[0].poll({})": ["0", "-1", "'a'", "False"],
    "ctx.Process({}).exitcode": ["1", "target=1", "args=1", "args='ab'", "kwargs=1", "name=1"],
    "ctx.Process().{}": ["join()", "terminate()", "is_alive()", "sentinel", "close()"],
    "shared_memory.SharedMemory({})": ["1", "None", "b'x'", "create=True", "create=True, size=-1", "'no/such'"],
    "shared_memory.ShareableList({})": ["1", "[[]]", "[{}]", "[2**70]"],
    "shared_memory.ShareableList(name={})": ["'nosuchlist'", "1"],
    "ctx.get_context({})": ["'x'", "1", "''"],
    "ctx.set_start_method({})": ["'fork'", "'x'"],
    "pool({}).apply(abs, (-1,))": [
        "1, None, None",
        "1, None, 5",
        "0",
        "-1",
        "1.5",
        "'a'",
        "1, 5",
        "1, maxtasksperchild=0",
        "1, maxtasksperchild=1.5",
    ],
    "list(pool(1).imap(abs, [-1, -2], {}))": ["1.0", "True", "2", "0", "-1", "'a'", "None"],
    "list(pool(1).imap_unordered(abs, [-1], {}))": ["1.0", "0", "-1"],
    "pool(1).map(abs, {})": ["5", "None", "iter([-1])", "{-1: 2}", "range(0)", "'ab'"],
    "pool(1).apply(abs, {})": ["-1", "None", "[-1]", "{-1: 1}", "iter([-1])", "(-1, 2)"],
    "pool(1).apply_async(time.sleep, (0.2,)).get({})": ["0", "-1", "0.01", "False", "'a'"],
}
EXPRESSIONS = [
    form.format(*([odd] if form.count("{}") == 1 else ["", odd])) for form, odds in ODD.items() for odd in odds
]


class Said(Exception):
    """Return an exception's class among those that programs know."""


def outcome(mp: ModuleType, expression: str) -> Any:
    __import__(f"{mp.__name__}.shared_memory")
    __import__(f"{mp.__name__}.pool")
    ctx: Any = mp.get_context("fork")
    pools: list[Any] = []

    def pool(*args: Any, **options: Any) -> Any:
        pools.append(ctx.Pool(*args, **options))
        return pools[-1]

    def full() -> Any:
        made = ctx.Queue(1)
        made.put("item")
        deadline = time.monotonic() + 20
        while made.empty() and time.monotonic() < deadline:
            time.sleep(0.001)
        return made

    scope = {
        "mp": mp,
        "ctx": ctx,
        "connection": mp.connection,
        "shared_memory": mp.shared_memory,
        "time": time,
        "pool": pool,
        "full": full,
        "empty": ctx.Queue,
    }
    try:
        return eval(expression, scope)
    except Exception as error:
        # The first of its classes outside the package: the standard package's classes have the same names.
        known = [
            kind for kind in type(error).__mro__ if kind.__module__ in ("builtins", "queue", "threading", "struct")
        ]
        names = {kind.__name__ for kind in type(error).__mro__}
        return ("raises", "TimeoutError" if "TimeoutError" in names else known[0].__name__)
    finally:
        for one in pools:
            one.terminate()
            one.join()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_odd_argument_has_the_standard_packages_outcome(mp: ModuleType, expression: str) -> None:
    ours, theirs = outcome(mp, expression), outcome(multiprocessing, expression)
    if isinstance(ours, tuple) and ours[0] == "raises" and isinstance(theirs, tuple):
        assert ours == theirs
    else:
        assert ours == theirs or type(ours).__name__ == type(theirs).__name__


@pytest.mark.better_than_standard("a nonsensical chunksize gives a wrong answer there, or hangs")
@pytest.mark.parametrize("kind", ["fork", "thread"])
@pytest.mark.parametrize("chunksize", [0, -1, False, 1.5, float("nan")])
def test_a_pool_refuses_a_nonsensical_chunksize(new_pool: Any, chunksize: Any) -> None:
    pool = new_pool(1)
    for call in (pool.map, pool.starmap, pool.map_async):
        with pytest.raises((ValueError, TypeError)):
            call(abs, [(-1,)], chunksize)
    assert pool.map(abs, [-1]) == [1]


def test_a_queue_accepts_numbers_as_flags(mp: ModuleType) -> None:
    one = mp.get_context("fork").Queue(1)
    for block, timeout in ((1, None), (1, 5), (True, 5)):
        one.put("item", block, timeout)
        assert one.get(block, timeout) == "item"
    with pytest.raises(queue.Empty):
        one.get(0)
    one.close()
    one.join_thread()
