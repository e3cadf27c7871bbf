"""A pool of more workers than a limit allows is refused before the first start, and the error names the limit."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.better_than_standard("it starts workers until the system is short of something")


@pytest.fixture
def few_descriptors() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    yield 600
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def no_start(*_args: object, **_kwds: object) -> None:
    raise AssertionError("a worker was started")


def test_more_workers_than_descriptors(mp: ModuleType, pool_module: ModuleType, few_descriptors: int) -> None:
    class Pool(pool_module.Pool):
        Process = staticmethod(no_start)

    with pytest.raises(OSError, match=r"300 workers take 900 descriptors.*may have 600 \(RLIMIT_NOFILE\)") as raised:
        Pool(300, context=mp.get_context("fork"))
    assert raised.value.errno == errno.EMFILE


def test_threads_need_no_descriptors(pool_module: ModuleType, few_descriptors: int) -> None:
    with pool_module.ThreadPool(few_descriptors // 3 + 1) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]


@pytest.mark.parametrize("kind", ["Pool", "ThreadPool"])
@pytest.mark.parametrize("processes", [10_000_000, 10**30])
def test_more_workers_than_processes(pool_module: ModuleType, kind: str, processes: int) -> None:
    class Pool(getattr(pool_module, kind)):  # type: ignore[misc]
        Process = staticmethod(no_start)
        _descriptors = 0

    with pytest.raises(OSError, match=rf"{processes} workers .*ask for fewer workers") as raised:
        Pool(processes)
    assert raised.value.errno == errno.EAGAIN


def test_spare_workers_count(mp: ModuleType, pool_module: ModuleType, few_descriptors: int) -> None:
    with pytest.raises(OSError, match="301 workers take 903 descriptors"):
        pool_module.Pool(1, spare_workers=300, context=mp.get_context("fork"))


@pytest.mark.parametrize("kind", ["fork"], indirect=True)
def test_a_pool_cannot_be_resized_beyond_a_limit(new_pool: Any, few_descriptors: int) -> None:
    pool = new_pool(2)
    with pytest.raises(OSError, match="300 workers take 900 descriptors"):
        pool.resize(300)
    with pytest.raises(OSError, match="ask for fewer workers"):
        pool.resize(10**30)
    assert pool._processes == 2 and pool.map(abs, [-1, -2]) == [1, 2]


SMALL = """
import maniple, resource
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
    with maniple.get_context("fork").Pool(2) as pool:
        try:
            pool.resize(40)
        except OSError as error:
            print(error)
        pool.resize(1)
        print(pool.map(abs, [-1, -2]))
"""


def test_a_small_pool_cannot_be_resized_beyond_a_limit() -> None:
    done = subprocess.run([sys.executable, "-c", SMALL], capture_output=True, text=True, timeout=60, check=True)
    refusal, results = done.stdout.splitlines()
    assert "40 workers take 120 descriptors" in refusal and results == "[1, 2]"
