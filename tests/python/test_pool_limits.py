"""A pool of more workers than a limit allows is refused before the first start, and the error names the limit."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from types import ModuleType

import pytest

pytestmark = pytest.mark.better_than_standard("it starts workers until the system is short of something")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The contents of the files that state limits; a test adds to them."""
    limits = pytest.importorskip("maniple._impl.pool.limits")
    contents: dict[str, str] = {}
    monkeypatch.setattr(limits, "_lines", lambda path: contents.get(path, "").splitlines(keepends=True))
    monkeypatch.setattr(limits, "_number_of", lambda _name: None)
    return contents


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


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/proc/sys/kernel/pid_max", r"kernel\.pid_max"),
        ("/proc/sys/kernel/threads-max", r"kernel\.threads-max"),
        ("/sys/fs/cgroup/a/b/pids.max", r"/a/b/pids\.max"),
        ("/sys/fs/cgroup/a/pids.max", r"/a/pids\.max"),
        ("/sys/fs/cgroup/pids/c/pids.max", r"/pids/c/pids\.max"),
    ],
)
@pytest.mark.parametrize("kind", ["Pool", "ThreadPool"])
def test_more_workers_than_processes(
    pool_module: ModuleType, files: dict[str, str], path: str, name: str, kind: str
) -> None:
    class Pool(getattr(pool_module, kind)):  # type: ignore[misc]
        Process = staticmethod(no_start)

    files["/proc/self/cgroup"] = "4:memory:/x\n8:pids:/c\n0::/a/b\n"
    files[path] = "5000\n"
    with pytest.raises(OSError, match=rf"100000 workers.*{name}.* allows 5000 processes") as raised:
        Pool(100_000)
    assert raised.value.errno == errno.EAGAIN


@pytest.mark.parametrize("capabilities, is_limited", [("0000000000000000", True), ("000001ffffffffff", False)])
def test_the_limit_of_a_user(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], capabilities: str, is_limited: bool
) -> None:
    from maniple._impl.pool import limits

    files["/proc/self/status"] = f"Name:\tx\nCapEff:\t{capabilities}\n"
    monkeypatch.setattr(limits, "_number_of", lambda name: 1000 if name == "SC_CHILD_MAX" else None)
    monkeypatch.setattr(limits.os, "getuid", lambda: 1000)
    if is_limited:
        with pytest.raises(OSError, match="RLIMIT_NPROC"):
            limits.refuse_impossible_size(1000, 3)
    else:
        limits.refuse_impossible_size(1000, 3)


def test_files_without_a_limit(files: dict[str, str]) -> None:
    from maniple._impl.pool import limits

    files["/proc/self/cgroup"] = "0::/\n"
    files["/sys/fs/cgroup/pids.max"] = "max\n"
    limits.refuse_impossible_size(100_000, 3)
