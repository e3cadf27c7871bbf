"""The exceptions of the package: their common base, their modules, and the `except` clauses that catch them."""

from __future__ import annotations

import importlib
import os
import pickle
import pkgutil
import signal
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

pytestmark = pytest.mark.better_than_standard("the standard package has no common base")

# The module from which a program imports each.
ERRORS = [
    ("context", "AuthenticationError"),
    ("context", "BufferTooShort"),
    ("context", "ManipleError"),
    ("context", "ProcessError"),
    ("context", "TimeoutError"),
    ("managers", "RemoteError"),
    ("pool", "CancelledError"),
    ("pool", "MaybeEncodingError"),
    ("pool", "MemoryLimitError"),
    ("pool", "RemoteTraceback"),
    ("pool", "ResultDecodeError"),
    ("pool", "SoftTimeoutError"),
    ("pool", "TaskTimeoutError"),
    ("pool", "WorkerLostError"),
    # From Python 3.13 on, it is the class of the module `queue`.
    *([("queues", "ShutDown")] if sys.version_info < (3, 13) else []),
    ("resource_tracker", "ReentrantCallError"),
]
# Internal exceptions between parts of the package, which no call of a program raises.
INTERNAL = {"ClientGone", "Over", "_TooLong"}


def exceptions(package: str) -> Iterator[type[BaseException]]:
    """Return all exception classes that the package defines."""
    root = importlib.import_module(package)
    for found in pkgutil.walk_packages(root.__path__, f"{package}."):
        if found.name.endswith(("__main__", "popen_spawn_win32", "hook-maniple")):
            continue
        for thing in vars(importlib.import_module(found.name)).values():
            if isinstance(thing, type) and issubclass(thing, BaseException) and thing.__module__.startswith(package):
                yield thing


@pytest.mark.parametrize("module, name", ERRORS)
def test_an_error_is_exported_by_its_module(mp: ModuleType, module: str, name: str) -> None:
    holder = importlib.import_module(f"{mp.__name__}.{module}")
    error = getattr(holder, name)
    assert name in holder.__all__
    assert issubclass(error, mp.ManipleError)
    assert (error.__module__, error.__qualname__) == (holder.__name__, name)
    assert pickle.loads(pickle.dumps(error)) is error
    assert error.__doc__


def test_every_error_has_the_common_base_and_a_module(mp: ModuleType, mp_package: str) -> None:
    found = {each for each in exceptions(mp_package) if each.__name__ not in INTERNAL}
    assert {each for each in found if not issubclass(each, mp.ManipleError)} == set()
    public = {each.__name__ for each in found if not each.__name__.startswith("_")}
    assert public == {name for _module, name in ERRORS}


@pytest.mark.parametrize("module, name", ERRORS)
def test_existing_except_clauses_catch_an_error(mp: ModuleType, module: str, name: str) -> None:
    theirs = getattr(importlib.import_module(f"multiprocessing.{module}"), name, None)
    if theirs is None:
        assert name in mp.__all__
        return
    ours = getattr(importlib.import_module(f"{mp.__name__}.{module}"), name)
    assert {base.__name__ for base in theirs.__mro__} <= {base.__name__ for base in ours.__mro__}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_one_clause_catches_the_packages_errors(mp: ModuleType) -> None:
    with mp.Pool(1) as pool:
        for error in (mp.ManipleError, RuntimeError):
            with pytest.raises(error):
                pool.apply(die)
        with pytest.raises(mp.ManipleError):
            pool.apply(open, (os.devnull,))
        with pytest.raises(mp.ManipleError):
            pool.apply_async(signal.pause).get(timeout=0.01)
    with pytest.raises(mp.ManipleError):
        importlib.import_module(f"{mp.__name__}.shared_memory").ShareableList([{1}])


def test_a_worker_without_memory_to_pickle_an_error_reports_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = importlib.import_module("maniple._impl.pool.payload")

    def refuse(_: BaseException) -> bytes:
        raise pickle.PicklingError("import of module failed")

    monkeypatch.setattr(payload, "_dump_error", refuse)
    kind, message, _, pickled, _ = payload.report(ValueError("first"), False, None)
    assert kind == "MemoryError" and message == str(pickle.loads(pickled))
    assert type(pickle.loads(pickled)) is MemoryError


@pytest.mark.better_than_standard("it has no such errors")
def test_errors_say_what_they_say_and_have_no_earlier_ones_by_themselves(mp: ModuleType) -> None:
    error = mp.WorkerLostError("it died", 1, 2, "f", "")
    assert repr(error) == "WorkerLostError('it died; it was running f')"
    assert error.earlier_errors == mp.TimeoutError().earlier_errors == ()
