"""The treatment of descriptors that the package did not open, or that it opened and the program has closed.

Arguments: package, start method, what. Writes its outcome to the descriptor that the variable OUTCOME names: the others may be closed.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
import tempfile
import threading
import time
from typing import Any

OUTCOME = int(os.environ["OUTCOME"])


def leave(said: str) -> None:
    os.write(OUTCOME, said.encode())
    os._exit(0)


def put(queue: Any, lock: Any, connection: Any) -> None:
    with lock:
        queue.put("queue")
    connection.send("pipe")
    connection.close()


def twice(number: int) -> int:
    return 2 * number


def use_all(mp: Any, ctx: Any) -> None:
    queue, lock, (here, there) = ctx.Queue(), ctx.Lock(), ctx.Pipe()
    process = ctx.Process(target=put, args=(queue, lock, there))
    process.start()
    there.close()
    assert queue.get(timeout=20) == "queue"
    assert here.recv() == "pipe"
    process.join(20)
    assert process.exitcode == 0, process.exitcode
    value = ctx.Value("i", 3)
    assert value.value == 3
    with ctx.Pool(2) as pool:
        assert pool.map_async(twice, [1, 2, 3], 1).get(20) == [2, 4, 6]
        assert bytes(pool.apply_async(bytes, (100_000,)).get(20)) == bytes(100_000)
    with ctx.Manager() as manager:
        shared = manager.list([1])
        shared.append(2)
        assert list(shared) == [1, 2]


def closed(mp: Any, ctx: Any, numbers: str) -> None:
    """Some of the standard streams are closed: before anything is made, and after a process has been started."""
    late = numbers.startswith("late")
    if late:
        process = ctx.Process(target=twice, args=(1,))
        process.start()
        process.join()
    for number in numbers.removeprefix("late"):
        os.close(int(number))
    use_all(mp, ctx)


MADE = {
    "Lock": lambda mp, ctx: ctx.Lock(),
    "RLock": lambda mp, ctx: ctx.RLock(),
    "Semaphore": lambda mp, ctx: ctx.Semaphore(2),
    "Condition": lambda mp, ctx: ctx.Condition(),
    "Event": lambda mp, ctx: ctx.Event(),
    "Barrier": lambda mp, ctx: ctx.Barrier(2),
    "Queue": lambda mp, ctx: ctx.Queue(),
    "JoinableQueue": lambda mp, ctx: ctx.JoinableQueue(3),
    "SimpleQueue": lambda mp, ctx: ctx.SimpleQueue(),
    "Pipe": lambda mp, ctx: ctx.Pipe(),
    "one-way Pipe": lambda mp, ctx: ctx.Pipe(False),
    "Value": lambda mp, ctx: ctx.Value("d", 1.5),
    "Array": lambda mp, ctx: ctx.Array("i", 30),
    "Process": lambda mp, ctx: started(ctx),
    "SharedMemory": lambda mp, ctx: segment(),
    "Listener": lambda mp, ctx: listener(mp, "AF_UNIX", None),
    "Listener of TCP": lambda mp, ctx: listener(mp, "AF_INET", b"key"),
    # Its server holds the resource tracker's pipe as well.
    "Manager that stays": lambda mp, ctx: KEPT.append(ctx.Manager()),
}
KEPT: list[Any] = []


def listener(mp: Any, family: str, key: bytes | None) -> Any:
    return importlib.import_module(f"{mp.__name__}.connection").Listener(family=family, authkey=key)


def started(ctx: Any) -> Any:
    process = ctx.Process(target=twice, args=(1,))
    process.start()
    process.join(20)
    return process


def segment() -> Any:
    from maniple.shared_memory import SharedMemory

    made = SharedMemory(create=True, size=100)
    made.unlink()
    return made


def became_daemon(mp: Any, ctx: Any, what: str) -> None:
    """All descriptors are closed while there is an object of ours; files of the program come in their place."""
    made = MADE[what](mp, ctx)
    os.closerange(3, OUTCOME)
    files = [os.open(__file__, os.O_RDONLY) for _ in range(40)]
    inode = os.stat(__file__).st_ino
    del made
    gc.collect()
    queue = ctx.Queue()
    queue.put(1)
    assert queue.get(timeout=20) == 1
    lock = ctx.Lock()
    here, there = ctx.Pipe()
    process = ctx.Process(target=put, args=(queue, lock, there))
    process.start()
    assert queue.get(timeout=20) == "queue"
    process.join(20)
    assert process.exitcode == 0, process.exitcode
    if not (pid := os.fork()):
        # What is closed in forked children is not theirs either.
        leave(" ".join(str(file) for file in files if not is_file(file, inode)) or "child ok")
    os.waitpid(pid, 0)
    changed = [file for file in files if not is_file(file, inode)]
    assert not changed, f"files {changed} are closed or others now"


def pool_without_descriptors(mp: Any, ctx: Any) -> None:
    """The workers of a pool end with its descriptors. The error says why, and another pool works."""
    pool = ctx.Pool(2)
    assert pool.map(twice, range(3)) == [0, 2, 4]
    os.closerange(3, OUTCOME)
    files = [os.open(__file__, os.O_RDONLY) for _ in range(60)]
    inode = os.stat(__file__).st_ino
    try:
        pool.map(twice, range(3))
        raise AssertionError("the pool goes on")
    except mp.pool.WorkerLostError as error:
        assert "the program has closed the pool's descriptors" in str(error), error
    with ctx.Pool(2) as another:
        assert another.map(twice, range(3)) == [0, 2, 4]
    pool.terminate()
    pool.join()
    changed = [file for file in files if not is_file(file, inode)]
    assert not changed, f"files {changed} are closed or others now"


def watched(ctx: Any) -> Any:
    queue = ctx.Queue()
    queue._reader.fileno()
    return queue


def exchange(queue: Any, item: Any) -> None:
    queue.put(item)
    queue.get()


def talk(ends: Any, item: Any) -> None:
    ends[0].send(item)
    ends[1].recv()


def read(ends: Any, item: Any) -> None:
    ends[0].recv()


def over_tcp(ctx: Any) -> Any:
    connection = importlib.import_module(f"{sys.argv[1]}.connection")
    with connection.Listener(("127.0.0.1", 0)) as made:
        ends: list[Any] = []
        thread = threading.Thread(target=lambda: ends.append(connection.Client(made.address)))
        thread.start()
        return made.accept(), thread.join() or ends[0]


USED: dict[str, Any] = {
    "Pipe": (lambda ctx: ctx.Pipe(), talk),
    "one-way Pipe": (lambda ctx: ctx.Pipe(False)[::-1], talk),
    "Client": (over_tcp, talk),
    "Pipe that is read": (lambda ctx: ctx.Pipe(), read),
    "one-way Pipe that is read": (lambda ctx: ctx.Pipe(False), read),
    "Client that is read": (over_tcp, read),
    "Queue": (lambda ctx: ctx.Queue(), exchange),
    "Queue that is watched": (watched, exchange),
    "JoinableQueue": (lambda ctx: ctx.JoinableQueue(3), exchange),
    "SimpleQueue": (lambda ctx: ctx.SimpleQueue(), exchange),
}


def used_after(mp: Any, ctx: Any, what: str, before: str) -> None:
    """All descriptors are closed, files of the program come in their place, and an object of ours is used: it works, or raises OSError."""
    make, use = USED[what]
    made = make(ctx)
    if before == "used":
        use(made, 1)
    os.closerange(3, OUTCOME)
    content = b"not ours" * 1000
    files = [tempfile.TemporaryFile() for _ in range(40)]
    for file in files:
        file.write(content)
        file.flush()
    refused = 0
    for item in (1, b"large" * 1_000_000, 2):
        try:
            use(made, item)
        except OSError as error:
            assert error.errno == errno.EBADF, error
            refused += 1
    assert before == "used" or refused == 3, refused
    changed = [file.name for file in files if os.pread(file.fileno(), 2 * len(content), 0) != content]
    assert not changed, f"files {changed} were written to"


def is_file(number: int, inode: int) -> bool:
    try:
        return os.fstat(number).st_ino == inode
    except OSError:
        return False


def above_the_limit(mp: Any, ctx: Any) -> None:
    """A descriptor was inherited whose number is above what the limit allows by now."""
    import resource

    os.dup2(os.open(os.devnull, os.O_RDONLY), 230, inheritable=True)
    os.dup2(OUTCOME, 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    use_all(mp, ctx)


def sends(mp: Any, ctx: Any) -> None:
    """The standard streams are closed while another thread sends a descriptor over a connection that is full."""
    send_handle = importlib.import_module(f"{mp.__name__}.reduction").send_handle
    for module in ("array", "fcntl", "socket"):
        importlib.import_module(module)  # an import opens files
    ours, theirs = ctx.Pipe()
    os.set_blocking(ours.fileno(), False)
    try:
        while True:
            os.write(ours.fileno(), bytes(1000))
    except BlockingIOError:
        os.set_blocking(ours.fileno(), True)
    for number in range(3):
        os.close(number)
    sender = threading.Thread(target=send_handle, args=(ours, OUTCOME, os.getpid()), daemon=True)
    sender.start()
    for _ in range(300):
        time.sleep(0.001)
        open_ones = [number for number in range(3) if os.path.lexists(f"/proc/self/fd/{number}")]
        assert not open_ones, f"{open_ones} are open"
    assert sender.is_alive(), "the connection is not full"
    os.set_blocking(theirs.fileno(), False)
    while sender.is_alive():
        try:
            os.read(theirs.fileno(), 1 << 20)
        except BlockingIOError:
            time.sleep(0.001)


def main() -> None:
    package, method, what, *more = sys.argv[1:]
    mp = importlib.import_module(package)

    def late() -> None:
        leave("hangs")

    timer = threading.Timer(40, late)
    timer.daemon = True
    timer.start()
    try:
        globals()[what](mp, mp.get_context(method), *more)
    except BaseException as error:
        leave(f"{type(error).__name__}: {error}")
    leave("ok")


if __name__ == "__main__":
    main()
