"""A system call that fails once, for lack of memory or of a descriptor: the operation still succeeds, or its error
names the shortage.

Each row is a run of `make faults` that has failed before. The rest of the file tests what `make faults` cannot detect.
"""

from __future__ import annotations

import concurrent.futures
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
WALK = ROOT / "tests" / "faults" / "walk.py"


@pytest.mark.parametrize(
    ("operation", "method", "kind", "error", "who", "n"),
    [
        # The fork server: its answers, its waits, and its client's reads.
        ("process_start", "forkserver", "write", "ENOMEM", "children", 1),
        ("process_start", "forkserver", "write", "ENOMEM", "children", 2),
        ("process_start", "forkserver", "wait_ready", "ENOMEM", "children", 2),  # a third wait may find all at once
        ("process_start", "forkserver", "read", "ENOMEM", "parent", 2),
        ("process_start", "forkserver", "wait_ready", "ENOMEM", "parent", 1),
        # The thread that sends descriptors.
        ("send_connection", "fork", "dup", "EMFILE", "parent", 3),
        ("send_connection", "fork", "sendmsg", "ETOOMANYREFS", "parent", 1),
    ],
)
def test_one_call_fails(operation: str, method: str, kind: str, error: str, who: str, n: int) -> None:
    where = ["--only", operation, "--method", method, "--kind", kind, "--errno", error, "--who", who, "-n", str(n)]
    assert passed(*where)


@pytest.fixture(scope="module")
def faulted() -> str:
    """The Rust crate's operations, for the walk. `cargo test` has usually built them before."""
    build = ["cargo", "test", "--locked", "--all-features", "-p", "maniple", "--test", "faulted", "--no-run"]
    told = subprocess.run([*build, "--message-format", "json"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = [json.loads(line).get("executable") for line in told.stdout.splitlines() if '"faulted"' in line]
    return next(path for path in reversed(found) if path)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("operation", "kind", "error", "who", "n"),
    [
        # Otherwise the wait for a process's end leaves a zombie.
        ("pool_start", "wait_ready", "ENOMEM", "parent", 3),
        ("pool_terminate", "wait_ready", "ENOMEM", "parent", 3),
        ("recycling", "wait_ready", "ENOMEM", "parent", 2),
        # A server that cannot return its address.
        ("manager_start", "write", "ENOMEM", "children", 1),
    ],
)
def test_one_call_fails_in_rust(faulted: str, operation: str, kind: str, error: str, who: str, n: int) -> None:
    where = ["--front", "rust", "--only", operation, "--kind", kind, "--errno", error, "--who", who, "-n", str(n)]
    assert passed(*where, MANIPLE_FAULTS_PROGRAM=faulted)


def passed(*where: str, **environment: str) -> bool:
    done = subprocess.run(
        [sys.executable, WALK, "-v", *where],
        capture_output=True,
        text=True,
        timeout=85,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 faults met" not in done.stdout, done.stdout
    return True


def short(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_a_failed_write_does_not_replace_the_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    from maniple import resource_tracker

    tracker = resource_tracker.ResourceTracker()
    tracker.ensure_running()
    pid = tracker._pid
    write, left = tracker._write_own, [short(errno.ENOMEM)] * 2

    def failing(fd: int, file: tuple[int, int], data: bytes) -> int:
        if left:
            raise left.pop()
        return int(write(fd, file, data))

    monkeypatch.setattr(tracker, "_write_own", failing)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            tracker.register("some", "shared_memory")
        tracker.ensure_running()
        tracker.register("some", "shared_memory")
        tracker.unregister("some", "shared_memory")
        assert tracker._pid == pid and not left
    finally:
        monkeypatch.undo()
        tracker._stop()
    assert tracker._exitcode == 0


def test_a_killed_tracker_is_replaced_with_a_warning() -> None:
    from maniple import resource_tracker

    tracker = resource_tracker.ResourceTracker()
    tracker.ensure_running()
    pid: Any = tracker._pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        with pytest.warns(UserWarning, match="process died unexpectedly"):
            tracker.register("some", "shared_memory")
        tracker.unregister("some", "shared_memory")
        assert tracker._pid != pid
    finally:
        tracker._stop()
    assert tracker._exitcode == 0


def test_a_tracker_without_memory_for_a_moment_continues_to_read() -> None:
    from maniple import resource_tracker

    answers: list[Any] = [b"one\ntw", short(errno.ENOMEM), b"o\n", short(errno.ENOMEM), b"last", b""]

    class Pipe:
        def read(self, size: int) -> bytes:
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer  # type: ignore[no-any-return]

    assert list(resource_tracker._lines(Pipe())) == [b"one", b"two", b"last"]


def test_output_arrives_after_a_failed_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from maniple._impl.start import late_output as _late_output

    here, there = os.pipe()
    os.write(there, b"late")
    read, failures, written = os.read, [short(errno.ENOMEM)], []

    def failing(fd: int, size: int) -> bytes:
        if failures:
            raise failures.pop()
        return read(fd, size)

    def write(fd: int, data: bytes) -> int:
        written.append((fd, data))
        return len(data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "read", failing)
        patched.setattr(os, "write", write)
        assert _late_output._pass_on(here)
    os.close(there)
    assert written == [(2, b"late")] and not _late_output._pass_on(here)
    os.close(here)


def test_a_request_detects_the_servers_end_while_another_process_holds_the_pipe(
    mp: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maniple import forkserver

    ctx = mp.get_context("forkserver")
    forkserver.ensure_running()
    send, held = forkserver.reduction.sendfds, []

    def killing(line: Any, descriptors: list[int]) -> None:
        monkeypatch.undo()
        # As in a child that another thread forks at this moment.
        held.append(os.dup(descriptors[1]))
        server = forkserver._forkserver._forkserver_pid
        assert server is not None
        os.kill(server, signal.SIGSTOP)  # otherwise it might have answered
        send(line, descriptors)
        os.kill(server, signal.SIGKILL)

    monkeypatch.setattr(forkserver.reduction, "sendfds", killing)
    process = ctx.Process(target=int)
    process.start()
    process.join()
    assert process.exitcode == 0
    process.close()
    os.close(*held)


class Loser:
    def lose(self) -> int:
        """Drop each client's session in a manager's server, as after a shortage."""
        from maniple import process

        server: Any = process.current_process()._manager_server  # type: ignore[attr-defined]
        sessions = list(server._objects._sessions.values())
        for session in sessions:
            server._objects.end(session)
        return len(sessions)


def test_a_client_replaces_a_lost_session(mp: ModuleType) -> None:
    from maniple.managers import SyncManager

    class Losing(SyncManager):
        pass

    Losing.register("Loser", Loser)
    with Losing(ctx=mp.get_context("fork")) as manager:
        for _ in range(2):
            # The creation of an object names the session, and so does a thread's first call.
            assert manager.Loser().lose() == 1
            items = manager.list([2])
            assert list(items) == [2]
            assert manager.Loser().lose() == 1
            with concurrent.futures.ThreadPoolExecutor(1) as executor:
                assert executor.submit(lambda: manager.dict(a=1)["a"]).result() == 1
            del items


def test_a_failed_session_does_not_mark_a_server_as_standard(mp: ModuleType) -> None:
    from maniple._impl.manager.client import site_at
    from maniple._impl.manager.rpc import RemoteError

    with mp.get_context("fork").Manager() as manager:
        site = site_at(manager.address, manager._Client)
        connect, failed = site._connect, []

        class Failing:
            def __init__(self, conn: Any) -> None:
                self._conn = conn

            def send(self, message: Any) -> None:
                self._conn.send(message)

            def recv(self) -> Any:
                self._conn.recv()
                failed.append(True)
                return "#TRACEBACK", "Traceback:\n  in open_session\nOSError: [Errno 12] Cannot allocate memory\n"

            def close(self) -> None:
                self._conn.close()

        site._connect = lambda *args, **kwds: Failing(connect(*args, **kwds))
        with pytest.raises(RemoteError, match="allocate memory"):
            manager.list([1])
        site._connect = connect
        assert failed and list(manager.list([1])) == [1]
        assert not site._standard
