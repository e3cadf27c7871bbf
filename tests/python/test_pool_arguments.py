"""Wrong arguments of a pool: the error names the argument and says what it must be."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

KINDS = ["Pool", "ThreadPool"]
CALLS = ["map", "starmap", "apply"]


@pytest.fixture(scope="module", params=KINDS)
def pool(request: pytest.FixtureRequest, pool_module: ModuleType) -> Any:
    with getattr(pool_module, request.param)(2) as pool:
        yield pool


def add(one: int, other: int) -> int:
    return one + other


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("processes", ["4", 1.5, [2], b"2"])
@pytest.mark.better_than_standard("the error is about `<` or `range`")
def test_a_number_of_workers_that_is_no_number(pool_module: ModuleType, kind: str, processes: Any) -> None:
    with pytest.raises(TypeError, match=rf"processes must be an int or None, not .*{type(processes).__name__}"):
        getattr(pool_module, kind)(processes)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("func", [None, 5, "abs"])
@pytest.mark.better_than_standard("the error comes from a worker, and does not name the argument")
def test_a_function_that_cannot_be_called(pool: Any, call: str, func: Any) -> None:
    with pytest.raises(TypeError, match=rf"func must be a function, but .*{type(func).__name__} is not callable"):
        getattr(pool, call)(func, [(1, 2)])


@pytest.mark.parametrize("chunksize", [None, 1, 3])
@pytest.mark.better_than_standard("the error has no hint")
def test_starmap_without_tuples(pool: Any, chunksize: int | None) -> None:
    for items in ([(1, 2), 7], ((1, 2), 7), iter([(1, 2), 7])):
        with pytest.raises(TypeError) as raised:
            pool.starmap(add, items, chunksize)
        (note,) = raised.value.__notes__
        assert note.startswith("item 1 of starmap is 7 of type int, but each item must be a tuple of arguments")


def test_an_error_of_the_function_in_starmap_gets_no_hint(pool: Any) -> None:
    with pytest.raises(TypeError) as raised:
        pool.starmap(add, [(1, 2, 3)])
    assert not getattr(raised.value, "__notes__", None)
    assert pool.starmap(add, [(1, 2)]) == [3]


HUGE = 10**400


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task_timeout": HUGE}, ValueError, "task_timeout is too large"),
        ({"soft_timeout": "3"}, TypeError, "soft_timeout must be a number of seconds"),
        ({"worker_init_timeout": HUGE}, ValueError, "worker_init_timeout is too large"),
        ({"memory_limit": 2**64}, ValueError, r"memory_limit must be less than 2\*\*63 bytes"),
        ({"max_rss_per_worker": HUGE}, ValueError, "max_rss_per_worker must be less than"),
        ({"max_tasks_per_child": True}, TypeError, "max_tasks_per_child must be an int, not bool"),
        ({"max_tasks_per_child": 2**64}, ValueError, "max_tasks_per_child must be less than"),
        ({"max_backlog": 2**64}, ValueError, "max_backlog must be less than"),
        ({"backlog_full": "drop"}, ValueError, 'backlog_full must be "block" or "raise"'),
        ({"backlog_full": "raise"}, ValueError, "backlog_full needs max_backlog"),
        ({"finalargs": (3,)}, ValueError, "finalargs needs finalizer"),
        ({"finalizer": print, "finalargs": 3}, TypeError, "finalargs must be the arguments of finalizer"),
        ({"accelerators": 2**63}, ValueError, "accelerators must be a number from 1 to"),
        ({"accelerators": range(2**31)}, ValueError, "the most are 65536"),
        ({"accelerators": [True]}, TypeError, "an identifier must be an int or a str"),
        ({"accelerators": [-1]}, ValueError, "must not be negative"),
        ({"accelerators": ["0,1"]}, ValueError, "no comma"),
        ({"timeout": 3}, TypeError, "'timeout' is not an option of a pool"),
    ],
)
def test_bad_options_of_a_pool_name_the_option(
    pool_module: ModuleType, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        pool_module.Pool(1, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"initial_delay": "3"}, TypeError, "initial_delay must be a number, not '3'"),
        ({"initial_delay": True}, TypeError, "initial_delay must be a number, not True"),
        ({"max_delay": HUGE}, ValueError, "max_delay is too large"),
        ({"backoff_coefficient": None}, TypeError, "backoff_coefficient must be a number, not None"),
        ({"on": 5}, TypeError, "on must be a class of exceptions or a tuple of them; 5 is not one"),
    ],
)
def test_bad_retries_name_the_parameter(
    pool_module: ModuleType, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        pool_module.Retries(3, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task_timeout": 1}, ValueError, "a thread cannot be ended"),
        ({"memory_limit": "1GB"}, ValueError, "a ThreadPool has no limits of memory"),
        ({"return_exceptions": True}, ValueError, "catch the exceptions in the function"),
        ({"max_backlog": 1}, ValueError, "a ThreadPool has no max_backlog"),
        ({"min_processes": 1}, ValueError, "a ThreadPool has no min_processes"),
        ({"nonsense": 1}, TypeError, "'nonsense' is not an option of a ThreadPool"),
    ],
)
def test_a_pool_of_threads_refuses_each_option_for_its_reason(
    pool_module: ModuleType, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        pool_module.ThreadPool(1, **options)


def test_a_pool_is_not_resized_beyond_the_limits(pool_module: ModuleType) -> None:
    with pool_module.Pool(1, accelerators=[0, 0]) as pool:
        with pytest.raises(ValueError, match="3 workers cannot have an accelerator each"):
            pool.resize(3)
        pool.resize(2)
    with pool_module.Pool(1) as pool:
        for size in (10**7, 2**62, 2**64):
            with pytest.raises(OSError, match=f"{size} workers"):
                pool.resize(size)
        assert pool.map(abs, [-1, -2]) == [1, 2]
