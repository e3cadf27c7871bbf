"""A program that lacks something. Prints "ok" or what was seen; `test_shortage.py` runs it: PACKAGE METHOD CASE [ARGUMENTS].

It ends by itself when something hangs.
"""

from __future__ import annotations

import errno
import faulthandler
import gc
import importlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

PACKAGE, METHOD, *WHAT = sys.argv[1:]
mp: Any = importlib.import_module(PACKAGE)
ctx: Any = mp.get_context(METHOD)
SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


# ---------------------------------------------------------------- what workers do


def nothing() -> None:
    pass


def double(number: int) -> int:
    return 2 * number


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def die(_: object = None) -> None:
    os._exit(3)


def own_descriptors(_: object = None) -> tuple[int, list[str]]:
    time.sleep(0.05)
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return os.getpid(), sorted(found)


def all_but_first_fail(folder: str) -> None:
    place = os.path.join(folder, str(os.getpid()))
    with open(place, "w"):
        pass
    try:
        os.close(os.open(os.path.join(folder, "the first"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        raise ValueError("not the first") from None


def lack_while(place: str) -> None:
    """A worker's initializer that ends the worker by a shortage, as long as the file exists."""
    if os.path.exists(place):
        with open(place, "a") as tries:
            tries.write("x")
        os._exit(os.EX_TEMPFAIL)


# ---------------------------------------------------------------- what is counted


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def lowest_free() -> int:
    """Return the number of the next descriptor: as a limit it allows no other, also if higher numbers are free."""
    gc.collect()
    number = os.dup(0)
    os.close(number)
    return number


def children() -> set[int]:
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{thread}/children") as listing:
            found |= set(map(int, listing.read().split()))
    return found


def state() -> tuple[int, set[int], int]:
    return descriptors(), children(), threading.active_count()


def settled(before: tuple[int, set[int], int]) -> str:
    """Empty, or what there is more than before, also after a while."""
    end = time.monotonic() + 5
    while True:
        now = state()
        if now[0] <= before[0] and now[1] <= before[1] and now[2] <= before[2]:
            return ""
        if time.monotonic() > end:
            links = [
                os.readlink(f"/proc/self/fd/{n}")
                for n in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{n}")
            ]
            return f"left behind: {before} became {now}: {links}"
        time.sleep(0.02)


@contextmanager
def only(kind: str, soft: int) -> Iterator[None]:
    number = getattr(resource, kind)
    before = resource.getrlimit(number)
    resource.setrlimit(number, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(number, before)


def get_ready() -> None:
    """Start the helpers, and import what a start imports."""
    process = ctx.Process(target=nothing)
    process.start()
    process.join()
    process.close()
    # Under a limit near which the engine has a descriptor to spare, one for the whole process.
    with only("RLIMIT_NOFILE", 200), ctx.Pool(1) as pool:
        pool.map(double, [1])
    pool.join()


def walk(do: Callable[[], object], room: Callable[[int], Any], most: int, after: Callable[[], object]) -> str:
    """Call `do` with room for nothing, for one thing, for two …, until it has what it needs."""
    before, refused = state(), 0
    for count in range(most):
        try:
            with room(count):
                do()
        except OSError as problem:
            if problem.errno not in SHORTAGES:
                return f"room for {count}: {problem!r}"
        except RuntimeError as problem:
            if "start new thread" not in str(problem):
                return f"room for {count}: {problem!r}"
        except BaseException as problem:
            return f"room for {count}: {problem!r}"
        else:
            return (settled(before) or after() or "ok") if refused else "nothing was ever short"  # type: ignore[return-value]
        refused += 1
        if wrong := settled(before) or after():
            return f"room for {count}: {wrong}"
    return "it never has what it needs"


def start_process() -> None:
    # Two, for there may be a descriptor to spare for one.
    started = []
    try:
        for _ in range(2):
            process = ctx.Process(target=nothing)
            process.start()
            started.append(process)
    finally:
        codes = []
        for process in started:
            process.join(20)
            codes.append(process.exitcode)
            process.close()
    if any(codes):
        raise AssertionError(f"exit codes {codes}")


def use_pool() -> None:
    with ctx.Pool(2) as pool:
        if pool.map_async(double, range(4)).get(20) != [0, 2, 4, 6]:
            raise AssertionError("wrong answers")
    pool.join()


def works() -> str:
    try:
        start_process()
        use_pool()
    except BaseException as problem:
        return f"afterwards: {problem!r}"
    return ""


# ---------------------------------------------------------------- cases


def cost(what: str) -> str:
    get_ready()
    before = descriptors()
    if what == "Process":
        made = [ctx.Process(target=nap, args=(60,)) for _ in range(6)]
        for process in made:
            process.start()
        each = (descriptors() - before) / 6
        for process in made:
            process.kill()
            process.join()
        return "ok" if each <= 2 else f"{each} descriptors for a process"
    with ctx.Pool(2) as pool:
        pool.map(double, range(2))
        two = descriptors()
        with ctx.Pool(8) as larger:
            larger.map(double, range(8))
            eight = descriptors() - two
    return "ok" if eight - (two - before) <= 3 * 6 else f"{(eight - (two - before)) / 6} descriptors for a worker"


def many(workers: str, limit: str) -> str:
    get_ready()
    count = int(workers)
    with only("RLIMIT_NOFILE", int(limit)), ctx.Pool(count) as pool:
        if pool.map_async(double, range(count), 1).get(60) != [2 * n for n in range(count)]:
            return "wrong answers"
    return "ok"


def siblings() -> str:
    with ctx.Pool(12) as pool:
        seen: dict[int, list[str]] = {}
        while len(seen) < 12:
            seen.update(pool.map(own_descriptors, range(24), 1))
        eldest, youngest = seen[min(seen)], seen[max(seen)]
        process = ctx.Process(target=nothing)  # a child of its own, to see what that inherits
        process.start()
        process.join()
    return "ok" if len(youngest) <= len(eldest) else f"the eldest has {eldest}, the youngest {youngest}"


def walk_descriptors(what: str) -> str:
    get_ready()
    do = start_process if what == "Process" else use_pool
    return walk(do, lambda count: only("RLIMIT_NOFILE", lowest_free() + count), 60, works)


def first_descriptors(what: str) -> str:
    """The same in a program that has not used the package yet."""
    do = start_process if what == "Process" else use_pool
    base = lowest_free()
    for count in range(60):
        try:
            with only("RLIMIT_NOFILE", base + count):
                do()
        except (OSError, EOFError, RuntimeError, ImportError):
            continue
        except BaseException as problem:
            # A child that starts anew under such a limit may not come far.
            if (
                METHOD == "fork"
                or not isinstance(problem, (AssertionError, mp.TimeoutError))
                and "WorkerLost" not in repr(problem)
            ):
                return f"room for {count}: {problem!r}"
            continue
        break
    with only("RLIMIT_NOFILE", 1024):
        importlib.import_module(f"{PACKAGE}.forkserver")._forkserver._stop()
        return works() or "ok"


def walk_processes(what: str) -> str:
    get_ready()
    do = start_process if what == "Process" else use_pool
    return walk(do, lambda count: only("RLIMIT_NPROC", running() + count), 20, works)


def walk_memory(what: str) -> str:
    get_ready()
    do = start_process if what == "Process" else use_pool
    base = 0
    with open("/proc/self/statm") as statm:
        base = int(statm.read().split()[0]) * resource.getpagesize()
    before, refused, lost = state(), 0, 0
    for count in range(40):
        try:
            with only("RLIMIT_AS", base + count * count * (1 << 18)):
                do()
        except (MemoryError, OSError, RuntimeError) as problem:
            if isinstance(problem, mp.WorkerLostError):
                lost += 1  # the worker met the limit, which it has as well
            elif isinstance(problem, OSError) and problem.errno not in SHORTAGES:
                return f"{count}: {problem!r}"
            elif isinstance(problem, RuntimeError) and "start new thread" not in str(problem):
                return f"{count}: {problem!r}"
            refused += 1
        except AssertionError as problem:
            if "exit code" not in str(problem):
                return f"{count}: {problem!r}"
            lost += 1  # as above
        else:
            return (settled(before) or works() or "ok") if refused + lost else "nothing was ever short"
        if wrong := settled(before) or works():
            return f"{count}: {wrong}"
    return "it never has what it needs"


def running() -> int:
    """Processes and threads of this user."""
    user, count = os.getuid(), 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if _real_user(name) == user:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _real_user(name: str) -> int:
    with open(f"/proc/{name}/status") as status:
        for line in status:
            if line.startswith("Uid:"):
                return int(line.split()[1])
    return -1


def says_what_to_do() -> str:
    get_ready()
    before = state()
    try:
        with only("RLIMIT_NOFILE", lowest_free() + 5):
            ctx.Pool(4)
    except OSError as problem:
        told = " ".join(getattr(problem, "__notes__", ()))
        if "ulimit -n" not in told or "of 4" not in told:
            return f"{problem!r} {told}"
        return settled(before) or works() or "ok"  # while the error is still referenced
    return "nothing was short"


def renewal() -> str:
    """Workers that are to be replaced while there is nothing to do it with."""
    get_ready()
    with ctx.Pool(2, maxtasksperchild=1) as pool:
        pool.map(double, range(4), 1)
        with only("RLIMIT_NOFILE", 3):
            waiting = pool.map_async(double, range(10), 1)
            time.sleep(0.7)
        if waiting.get(30) != [2 * n for n in range(10)]:
            return "wrong answers"
        while len([p for p in pool._pool if p.is_alive()]) < 2:
            time.sleep(0.02)
    return "ok"


def all_die_meanwhile() -> str:
    """No worker is left, and none can be started for a while."""
    get_ready()
    with ctx.Pool(2) as pool:
        with only("RLIMIT_NOFILE", 3):
            lost = [pool.apply_async(die) for _ in range(2)]
            for one in lost:
                try:
                    one.get(20)
                except mp.WorkerLostError:
                    continue
                return "a task survived its worker"
            waiting = pool.map_async(double, range(10))
            time.sleep(1)
        if waiting.get(30) != [2 * n for n in range(10)]:
            return "wrong answers"
    return "ok"


def no_room_for_files() -> str:
    """The limit on files, which shared memory is to the system, leaves none; the same without any worker."""
    get_ready()
    before = state()
    with only("RLIMIT_FSIZE", 4096):
        try:
            ctx.Pool(2)
            return "it was made"
        except OSError as problem:
            if problem.errno != errno.EFBIG or "ulimit -f" not in "".join(getattr(problem, "__notes__", ())):
                return repr(problem)
    if wrong := settled(before):
        return wrong
    with ctx.Pool(2) as pool:
        pool.map(double, range(2))
        with only("RLIMIT_FSIZE", 4096):
            for process in pool._pool:
                process.kill()
            waiting = pool.map_async(double, range(4))
            time.sleep(0.5)
        return "ok" if waiting.get(30) == [0, 2, 4, 6] else "wrong answers"


def by_queues(processes: int, *initializer: Any) -> Any:
    """A pool of a class that has queues of its own, which the engine does not serve."""
    classes = importlib.import_module(f"{PACKAGE}.pool")

    class ByQueues(classes.Pool):  # type: ignore[name-defined,misc]
        def _setup_queues(self) -> None:
            super()._setup_queues()

    return ByQueues(processes, *initializer, context=ctx)


def queues_short() -> str:
    """A worker of such a pool dies where none can be started, and another one is busy."""
    get_ready()
    with by_queues(2) as pool:
        pool.map(double, range(2))
        busy = pool.apply_async(nap, (1.5,))
        time.sleep(0.2)
        with only("RLIMIT_NOFILE", 3):
            pool.apply_async(die)
            time.sleep(0.8)
            if busy.get(20) != 1.5:
                return "a wrong answer"
        if pool.map_async(double, range(10), 1).get(30) != [2 * n for n in range(10)]:
            return "wrong answers"
        while len([p for p in pool._pool if p.is_alive()]) < 2:
            time.sleep(0.02)
    return "ok"


def queues_one_lives() -> str:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, by_queues(2, all_but_first_fail, (folder,)) as pool:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if pool.map_async(double, range(4)).get(20) != [0, 2, 4, 6]:
                return "wrong answers"
            time.sleep(0.05)
        tried = len(os.listdir(folder))
        return "ok" if 4 < tried < 60 else f"{tried} workers were started"


def workers_lack(by: str) -> str:
    """All workers die, and those that are started say for a while that they lack something before they are ready."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        place = os.path.join(folder, "short")
        new_pool = by_queues if by == "queues" else ctx.Pool
        with new_pool(2, lack_while, (place,)) as pool:
            pool.map(double, range(4), 1)
            with open(place, "w"):
                pass
            for process in list(pool._pool):
                process.kill()
            waiting = pool.map_async(double, range(10), 1)
            end = time.monotonic() + 40
            while os.path.getsize(place) < 8:
                if time.monotonic() > end:
                    return f"only {os.path.getsize(place)} workers were started"
                time.sleep(0.02)
            os.remove(place)
            if waiting.get(30) != [2 * n for n in range(10)]:
                return "wrong answers"
            while len([p for p in pool._pool if p.is_alive()]) < 2:
                time.sleep(0.02)
    return "ok"


def workers_lack_for_long() -> str:
    """Calls end with an error then, though some worker is always about to start; the pool has not ended with them."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        place = os.path.join(folder, "short")
        with open(place, "w"):
            pass
        with ctx.Pool(2, lack_while, (place,)) as pool:
            try:
                return f"answered {pool.apply_async(double, (1,)).get(40)}"
            except mp.WorkerLostError as problem:
                if "workers lack descriptors, memory or processes" not in str(problem):
                    return f"{problem!r}"
            os.remove(place)
            end = time.monotonic() + 20
            while time.monotonic() < end:
                with suppress(mp.WorkerLostError):
                    return "ok" if pool.apply_async(double, (1,)).get(20) == 2 else "a wrong answer"
    return "the pool does not recover"


def no_thread_for_the_lifeline() -> str:
    """A daemonic process whose end with its maker cannot be arranged says what is short, by its exit code, too."""
    engine = importlib.import_module(f"{PACKAGE}._maniple")

    def end_after(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "could not start the thread that watches the lifeline")

    engine.end_after = end_after
    told, tell = os.pipe()
    process = ctx.Process(target=nothing, daemon=True)
    standard_error = os.dup(2)
    os.dup2(tell, 2)
    try:
        process.start()
    finally:
        os.dup2(standard_error, 2)
        os.close(tell)
    process.join()
    text = os.read(told, 10_000).decode()
    if process.exitcode != os.EX_TEMPFAIL:
        return f"exit code {process.exitcode}"
    return "ok" if "cannot begin" in text and "ulimit -u" in text and "Traceback" not in text else text


def never_back() -> str:
    """The same for long: calls end with an error, and the pool has not ended with them."""
    get_ready()
    with ctx.Pool(1) as pool:
        with only("RLIMIT_NOFILE", 3):
            with suppress(mp.WorkerLostError):
                pool.apply_async(die).get(20)
            try:
                return f"answered {pool.apply_async(double, (1,)).get(40)}"
            except mp.WorkerLostError as problem:
                if "ulimit -n" not in str(problem):
                    return f"{problem!r}"
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with suppress(mp.WorkerLostError):
                return "ok" if pool.apply_async(double, (1,)).get(20) == 2 else "a wrong answer"
        return "the pool does not recover"


def one_lives() -> str:
    """All workers but one end before they are ready, again and again."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, ctx.Pool(2, all_but_first_fail, (folder,)) as pool:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            if pool.map_async(double, range(4)).get(20) != [0, 2, 4, 6]:
                return "wrong answers"
            time.sleep(0.05)
        tried = len(os.listdir(folder))
        return "ok" if 4 < tried < 60 else f"{tried} workers were started"


def server_lacks(what: str) -> str:
    """It is the fork server that lacks something."""
    get_ready()
    server = importlib.import_module(f"{PACKAGE}.forkserver")._forkserver
    if what == "RLIMIT_NPROC":
        helper = mp.get_context("fork").Process(target=nap, args=(70,))
        helper.start()
        server._stop()
        with only(what, running() + 1):
            server.ensure_running()
            pid, wrong = server._forkserver_pid, is_refused()  # over a new line, which stays
            start = state()
            for _ in range(3):
                if wrong := wrong or is_refused() or settled(start):
                    return wrong
        helper.kill()
        helper.join()
        # The server began under the limit.
        process = ctx.Process(target=nothing)
        process.start()
        process.join()
        return "ok" if server._forkserver_pid == pid else "the server has ended"
    pid, start = server._forkserver_pid, state()
    limit, before = len(os.listdir(f"/proc/{pid}/fd")), resource.prlimit(pid, resource.RLIMIT_NOFILE)
    for room in range(3):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit + room, before[1]))
        wrong = is_refused()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        if wrong := wrong or settled(start):
            return wrong
        start_process()
        if server._forkserver_pid != pid:
            return "the server has ended"
    return works() or "ok"


def soft_limits(_: object = None) -> list[int]:
    return [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)]


def report_limits(writer: Any) -> None:
    writer.send(soft_limits())


def limit_itself() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 39, resource.getrlimit(resource.RLIMIT_AS)[1]))


def workers_raised_later() -> str:
    """The workers of a pool begin under low limits, which are raised later; those of another pool have limits of their own."""
    with only("RLIMIT_NOFILE", 200), only("RLIMIT_AS", 1 << 40):
        get_ready()
        pool, other = ctx.Pool(2), ctx.Pool(2, limit_itself)
        if pool.apply(soft_limits) != [200, 1 << 40] or other.apply(soft_limits) != [200, 1 << 39]:
            return "they do not begin so"
    with pool, other, only("RLIMIT_NOFILE", 250), only("RLIMIT_AS", 1 << 42):
        end = time.monotonic() + 30
        for each, wanted in [(pool, [250, 1 << 42]), (other, [250, 1 << 39])]:
            while set(map(tuple, seen := each.map(soft_limits, range(20), 1))) != {tuple(wanted)}:
                if time.monotonic() > end:
                    return f"the workers have {seen}, and should have {wanted}"
    return "ok"


def raised_later() -> str:
    """The helpers begin under low limits, which are raised later."""
    low = [("RLIMIT_NOFILE", 200), ("RLIMIT_AS", 1 << 40)]
    with only(*low[0]), only(*low[1]):
        get_ready()
    seen = []
    for wanted in ([150, 1 << 41], [250, 1 << 42]):
        with only("RLIMIT_NOFILE", wanted[0]), only("RLIMIT_AS", wanted[1]):
            reader, writer = ctx.Pipe(False)
            process = ctx.Process(target=report_limits, args=(writer,))
            process.start()
            seen.append(reader.recv())
            process.join()
            if seen[-1] < wanted:
                return f"a child has {seen[-1]}, this program {wanted}"
    return "ok" if seen[-1] == wanted else f"a child has {seen[-1]}, this program {wanted}"


def is_refused() -> str:
    try:
        process = ctx.Process(target=nothing)
        process.start()
    except OSError as problem:
        return "" if problem.errno in SHORTAGES else repr(problem)
    return "it was started"


def no_pidfd_left(name: str, times: str) -> str:
    """There is a descriptor for everything but the handle on the child."""
    get_ready()
    real, left = os.pidfd_open, int(times)
    before = state()

    def scarce(pid: int, flags: int = 0) -> int:
        nonlocal left
        if left:
            left -= 1
            raise OSError(getattr(errno, name), "scarce")
        return real(pid, flags)

    os.pidfd_open = scarce
    try:
        start_process()
        said = "started"
    except OSError as problem:
        said = "refused" if problem.errno == getattr(errno, name) else repr(problem)
    os.pidfd_open = real
    return settled(before) or works() or said


def manager_starts() -> str:
    """A manager whose server inherits ever fewer descriptors serves a client, or its start raises OSError."""
    with ctx.Manager() as manager:
        manager.dict()[1] = 2
    base, outcomes = len(os.listdir("/proc/self/fd")) - 1, set()
    for count in range(-4, 24):
        manager = None
        try:
            with only("RLIMIT_NOFILE", base + count):
                manager = ctx.Manager()
        except OSError as problem:
            notes = "".join(getattr(problem, "__notes__", ()))
            if problem.errno != errno.EMFILE or "server" in notes and "ulimit -n" not in notes:
                raise
            outcomes.add("refused by the server" if "server" in notes else "refused before")
            continue
        shared = manager.dict()
        shared[1] = count
        if shared.copy() != {1: count}:
            return f"{count}: {shared}"
        manager.shutdown()
        outcomes.add("served")
    return "ok" if outcomes >= {"served", "refused by the server"} else str(outcomes)


def manager_lacks() -> str:
    """Clients of a manager's server without a descriptor get an error. The server continues."""
    with ctx.Manager() as manager:
        shared = manager.dict({1: 2})
        shared.copy()
        pid, done, errors = manager._process.pid, threading.Event(), []
        threads: list[threading.Thread] = []

        def call() -> None:
            try:
                shared.copy()
            except Exception as error:
                errors.append(error)
            served.set()
            done.wait()  # the thread's line to the server lives as long as the thread

        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        most = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 4
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, before[1]))
        while not errors and len(threads) <= most:
            served = threading.Event()
            threads.append(threading.Thread(target=call))
            threads[-1].start()
            served.wait()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        done.set()
        for thread in threads:
            thread.join()
        if [type(error) for error in errors] != [EOFError] or "ulimit -n" not in str(errors[0]):
            return repr(errors)
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        return "ok" if len(errors) == 1 else repr(errors)


def call_in(address: Any, key: bytes | None, line: Any) -> None:
    """Connect to the listener at `address` for each message, and answer with what the listener sends, or with the error."""
    from multiprocessing.connection import Client  # its errors come from the listener

    while line.recv():
        try:
            with Client(address, authkey=key) as conn:
                line.send(conn.recv())
        except (EOFError, ConnectionResetError) as error:
            line.send(type(error).__name__)


def listener_lacks(key: str) -> str:
    """Clients of a listener whose process has no descriptor get an error if the shortage lasts, and wait if it passes."""
    connection = importlib.import_module(f"{PACKAGE}.connection")
    authkey = b"key" if key else None
    with connection.Listener(authkey=authkey, backlog=8) as listener:
        listener._listener._socket.settimeout(0.05)
        here, there = ctx.Pipe()
        client = ctx.Process(target=call_in, args=(listener.address, authkey, there), daemon=True)
        client.start()

        def serve(tries: int, limit: int) -> str:
            """Accept until the client has its answer; the limit on descriptors is raised after so many failures."""
            failures = 0
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
            taken = take_all()
            here.send(True)
            while not here.poll(0.01):
                try:
                    with listener.accept() as conn:
                        conn.send("served")
                except TimeoutError:
                    pass
                except OSError as problem:
                    if problem.errno != errno.EMFILE:
                        raise
                    failures += 1
                    if failures == tries:
                        resource.setrlimit(resource.RLIMIT_NOFILE, before)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for number in taken:
                os.close(number)
            answer: str = here.recv()
            return answer

        for _ in range(2):
            if (answer := serve(-1, 100)) not in ("EOFError", "ConnectionResetError"):
                return f"a shortage that lasts: {answer}"
            # The machine may be slow: then a few failures last long.
            if "served" not in (answers := {serve(3, 100) for _ in range(5)}):
                return f"a shortage that passes: {answers}"
        here.send(False)
        client.join()
    return "ok"


def take_all() -> list[int]:
    """Open files until there is no descriptor left."""
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as problem:
        if problem.errno != errno.EMFILE:
            raise
    return taken


def main() -> None:
    faulthandler.dump_traceback_later(80, exit=True)
    case, *arguments = WHAT
    print(globals()[case](*arguments), flush=True)


def as_other_user() -> None:
    """Run this program again as a user to whom limits on processes apply: the system exempts root and users that may change limits."""
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for capability in (21, 24):  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE
        if prctl(24, capability, 0, 0, 0) != 0:  # PR_CAPBSET_DROP
            print("skip: not root", flush=True)
            raise SystemExit
    os.setresuid(20000 + os.getpid() % 30000, 0, 0)
    os.environ["OTHER_USER"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.argv])


if __name__ == "__main__":
    if WHAT[0] == "walk_processes" or "RLIMIT_NPROC" in WHAT:
        if os.getuid() == 0 and "OTHER_USER" not in os.environ:
            as_other_user()
    main()
