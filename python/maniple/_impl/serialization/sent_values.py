"""The values of `__main__` that are sent by value to the workers of one pool.

Each value has a number, so that a worker can distinguish a newer value from its own, and uses a single object for all
references to a value. A value is pickled once, at its first use. A large value is written into a nameless file of
shared memory, and calls that need it contain only the file's path. The file exists as long as the pool, or until the
name is rebound and no call that may read it is under way.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from struct import pack
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, NoneType
from weakref import ref

from ..._maniple import interrupts, nameless_memory
from ..pool.worker_main import OF_MODULES
from ..start.descriptors import close_own, mark
from .received import KeyedFile, KeyedValue, hold, registry
from .used_globals import UsedGlobals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..pool.worker_main import WorkerMain

__all__ = ["SentValues", "Sized"]

#: bytes of a pickle from which on the value is written into a file
LARGE = 64 * 1024
#: seconds that a thread waits for another thread that pickles a value
_PATIENCE = 10.0
#: the number of items from which on a tuple does not count as plain
_MANY = 1000


class Sized(io.BytesIO):
    """Collects one pickle: the stream, and the out-of-band buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.buffers: list[Any] = []

    def take(self, buffer: Any) -> bool:
        """Take a large buffer out of band, as the `buffer_callback` of the pickler."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if view.nbytes < LARGE:
            return True
        self.buffers.append(view)
        return False

    def size(self) -> int:
        beside: int = sum(view.nbytes for view in self.buffers)
        return self.tell() + beside


class _Sent:
    """The value that was sent under one name."""

    def __init__(self, value: Any) -> None:
        self.held = hold(value)
        self.key = registry.new_key()
        #: the object that calls contain instead of the value; None means the value itself
        self.stand_in: KeyedValue | None = None
        self.file: _File | None = None
        #: the globals that the pickle uses
        self.uses: UsedGlobals = {}


class _File:
    """A nameless file with the pickle of a value."""

    def __init__(self, key: tuple[bytes, int], stream: Sized) -> None:
        sizes = [stream.tell(), *(view.nbytes for view in stream.buffers)]
        head, content = pack(f"<{len(sizes)}Q", *sizes), stream.getbuffer()
        self._fd = nameless_memory("maniple-value", len(head) + content.nbytes + sum(sizes[1:]))
        self._file = mark(self._fd)
        for part in (head, content, *stream.buffers):
            rest = memoryview(part).cast("B")
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        path = f"/proc/{os.getpid()}/fd/{self._fd}"
        if self._file is None or not os.path.exists(path):
            raise FileNotFoundError(path)
        self.place = KeyedFile(key, path, self._file, len(sizes), [view.readonly for view in stream.buffers])

    def __del__(self, close_own: Any = close_own) -> None:
        # The memory is freed when this process and all readers have closed the file.
        fd = getattr(self, "_fd", None)
        if fd is not None:
            with suppress(Exception):  # the interpreter ends, and modules are empty
                close_own(fd, self._file)


def _while_bound(name: str, value: Any) -> Callable[[], Any]:
    """Return a function that returns the value while it exists, or while `__main__` has it under this name.

    A list that was not sent may have the results of the pool. A reference to it would keep the pool from ending when the program has
    dropped both.
    """
    try:
        return ref(value)
    except TypeError:
        return lambda: vars(sys.modules["__main__"]).get(name)


class SentValues:
    """The values that were sent to the workers of one pool, by name."""

    def __init__(self, main: WorkerMain, is_idle: Callable[[], bool]) -> None:
        self._main = main
        self._lock = threading.RLock()
        #: id -> name and (weak) reference of the values of `__main__` that workers may lack and that are not plain
        self._names: dict[int, tuple[str, Callable[[], Any]]] = {}
        self._size = -1
        # Returns whether no other call of the pool is under way.
        self._is_idle = is_idle
        self._sent: dict[str, _Sent] = {}
        self._replaced: list[_File] = []
        #: id of a value -> its entry, for values with a stand-in
        self._written: dict[int, _Sent] = {}
        #: (thread, name) of the values that are being pickled
        self._under_way: set[tuple[int, str]] = set()

    def look_up(
        self, name: str, value: Any, pickled: Callable[[Any, Sized], UsedGlobals]
    ) -> tuple[Any, Any, UsedGlobals]:
        """Return the key of the value, the object to send for it (its stand-in, or the value itself), and the globals that its pickle uses.

        `pickled` pickles into a `Sized` and returns the globals that the pickle uses, or raises.
        """
        # One thread at a time, so that a value gets a single key. The wait has a limit, since the program's reducers may wait for
        # another thread.
        try:
            self._lock.acquire(timeout=_PATIENCE)
            return self._look_up(name, value, pickled)
        finally:
            # Ask the lock: an exception of a signal handler may come between an acquisition and a variable that records it.
            if self._lock._is_owned():  # type: ignore[attr-defined]
                self._lock.release()

    def _look_up(
        self, name: str, value: Any, pickled: Callable[[Any, Sized], UsedGlobals]
    ) -> tuple[Any, Any, UsedGlobals]:
        sent = self._sent.get(name)
        if sent is None or sent.held() is not value:
            if not _is_plain(value):
                self._names[id(value)] = name, hold(value)
            sent = self._written.get(id(value))  # under another name
            if sent is None or sent.held() is not value:
                sent = _Sent(value)
                if not _is_plain(value) or issubclass(type(value), type):
                    self._write_down(name, value, sent, pickled)
            before, self._sent[name] = self._sent.get(name), sent
            if before is not None and before not in self._sent.values():
                self._replace(before)
        return sent.key, value if sent.stand_in is None else sent.stand_in, sent.uses

    def _replace(self, sent: _Sent) -> None:
        for number in [number for number, written in self._written.items() if written is sent]:
            del self._written[number]
        if sent.file is not None:
            self._replaced.append(sent.file)
        if self._is_idle():
            self._replaced.clear()

    def look_around(self) -> bool:
        """Update the values of `__main__` that may be parts of other values; return whether there are any."""
        space = vars(sys.modules["__main__"])
        if len(space) != self._size:
            self._size = len(space)
            for name, value in list(space.items()):
                if name not in OF_MODULES and not _is_plain(value) and not self._main.has(name, value):
                    sent = self._main.value_to_send(name, value)
                    if not _is_plain(sent):
                        self._names[id(sent)] = name, _while_bound(name, sent) if sent is value else hold(sent)
        return bool(self._names)

    def name_of(self, value: Any) -> str | None:
        """Return the name of the value in `__main__` if workers may lack it, else None."""
        found = self._names.get(id(value))
        if found is None:
            return None
        if found[1]() is value:
            return found[0]
        del self._names[id(value)]
        return None

    def end(self) -> None:
        """Forget all values, since the pool has ended."""
        self._names.clear()
        self._written.clear()
        self._sent.clear()
        self._replaced.clear()

    def _write_down(self, name: str, value: Any, sent: _Sent, pickled: Callable[[Any, Sized], UsedGlobals]) -> None:
        with self._looking_at(name) as first:
            if not first:  # the value refers to itself through a function that is pickled with it
                return
            stream = Sized()
            try:
                uses = pickled(value, stream)
            except Exception as refusal:
                # The value cannot be pickled, or may go to only one process: the pickling of the call raises the error.
                if interrupts(refusal):
                    raise
                return
            if stream.size() < LARGE:
                sent.stand_in = KeyedValue(sent.key, stream.getvalue())
            else:
                try:
                    sent.file = _File(sent.key, stream)
                except (OSError, AttributeError):  # no space, no descriptor, or no such files on this system
                    return
                sent.stand_in = sent.file.place
            sent.uses = uses
            self._written[id(value)] = sent

    @contextmanager
    def _looking_at(self, name: str) -> Iterator[bool]:
        mark = threading.get_ident(), name
        first = mark not in self._under_way
        self._under_way.add(mark)
        try:
            yield first
        finally:
            if first:
                self._under_way.discard(mark)


def _is_plain(value: Any) -> bool:
    """Return whether the value can be copied with each call: it is small and immutable."""
    if type(value) in (str, bytes):
        return len(value) < LARGE
    if type(value) is tuple:
        return len(value) < _MANY and all(_is_plain(item) for item in value)
    return issubclass(type(value), _PLAIN)


#: types whose values pickle sends directly or by name
_PLAIN = (NoneType, bool, int, float, complex, FunctionType, BuiltinFunctionType, MethodType, ModuleType, type)
