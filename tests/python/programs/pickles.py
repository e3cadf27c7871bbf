"""Writes pickles of what multiprocessing has that travels, in hexadecimal, and what they give when they are read; or reads them."""

import contextlib
import multiprocessing
import multiprocessing.managers
import multiprocessing.pool
import multiprocessing.queues
import multiprocessing.sharedctypes
import multiprocessing.synchronize
import pickle
import sys
from multiprocessing import shared_memory
from multiprocessing.reduction import ForkingPickler


def things(block, sequence, manager):
    return [
        multiprocessing.TimeoutError("late"),
        multiprocessing.AuthenticationError("stranger"),
        multiprocessing.BufferTooShort(b"bytes"),
        multiprocessing.managers.Namespace(name="Bob", n=1),
        multiprocessing.managers.Token("list", "/tmp/nowhere", "1"),
        multiprocessing.managers.RemoteError("a traceback"),
        multiprocessing.managers.Value("i", 3),
        multiprocessing.pool.MaybeEncodingError(ValueError("no"), [1]),
        multiprocessing.pool.ExceptionWithTraceback(ValueError("raised"), None),
        multiprocessing.pool.mapstar,
        [
            multiprocessing.Process,
            multiprocessing.queues.Queue,
            multiprocessing.pool.Pool,
            multiprocessing.synchronize.Lock,
        ],
        [
            multiprocessing.managers.SyncManager,
            multiprocessing.managers.DictProxy,
            multiprocessing.sharedctypes.Synchronized,
        ],
        multiprocessing.get_context("spawn"),
        multiprocessing.Queue,
        block,
        sequence,
        manager.list([1, 2]),
        manager.Event(),
    ]


def shown(thing):
    """What a thing says of itself, with the module that it names and with what it holds."""
    cls = type(thing)
    kind = f"{cls.__module__}.{cls.__qualname__}"
    if isinstance(thing, BaseException):
        return kind, str(thing), repr(thing.__cause__)
    if isinstance(thing, (shared_memory.SharedMemory, shared_memory.ShareableList)):
        return kind, bytes(thing.buf[:3]) if hasattr(thing, "buf") else list(thing)
    if isinstance(thing, multiprocessing.managers.BaseProxy):
        return kind, str(thing)
    if isinstance(thing, list):
        return kind, thing
    if callable(thing):
        return kind, thing.__module__.partition(".")[2], thing.__qualname__
    return kind, sorted(vars(thing)) if hasattr(thing, "__dict__") else str(thing)


def show(pickled):
    print(repr(shown(pickle.loads(pickled))), flush=True)


if __name__ == "__main__":
    multiprocessing.current_process().authkey = b"key of both"
    if sys.argv[1] == "read":
        for line in sys.stdin:
            show(bytes.fromhex(line))
    else:
        block = shared_memory.SharedMemory(create=True, size=3)
        sequence = shared_memory.ShareableList([1, "two"])
        block.buf[:3] = b"abc"
        with multiprocessing.Manager() as manager:
            kept = things(block, sequence, manager)
            for thing in kept:
                pickled = bytes(ForkingPickler.dumps(thing))
                print(pickled.hex(), flush=True)
                show(pickled)
            print(flush=True)
            sys.stdin.read()
        for memory in (block, sequence.shm):
            memory.close()
            with contextlib.suppress(FileNotFoundError):  # removed by the reader's resource tracker
                memory.unlink()
