"""Queues, pipes and shared memory where the system is short of something, or has other pages.

Arguments: package, start method, trial. Says `ok` or what went wrong.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import mmap
import os
import platform
import queue
import random
import resource
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

MIB = 1 << 20
LARGE = 3 * MIB


class Same:
    """Bytes that are pickled out of band."""

    def __init__(self, size: int, value: int = 1) -> None:
        self.content: Any = bytearray([value]) * size

    def __reduce_ex__(self, protocol: int) -> Any:
        import pickle

        return restored, (pickle.PickleBuffer(self.content) if protocol >= 5 else bytes(self.content),)


def restored(content: Any) -> Same:
    same = Same(0)
    same.content = memoryview(content)
    return same


def put_all(q: Any, count: int, size: int) -> None:
    for number in range(count):
        q.put(bytes([number]) * size)


def answer(end: Any) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            end.send(end.recv())


def length_of(content: Any) -> int:
    return len(content)


def made(size: int) -> bytes:
    return b"y" * size


def cut_all(*_: Any) -> int:
    """Tries to make all shared memory of this process shorter; how often that could be done."""
    done = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd:" in os.readlink(f"/proc/self/fd/{name}"):
                os.ftruncate(int(name), 0)
                done += 1
        except OSError:
            pass
    return done


def cut_and_end(*_: Any) -> None:
    os._exit(cut_all())


def limit(what: int, value: int) -> None:
    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def nameless_bytes() -> int:
    """Bytes of shared memory that this process has descriptors of."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if "memfd:" in os.readlink(f"/proc/self/fd/{name}"):
                total += os.stat(f"/proc/self/fd/{name}").st_blocks * 512
        except OSError:
            pass
    return total


def until(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def echo(ctx: Any) -> Any:
    """One end of a pipe to a process that sends everything back."""
    here, there = ctx.Pipe()
    ctx.Process(target=answer, args=(there,), daemon=True).start()
    there.close()
    return here


# ---------------------------------------------------------------- trials


def sizes_limited_before(ctx: Any) -> None:
    """Queues that are made under a limit on file sizes carry what they carry without it."""
    limit(resource.RLIMIT_FSIZE, MIB)
    for q, count, size in ((ctx.Queue(3), 20, LARGE // 2), (ctx.Queue(), 9000, 300), (ctx.SimpleQueue(), 4, LARGE)):
        putter = ctx.Process(target=put_all, args=(q, min(count, 200), size))
        putter.start()
        for number in range(min(count, 200)):
            assert q.get() == bytes([number]) * size
        putter.join()
        assert putter.exitcode == 0
    # No process takes an item meanwhile.
    q = ctx.Queue()
    for number in range(9000):
        q.put((number, "a" * 300))
    q.put(Same(LARGE))
    assert [q.get(timeout=20)[0] for _ in range(9000)] == list(range(9000))
    assert len(q.get(timeout=20).content) == LARGE
    try:
        q.get(timeout=0.1)
        raise AssertionError("an item too many")
    except queue.Empty:
        pass
    q.close()
    q.join_thread()
    tasks = ctx.JoinableQueue()
    tasks.put(Same(LARGE))
    tasks.get()
    tasks.task_done()
    tasks.join()


def sizes_limited_later(ctx: Any) -> None:
    """The limit comes when the queues exist; nothing is lost, and the existing pool continues."""
    queues = [ctx.Queue(), ctx.SimpleQueue(), ctx.JoinableQueue(), ctx.Queue(100)]
    with ctx.Pool(2) as pool:
        assert pool.map(length_of, [bytes(LARGE)] * 2) == [LARGE] * 2
        limit(resource.RLIMIT_FSIZE, MIB)
        for q in queues:
            for number in range(30):
                q.put(bytes([number]) * 200_000)
            q.put(Same(LARGE, 7))
        for q in queues:
            assert all(q.get() == bytes([number]) * 200_000 for number in range(30))
            assert q.get().content == bytearray([7]) * LARGE
        assert pool.map(length_of, [bytes(LARGE)] * 4) == [LARGE] * 4
        assert [len(one) for one in pool.map(made, [LARGE] * 4)] == [LARGE] * 4


def sizes_limited_elsewhere(ctx: Any) -> None:
    """Pools, pipes and managers under the limit; a refused resource is an error that says what to do."""
    limit(resource.RLIMIT_FSIZE, MIB)
    with ctx.Pool(2) as pool:
        assert pool.map(length_of, [bytes(LARGE)] * 4) == [LARGE] * 4
        assert [len(one) for one in pool.map(made, [LARGE] * 4)] == [LARGE] * 4
    line = echo(ctx)
    for _ in range(3):
        line.send(Same(LARGE))
        assert len(line.recv().content) == LARGE
    with ctx.Manager() as manager:
        shared = manager.dict()
        shared["a"] = bytes(LARGE)
        assert len(shared["a"]) == LARGE
    try:
        ctx.RawArray("d", MIB)
        raise AssertionError("an array that is longer than a file may be")
    except OSError as error:
        assert error.errno == errno.EFBIG
    numbers = ctx.Array("i", 1000)
    numbers[999] = 3


def no_descriptors(ctx: Any) -> None:
    """Nothing is lost, and what needs no new descriptor works."""
    q, line, ends = ctx.Queue(), echo(ctx), ctx.Pipe()
    line.send(Same(LARGE))
    line.recv()
    ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limit(resource.RLIMIT_NOFILE, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    hole = []
    try:
        while True:
            hole.append(os.dup(0))
    except OSError:
        pass
    for _ in range(20):
        q.put(Same(200_000))
    assert all(len(q.get().content) == 200_000 for _ in range(20))
    for make in (ctx.Queue, ctx.Pipe, ctx.SimpleQueue):
        try:
            make()
            raise AssertionError("made of nothing")
        except OSError as error:
            assert error.errno == errno.EMFILE, error
    # To pickle one takes a descriptor: that is no fault of the object's, and it is not just reported and dropped.
    try:
        q.put(ends[0])
        raise AssertionError("an end without a descriptor for it")
    except OSError as error:
        assert error.errno == errno.EMFILE, error
    assert q.empty()
    # As plain bytes.
    line.send([Same(LARGE), Same(LARGE)])
    # What brings descriptors for which there is no room stays where it is, until there is some.
    try:
        got = line.recv()
    except OSError as error:
        assert error.errno == errno.EMFILE, error
        got = None
    for number in hole:
        os.close(number)
    limit(resource.RLIMIT_NOFILE, ceiling)
    assert len(got or line.recv()) == 2
    line.send("small")
    assert line.recv() == "small"
    line.send(Same(LARGE))
    assert len(line.recv().content) == LARGE


def little_memory(ctx: Any) -> None:
    """What does not fit into this process stays in the queue; a put that fails puts nothing."""
    q = ctx.Queue()
    # The arena of a thread that has ended gives up to 80 MiB of address space back in the meantime.
    size = 300 * MIB
    q.put(Same(size))
    q.put("next")
    mapped = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
    ceiling = resource.getrlimit(resource.RLIMIT_AS)[0]
    limit(resource.RLIMIT_AS, mapped + 50 * MIB)
    for _ in range(2):
        try:
            q.get(timeout=20)
            raise AssertionError("got more than there is room for")
        except (MemoryError, OSError):
            pass
    others = [ctx.Queue() for _ in range(60)]
    for other in others:
        other.put("a" * 1000)
    assert all(other.get(timeout=20) == "a" * 1000 for other in others)
    limit(resource.RLIMIT_AS, ceiling)
    assert len(q.get(timeout=20).content) == size
    assert q.get(timeout=20) == "next"


class Greedy:
    """Finds no memory where it is unpickled; with `words` the error says something, as an array's does."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __setstate__(self, state: Any) -> None:
        raise MemoryError(*filter(None, [state["words"]]))


def memory_is_short_as_it_is_unpickled(ctx: Any) -> None:
    """The error says that the item is lost, and what is behind it comes."""
    (here, there), (reader, writer) = ctx.Pipe(), ctx.Pipe(duplex=False)
    q, simple = ctx.Queue(), ctx.SimpleQueue()
    for put, get in ((q.put, q.get), (simple.put, simple.get), (there.send, here.recv), (writer.send, reader.recv)):
        for words in ("", "Unable to allocate"):
            put(Greedy(words))
            put("next")
            try:
                get()
                raise AssertionError("it was unpickled")
            except MemoryError as problem:
                said = " ".join([str(problem), *getattr(problem, "__notes__", ())])
                assert "which is lost" in said and words in said, said
            assert get() == "next"


class Rare:
    """Finds no memory when it is unpickled in this process, as long as a flag says so."""

    short = False

    def __reduce__(self) -> Any:
        return rare, ()


def rare() -> str:
    if Rare.short:
        raise MemoryError
    return "rare"


def make_rare(_: int) -> Rare:
    return Rare()


def a_result_without_memory(ctx: Any) -> None:
    """It is a MemoryError, and can be asked for again; a loop over results comes to its end all the same."""
    with ctx.Pool(1) as pool:
        for result, wanted in (
            (pool.apply_async(make_rare, (1,)), "rare"),
            (pool.map_async(make_rare, range(3)), ["rare"] * 3),
        ):
            result.wait()
            Rare.short = True
            for _ in range(5):
                try:
                    result.get()
                    raise AssertionError("it was unpickled")
                except MemoryError as problem:
                    assert "request it again" in str(problem), problem
            Rare.short = False
            assert result.get() == wanted
        results = pool.imap(make_rare, range(3))
        assert next(results) == "rare"
        Rare.short = True
        try:
            next(results)
            raise AssertionError("it was unpickled")
        except MemoryError:
            pass
        Rare.short = False
        assert list(results) == ["rare"] * 2
        results, Rare.short, errors = pool.imap(make_rare, range(3)), True, 0
        while True:
            try:
                next(results)
            except StopIteration:
                break
            except MemoryError:
                errors += 1
        assert errors >= 3, errors
        Rare.short = False


def a_future_without_memory(ctx: Any) -> None:
    """A result for which there is no memory when it arrives: an executor keeps it, and the future has it later."""
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    with importlib.import_module(sys.argv[1]).ProcessPoolExecutor(1, mp_context=ctx) as executor:
        executor.submit(made, 1).result()
        for is_awaited in (False, True):
            future = executor.submit(many_parts, 600_000)
            with open("/proc/self/statm") as statm:
                mapped = int(statm.read().split()[0]) * 4096
            lasts = threading.Timer(1.5, resource.setrlimit, (resource.RLIMIT_AS, unlimited))
            lasts.start()
            resource.setrlimit(resource.RLIMIT_AS, (mapped + (10 << 20), unlimited[1]))
            try:
                if is_awaited:
                    assert len(future.result(30)) == 600_000
            finally:
                lasts.join()
            assert len(future.result(30)) == 600_000


def many_parts(count: int) -> list[int]:
    """Return what takes ten times as much memory here as on its way."""
    return list(range(1000, 1000 + count))


def many_without_memory(ctx: Any) -> None:
    """Objects that `get_many` has taken when memory is short: each comes, or an error says that it is lost."""
    q, rng = ctx.Queue(), random.Random(5)
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    for turn in range(120):
        sizes = [rng.choice([100, 300_000, 3_000_000]) for _ in range(5)]
        q.put_many([(turn, place, bytes(size)) for place, size in enumerate(sizes)])
        came: list[Any] = []
        lost = 0
        with open("/proc/self/statm") as statm:
            mapped = int(statm.read().split()[0]) * 4096
        for _ in range(2):
            resource.setrlimit(resource.RLIMIT_AS, (mapped + rng.choice([0, 65536, 1 << 20]), unlimited[1]))
            try:
                taken = q.get_many(5)
            except MemoryError as error:
                taken, lost = [], lost + ("lost" in str(error))
            finally:
                resource.setrlimit(resource.RLIMIT_AS, unlimited)
            came += taken
            if len(came) == 5:
                break
        try:
            while len(came) + lost < 5:
                came += q.get_many(5, timeout=2)
        except queue.Empty:
            pass
        assert len(came) + lost == 5 and all(item[0] == turn for item in came), (turn, len(came), lost)


def an_interruption_without_memory(ctx: Any) -> None:
    """A handler raises in the middle of a large message, and there is no memory to keep its first half: it is lost, the handler's
    exception says so, and what is behind it comes."""
    half = bytes(32 * MIB)
    for into in (False, True):
        here, there = ctx.Pipe()
        is_short = threading.Event()
        before = resource.getrlimit(resource.RLIMIT_AS)

        def send(end: Any = there, is_short: threading.Event = is_short) -> None:
            with socket.fromfd(end.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.sendall(struct.pack("!i", 2 * len(half)) + half)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                is_short.wait(60)
                line.sendall(half)
            end.send_bytes(b"next")

        def no_memory(*_: Any, before: tuple[int, int] = before, is_short: threading.Event = is_short) -> None:
            mapped = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
            resource.setrlimit(resource.RLIMIT_AS, (mapped + MIB, before[1]))
            is_short.set()
            raise KeyError("of the handler")

        signal.signal(signal.SIGUSR1, no_memory)
        sender = threading.Thread(target=send)
        room = bytearray(2 * len(half)) if into else None
        sender.start()
        try:
            if room is None:
                here.recv_bytes()
            else:
                here.recv_bytes_into(room)
            raise AssertionError("the handler's exception is gone")
        except KeyError as problem:
            notes = getattr(problem, "__notes__", [])
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        assert any("lost" in note for note in notes), notes
        assert here.poll(60) and here.recv_bytes() == b"next"
        sender.join()


def large_arrays_without_memory(ctx: Any) -> None:
    """An array for which there is no memory is lost, as the error says, and what is behind it comes."""
    import numpy

    for size in (8_000, 60_000, 1_000_000):
        here, there = ctx.Pipe()
        sender = ctx.Process(target=send_numbered, args=(there, size), daemon=True)
        sender.start()
        assert here.recv()[0] == 0
        mapped = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 12 * 8 * size, before[1]))
        kept: list[Any] = []
        number = 1
        while number < 40:
            try:
                array = here.recv()
            except MemoryError as problem:
                kept.clear()
                assert "lost" in str(problem), problem
            else:
                assert array[0] == number, (array[0], number)
                kept.append(array)
                del array
            number += 1
        kept.clear()
        resource.setrlimit(resource.RLIMIT_AS, before)
        sender.kill()
        sender.join()
    assert numpy


def send_numbered(end: Any, size: int) -> None:
    import numpy

    for number in range(40):
        array = numpy.zeros(size)
        array[0] = number
        end.send(array)


def send_some(*ends: Any) -> None:
    for end in ends:
        end.send_bytes(bytes(100 * MIB))
        end.send(bytes(100 * MIB))
        end.send("small")
        end.send_bytes(b"bytes")


def messages_too_large(ctx: Any) -> None:
    """A message for which there is no memory is an error of its own `recv`, and those behind it come."""
    (here, there), (reader, writer) = ctx.Pipe(), ctx.Pipe(duplex=False)
    ctx.Process(target=send_some, args=(there, writer), daemon=True).start()
    mapped = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
    limit(resource.RLIMIT_AS, mapped + 50 * MIB)
    for end in (here, reader):
        for receive in (end.recv_bytes, end.recv):
            try:
                receive()
                raise AssertionError("got more than there is room for")
            except MemoryError:
                pass
        assert end.recv() == "small"
        assert end.recv_bytes() == b"bytes"


def forks(ctx: Any) -> None:
    """The sweeper of kept things is not a thread that a fork would find."""
    q, line = ctx.Queue(), echo(ctx)
    for _ in range(30):
        q.put(bytes(MIB))
        q.get()
        line.send(Same(LARGE))
        line.recv()
        child = os.fork()
        if child == 0:
            os._exit(0)
        threads = len(os.listdir("/proc/self/task"))
        os.waitpid(child, 0)
        assert threads == threading.active_count(), threads


def many_kept(ctx: Any) -> None:
    """What came over a pipe and is kept costs neither descriptors nor mappings, unless it is large."""
    line = echo(ctx)
    line.send(Same(100_000))
    line.recv()
    maps, files, kept = len(open("/proc/self/maps").readlines()), descriptors(), []
    for _ in range(300):
        line.send(Same(100_000))
        kept.append(line.recv())
    assert len(open("/proc/self/maps").readlines()) - maps < 60
    assert descriptors() - files < 40


def cut_short(ctx: Any) -> None:
    """Another process cannot make memory shorter that is mapped here."""
    q, numbers, line = ctx.Queue(), ctx.Array("i", 100_000), echo(ctx)
    lock, event, value, raw = ctx.Lock(), ctx.Event(), ctx.Value("i", 1), ctx.RawArray("b", 100_000)
    q.put(bytes(500_000))
    line.send(Same(LARGE))
    line.recv()
    process = ctx.Process(target=cut_and_end, args=(q, numbers, lock, event, value, raw))
    process.start()
    process.join()
    assert process.exitcode == 0, f"{process.exitcode} pieces of memory were cut"
    assert len(q.get()) == 500_000
    numbers[99_999], raw[99_999] = 3, 4
    with lock, value.get_lock():
        event.set()
    with ctx.Pool(2) as pool:
        assert pool.map(cut_all, [bytes(LARGE)] * 4) == [0] * 4
        assert pool.map(length_of, [bytes(LARGE)] * 4) == [LARGE] * 4


def idle(ctx: Any) -> None:
    """What queues and pipes keep for later goes back when they are idle."""
    queues = [ctx.Queue() for _ in range(6)]
    lines = [echo(ctx) for _ in range(30)]
    files = descriptors()
    for q in queues:
        for _ in range(6):
            q.put(bytes(MIB))
        for _ in range(6):
            q.get()
    for line in lines:
        line.send([Same(300_000) for _ in range(3)])
        line.recv()
    # However many pipes there are.
    assert descriptors() - files <= 32, descriptors() - files
    assert until(lambda: nameless_bytes() < MIB and descriptors() <= files), (nameless_bytes(), descriptors() - files)
    # No thread is left that another process would be forked from, and all work as before.
    assert until(lambda: len(os.listdir("/proc/self/task")) == threading.active_count())
    for q in queues:
        q.put(bytes(MIB))
        assert len(q.get()) == MIB
    for line in lines:
        line.send(Same(300_000))
        assert len(line.recv().content) == 300_000


def closed(ctx: Any) -> None:
    """Queues that were closed hold no descriptors, used or not; how much is left to do can still be seen."""
    ctx.Queue().close()
    files, kept = descriptors(), []
    for name in ("Queue", "JoinableQueue", "SimpleQueue"):
        for used in (False, True):
            q = getattr(ctx, name)()
            kept.append(q)
            if used:
                q.put(1)
                assert q.get() == 1
            if name == "JoinableQueue" and used:
                q.task_done()
            q.close()
            if name != "SimpleQueue":
                q.join_thread()
                assert q.qsize() == 0 and not q.full()
                assert used or q.empty()
            if name == "JoinableQueue":
                q.join()
            assert descriptors() == files, (name, used)


def load_all() -> None:
    """Imports what would be imported later: the loader cannot map files where pages are larger than it thinks."""
    import linecache  # noqa: F401
    import pickle  # noqa: F401
    import socket  # noqa: F401
    import traceback  # noqa: F401

    for name in ("pool", "queues", "popen_fork", "synchronize", "sharedctypes", "connection", "heap", "managers"):
        importlib.import_module(f"{sys.argv[1]}.{name}")


def large_pages(ctx: Any) -> None:
    """A kernel whose pages have 64 KiB maps files at multiples of that only."""
    load_all()
    number = 222 if platform.machine() == "aarch64" else 9
    # Refuses mmap where the low half of its offset, which is the sixth argument, is no multiple.
    rows = [
        (0x20, 0, 0, 0),
        (0x15, 0, 3, number),
        (0x20, 0, 0, 56),
        (0x45, 0, 1, 0xFFFF),
        (0x06, 0, 0, 0x0005_0000 | errno.EINVAL),
        (0x06, 0, 0, 0x7FFF_0000),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rows), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        print("skipped: no seccomp", flush=True)
        os._exit(0)
    q = ctx.Queue()
    for size in (10, 100_000, MIB, 20 * MIB):
        q.put(Same(size))
    assert [len(q.get().content) for _ in range(4)] == [10, 100_000, MIB, 20 * MIB]
    for _ in range(40):  # some go back to the system on the way
        q.put(Same(MIB))
        q.put(Same(MIB))
        assert len(q.get().content) == MIB
    line = echo(ctx)
    with ctx.Pool(2) as pool:
        for size in (10, 20_000, 100_000, MIB, 20 * MIB):
            for _ in range(3):
                line.send([Same(size)] * 2)
                assert len(line.recv()[1].content) == size
            assert pool.map(length_of, [bytes(size)] * 3) == [size] * 3
            assert [len(one) for one in pool.map(made, [size] * 3)] == [size] * 3
    numbers, lock, event = ctx.Array("d", 100_000), ctx.Lock(), ctx.Event()
    with lock, numbers.get_lock():
        numbers[99_999] = 1
        event.set()
    with ctx.Manager() as manager:
        assert manager.list([1, 2])[1] == 2


TRIALS: dict[str, Callable[[Any], None]] = {
    trial.__name__: trial
    for trial in (
        sizes_limited_before,
        sizes_limited_later,
        sizes_limited_elsewhere,
        no_descriptors,
        little_memory,
        messages_too_large,
        memory_is_short_as_it_is_unpickled,
        a_result_without_memory,
        an_interruption_without_memory,
        large_arrays_without_memory,
        a_future_without_memory,
        many_without_memory,
        forks,
        many_kept,
        cut_short,
        idle,
        closed,
        large_pages,
    )
}

if __name__ == "__main__":
    try:
        TRIALS[sys.argv[3]](importlib.import_module(sys.argv[1]).get_context(sys.argv[2]))
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.exit(1)
    print("ok", flush=True)
