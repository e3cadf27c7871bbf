"""Payloads that cannot be pickled on one side or unpickled on the other."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

from . import tasks
from .bench import Bench, full_text
from .deaths import drain
from .registry import scenario


class TwoPartError(Exception):
    """Pickles well; its unpickling lacks an argument, as so many real exceptions do."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} met {second}")


def raise_two_part(item: int = 0) -> int:
    if item == 0:
        raise TwoPartError("iceberg", "ship")
    return item * 10


def explode(message: str) -> None:
    raise ValueError(message)


class ExplodesWhenUnpickled:
    def __init__(self, message: str) -> None:
        self.message = message

    def __reduce__(self):
        return explode, (self.message,)

    def __call__(self, *_: object) -> str:
        return "called"


def make_explosive(item: int = 0) -> Any:
    return ExplodesWhenUnpickled("no such result") if item == 0 else item * 10


def make_lock(item: int = 0) -> Any:
    return threading.Lock() if item == 0 else item * 10


class LockedError(Exception):
    def __init__(self) -> None:
        super().__init__("with a lock in it")
        self.lock = threading.Lock()


def raise_locked() -> None:
    raise LockedError


def through_every_call(pool: Any, function: Callable) -> dict[str, Callable[[], Any]]:
    """The same failing item 0 through the calls that take one item and many."""
    return {
        "apply": lambda: pool.apply(function),
        "map": lambda: pool.map(function, [1, 0, 2], chunksize=1),
        "map in one chunk": lambda: pool.map(function, [1, 0, 2], chunksize=3),
        "starmap_async": lambda: pool.starmap_async(function, [(1,), (0,)]).get(),
    }


def check_iteration(bench: Bench, pool: Any, function: Callable) -> Exception:
    bench.at("imap")
    results, errors = drain(pool.imap(function, [1, 0, 2, 3]))
    assert results == [10, 20, 30] and len(errors) == 1, (results, errors)
    return errors[0]


def check_decode_error(bench: Bench, error: BaseException) -> None:
    kind = getattr(bench.pool_module, "ResultDecodeError", None)
    assert kind is not None and isinstance(error, kind), f"raised {error!r} instead of ResultDecodeError"


@scenario("exception that cannot be unpickled")
def exception(bench: Bench) -> None:
    with bench.pool() as pool:
        workers = set(bench.worker_pids(pool))

        def check(error: BaseException) -> None:
            check_decode_error(bench, error)
            assert "TwoPartError" in str(error), str(error)
            assert "iceberg met ship" in str(error), str(error)
            whole = full_text(error)
            assert "in raise_two_part" in whole, f"no remote traceback in: {whole}"

        for call, run in through_every_call(pool, raise_two_part).items():
            bench.at(call)
            check(bench.expect(Exception, run))
        check(check_iteration(bench, pool, raise_two_part))
        assert set(bench.worker_pids(pool)) == workers, "a worker was replaced for an exception"


@scenario("result that cannot be unpickled")
def result(bench: Bench) -> None:
    with bench.pool() as pool:
        for call, run in through_every_call(pool, make_explosive).items():
            bench.at(call)
            error = bench.expect(Exception, run)
            check_decode_error(bench, error)
            assert "no such result" in full_text(error), full_text(error)
        check_decode_error(bench, check_iteration(bench, pool, make_explosive))


@scenario("result that cannot be unpickled reaches error_callback")
def result_callback(bench: Bench) -> None:
    with bench.pool() as pool:
        told: list[BaseException] = []
        done = threading.Event()
        outcome = pool.apply_async(
            make_explosive, callback=lambda _: done.set(), error_callback=lambda error: (told.append(error), done.set())
        )
        assert done.wait(15), "neither callback was called"
        assert len(told) == 1
        check_decode_error(bench, told[0])
        check_decode_error(bench, bench.expect(Exception, outcome.get))
        assert not outcome.successful()


def check_remote(bench: Bench, error: BaseException, text: str) -> None:
    assert text in str(error), repr(error)
    assert isinstance(error.__cause__, bench.pool_module.RemoteTraceback), f"the cause is {error.__cause__!r}"
    assert text in str(error.__cause__), str(error.__cause__)


@scenario("argument that cannot be unpickled in the worker")
def argument(bench: Bench) -> None:
    with bench.pool() as pool:
        bad = ExplodesWhenUnpickled("no such argument")
        for call, run in {
            "apply": lambda: pool.apply(tasks.identity, (bad,)),
            "map": lambda: pool.map(tasks.identity, [1, bad, 3], chunksize=1),
            "starmap": lambda: pool.starmap(tasks.identity, [(1,), (bad,)], chunksize=1),
        }.items():
            bench.at(call)
            check_remote(bench, bench.expect(ValueError, run), "no such argument")
        bench.at("imap")
        results, errors = drain(pool.imap(tasks.identity, [1, bad, 3, 4]))
        assert results == [1, 3, 4] and len(errors) == 1, (results, errors)
        assert isinstance(errors[0], ValueError)
        check_remote(bench, errors[0], "no such argument")


@scenario("function that cannot be unpickled in the worker")
def function(bench: Bench) -> None:
    with bench.pool() as pool:
        bad = ExplodesWhenUnpickled("no such function")
        for call, run in {
            "apply": lambda: pool.apply(bad),
            "map": lambda: pool.map(bad, range(10)),
            "imap": lambda: list(pool.imap_unordered(bad, range(10))),
        }.items():
            bench.at(call)
            check_remote(bench, bench.expect(ValueError, run), "no such function")


@scenario("function that the workers' copy of its module lacks")
def latecomer(bench: Bench) -> None:
    with bench.pool() as pool:
        bench.assert_sound(pool)

        def late() -> None:
            """Comes into its module after the workers have started."""

        late.__module__, late.__qualname__ = tasks.__name__, "late"
        tasks.late = late
        bench.at("apply")
        check_remote(bench, bench.expect(AttributeError, lambda: pool.apply(tasks.late)), "late")


@scenario("argument that cannot be pickled")
def unpicklable_argument(bench: Bench) -> None:
    with bench.pool() as pool:
        lock = threading.Lock()
        for call, run in {
            "apply": lambda: pool.apply(tasks.identity, (lock,)),
            "map": lambda: pool.map(tasks.identity, [1, lock, 3], chunksize=1),
            "starmap_async": lambda: pool.starmap_async(tasks.identity, [(1,), (lock,)]).get(),
        }.items():
            bench.at(call)
            error = bench.expect((TypeError, pickle.PickleError), run)
            assert "pickle" in str(error) and "lock" in str(error), str(error)
        bench.at("imap")
        results, errors = drain(pool.imap(tasks.identity, iter([1, lock, 3])))
        assert results == [1, 3] and len(errors) == 1, (results, errors)
        assert "pickle" in str(errors[0])


@scenario("result that cannot be pickled")
def unpicklable_result(bench: Bench) -> None:
    with bench.pool() as pool:
        kind = bench.pool_module.MaybeEncodingError
        for call, run in through_every_call(pool, make_lock).items():
            bench.at(call)
            error = bench.expect(kind, run)
            assert "pickle" in str(error.exc) and "lock" in error.value, (error.exc, error.value)
            assert "Error sending result" in str(error), str(error)
        assert isinstance(check_iteration(bench, pool, make_lock), kind)


@scenario("exception that cannot be pickled")
def unpicklable_exception(bench: Bench) -> None:
    with bench.pool() as pool:
        error = bench.expect(bench.pool_module.MaybeEncodingError, lambda: pool.apply(raise_locked))
        assert "with a lock in it" in error.value, error.value
