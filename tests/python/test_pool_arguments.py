"""Wrong arguments of a pool: the error names the argument and says what it must be."""

from __future__ import annotations

from collections import UserDict
from types import MappingProxyType, ModuleType
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
        # A note of a Pool names the item whose call raised the exception.
        assert raised.value.__notes__[-1].startswith(
            "item 1 of starmap is 7 of type int, but each item must be a tuple of arguments"
        )


def test_an_error_of_the_function_in_starmap_gets_no_hint(pool: Any) -> None:
    with pytest.raises(TypeError) as raised:
        pool.starmap(add, [(1, 2, 3)])
    assert not any("tuple of arguments" in note for note in getattr(raised.value, "__notes__", ()))
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
        ({"max_tasks_per_child": True}, TypeError, "max_tasks_per_child must be an int, not True of type bool"),
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
        ({"priority": 1}, ValueError, "its threads run the calls in their order"),
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


CALLS_OF_MANY = ["map", "map_async", "starmap", "starmap_async", "imap", "imap_unordered"]


@pytest.mark.parametrize("call", CALLS_OF_MANY)
@pytest.mark.parametrize("chunksize", ["a", [2], (1, 2)], ids=str)
@pytest.mark.better_than_standard("the error is about `<`")
def test_a_chunksize_that_is_no_number(pool: Any, call: str, chunksize: Any) -> None:
    with pytest.raises(TypeError, match=r"chunksize must be an int, not .*; .* starmap\(func, zip\(first, second\)\)"):
        getattr(pool, call)(add, [(1, 2)], chunksize)


@pytest.mark.parametrize("call", CALLS_OF_MANY)
@pytest.mark.parametrize("chunksize", [0, -1, 0.5])
def test_a_chunksize_below_one(pool: Any, call: str, chunksize: Any) -> None:
    with pytest.raises(ValueError, match="Chunksize must be 1"):
        getattr(pool, call)(add, [(1, 2)], chunksize)


@pytest.mark.parametrize("kwds", [3, None, [1]], ids=str)
@pytest.mark.better_than_standard("the error comes from a worker, and does not name the argument")
def test_keyword_arguments_that_are_no_dict(pool: Any, kwds: Any) -> None:
    with pytest.raises(TypeError, match=r"kwds must be a dict of keyword arguments, not .*: apply\(func, \(1, 2\)\)"):
        pool.apply(pow, (2,), kwds)


@pytest.mark.parametrize("kind", [MappingProxyType, UserDict])
def test_keyword_arguments_in_another_mapping(pool: Any, kind: Any) -> None:
    assert pool.apply_async(add, (1,), kind({"other": 2})).get() == 3


@pytest.mark.parametrize("name", ["callback", "error_callback"])
@pytest.mark.parametrize("call", ["apply_async", "map_async", "starmap_async"])
@pytest.mark.better_than_standard("the pool stops when a thread calls it")
def test_a_callback_that_cannot_be_called(pool: Any, name: str, call: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a function, not 5 of type int"):
        getattr(pool, call)(add, [(1, 2)], **{name: 5})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.better_than_standard("the error does not name the argument")
def test_arguments_of_the_initializer_that_are_no_tuple(pool_module: ModuleType, kind: str) -> None:
    with pytest.raises(TypeError, match="initargs must be a tuple of the arguments of initializer, not 5 of type int"):
        getattr(pool_module, kind)(1, print, 5)


class Runner:
    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def one(self, number: int) -> int:
        return number


@pytest.mark.better_than_standard("the error does not say why the pool is pickled")
def test_a_method_of_an_object_that_has_the_pool(mp: ModuleType) -> None:
    with mp.get_context("fork").Pool(1) as pool, pytest.raises(NotImplementedError, match="a method of an object that"):
        pool.map(Runner(pool).one, [1])


@pytest.mark.parametrize("context", ["spawn", 3])
@pytest.mark.better_than_standard("an AttributeError of a method")
def test_a_context_that_is_none(pool_module: ModuleType, context: Any) -> None:
    with pytest.raises(TypeError, match=r"context must be a context, such as maniple.get_context\('spawn'\), not"):
        pool_module.Pool(1, context=context)


@pytest.mark.better_than_standard("it has no options")
def test_words_of_other_packages_for_the_start_method(mp: ModuleType) -> None:
    for options in ({"mp_context": mp.get_context("spawn")}, {"start_method": "spawn"}):
        with pytest.raises(TypeError, match=r"a context decides how workers start: get_context\('spawn'\).Pool\(\)"):
            mp.Pool(1, **options)
    with pytest.raises(TypeError, match="'context' is the object that this method belongs to"):
        mp.Pool(1, context=mp.get_context("spawn"))


@pytest.mark.better_than_standard("it has no options")
def test_arguments_of_methods_as_options_of_a_pool(mp: ModuleType) -> None:
    with pytest.raises(TypeError, match="it is an argument of map, imap and their other forms"):
        mp.Pool(1, chunksize=3)
    with mp.Pool(1) as pool, pytest.raises(TypeError, match="it is an argument of imap and imap_unordered"):
        pool.map(add, [], buffersize=3)


async def later() -> int:
    return 1


@pytest.mark.better_than_standard("the error has no hint")
def test_a_coroutine_function(mp: ModuleType) -> None:
    with mp.Pool(1) as pool:
        for call in (lambda: pool.apply(later), lambda: pool.starmap(later, [()])):
            with pytest.raises(mp.pool.MaybeEncodingError) as raised:
                call()
            assert any("is a coroutine function" in note for note in raised.value.__notes__)


@pytest.mark.better_than_standard("it has no options")
def test_numbers_of_numpy_as_options(mp: ModuleType) -> None:
    numpy = pytest.importorskip("numpy")
    options = {"memory_limit": numpy.int64(10**10), "max_backlog": numpy.int8(9), "min_processes": numpy.uint8(1)}
    limits = {"task_timeout": numpy.int64(60), "soft_timeout": numpy.float32(50), "priority": numpy.int16(-1)}
    with mp.Pool(numpy.int64(2), idle_timeout=numpy.float32(9), **options) as pool:
        assert pool.map(abs, [-1], retries=numpy.int64(1), **limits) == [1]
        assert pool.apply(abs, (-1,), retries=mp.Retries(numpy.int64(1), numpy.float32(0.5)), **limits) == 1
        pool.resize(numpy.int64(1))
        with pytest.raises(TypeError, match="task_timeout must be a number"):
            pool.apply(abs, (-1,), task_timeout=numpy.array([1.0, 2.0]))
