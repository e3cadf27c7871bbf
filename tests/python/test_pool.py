"""The Pool's documented behaviour, for processes of each start method and for threads."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import (
    POOL_KINDS,
    add,
    end_pool,
    fail,
    fail_at,
    identity,
    make_pool,
    nested_death,
    pid,
    sleep,
    square,
    store,
    stored,
    touch_numbered,
    wait_for_file,
)

CALLS_THAT_WAIT = {
    "apply": lambda pool: pool.apply(square, (3,)),
    "map": lambda pool: pool.map(square, [3]),
    "starmap": lambda pool: pool.starmap(add, [(1, 2)]),
}
CALLS_THAT_START = {
    "apply_async": lambda pool: pool.apply_async(square, (3,)),
    "map_async": lambda pool: pool.map_async(square, [3]),
    "starmap_async": lambda pool: pool.starmap_async(add, [(1, 2)]),
    "imap": lambda pool: pool.imap(square, [3]),
    "imap_unordered": lambda pool: pool.imap_unordered(square, [3]),
}
ALL_CALLS = CALLS_THAT_WAIT | CALLS_THAT_START
CHUNKS = [None, 1, 2, 3, 7, 100, 101, 1000]


# -- results


def test_apply_passes_arguments_and_keywords(shared_pool: Any) -> None:
    assert shared_pool.apply(add, (1, 2)) == 3
    assert shared_pool.apply(add, (1,), {"two": 5, "more": 10}) == 16
    assert shared_pool.apply(add, args=(), kwds={"one": 1, "two": 2}) == 3
    assert shared_pool.apply(dict) == {}
    assert shared_pool.apply_async(add, (1, 2), {"more": 3}).get(30) == 6


@pytest.mark.parametrize("chunksize", CHUNKS)
def test_map_keeps_the_order(shared_pool: Any, chunksize: int | None) -> None:
    expected = [square(n) for n in range(100)]
    assert shared_pool.map(square, range(100), chunksize) == expected
    assert shared_pool.map_async(square, range(100), chunksize=chunksize).get(30) == expected
    pairs = list(itertools.pairwise(range(101)))
    sums = [sum(pair) for pair in pairs]
    assert shared_pool.starmap(add, pairs, chunksize) == sums
    assert shared_pool.starmap_async(add, pairs, chunksize=chunksize).get(30) == sums


@pytest.mark.parametrize("chunksize", [chunk for chunk in CHUNKS if chunk])
def test_imap_keeps_the_order_and_imap_unordered_the_items(shared_pool: Any, chunksize: int) -> None:
    expected = [square(n) for n in range(100)]
    assert list(shared_pool.imap(square, range(100), chunksize)) == expected
    assert sorted(shared_pool.imap_unordered(square, map(int, range(100)), chunksize=chunksize)) == expected


def test_order_holds_when_early_items_take_longest(shared_pool: Any) -> None:
    delays = [0.15, 0.0, 0.05, 0.0, 0.0]
    assert shared_pool.map(sleep, delays, chunksize=1) == delays
    assert list(shared_pool.imap(sleep, delays)) == delays


def test_imap_unordered_returns_results_in_the_order_of_completion(shared_pool: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    paths = [str(gate), str(tmp_path)]  # the folder exists already, the gate does not
    results = shared_pool.imap_unordered(wait_and_name, paths)
    assert next(results) == str(tmp_path)
    gate.touch()
    assert next(results) == str(gate)


def wait_and_name(path: str) -> str:
    assert wait_for_file(path)
    return path


@pytest.mark.parametrize("empty", [[], (), "", iter(()), range(0), {}], ids=repr)
def test_empty_inputs(shared_pool: Any, empty: Any) -> None:
    assert shared_pool.map(square, empty) == []
    assert shared_pool.starmap(add, empty) == []
    assert shared_pool.map_async(square, empty).get(30) == []
    assert list(shared_pool.imap(square, empty)) == []
    assert list(shared_pool.imap_unordered(square, empty)) == []


def test_inputs_of_other_types_than_lists(shared_pool: Any) -> None:
    assert shared_pool.map(square, (n for n in range(5))) == [0, 1, 4, 9, 16]
    assert shared_pool.map(ord, "abc") == [97, 98, 99]
    assert sorted(shared_pool.map(square, {1, 2, 3})) == [1, 4, 9]
    assert shared_pool.starmap(add, zip([1, 2], [3, 4])) == [4, 6]
    assert shared_pool.starmap(max, [[1, 5, 3], "ab"]) == [5, "b"]


def test_many_small_tasks(shared_pool: Any) -> None:
    assert shared_pool.map(square, range(20_000)) == [square(n) for n in range(20_000)]
    assert list(shared_pool.imap(square, range(3_000), chunksize=1)) == [square(n) for n in range(3_000)]


def test_many_jobs_under_way_at_once(shared_pool: Any) -> None:
    outcomes = [shared_pool.apply_async(square, (n,)) for n in range(2_000)]
    assert [outcome.get(60) for outcome in outcomes] == [square(n) for n in range(2_000)]


def test_two_iterations_side_by_side(shared_pool: Any) -> None:
    evens = shared_pool.imap(square, range(0, 100, 2))
    odds = shared_pool.imap(square, range(1, 100, 2))
    mixed = list(itertools.chain.from_iterable(zip(evens, odds)))
    assert mixed == [square(n) for n in range(100)]


def test_imap_next_with_timeout(shared_pool: Any, mp: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    results = shared_pool.imap(wait_and_name, [str(gate)])
    with pytest.raises(mp.TimeoutError):
        results.next(timeout=0.02)
    gate.touch()
    assert results.next(timeout=30) == str(gate)
    with pytest.raises(StopIteration):
        results.next(timeout=30)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_results_flow_while_the_input_blocks(shared_pool: Any, call: str) -> None:
    more = threading.Event()
    results = getattr(shared_pool, call)(square, three_then_wait(more))
    assert sorted(results.next(timeout=30) for _ in range(3)) == [0, 1, 4]
    more.set()
    assert list(results) == [9]


@pytest.mark.better_than_standard("its one feeding thread waits for the input, and all other calls behind it")
def test_blocked_input_delays_no_other_call(shared_pool: Any) -> None:
    more = threading.Event()
    results = shared_pool.imap(square, three_then_wait(more))
    assert next(results) == 0
    other = shared_pool.apply_async(square, (5,))
    other.wait(5)
    held_up = not other.ready()
    more.set()
    assert list(results) == [1, 4, 9]
    assert other.get(30) == 25
    assert not held_up


def three_then_wait(more: threading.Event) -> Iterator[int]:
    yield from range(3)
    assert more.wait(10), "a result or another call waited for the input"
    yield 3


# -- outcomes


def test_async_result_before_and_after(shared_pool: Any, mp: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    outcome = shared_pool.apply_async(wait_for_file, (str(gate),))
    assert outcome.ready() is False
    with pytest.raises(ValueError, match="not ready"):
        outcome.successful()
    with pytest.raises(mp.TimeoutError):
        outcome.get(timeout=0.02)
    assert outcome.wait(0.01) is None
    assert not outcome.ready()
    gate.touch()
    outcome.wait()
    assert outcome.ready() is True
    assert outcome.successful() is True
    assert outcome.get() is True
    assert outcome.get(0) is True, "a result can be had more than once, and without waiting"


def test_every_attribute_of_an_async_result_can_be_read(shared_pool: Any) -> None:
    """A manager reads all attributes to find the methods of an object."""
    outcome = shared_pool.apply_async(square, (3,))
    assert "get" in [name for name in dir(outcome) if callable(getattr(outcome, name))]
    assert outcome.get(30) == 9


def test_async_error_before_and_after(shared_pool: Any) -> None:
    outcome = shared_pool.apply_async(fail, (KeyError("lost"),))
    outcome.wait(30)
    assert outcome.ready() and not outcome.successful()
    for _ in range(2):
        with pytest.raises(KeyError, match="lost"):
            outcome.get(0)


@pytest.mark.parametrize("chunksize", [1, 3, 10])
def test_map_raises_the_items_error(shared_pool: Any, chunksize: int) -> None:
    with pytest.raises(ValueError, match="item 4"):
        shared_pool.map(fail_at, [(n, 4) for n in range(10)], chunksize)
    assert shared_pool.map(square, [2]) == [4]


def test_imap_continues_after_an_items_error(shared_pool: Any) -> None:
    results = shared_pool.imap(fail_at, [(n, 1) for n in range(4)])
    assert next(results) == 0
    with pytest.raises(ValueError, match="item 1"):
        next(results)
    assert list(results) == [2, 3]


def test_remote_traceback_is_the_cause(shared_pool: Any, pool_module: Any) -> None:
    with pytest.raises(ValueError) as caught:
        shared_pool.apply(fail, (ValueError("over there"),))
    if "Thread" in type(shared_pool).__name__:
        assert caught.traceback[-1].name == "fail", "a thread's error keeps its own traceback"
    else:
        assert isinstance(caught.value.__cause__, pool_module.RemoteTraceback)
        text = str(caught.value.__cause__)
        assert "in fail" in text and "over there" in text and "pools.py" in text


def test_exceptions_keep_arguments_notes_and_attributes(shared_pool: Any) -> None:
    error = OSError(2, "no such thing", "thing")
    error.add_note("remember this")
    error.extra = [1, 2]  # type: ignore[attr-defined]
    with pytest.raises(FileNotFoundError) as caught:
        shared_pool.apply(fail, (error,))
    assert caught.value.errno == 2 and caught.value.filename == "thing"
    assert caught.value.__notes__ == ["remember this"]
    assert caught.value.extra == [1, 2]


def test_exception_groups(shared_pool: Any) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        shared_pool.apply(fail, (ExceptionGroup("two", [ValueError(1), KeyError("k")]),))
    assert [type(each) for each in caught.value.exceptions] == [ValueError, KeyError]


def test_exceptions_as_plain_results(shared_pool: Any) -> None:
    made = shared_pool.map(identity, [ValueError("a result"), StopIteration(3)])
    assert [type(each) for each in made] == [ValueError, StopIteration]
    assert made[0].args == ("a result",)


def test_a_task_raises_stop_iteration(shared_pool: Any) -> None:
    with pytest.raises(StopIteration):
        shared_pool.apply(fail, (StopIteration("mine"),))


@pytest.mark.better_than_standard("it takes the error for the end of the chunk and drops the rest in silence")
def test_stop_iteration_does_not_end_a_map(shared_pool: Any) -> None:
    with pytest.raises(StopIteration):
        shared_pool.map(fail, [StopIteration("mine")] * 3)


@pytest.mark.better_than_standard("it ends the iteration in silence")
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunksize", [1, 2])
@pytest.mark.parametrize("kind", POOL_KINDS)
def test_stop_iteration_does_not_end_an_imap(mp: ModuleType, kind: str, call: str, chunksize: int) -> None:
    pool = make_pool(mp, kind, 2)
    results = getattr(pool, call)(fail, [StopIteration("mine")] * 4, chunksize)
    with pytest.raises(RuntimeError, match="a task raised StopIteration") as caught:
        next(results)
    assert isinstance(caught.value.__cause__, StopIteration) and caught.value.__cause__.args == ("mine",)
    with pytest.raises(RuntimeError, match="a task raised StopIteration"):
        list(results)
    end_pool(pool)


# -- callbacks


@pytest.mark.parametrize("call", ["apply_async", "map_async", "starmap_async"])
def test_callback_gets_the_value_once(shared_pool: Any, call: str) -> None:
    heard: list[Any] = []
    arguments = {"apply_async": (square, (3,)), "map_async": (square, [1, 2]), "starmap_async": (add, [(1, 2)])}
    outcome = getattr(shared_pool, call)(*arguments[call], callback=heard.append, error_callback=pytest.fail)
    value = outcome.get(30)
    assert heard == [value], "the callback is called before get() returns"


@pytest.mark.parametrize("call", ["apply_async", "map_async", "starmap_async"])
def test_error_callback_gets_the_error_once(shared_pool: Any, call: str) -> None:
    heard: list[BaseException] = []
    error = ValueError("for the callback")
    arguments = {"apply_async": (error,), "map_async": [error], "starmap_async": [(error,)]}
    outcome = getattr(shared_pool, call)(fail, arguments[call], callback=pytest.fail, error_callback=heard.append)
    with pytest.raises(ValueError, match="for the callback"):
        outcome.get(30)
    assert len(heard) == 1 and heard[0].args == error.args


def test_callback_of_an_empty_map(shared_pool: Any) -> None:
    """No call was made, so the callback may or may not be called; the result is fixed."""
    assert shared_pool.map_async(square, [], callback=lambda _: None).get(30) == []


def test_a_burst_of_calls_runs_all_callbacks(shared_pool: Any) -> None:
    heard: list[int] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the callback's thread may interrupt any step
    try:
        outcomes = [shared_pool.apply_async(square, (n,), callback=heard.append) for n in range(2000)]
        assert [outcome.get(30) for outcome in outcomes] == [square(n) for n in range(2000)]
    finally:
        sys.setswitchinterval(interval)
    assert sorted(heard) == [square(n) for n in range(2000)]


def test_callbacks_may_submit_further_tasks(shared_pool: Any) -> None:
    done = threading.Event()
    heard: list[int] = []

    def next_one(value: int) -> None:
        heard.append(value)
        if len(heard) < 20:
            shared_pool.apply_async(add, (value, 1), callback=next_one)
        else:
            done.set()

    shared_pool.apply_async(add, (0, 0), callback=next_one)
    assert done.wait(30)
    assert heard == list(range(20))


# -- wrong use


@pytest.mark.parametrize("call", [call for call in ALL_CALLS if call != "apply" and call != "apply_async"])
def test_the_input_is_not_iterable(shared_pool: Any, call: str) -> None:
    # imap may raise at once or with its first result.
    with pytest.raises(TypeError, match="not iterable"):
        list(getattr(shared_pool, call)(square, 3))


@pytest.mark.parametrize("chunksize", [0, -1])
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_chunksize_below_one(shared_pool: Any, call: str, chunksize: int) -> None:
    with pytest.raises(ValueError, match="Chunksize must be 1\\+"):
        getattr(shared_pool, call)(square, [1, 2], chunksize)


@pytest.mark.parametrize("call", ["map", "map_async", "starmap", "starmap_async"])
def test_the_input_raises(shared_pool: Any, call: str) -> None:
    def source():
        yield (1, 2)
        raise LookupError("the input failed")

    with pytest.raises(LookupError, match="the input failed"):
        getattr(shared_pool, call)(add, source())
    assert shared_pool.map(square, [2]) == [4]


def four_then_fail() -> Iterator[int]:
    yield from range(4)
    raise LookupError("the input failed")


@pytest.mark.parametrize("chunksize", [1, 4])
def test_the_input_of_imap_raises(shared_pool: Any, chunksize: int) -> None:
    results = shared_pool.imap(square, four_then_fail(), chunksize)
    assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
    with pytest.raises(LookupError, match="the input failed"):
        next(results)
    assert list(results) == []
    assert shared_pool.map(square, [2]) == [4]


@pytest.mark.better_than_standard("when the error overtakes chunks, they are lost")
@pytest.mark.parametrize("chunksize", [1, 4])
def test_the_input_of_imap_unordered_raises(shared_pool: Any, chunksize: int) -> None:
    results = shared_pool.imap_unordered(square, four_then_fail(), chunksize)
    heard: list[int] = []
    with pytest.raises(LookupError, match="the input failed"):
        for value in results:
            heard.append(value)
    heard.extend(results)
    assert sorted(heard) == [0, 1, 4, 9]
    assert shared_pool.map(square, [2]) == [4]


def test_an_item_of_starmap_is_not_iterable(shared_pool: Any) -> None:
    with pytest.raises(TypeError):
        shared_pool.starmap(add, [(1, 2), 3])


def test_the_function_is_not_callable(shared_pool: Any) -> None:
    with pytest.raises(TypeError, match="not callable"):
        shared_pool.apply(3)


def test_wrong_arguments_for_the_function(shared_pool: Any) -> None:
    with pytest.raises(TypeError, match="square"):
        shared_pool.apply(square, (1, 2, 3))


def test_async_result_of_a_pool_cannot_be_pickled_nor_can_the_pool(shared_pool: Any) -> None:
    with pytest.raises(NotImplementedError, match="cannot be passed between processes or pickled"):
        shared_pool.__reduce__()


# -- threads of the caller


def test_pool_used_by_many_threads(shared_pool: Any) -> None:
    wrong: list[Any] = []

    def use(first: int) -> None:
        try:
            for n in range(first, first + 25):
                assert shared_pool.apply(square, (n,)) == square(n)
            assert shared_pool.map(square, range(first, first + 50)) == [square(n) for n in range(first, first + 50)]
            assert list(shared_pool.imap(square, range(first, first + 50))) == [
                square(n) for n in range(first, first + 50)
            ]
        except BaseException as error:
            wrong.append(error)

    users = [threading.Thread(target=use, args=(1000 * n,), daemon=True) for n in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    assert not any(user.is_alive() for user in users)
    assert not wrong


@pytest.mark.better_than_standard("a thread which another one overtakes gets a TimeoutError")
def test_several_threads_take_from_one_iteration(shared_pool: Any) -> None:
    results = shared_pool.imap(square, range(400))
    taken: list[list[int]] = [[] for _ in range(4)]

    def take(mine: list[int]) -> None:
        for value in results:
            mine.append(value)

    takers = [threading.Thread(target=take, args=(mine,), daemon=True) for mine in taken]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join(60)
    assert not any(taker.is_alive() for taker in takers)
    assert sorted(itertools.chain(*taken)) == [square(n) for n in range(400)]
    assert all(mine == sorted(mine) for mine in taken), "each thread sees the items in order"


# -- where the tasks run


def test_tasks_run_in_other_processes_or_threads(shared_pool: Any) -> None:
    pids = set(shared_pool.map(pid, range(20), chunksize=1))
    if "Thread" in type(shared_pool).__name__:
        assert pids == {os.getpid()}
    else:
        assert os.getpid() not in pids and len(pids) <= 2


def test_a_busy_worker_does_not_delay_the_others(shared_pool: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    held = shared_pool.apply_async(wait_for_file, (str(gate),))
    start = time.monotonic()
    assert shared_pool.map(square, range(50), chunksize=1) == [square(n) for n in range(50)]
    assert not held.ready(), f"the held task ended, after {time.monotonic() - start:.1f} s"
    gate.touch()
    assert held.get(30) is True


def test_a_burst_of_calls_without_waiters_ends(shared_pool: Any, tmp_path: Path) -> None:
    """No thread waits for these calls or polls them, and the pool still sends them to workers."""
    for start in range(0, 900, 300):
        for number in range(start, start + 300):
            shared_pool.apply_async(touch_numbered, (str(tmp_path), number))
        deadline = time.monotonic() + 30
        while len(os.listdir(tmp_path)) < start + 300 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(os.listdir(tmp_path)) == start + 300


def test_error_of_a_pool_inside_a_task_keeps_its_own_task(shared_pool: Any, pool_module: Any) -> None:
    with pytest.raises(pool_module.WorkerLostError) as caught:
        shared_pool.apply(nested_death)
    assert caught.value.task == "_exit"
    assert caught.value.exitcode == 7


@pytest.mark.parametrize("call", CALLS_THAT_START)
def test_calls_return_before_their_tasks_end(shared_pool: Any, tmp_path: Path, call: str) -> None:
    gate = tmp_path / "gate"
    start: Callable[..., Any] = getattr(shared_pool, call)
    argument: Any = {"apply_async": (str(gate),), "starmap_async": [(str(gate),)]}.get(call, [str(gate)])
    outcome = start(wait_for_file, argument)
    gate.touch()
    assert list(outcome if call.startswith("imap") else [outcome.get(30)]) in ([True], [[True]])


def test_initializer_ran_in_no_worker_of_this_pool(shared_pool: Any) -> None:
    store(None)
    assert set(shared_pool.map(stored, range(4), chunksize=1)) == {None}


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_imap_over_a_non_iterable_fails_with_the_first_result(shared_pool: Any, method: str) -> None:
    results = getattr(shared_pool, method)(identity, 5)
    with pytest.raises(TypeError, match="not iterable"):
        next(results)
    assert shared_pool.map(identity, [1]) == [1]


class OddError(Exception):
    """The attributes that `traceback` reads of an exception raise."""

    @property
    def __suppress_context__(self) -> bool:  # type: ignore[override]
        raise ValueError("not to be had")


def raise_oddly(kind: int) -> None:
    if kind == 0:
        raise SyntaxError("wrong", ("template.html", "12", 1, 5))
    if kind == 1:
        raise SyntaxError("wrong", ("template.html", 3, 2, b"bytes of the line"))
    raise OddError("wrong")


@pytest.mark.better_than_standard("the worker dies, and the call waits for ever")
def test_an_exception_with_an_unformattable_traceback_is_raised(shared_pool: Any) -> None:
    for kind, expected in enumerate((SyntaxError, SyntaxError, OddError)):
        with pytest.raises(expected, match="wrong"):
            shared_pool.apply_async(raise_oddly, (kind,)).get(timeout=60)
