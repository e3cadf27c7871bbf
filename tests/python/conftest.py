"""Fixtures: the package under test, timeouts for every test, and checks for leftovers."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import psutil
import pytest
from bench import Bench
from footprint import Footprint, leaks_since, shared_names_of, still_there
from pools import METHODS, POOL_KINDS, end_pool, identity, make_pool

# No test takes half of this on a loaded two-core machine.
TEST_TIMEOUT = 90
TROUBLED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mp-package",
        default=os.environ.get("MP_PACKAGE", "maniple"),
        help="the package under test: maniple (default, or $MP_PACKAGE) or multiprocessing",
    )
    parser.addoption(
        "--watchdog",
        type=float,
        default=30.0,
        help="seconds after which a failure scenario counts as hung (default 30)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")
    # Python 3.12 and later warn whenever a fork replaces a worker beside the pool's threads.
    config.addinivalue_line("filterwarnings", "ignore:.*use of fork.*:DeprecationWarning")
    config.addinivalue_line(
        "markers",
        "better_than_standard(reason): what the standard package does not do; "
        "an expected failure when that is the package under test",
    )
    # A shell without job control starts its children with SIGINT ignored, and all workers would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    standard = config.getoption("--mp-package") == "multiprocessing"
    for item in items:
        if standard and (better := item.get_closest_marker("better_than_standard")):
            item.add_marker(pytest.mark.xfail(reason=better.args[0], strict=False))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT))


def pytest_report_header(config: pytest.Config) -> str:
    return f"package under test: {config.getoption('--mp-package')}"


@pytest.fixture(scope="session")
def mp_package(pytestconfig: pytest.Config) -> str:
    return pytestconfig.getoption("--mp-package")


@pytest.fixture(scope="session")
def watchdog(pytestconfig: pytest.Config) -> float:
    return pytestconfig.getoption("--watchdog")


@pytest.fixture(scope="session")
def mp(mp_package: str) -> ModuleType:
    """The package under test."""
    return importlib.import_module(mp_package)


@pytest.fixture(scope="session")
def pool_module(mp_package: str) -> ModuleType:
    return importlib.import_module(f"{mp_package}.pool")


@pytest.fixture(scope="session")
def warmed_up(mp: ModuleType) -> Callable[[str], None]:
    """Start the helpers that stay, such as the fork server, once for each kind of pool."""
    done: set[str] = set()

    def warm_up(kind: str) -> None:
        if kind not in done:
            pool = make_pool(mp, kind, 1)
            try:
                pool.map(identity, [1])
            finally:
                end_pool(pool)
            done.add(kind)

    return warm_up


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Count the tests that did not pass: their tracebacks keep pools alive, so leftovers are no evidence.

    Show what a program has written that did not end in time.
    """
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, subprocess.TimeoutExpired):
        for name, written in (("stdout", call.excinfo.value.stdout), ("stderr", call.excinfo.value.stderr)):
            text = written.decode(errors="replace") if isinstance(written, bytes) else str(written)
            report.sections.append((f"{name} of the program that did not end", text))
    if report.when == "call" and not report.passed:
        item.config.stash[TROUBLED] = item.config.stash.get(TROUBLED, 0) + 1
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Drop the pools before the fixtures check for leaks; pytest itself drops them later."""
    getattr(item, "funcargs", {}).clear()


@functools.cache
def start_what_stays(package: str) -> None:
    """Start a process, so that this process has the lifeline that it keeps for all of its children, and the resource tracker."""
    process = importlib.import_module(package).get_context("fork").Process()
    process.start()
    process.join()
    process.close()
    importlib.import_module(f"{package}.resource_tracker").ensure_running()


@contextlib.contextmanager
def nothing_left(config: pytest.Config) -> Iterator[None]:
    """Check that the objects that start in the block are gone after it, unless a test in it failed."""
    start_what_stays(config.getoption("--mp-package"))
    troubled = config.stash.get(TROUBLED, 0)
    before = Footprint.take()
    yield
    if config.stash.get(TROUBLED, 0) == troubled:
        leaks = leaks_since(before)
        assert not leaks, "; ".join(leaks)


@pytest.fixture(scope="module", params=POOL_KINDS)
def shared_kind(request: pytest.FixtureRequest, warmed_up: Callable[[str], None]) -> Iterator[str]:
    """The class of `shared_pool`; a separate fixture, because pytest has dropped the pool only here."""
    warmed_up(request.param)
    with nothing_left(request.config):
        yield request.param


@pytest.fixture(scope="module")
def shared_pool(shared_kind: str, mp: ModuleType) -> Iterator[Any]:
    """A pool of two workers for tests that neither close nor harm it; the end of the file checks it for leaks."""
    pool = make_pool(mp, shared_kind, 2)
    yield pool
    end_pool(pool)


@pytest.fixture(params=POOL_KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """fork, spawn, forkserver, or thread for ThreadPool."""
    return request.param


@pytest.fixture
def new_pool(
    request: pytest.FixtureRequest, kind: str, mp: ModuleType, warmed_up: Callable[[str], None]
) -> Iterator[Callable[..., Any]]:
    """Makes pools of `kind` that end with the test and leave nothing behind."""
    warmed_up(kind)
    pools: list[Any] = []

    def new(processes: int | None = 2, **options: Any) -> Any:
        pools.append(make_pool(mp, kind, processes, **options))
        return pools[-1]

    with nothing_left(request.config):
        others = shared_names_of([os.getpid()])
        yield new
        names = shared_names_of([os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))])
        while pools:
            end_pool(pools.pop())
    assert not still_there(names - others), f"shared memory is left: {still_there(names - others)}"


@pytest.hookimpl(trylast=True)
@pytest.fixture(params=METHODS)
def bench(request: pytest.FixtureRequest, mp: ModuleType, warmed_up: Callable[[str], None]) -> Iterator[Bench]:
    warmed_up(request.param)
    mp.Value("i")  # the heap keeps its first memory
    with nothing_left(request.config):
        made = Bench(mp, request.param)
        yield made
        made.end()


def pytest_sessionfinish() -> None:
    """End the processes that failed tests have left, at the end of the run."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
