"""The failure matrix on Windows: after every death every call returns, and no process is left behind.

A program for Windows's Python, which has the package on its path; another system runs it under Wine:

    KIT/run KIT/py311/python.exe tests/windows/matrix.py [ROW ...]      # after scripts/build_windows.sh KIT

Each row is a process of its own with a limit of time. When it has ended, no process of the interpreter may be left but those
that the row says. What a row reports is printed behind its result. The last line is the number of rows that passed and
failed; the exit status is 0 if all passed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from ctypes import wintypes
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

import maniple
from maniple.pool import WorkerLostError

LIMIT = 150
WORKERS = 2
#: what a process that `TerminateProcess` has ended by `os.kill` has as its exit code
KILL_CODE = 9


# What runs in workers.


def note(folder: str, item: object) -> None:
    fd, _ = tempfile.mkstemp(prefix=f"{item}-", dir=folder)
    os.close(fd)


def die(way: str) -> None:
    if way == "terminated":
        os.kill(os.getpid(), KILL_CODE)
        time.sleep(60)
    elif way == "access violation":
        # In a thread that begins nowhere: ctypes makes an OSError of what its own calls raise.
        ctypes.windll.kernel32.CreateThread(None, 0, ctypes.c_void_p(8), None, 0, None)
        time.sleep(60)
    elif way == "stack overflow":
        nested: list[Any] = []
        for _ in range(1_000_000):
            nested = [nested]
        sys.setrecursionlimit(10**9)
        repr(nested)
    elif way == "abort":
        os.abort()
    os._exit(3)


def step(job: tuple[str, int, str]) -> int:
    folder, item, way = job
    note(folder, item)
    if way:
        die(way)
    return item * 10


def spin(folder: str) -> None:
    note(folder, os.getpid())
    while True:
        pass


def hold_the_interpreter(folder: str) -> None:
    note(folder, os.getpid())
    sum(range(10**13))


def sleep(folder: str) -> None:
    note(folder, os.getpid())
    time.sleep(600)


def meet(job: tuple[str, int]) -> int:
    folder, expected = job
    note(folder, os.getpid())
    while len(os.listdir(folder)) < expected:
        time.sleep(0.01)
    return os.getpid()


def identity(value: object) -> object:
    return value


class DiesWhenPickled:
    def __reduce__(self) -> Any:
        die("exit")


class DiesWhenUnpickled:
    def __reduce__(self) -> Any:
        return die, ("exit",)


class NotPicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


class Fussy(Exception):
    def __init__(self, one: object, two: object) -> None:
        super().__init__("text")


def raise_fussy(_: object) -> None:
    raise Fussy(1, 2)


def make(kind: type) -> object:
    return kind()


def fail() -> None:
    raise LookupError("an initializer that fails")


# What rows use.


def until(done: Callable[[], Any], what: str, patience: float = 60) -> Any:
    end = time.monotonic() + patience
    while not (value := done()):
        assert time.monotonic() < end, f"waited {patience} s in vain: {what}"
        time.sleep(0.02)
    return value


def pids_in(folder: str, count: int) -> list[int]:
    names = until(lambda: len(os.listdir(folder)) >= count and os.listdir(folder), f"{count} busy workers")
    return [int(name.partition("-")[0]) for name in names]


def ran(folder: str) -> Counter[int]:
    return Counter(int(name.partition("-")[0]) for name in os.listdir(folder))


def new_folder() -> str:
    return tempfile.mkdtemp(dir=os.environ["MATRIX_FOLDER"])


def report(text: object) -> None:
    print("report:", text, flush=True)


def assert_sound(pool: Any) -> None:
    assert pool.map(abs, [-1, -2]) == [1, 2]
    assert len(set(pool.map(meet, [(new_folder(), WORKERS)] * WORKERS, chunksize=1))) in (1, WORKERS)


def together(pool: Any) -> None:
    folder = new_folder()
    assert len(set(pool.map(meet, [(folder, WORKERS)] * WORKERS, chunksize=1))) == WORKERS


@contextlib.contextmanager
def sound_pool(**options: Any) -> Iterator[Any]:
    pool = maniple.Pool(WORKERS, **options)
    yield pool
    assert pool.map(abs, [-1, -2]) == [1, 2]
    together(pool)
    pool.close()
    pool.join()


def lost(call: Callable[[], Any]) -> WorkerLostError:
    try:
        value = call()
    except WorkerLostError as error:
        return error
    raise AssertionError(f"returned {value!r:.100}")


def raises(kind: type[BaseException], call: Callable[[], Any]) -> BaseException:
    try:
        value = call()
    except kind as error:
        return error
    raise AssertionError(f"returned {value!r:.100}")


ROWS: dict[str, Callable[[], None]] = {}
# What a supervisor does with the row's process while it runs, and how many processes may be left.
KILLED: set[str] = set()
LEFT: dict[str, int] = {}
CODES: dict[str, int] = {}


def row(name: str, *, killed: bool = False, left: int = 0, code: int = 0) -> Callable[[Any], Any]:
    def register(function: Callable[[], None]) -> Callable[[], None]:
        ROWS[name] = function
        if killed:
            KILLED.add(name)
        LEFT[name], CODES[name] = left, code
        return function

    return register


def busy_worker(way: str) -> None:
    with sound_pool() as pool:
        folder = new_folder()
        jobs = [(folder, item, way if item == 3 else "") for item in range(8)]
        error = lost(lambda: pool.map(step, jobs, chunksize=1))
        assert "3" in error.task and "step" in error.task, error.task
        report(f"exit code {error.exitcode:#x}, signal {error.signal}; {str(error).splitlines()[0]}")
        until(lambda: sum(ran(folder).values()) >= 8, "the other items")
        assert ran(folder) == Counter(range(8)), ran(folder)


for _way in ("exit", "terminated", "access violation", "stack overflow", "abort"):
    row(f"a task ends its worker: {_way}")(lambda way=_way: busy_worker(way))


def killed_from_outside(work: Callable[[str], None]) -> None:
    with sound_pool() as pool:
        folder = new_folder()
        outcome = pool.apply_async(work, (folder,))
        [pid] = pids_in(folder, 1)
        os.kill(pid, KILL_CODE)
        error = lost(outcome.get)
        assert error.pid == pid
        report(str(error).splitlines()[0])


for _work in (sleep, spin, hold_the_interpreter):
    row(f"a busy worker is killed: {_work.__name__}")(lambda work=_work: killed_from_outside(work))


@row("idle workers are killed, one and all")
def idle() -> None:
    with sound_pool() as pool:
        together(pool)
        for victims in (1, WORKERS):
            for worker in list(pool._pool)[:victims]:
                os.kill(worker.pid, KILL_CODE)
            folder = new_folder()
            assert pool.map(step, [(folder, item, "") for item in range(20)], chunksize=1) == list(range(0, 200, 10))
            assert ran(folder) == Counter(range(20))
            together(pool)


@row("all workers die at the same time, with a call that waits")
def all_at_once() -> None:
    with sound_pool() as pool:
        folder = new_folder()
        outcomes = [pool.apply_async(sleep, (folder,)) for _ in range(WORKERS)]
        waiting = pool.map_async(abs, [-3, -4], chunksize=1)
        for pid in pids_in(folder, WORKERS):
            os.kill(pid, KILL_CODE)
        for outcome in outcomes:
            lost(outcome.get)
        assert waiting.get() == [3, 4]


@row("a worker dies while it pickles its result, or unpickles its argument")
def coding() -> None:
    with sound_pool() as pool:
        lost(lambda: pool.apply(make, (DiesWhenPickled,)))
        lost(lambda: pool.apply(identity, (DiesWhenUnpickled(),)))


@row("what cannot be pickled: an argument, a result, an exception")
def pickling() -> None:
    with sound_pool() as pool:
        raises(TypeError, lambda: pool.apply(identity, (NotPicklable(),)))
        report(type(raises(Exception, lambda: pool.apply(make, (NotPicklable,)))).__name__)
        report(type(raises(Exception, lambda: pool.apply(raise_fussy, (0,)))).__name__)


@row("workers die at random while large results come")
def streaming() -> None:
    with sound_pool() as pool:
        folder = new_folder()
        jobs = [(folder, item, "exit" if item % 7 == 3 else "") for item in range(30)]
        iterator, results, losses = pool.imap_unordered(step, jobs), [], 0
        while True:
            try:
                results.append(next(iterator))
            except StopIteration:
                break
            except WorkerLostError:
                losses += 1
        assert sorted(results) == [item * 10 for item in range(30) if item % 7 != 3]
        assert losses == len([item for item in range(30) if item % 7 == 3])
        assert ran(folder) == Counter(range(30))


@row("an initializer that fails, or ends its worker")
def initializers() -> None:
    for initializer, arguments in ((fail, ()), (die, ("exit",))):
        pool = maniple.Pool(WORKERS, initializer, arguments)
        error = raises(Exception, partial(pool.map, abs, [-1], chunksize=1))
        report(f"{type(error).__name__}: {str(error).splitlines()[0]:.100}")
        pool.terminate()
        pool.join()


@row("terminate() of a busy pool")
def terminated() -> None:
    for work in (sleep, spin, hold_the_interpreter):
        pool, folder = maniple.Pool(WORKERS), new_folder()
        outcomes = [pool.apply_async(work, (folder,)) for _ in range(WORKERS + 1)]
        pids_in(folder, WORKERS)
        pool.terminate()
        pool.join()
        for outcome in outcomes:
            raises(Exception, partial(outcome.get, 60))


@row("a busy pool is deleted")
def deleted() -> None:
    pool, folder = maniple.Pool(WORKERS), new_folder()
    pool.map_async(sleep, [folder] * 4, chunksize=1)
    pids_in(folder, WORKERS)
    del pool


@row("the program ends while its pool is busy")
def ends_busy() -> None:
    pool, folder = maniple.Pool(WORKERS), new_folder()
    globals()["kept"] = pool, pool.map_async(spin, [folder] * 4, chunksize=1)
    pids_in(folder, WORKERS)


@row("the program ends by an exception while its pool is busy", code=1)
def raises_busy() -> None:
    ends_busy()
    raise SystemExit(1)


@row("the program ends at once (os._exit) while its pool is busy", code=5)
def exits_busy() -> None:
    ends_busy()
    os._exit(5)


@row("the program is killed while its pool is busy", killed=True, code=KILL_CODE)
def killed_busy() -> None:
    ends_busy()
    report("killed now")
    time.sleep(600)


@row("the program is killed while its workers hold the interpreter", killed=True, code=KILL_CODE)
def killed_deaf() -> None:
    pool, folder = maniple.Pool(WORKERS), new_folder()
    globals()["kept"] = pool, pool.map_async(hold_the_interpreter, [folder] * 4, chunksize=1)
    pids_in(folder, WORKERS)
    report("killed now")
    time.sleep(600)


def with_own_pool(folder: str) -> None:
    pool = maniple.Pool(WORKERS)
    pool.map(spin, [folder] * WORKERS, chunksize=1)


@row("a process that has a busy pool of its own is killed")
def killed_nested() -> None:
    folder = new_folder()
    process = maniple.Process(target=with_own_pool, args=(folder,))
    process.start()
    inner = pids_in(folder, WORKERS)
    assert set(inner) <= interpreters()
    process.kill()
    process.join()
    until(lambda: not set(inner) & interpreters(), "the end of the inner workers")


@row("the program is killed; it had a daemon and a manager", killed=True, code=KILL_CODE)
def killed_daemons() -> None:
    folder = new_folder()
    manager = maniple.Manager()
    globals()["kept"] = manager, manager.dict()
    maniple.Process(target=sleep, args=(folder,), daemon=True).start()
    maniple.Process(target=spin, args=(folder,), daemon=True).start()
    pids_in(folder, 2)
    report("killed now")
    time.sleep(600)


@row("the program is killed; it had a process that is no daemon", killed=True, code=KILL_CODE, left=1)
def killed_free() -> None:
    folder = new_folder()
    maniple.Process(target=sleep, args=(folder,)).start()
    pids_in(folder, 1)
    report("killed now")
    time.sleep(600)


def linger(folder: str) -> None:
    time.sleep(2)
    note(folder, os.getpid())


@row("the program ends while a process that is no daemon works")
def joined_at_the_end() -> None:
    # The supervisor waits for the end, and finds no process then.
    maniple.Process(target=linger, args=(new_folder(),)).start()


@row("a process is ended by terminate() and kill() while it is busy")
def ended() -> None:
    for work in (sleep, hold_the_interpreter):
        for how in ("terminate", "kill"):
            folder = new_folder()
            process = maniple.Process(target=work, args=(folder,))
            process.start()
            pids_in(folder, 1)
            getattr(process, how)()
            process.join(60)
            report(f"{work.__name__}, {how}: {process.exitcode}")
            assert process.exitcode is not None and process.exitcode < 0


def put_for_ever(queue: Any, folder: str) -> None:
    note(folder, os.getpid())
    while True:
        queue.put(bytes(300_000))


@row("a process is killed while it puts into a queue")
def queue_writer() -> None:
    queue, folder = maniple.Queue(4), new_folder()
    writers = [maniple.Process(target=put_for_ever, args=(queue, folder), daemon=True) for _ in range(2)]
    for writer in writers:
        writer.start()
    for _ in range(4):
        assert len(queue.get(timeout=60)) == 300_000
    writers[0].kill()
    writers[0].join()
    for _ in range(20):
        assert len(queue.get(timeout=60)) == 300_000
    writers[1].kill()
    writers[1].join()
    with contextlib.suppress(Empty):
        while True:
            queue.get(timeout=1)


def take_and_die(lock: Any) -> None:
    lock.acquire()
    os.kill(os.getpid(), KILL_CODE)


@row("a process is killed while it holds a lock")
def lock_holder() -> None:
    for kind in (maniple.Lock, maniple.RLock, maniple.Semaphore):
        lock = kind()
        process = maniple.Process(target=take_and_die, args=(lock,))
        process.start()
        process.join(60)
        begun = time.monotonic()
        try:
            seen = f"acquire(timeout=3) returned {lock.acquire(timeout=3)}"
        except Exception as error:
            seen = f"{type(error).__name__}: {error}"
        report(f"{kind.__name__}: {seen:.150} after {time.monotonic() - begun:.1f} s")


def send_and_wait(connection: Any) -> None:
    connection.send("here")
    time.sleep(600)


@row("the process at the other end of a pipe is killed")
def pipe_peer() -> None:
    ours, theirs = maniple.Pipe()
    process = maniple.Process(target=send_and_wait, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == "here"
    threading.Timer(0.5, process.kill).start()
    raises(EOFError, ours.recv)
    report(type(raises(OSError, lambda: [ours.send(bytes(100_000)) for _ in range(100)])).__name__)
    process.join()


@row("a manager's server is killed")
def manager_server() -> None:
    manager = maniple.Manager()
    shared = manager.dict(a=1)
    assert shared["a"] == 1
    os.kill(manager._process.pid, KILL_CODE)
    error = raises(Exception, lambda: [shared["a"] for _ in range(100)])
    report(f"{type(error).__name__}: {error!s:.100}")


@row("SIGINT in the first thread while a call waits")
def interrupted() -> None:
    folder = new_folder()
    with maniple.Pool(WORKERS) as pool:
        outcome = pool.map_async(sleep, [folder] * WORKERS, chunksize=1)
        pids_in(folder, WORKERS)
        threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
        raises(KeyboardInterrupt, outcome.get)
    process = maniple.Process(target=sleep, args=(folder,), daemon=True)
    process.start()
    threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
    raises(KeyboardInterrupt, process.join)
    queue = maniple.Queue()
    threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
    raises(KeyboardInterrupt, queue.get)
    lock = maniple.Lock()
    lock.acquire()
    threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
    raises(KeyboardInterrupt, lock.acquire)


def console_event(event: int) -> None:
    kernel32 = ctypes.windll.kernel32
    if not kernel32.GetConsoleWindow() and not kernel32.AllocConsole():
        report("not run: the system gives this program no console")
        return
    kernel32.SetConsoleCtrlHandler(None, False)
    if event == 1:
        signal.signal(signal.SIGBREAK, signal.default_int_handler)
    folder = new_folder()
    with maniple.Pool(WORKERS) as pool:
        outcome = pool.map_async(sleep, [folder] * WORKERS, chunksize=1)
        pids_in(folder, WORKERS)

        def send() -> None:
            report(f"GenerateConsoleCtrlEvent: {kernel32.GenerateConsoleCtrlEvent(event, 0)}")

        threading.Timer(0.5, send).start()
        raises(KeyboardInterrupt, lambda: outcome.get(30))


row("Ctrl-C with a console of its own")(lambda: console_event(0))
row("Ctrl-Break with a console of its own")(lambda: console_event(1))


# The supervisor.


class _Entry(ctypes.Structure):
    _fields_ = [
        ("size", wintypes.DWORD),
        ("usage", wintypes.DWORD),
        ("pid", wintypes.DWORD),
        ("heap", ctypes.c_size_t),
        ("module", wintypes.DWORD),
        ("threads", wintypes.DWORD),
        ("parent", wintypes.DWORD),
        ("priority", wintypes.LONG),
        ("flags", wintypes.DWORD),
        ("file", wintypes.WCHAR * 260),
    ]


def interpreters() -> set[int]:
    """The numbers of all processes of this interpreter's name but this one."""
    kernel32 = ctypes.WinDLL("kernel32")
    kernel32.CreateToolhelp32Snapshot.restype = wintypes.HANDLE
    snapshot = wintypes.HANDLE(kernel32.CreateToolhelp32Snapshot(2, 0))
    entry = _Entry(size=ctypes.sizeof(_Entry))
    name, found = Path(sys.executable).name.lower(), set()
    more = kernel32.Process32FirstW(snapshot, ctypes.byref(entry))
    while more:
        if entry.file.lower() == name and entry.pid != os.getpid():
            found.add(entry.pid)
        more = kernel32.Process32NextW(snapshot, ctypes.byref(entry))
    kernel32.CloseHandle(snapshot)
    return found


def supervise(name: str) -> str:
    """Run a row; return what is wrong."""
    before = interpreters()
    with tempfile.TemporaryDirectory(prefix="matrix-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, __file__, "--row", name],
            env=os.environ | {"MATRIX_FOLDER": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        assert process.stdout is not None and process.stderr is not None
        errors: list[str] = []
        reports: list[str] = []
        listening = threading.Thread(target=lambda: errors.extend(process.stderr or ()), daemon=True)
        listening.start()
        watchdog = threading.Timer(LIMIT, process.kill)
        watchdog.start()

        def hear() -> None:
            for line in process.stdout or ():
                if line.strip() == "report: killed now":
                    os.kill(process.pid, KILL_CODE)
                elif line.startswith("report: "):
                    reports.append(line[8:].strip())

        hearing = threading.Thread(target=hear, daemon=True)
        hearing.start()
        code = process.wait()
        hung = not watchdog.is_alive()
        watchdog.cancel()
        allowed = LEFT[name]
        end = time.monotonic() + 20
        while len(left := interpreters() - before) > allowed and time.monotonic() < end:
            time.sleep(0.1)
        wrong = []
        if hung:
            wrong.append(f"hung for {LIMIT} s")
        elif code != CODES[name]:
            wrong.append(f"exit code {code:#x}")
        if len(left) != allowed:
            wrong.append(f"{len(left)} processes are left instead of {allowed}")
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, KILL_CODE)
        listening.join(5)
        hearing.join(5)
    for line in reports:
        print(f"            {line}")
    if wrong:
        print("".join(errors[-30:]))
    return "; ".join(wrong)


def main() -> int:
    names = [name for name in ROWS if not sys.argv[1:] or any(part in name for part in sys.argv[1:])]
    failed = 0
    for name in names:
        begun = time.monotonic()
        wrong = supervise(name)
        failed += bool(wrong)
        print(f"{'FAILED' if wrong else 'ok':8}{name} ({time.monotonic() - begun:.1f} s) {wrong}", flush=True)
    print(f"{len(names) - failed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--row"]:
        ROWS[sys.argv[2]]()
    else:
        sys.exit(main())
