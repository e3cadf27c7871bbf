"""The progress of calls: functions that receive it, bars on a terminal, and iterators that know their length."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import subprocess
import sys
import threading
import time
from array import array
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import end_pool, eventually, make_pool, square, wait_for_file

pytestmark = pytest.mark.better_than_standard("it shows no progress")


# How workers start changes nothing in this.
@pytest.fixture(params=["fork", "spawn", "thread"])
def pool(request: pytest.FixtureRequest, mp: ModuleType) -> Any:
    made = make_pool(mp, request.param, 2)
    yield made
    end_pool(made)


@pytest.fixture
def threads(mp: ModuleType) -> Any:
    made = make_pool(mp, "thread", 2)
    yield made
    end_pool(made)


def slow(number: int) -> int:
    time.sleep(0.03)
    return number


def add(one: int, two: int) -> int:
    time.sleep(0.01)
    return one + two


def check(told: list[tuple[int, int | None]], total: int) -> None:
    """The numbers grow, and the last one comes once."""
    assert told[-1] == (total, total)
    assert all(before < after for (before, _), (after, _) in zip(told, told[1:]) if before != after)
    assert len(set(told)) == len(told)


# ---------------------------------------------------------------- functions


@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_map_tells_how_many_items_have_an_outcome(pool: Any, chunksize: int | None) -> None:
    told: list[Any] = []
    here = threading.get_ident()
    callers = set()

    def tell(done: int, total: int | None) -> None:
        told.append((done, total))
        callers.add(threading.get_ident())

    assert pool.map(slow, range(80), chunksize, progress=tell) == list(range(80))
    check(told, 80)
    assert callers == {here}
    assert len(told) > 2


def test_starmap_tells_it(pool: Any) -> None:
    told: list[Any] = []
    assert pool.starmap(add, [(n, 1) for n in range(40)], progress=lambda *count: told.append(count)) == list(
        range(1, 41)
    )
    check(told, 40)


@pytest.mark.parametrize("call", ["map_async", "starmap_async"])
def test_calls_that_return_at_once_tell_it_in_a_thread(pool: Any, call: str) -> None:
    told: list[Any] = []
    items = [(n, 1) for n in range(30)] if call == "starmap_async" else range(30)
    function = add if call == "starmap_async" else slow
    result = getattr(pool, call)(function, items, progress=lambda *count: told.append(count))
    assert len(result.get()) == 30
    # What the program writes next is not on the line of the bar.
    check(told, 30)


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_iterators_tell_it(pool: Any, call: str) -> None:
    told: list[Any] = []
    results = getattr(pool, call)(slow, range(30), progress=lambda *count: told.append(count))
    assert sorted(results) == list(range(30))
    check(told, 30)
    assert isinstance(results, type(getattr(pool, call)(square, [])))


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_the_total_of_an_iterator_is_unknown_until_it_has_been_read(pool: Any, call: str) -> None:
    told: list[Any] = []
    results = getattr(pool, call)(slow, (number for number in range(30)), progress=lambda *count: told.append(count))
    assert sorted(results) == list(range(30))
    assert told[-1] == (30, 30) and told[0][1] is None


def test_an_input_that_fails_is_not_shown_as_complete(pool: Any) -> None:
    told: list[Any] = []

    def source() -> Any:
        yield from range(2)
        raise KeyError("of the input")

    results = pool.imap(slow, source(), progress=lambda *count: told.append(count))
    with pytest.raises(KeyError):
        list(results)
    with pytest.raises(StopIteration):
        next(results)
    assert all(total is None for _, total in told)


@pytest.mark.parametrize("chunksize", [1, 2])
@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_the_failure_of_an_input_is_no_item(pool: Any, call: str, chunksize: int) -> None:
    told: list[Any] = []

    def source() -> Any:
        yield from range(4)
        time.sleep(0.5)  # until all items have an outcome
        raise KeyError("of the input")

    results = getattr(pool, call)(slow, source(), chunksize, progress=lambda *count: told.append(count))
    assert sorted(next(results) for _ in range(4)) == list(range(4))
    with pytest.raises(KeyError, match="of the input"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    assert max(told) == (4, None)


def test_a_step_that_takes_too_long_is_no_failure(mp: ModuleType, threads: Any) -> None:
    told: list[Any] = []
    results = threads.imap(slow, (number for number in range(5)), progress=lambda *count: told.append(count))
    with pytest.raises(mp.TimeoutError):
        results.next(0.001)
    assert list(results) == list(range(5))
    assert told[-1] == (5, 5)


def test_an_iterator_that_is_dropped_ends_the_telling(threads: Any) -> None:
    told: list[Any] = []
    results = threads.imap(slow, range(10_000), progress=lambda *count: told.append(count))
    next(results)
    eventually(lambda: told)
    del results
    gc.collect()
    eventually(lambda: not any(thread.name == "maniple-progress" for thread in threading.enumerate()))


@pytest.mark.parametrize("way", ["break", "exception", "cancel"])
def test_a_loop_that_ends_early_closes_its_bar_first(pool: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch, tqdm=False)
    results = pool.imap(slow, range(1000), progress=True)
    if way == "cancel":
        next(results)
        eventually(terminal.getvalue)
        with suppress(ValueError):  # a pool of threads cancels no calls
            results.cancel()
    try:
        for number in results:
            if way == "exception" and number == 10:
                raise KeyError
            if way == "break" and number == 10 or way == "cancel":
                # What the loop itself refers to.
                del results
                break
    except KeyError:
        del results
    shown = terminal.getvalue()
    assert shown.endswith("\n") and shown.count("\n") == 1
    time.sleep(0.3)
    assert terminal.getvalue() == shown


def test_a_loop_that_ends_early_cancels_its_calls(pool: Any) -> None:
    gc.disable()
    try:
        for number in pool.imap(square, itertools.count(), progress=lambda *_: None):
            if number > 10:
                break
        pool.close()
        assert pool.join(60)
    finally:
        gc.enable()


def test_an_empty_input(threads: Any) -> None:
    told: list[Any] = []
    assert threads.map(square, [], progress=lambda *count: told.append(count)) == []
    assert told == [(0, 0)]


def test_a_call_that_fails_raises_its_error_and_is_not_shown_as_complete(pool: Any) -> None:
    told: list[Any] = []
    with pytest.raises(TypeError):
        pool.map(add, [1, 2, 3], progress=lambda *count: told.append(count))
    assert (3, 3) not in told


def test_a_function_that_raises_ends_the_wait(mp: ModuleType, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def tell(done: int, total: int | None) -> None:
        raise Enough

    pool = make_pool(mp, "fork", 1)
    try:
        with pytest.raises(Enough):
            pool.map(wait_for_file, [str(tmp_path / "go")], progress=tell)
        (tmp_path / "go").touch()
        assert pool.apply(square, (3,)) == 9
    finally:
        end_pool(pool)


def test_a_function_that_raises_in_the_thread_is_reported_and_the_call_is_not_affected(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))

    def tell(done: int, total: int | None) -> None:
        raise ZeroDivisionError

    assert pool.map_async(slow, range(10), progress=tell).get() == list(range(10))
    eventually(lambda: reported)
    assert reported == [ZeroDivisionError]


def test_a_terminated_pool_ends_the_telling(mp: ModuleType) -> None:
    told: list[Any] = []
    pool = make_pool(mp, "fork", 1)
    result = pool.map_async(time.sleep, [600], progress=lambda *count: told.append(count))
    eventually(lambda: told)
    end_pool(pool)
    with pytest.raises(Exception, match="terminated"):
        result.get(30)
    eventually(lambda: not any(thread.name == "maniple-progress" for thread in threading.enumerate()))
    assert told == [(0, 1)]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("wrong", [1, 2.5, b"label", ["label"]])
@pytest.mark.parametrize("call", ["map", "map_async", "starmap", "imap", "imap_unordered"])
def test_what_is_no_progress_is_refused(threads: Any, call: str, wrong: object) -> None:
    with pytest.raises(TypeError, match="progress must be True, a label, or a function"):
        getattr(threads, call)(square, [], progress=wrong)


def test_other_calls_and_pools_have_no_progress(mp: ModuleType) -> None:
    with pytest.raises(TypeError, match="'progress' is not an option of a pool; it is an argument of map"):
        mp.Pool(1, progress=True)
    pool = make_pool(mp, "fork", 1)
    try:
        with pytest.raises(TypeError, match="'progress' is not an option of a call; it is an argument of map"):
            pool.apply_async(square, (3,), progress=True)
        with pytest.raises(TypeError, match="did you mean progress"):
            pool.map(square, [3], progres=True)
        assert pool.map(square, [3], progress=None) == pool.map(square, [3], progress=False) == [9]
    finally:
        end_pool(pool)


# ---------------------------------------------------------------- bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, tqdm: bool = True) -> Terminal:
    """Called by the test itself: pytest sets `sys.stderr` after the fixtures."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    return made


def test_tqdm_shows_a_bar(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    terminal = on_terminal(monkeypatch)
    assert threads.map(slow, range(20), progress="squares") == list(range(20))
    assert "squares: 100%" in terminal.getvalue() and "20/20" in terminal.getvalue()


def test_without_tqdm_there_is_a_bar_of_text(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch, tqdm=False)
    assert threads.map(slow, range(80), progress="squares") == list(range(80))
    shown = terminal.getvalue()
    assert shown.endswith("\n") and shown.count("\n") == 1
    last = shown.rstrip("\n").split("\r")[-1]
    assert last.startswith("squares: 100% |" + "#" * 30 + "| 80/80 [00:")
    assert any("left" in part for part in shown.split("\r"))


def test_a_bar_of_text_without_a_total(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch, tqdm=False)
    assert list(threads.imap(slow, (number for number in range(20)), progress=True)) == list(range(20))
    eventually(lambda: terminal.getvalue().endswith("\n"))
    assert "| 20/20 [" in terminal.getvalue()


def test_rich_shows_a_bar(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    terminal = on_terminal(monkeypatch)
    assert threads.map(slow, range(20), progress="rich") == list(range(20))
    assert "100%" in terminal.getvalue()


NOTEBOOK = """
import sys, types, warnings

warnings.simplefilter("always")
shell = type("ZMQInteractiveShell", (), {"config": {"IPKernelApp": {}}})()
sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["IPython"].get_ipython = lambda: shell
sys.modules["ipywidgets"] = None
sys.modules["IPython.display"] = types.ModuleType("IPython.display")
sys.modules["IPython.display"].display = print

from maniple.pool import ThreadPool

with ThreadPool(2) as pool:
    assert pool.map(abs, range(40), progress=PROGRESS) == list(range(40))
"""


@pytest.mark.parametrize("progress", ["True", "'squares'", "'rich'"])
def test_a_notebook_without_ipywidgets_has_a_bar_of_text(progress: str) -> None:
    pytest.importorskip("tqdm")
    pytest.importorskip("rich")
    program = NOTEBOOK.replace("PROGRESS", progress)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=80)
    assert done.returncode == 0, done.stderr
    assert "40/40" in done.stderr and "arning" not in done.stderr
    assert ("squares" in done.stderr) == (progress == "'squares'")


def test_without_rich_the_error_names_it(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    called: list[int] = []
    for call in (threads.map, threads.map_async, threads.starmap_async, threads.imap):
        with pytest.raises(ImportError, match="pip install rich"):
            call(called.append, [(1,)], progress="rich")
    # The error comes before the call begins.
    assert threads.apply(square, (3,)) == 9 and not called


@pytest.mark.parametrize("progress", [True, "label", "rich"])
def test_where_there_is_no_terminal_nothing_is_shown(
    threads: Any, monkeypatch: pytest.MonkeyPatch, progress: object
) -> None:
    if progress == "rich":
        pytest.importorskip("rich")
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    assert threads.map(square, [3], progress=progress) == [9]
    monkeypatch.setattr(sys, "stderr", None)
    assert threads.map(square, [3], progress=progress) == [9]
    assert not written.getvalue()


def test_a_closed_terminal_does_not_fail_the_call(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch, tqdm=False)

    def close(number: int) -> int:
        time.sleep(0.15)
        terminal.close()
        return number

    assert threads.map(close, range(4), progress=True) == list(range(4))


# ---------------------------------------------------------------- lengths


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_an_iterator_knows_its_length(pool: Any, call: str) -> None:
    results = getattr(pool, call)(square, range(7))
    assert len(results) == 7 and bool(results)
    next(results)
    assert len(results) == 7
    assert len(list(results)) == 6
    empty = getattr(pool, call)(square, [])
    assert len(empty) == 0 and bool(empty) and list(empty) == []


@pytest.mark.parametrize("items", [{1: 2, 3: 4}, {5, 6}, "abc", b"abc", deque([1]), array("i", [7, 8])], ids=repr)
def test_inputs_with_a_length_give_it_to_the_iterator(threads: Any, items: Any) -> None:
    assert len(threads.imap(repr, items)) == len(items)
    assert len(threads.imap_unordered(repr, items, 3)) == len(items)


def test_an_input_whose_length_fails_has_none(threads: Any) -> None:
    class Odd:
        def __len__(self) -> int:
            raise RuntimeError

        def __iter__(self) -> Any:
            return iter([1, 2])

    results = threads.imap(square, Odd())
    assert list(results) == [1, 4] and len(results) == 2


@pytest.mark.parametrize("call", ["imap", "imap_unordered"])
def test_the_length_of_an_input_that_is_not_read_is_unknown(pool: Any, call: str) -> None:
    results = getattr(pool, call)(square, (number for number in range(5_000)), buffersize=10)
    with pytest.raises(TypeError, match="unknown"):
        len(results)
    assert len(list(results)) == 5_000
    assert len(results) == 5_000


def test_tqdm_has_the_total_of_an_iterator(threads: Any) -> None:
    tqdm = pytest.importorskip("tqdm")
    bar = tqdm.tqdm(threads.imap_unordered(square, range(50)), file=io.StringIO())
    assert bar.total == 50 and sorted(bar) == [number * number for number in range(50)]


def test_a_pool_of_queues_has_lengths_and_no_progress(mp: ModuleType, pool_module: ModuleType) -> None:
    class Own(pool_module.Pool):  # type: ignore[name-defined,misc]
        def _get_tasks(self, *args: Any) -> Any:
            return super()._get_tasks(*args)

    with Own(1) as pool:
        results = pool.imap(square, [1, 2, 3])
        assert list(results) == [1, 4, 9] and len(results) == 3
        with pytest.raises(ValueError, match="no options"):
            pool.map(square, [1], progress=True)


@pytest.mark.parametrize("how", ["map", "imap", "break"])
def test_a_function_that_needs_the_event_loop_gets_it(pool: Any, how: str) -> None:
    told: list[Any] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()

        def tell(done: int, total: int | None) -> None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)
            told.append((done, total))

        if how == "map":
            assert await pool.map_async(slow, range(8), 1, progress=tell) == list(range(8))
        else:
            async for number in pool.imap(slow, range(8), progress=tell):
                if how == "break" and number == 3:
                    break
        while how == "break" and any(thread.name == "maniple-progress" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)
        if how != "break":
            assert told[-1] == (8, 8)  # it was called before the end of the call

    asyncio.run(program())
