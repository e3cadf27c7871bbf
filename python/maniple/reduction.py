"""Pickling for other processes, and passing of descriptors.

`ForkingPickler` is a pickler with a table of extra reducers, to which this package
and programs add with `register`.  Every queue and pool calls its ``dumps``: so the
merged dispatch table is kept between calls, and rebuilt only when `copyreg` or the
extra reducers have changed.

A file descriptor (Windows: a handle) cannot be pickled as a number.  `DupFd` returns
a picklable object for it.  While a child is being started, the descriptor is passed
with the start; at any other time the resource sharer sends it on request.
"""

from __future__ import annotations

import gc
import io
import os
import sys

# Neither `pickle` nor `socket` is imported here: with `re` and `enum` they would be half of the imports of a spawned child.
from _pickle import Pickler, loads
from _pickle import load as load
from abc import ABC
from collections.abc import Callable, Iterable
from copyreg import dispatch_table as _copyreg_table
from functools import partial

from ._impl.compat import public_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from pickle import PickleBuffer
    from typing import Any

    from . import context as context  # `context` sets this attribute; programs use it

__all__ = ["send_handle", "recv_handle", "ForkingPickler", "register", "dump"]

# Every supported system passes descriptors over Unix sockets, or duplicates handles.
HAVE_SEND_HANDLE = True

# ---------------------------------------------------------------- pickling


def _noted(name: str) -> Any:
    """Return a method of dict that also rebuilds the picklers' table."""
    method = getattr(dict, name)

    def change(self: dict[Any, Any], *args: Any, **kwds: Any) -> Any:
        try:
            return method(self, *args, **kwds)
        finally:
            _merge_tables()

    return change


class _Reducers(dict):  # type: ignore[type-arg]  # it is what its only instance is annotated as
    """The table of extra reducers. Programs also change it directly, for example to remove a reducer."""

    __slots__ = ()
    for _name in "__setitem__ __delitem__ __ior__ clear pop popitem setdefault update".split():
        locals()[_name] = _noted(_name)
    del _name


class ForkingPickler(Pickler):
    """The pickler of the package: it pickles the package's objects and objects of registered types.

    Example::

        ForkingPickler.register(Handle, reduce_handle)
    """

    _extra_reducers: dict[type, Callable[[Any], Any]] = _Reducers()
    _copyreg_dispatch_table = _copyreg_table

    def __init__(self, *args: Any, **kwds: Any) -> None:
        super().__init__(*args, **kwds)
        _look_for_reducers()
        own = self._extra_reducers is _own_reducers
        self.dispatch_table = _QuickPickler.dispatch_table if own else _copyreg_table | self._extra_reducers

    @classmethod
    def register(cls, type: type, reduce: Callable[[Any], Any]) -> None:
        """Pickle objects of exactly the type `type` as ``reduce(obj)``, in the form of ``__reduce__``."""
        cls._extra_reducers[type] = reduce

    @classmethod
    def dumps(cls, obj: Any, protocol: int | None = None) -> memoryview:
        """Return the pickle of `obj` as a buffer."""
        if cls is ForkingPickler and protocol is None:
            return _quick_dumps(obj)
        sink = io.BytesIO()
        cls(sink, protocol).dump(obj)
        return sink.getbuffer()

    loads = staticmethod(loads)


#: the class, its dict, and its two functions as defined here: code that bypasses these compares them to detect a replacement
_as_made = ForkingPickler, gc.get_referents(vars(ForkingPickler))[0], *map(vars(ForkingPickler).get, ("dumps", "loads"))
_own_reducers = ForkingPickler._extra_reducers
_merged_from: dict[Any, Any] = {}


#: the class of this module, also if a program replaces `ForkingPickler`
_standard = ForkingPickler


def _program_s_pickler(module: Any, function: str) -> Any:
    """Return a module's pickler class if a program has replaced its `_ForkingPickler` or a function of the class; else
    None."""
    made, own = _as_made[0], _as_made[1]
    pickler = getattr(module, "_ForkingPickler", made)  # another thread may be importing it
    if pickler is made and own.get(function) in _as_made[2:]:
        return None
    return pickler


class _QuickPickler(Pickler):
    """`ForkingPickler` without a constructor in Python."""

    # The C pickler reads it when it is constructed.  It is replaced, never changed in
    # place: a pickler in another thread may be using it.
    dispatch_table: dict[type, Callable[[Any], Any]] = {}


class _Pieces(list):  # type: ignore[type-arg]  # a plain base costs least to set up
    """A "file" that collects the written bytes objects without copying them."""

    __slots__ = ()
    write = list.append


# Making a pickler takes three times as long as pickling a small message, so picklers
# are reused.  A pickler in use is not in the list, so that other threads, and
# reducers that pickle something themselves, use another one.  The list is replaced
# together with the dispatch table, which its picklers have read.
_idle: list[tuple[Callable[[Any], None], Callable[[], None], _Pieces]] = []
# The memo of a pickler that has made a larger pickle would be slow to clear.
_KEEP_UP_TO = 8192


def _quick_dumps(obj: Any) -> memoryview:
    if _copyreg_table != _merged_from or _sockets_are_new or ForkingPickler._extra_reducers is not _own_reducers:
        _look_for_reducers()
    idle = _idle
    try:
        dump, clear_memo, pieces = kept = idle.pop()
    except IndexError:
        pieces = _Pieces()
        pickler = _QuickPickler(pieces)
        dump, clear_memo, pieces = kept = pickler.dump, pickler.clear_memo, pieces
    dump(obj)  # if it raises, the pickler is dropped
    data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if len(data) <= _KEEP_UP_TO:
        pieces.clear()
        clear_memo()  # the memo keeps the pickled objects alive
        idle.append(kept)
    return memoryview(data)


#: bytes; smaller buffers stay in the pickle. The same number as `PARCEL_FROM` of the native connections.
_OUT_OF_BAND_FROM = 64 * 1024
# Like `_idle`, for picklers that leave large buffers out, each with the list to which it appends them.
_idle_apart: list[tuple[Callable[[Any], None], Callable[[], None], _Pieces, list[memoryview]]] = []


def _dump_apart(obj: Any) -> tuple[Any, list[memoryview]]:
    """Return the pickle of `obj` without its large buffers, and the list of these buffers."""
    if _copyreg_table != _merged_from or _sockets_are_new or ForkingPickler._extra_reducers is not _own_reducers:
        _look_for_reducers()
    idle = _idle_apart
    try:
        dump, clear_memo, pieces, large = kept = idle.pop()
    except IndexError:
        pieces, large = _Pieces(), []
        pickler = _QuickPickler(pieces, 5, buffer_callback=partial(_leave_out, large.append))
        dump, clear_memo, pieces, large = kept = pickler.dump, pickler.clear_memo, pieces, large
    dump(obj)
    data, buffers = pieces[0] if len(pieces) == 1 else b"".join(pieces), large.copy()
    if len(data) <= _KEEP_UP_TO:
        pieces.clear()
        large.clear()
        clear_memo()
        idle.append(kept)
    return data, buffers


def _leave_out(put_aside: Callable[[memoryview], None], buffer: PickleBuffer) -> bool:
    """Leave a large buffer out of the pickle, and pass it to `put_aside`: a `buffer_callback`."""
    try:
        raw = buffer.raw()
    except BufferError:  # the buffer is not contiguous
        return True
    if raw.nbytes < _OUT_OF_BAND_FROM:
        return True
    put_aside(raw)
    return False


def _rejoin(stream: bytes, buffers: list[Any]) -> bytes:
    """Return an ordinary pickle with the same content: the stream of `_dump_apart` with its buffers inserted."""
    import pickletools
    from pickle import BINBYTES8, BYTEARRAY8

    ops = [(op.name, at) for op, _, at in pickletools.genops(stream)]
    ends = [at for _, at in ops[1:]] + [len(stream)]
    followers = [name for name, _ in ops[1:]] + [""]
    left, whole = iter(buffers), bytearray()
    for (name, start), end, follower in zip(ops, ends, followers):
        if name == "NEXT_BUFFER":
            data = memoryview(next(left)).cast("B")
            whole += BINBYTES8 if follower == "READONLY_BUFFER" else BYTEARRAY8
            whole += data.nbytes.to_bytes(8, "little") + data
        elif name not in ("FRAME", "READONLY_BUFFER"):
            whole += stream[start:end]
    return bytes(whole)


# Whether `socket` was not imported at the last check: until its import there are no sockets to reduce.
_sockets_are_new = True


def _look_for_reducers() -> None:
    """Update the tables if `copyreg` has changed, `socket` was imported, or a program has set a table."""
    global _own_reducers, _sockets_are_new
    if _standard._extra_reducers is not _own_reducers:
        _own_reducers = _standard._extra_reducers = _Reducers(_standard._extra_reducers)
        _merge_tables()
    if _sockets_are_new and (net := sys.modules.get("socket")) is not None and hasattr(net, "socket"):
        _own_reducers.setdefault(net.socket, _reduce_socket)
        _sockets_are_new = False
        _merge_tables()
    elif _copyreg_table != _merged_from:
        _merge_tables()


def _merge_tables() -> None:
    """Rebuild the table that picklers use from the tables of `copyreg` and of this module."""
    global _merged_from, _idle, _idle_apart
    seen = _copyreg_table.copy()
    _QuickPickler.dispatch_table = seen | _own_reducers
    _merged_from, _idle, _idle_apart = seen, [], []


register = ForkingPickler.register


def dump(obj: Any, file: Any, protocol: int | None = None) -> None:
    """Pickle `obj` into the open binary file `file`."""
    ForkingPickler(file, protocol).dump(obj)


# ---------------------------------------------------------------- handles

if sys.platform == "win32":
    import _winapi
    from collections.abc import Iterator
    from contextlib import contextmanager

    __all__ += ["DupHandle", "duplicate", "steal_handle"]

    @contextmanager
    def _open_process(pid: int) -> Iterator[int]:
        """Open another process for duplicating handles into it and from it."""
        opened = _winapi.OpenProcess(_winapi.PROCESS_DUP_HANDLE, False, pid)
        try:
            yield opened
        finally:
            _winapi.CloseHandle(opened)

    def duplicate(
        handle: int, target_process: int | None = None, inheritable: bool = False, *, source_process: int | None = None
    ) -> int:
        """Duplicate a handle into ``target_process``, or within this process if that is None."""
        here = _winapi.GetCurrentProcess()
        source = here if source_process is None else source_process
        target = here if target_process is None else target_process
        same = _winapi.DUPLICATE_SAME_ACCESS
        return _winapi.DuplicateHandle(source, handle, target, 0, inheritable, same)

    def steal_handle(source_pid: int, handle: int) -> int:
        """Move a handle from the process ``source_pid`` to this process."""
        how = _winapi.DUPLICATE_CLOSE_SOURCE | _winapi.DUPLICATE_SAME_ACCESS
        with _open_process(source_pid) as victim:
            here = _winapi.GetCurrentProcess()
            return _winapi.DuplicateHandle(victim, handle, here, 0, False, how)

    class DupHandle:
        """A picklable handle for the process `pid`; without `pid`, for the first process that calls `detach`."""

        def __init__(self, handle: int, access: int, pid: int | None = None) -> None:
            self._pid, self._access = pid or os.getpid(), access
            with _open_process(self._pid) as target:
                here = _winapi.GetCurrentProcess()
                how = access if access == _winapi.DUPLICATE_SAME_ACCESS else 0
                self._handle: int = _winapi.DuplicateHandle(here, handle, target, access, False, how)

        def detach(self) -> int:
            """Return the handle, which this process then owns. Call it once."""
            handle, access, how = self._handle, self._access, _winapi.DUPLICATE_CLOSE_SOURCE
            if access == _winapi.DUPLICATE_SAME_ACCESS:
                how |= access
            if os.getpid() == self._pid:
                return handle
            with _open_process(self._pid) as owner:
                here = _winapi.GetCurrentProcess()
                return _winapi.DuplicateHandle(owner, handle, here, access, False, how)

    def DupFd(handle: int) -> Any:
        """Return an object that carries `handle` to the process that unpickles it and calls ``detach()``."""
        from .context import get_spawning_popen

        if (starting := get_spawning_popen()) is not None and hasattr(starting, "DupFd"):
            return starting.DupFd(starting.duplicate_for_child(handle))
        from ._maniple import close_handle, companion

        copy, other = DupHandle(handle, _winapi.DUPLICATE_SAME_ACCESS), companion(handle)
        if other is None:
            return copy
        try:
            return _DupPair(copy, DupHandle(other, _winapi.DUPLICATE_SAME_ACCESS))
        finally:
            close_handle(other)

    class _DupPair:
        """A picklable handle that is of use only while another one is open: that travels along."""

        def __init__(self, copy: DupHandle, other: DupHandle) -> None:
            self._copy, self._other = copy, other

        def detach(self) -> int:
            """Return the handle, which this process then owns. Call it once."""
            from ._maniple import close_handle, recognize_handle

            number, other = self._copy.detach(), self._other.detach()
            recognize_handle(number)
            close_handle(other)
            return number

    def send_handle(conn: Any, handle: int, destination_pid: int) -> None:
        """Send a handle over a connection to the process ``destination_pid``."""
        conn.send(DupHandle(handle, _winapi.DUPLICATE_SAME_ACCESS, destination_pid))

    def recv_handle(conn: Any) -> int:
        """Receive a handle over a connection."""
        return conn.recv().detach()

else:
    __all__ += ["DupFd", "sendfds", "recvfds"]

    # macOS may drop descriptors if their sender closes its end early, so there the
    # receiver acknowledges them.
    ACKNOWLEDGE = sys.platform == "darwin"
    _ACK = b"A"

    def sendfds(sock: socket.socket, fds: Iterable[int]) -> None:
        """Send descriptors over a Unix socket, with one byte: their number modulo 256."""
        import array
        import socket

        numbers = array.array("i", fds)
        sock.sendmsg([bytes([len(numbers) % 256])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
        if ACKNOWLEDGE and sock.recv(1) != _ACK:
            raise RuntimeError("did not receive acknowledgement of fd")

    def recvfds(sock: socket.socket, size: int) -> list[int]:
        """Receive at most `size` descriptors over a Unix socket, and return them as a list.

        Raises:
            EOFError: the other end is closed.
        """
        import array
        import socket

        got = array.array("i")
        # A process that another thread starts now must not inherit the descriptors.
        cloexec = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        room = socket.CMSG_SPACE(size * got.itemsize)
        count, extras, _, _ = sock.recvmsg(1, room, cloexec)
        if not (count or extras):
            raise EOFError("the other end closed before it sent a descriptor")
        if ACKNOWLEDGE:
            sock.send(_ACK)
        if len(extras) != 1:
            raise RuntimeError(f"received {len(extras)} items of ancdata")
        level, kind, payload = extras[0]
        if (level, kind) != (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            raise RuntimeError("Invalid data received: no descriptors in it")
        got.frombytes(payload[: len(payload) - len(payload) % got.itemsize])
        if len(got) % 256 != count[0]:
            for number in got:
                os.close(number)
            raise AssertionError(f"received {len(got)} descriptors, but their sender counted {count[0]} (mod 256)")
        from ._impl.start.descriptors import arrived

        return [arrived(number) for number in got]

    def send_handle(conn: Any, handle: int, destination_pid: int | None) -> None:
        """Send a descriptor over a connection. `destination_pid` has an effect on Windows only."""
        with _borrowed_socket(conn) as sock:
            sendfds(sock, [handle])

    def recv_handle(conn: Any) -> int:
        """Receive a descriptor over a connection, and return it."""
        with _borrowed_socket(conn) as sock:
            return recvfds(sock, 1)[0]

    def _borrowed_socket(conn: Any) -> socket.socket:
        import socket

        from ._impl.start.descriptors import duplicate

        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=duplicate(conn.fileno()))

    def DupFd(fd: int) -> Any:
        """Return an object that carries the descriptor `fd` to the process that unpickles it and calls ``detach()``."""
        from .context import get_spawning_popen

        if (starting := get_spawning_popen()) is not None:
            return starting.DupFd(starting.duplicate_for_child(fd))
        from .resource_sharer import DupFd as shared

        return shared(fd)


# ---------------------------------------------------------------- reducers


class _Sample:
    def method(self) -> None:
        """Do nothing: only the type of the bound method is used."""


def _reduce_method(m: Any) -> tuple[Any, ...]:
    owner = m.__class__ if m.__self__ is None else m.__self__
    return getattr, (owner, m.__func__.__name__)


def _reduce_method_descriptor(m: Any) -> tuple[Any, ...]:
    return getattr, (m.__objclass__, m.__name__)


def _reduce_partial(p: partial[Any]) -> tuple[Any, ...]:
    return _rebuild_partial, (p.func, p.args, p.keywords)


def _rebuild_partial(func: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> partial[Any]:
    return partial(func, *args, **keywords)


if sys.platform == "win32":

    def _reduce_socket(s: socket.socket) -> tuple[Any, ...]:
        from . import resource_sharer as sharer

        return _rebuild_socket, (sharer.DupSocket(s),)

    def _rebuild_socket(ds: Any) -> socket.socket:
        return ds.detach()

else:

    def _reduce_socket(s: socket.socket) -> tuple[Any, ...]:
        return _rebuild_socket, (DupFd(s.fileno()), s.family, s.type, s.proto)

    def _rebuild_socket(df: Any, family: int, type: int, proto: int) -> socket.socket:
        import socket

        return socket.socket(family, type, proto, fileno=df.detach())


def _register_all() -> None:
    """Register the reducers of this module."""
    for kind, reducer in (
        (type(_Sample().method), _reduce_method),
        (type(list.append), _reduce_method_descriptor),
        (type(int.__add__), _reduce_method_descriptor),
        (partial, _reduce_partial),
    ):
        ForkingPickler.register(kind, reducer)
    _look_for_reducers()


_register_all()


public_module.finish(globals())


class AbstractReducer(ABC):
    """The base class of an object that is set as the `reducer` of a context.

    It has the functions of this module; a subclass replaces some of them.
    """

    # Static methods, because a reducer may be an instance, whose functions are called like a module's.
    ForkingPickler, register, dump = ForkingPickler, register, staticmethod(dump)
    send_handle, recv_handle = staticmethod(send_handle), staticmethod(recv_handle)
    if sys.platform == "win32":
        steal_handle, duplicate, DupHandle = staticmethod(steal_handle), staticmethod(duplicate), DupHandle
    else:
        sendfds, recvfds, DupFd = staticmethod(sendfds), staticmethod(recvfds), staticmethod(DupFd)
    _reduce_method, _reduce_method_descriptor = staticmethod(_reduce_method), staticmethod(_reduce_method_descriptor)
    _rebuild_partial = staticmethod(_rebuild_partial)
    _reduce_socket, _rebuild_socket = staticmethod(_reduce_socket), staticmethod(_rebuild_socket)

    def __init__(self, *args: Any) -> None:
        _register_all()
