"""Named shared memory, and a list of fixed layout inside it."""

from __future__ import annotations

import errno
import functools
import itertools
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from struct import pack_into, unpack_from

from . import resource_tracker, util  # importing `util` registers the package's work at exit
from ._impl.compat import public_module
from ._impl.memory.list_layout import ENCODING as _encoding  # noqa: F401
from ._impl.memory.list_layout import ListLayout, _NotShareable  # noqa: F401
from ._impl.memory.mappings import is_exported, is_held_elsewhere, map_file, map_named, pin
from ._impl.start.descriptors import Mark, close_number, explain_shortage
from ._maniple import file_at, named_section, shm_open, shm_unlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_Item = public_module.TypeVar("_Item")

__all__ = ["SharedMemory", "ShareableList"]

_USE_POSIX = os.name == "posix"
_SHM_NAME_PREFIX = "/psm_" if _USE_POSIX else "wnsm_"
#: macOS allows 31 characters, and FreeBSD's jails use some of them
_SHM_SAFE_NAME_LENGTH = 14
_O_CREX = os.O_EXCL | os.O_CREAT


# The process that sends what its tracker has kept when it ends.
_sender: int | None = None


def _send_kept_at_end() -> None:
    global _sender
    if _sender != os.getpid():
        _sender = os.getpid()
        util.Finalize(None, resource_tracker._resource_tracker.send_kept, exitpriority=-100)


def _make_filename() -> str:
    """Return a random name for a segment."""
    room = _SHM_SAFE_NAME_LENGTH - len(_SHM_NAME_PREFIX)
    return _SHM_NAME_PREFIX + os.urandom(room // 2).hex()


class _Unsaid(int):
    """The default of ``track``: it equals True, but it is distinct from a True that the caller passes."""

    def __repr__(self) -> str:
        return "True"


_UNSAID: Any = _Unsaid(True)


class SharedMemory:
    """A block of shared memory that other processes attach to by its name.

    Args:
        name: the name of the block. None, with `create`, makes a new name.
        create: True makes a new block, False attaches to the block `name`.
        size: the size of a new block in bytes; the system may round it up. It has no effect without `create`.
        track: whether the resource tracker removes the block when all processes that share the tracker have ended. By default it
            does so only for the process that makes the block; the standard package does so for those that attach as well.

    Raises:
        FileExistsError: `create`, and the name is taken.
        FileNotFoundError: there is no block of this name.
        ValueError: `create` without a positive `size`, or neither `create` nor `name`.
        OSError: the system has no memory or no descriptor for the block.

    Each process calls `close` when it no longer needs the block; one of them also calls `unlink`.

    Example::

        block = SharedMemory(create=True, size=1024)
        block.buf[:5] = b"hello"
        # in another process
        same = SharedMemory(name)  # name is block.name
        print(bytes(same.buf[:5]))
        same.close()
    """

    _name: str | None = None
    _fd: int = -1
    _mmap: mmap.mmap | None = None
    _buf: memoryview | None = None
    _flags: int = os.O_RDWR
    _mode: int = 0o600
    _prepend_leading_slash: bool = _USE_POSIX
    _track: bool = True
    #: whether this process registered the segment with the tracker
    _registered: bool = False
    #: whether this object has made a segment under a random name
    _has_random_name = False
    #: attributes, since a segment may be collected when the interpreter ends and the modules are empty
    _close_fd = staticmethod(os.close)
    _look_at = staticmethod(file_at)
    _file: Mark = None

    def __init__(self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = _UNSAID) -> None:
        if not (name is None or isinstance(name, str)):
            raise TypeError(f"the name of shared memory is a str, not {type(name).__name__}")
        if size < 0:
            raise ValueError("'size' must be a positive integer")
        if create:
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
            self._flags = _O_CREX | os.O_RDWR
        elif name is None and not self._flags & os.O_EXCL:
            raise ValueError("'name' can only be None if create=True")
        self._track = bool(track)
        try:
            self._begin(name, create, size, create or track is not _UNSAID)
        except (OSError, MemoryError) as problem:
            explain_shortage(problem, "the shared memory cannot be used")
            raise

    def _begin(self, name: str | None, create: bool, size: int, register: bool) -> None:
        if not _USE_POSIX:
            self._begin_under_name(name, size if create else None)
            return
        if name is not None:
            slash = "/" if self._prepend_leading_slash and not name.startswith("/") else ""
            self._open(slash + name)
        else:
            self._open_unused_name()
        try:
            self._map(size if create else None)
            # A process that only attaches must not make its tracker remove a segment that the maker still uses.
            if register:
                self._register()
        except BaseException:
            self.close()
            if create:
                shm_unlink(self._path())
                if self._registered:
                    self._unregister()
            raise

    def _begin_under_name(self, name: str | None, new_size: int | None) -> None:
        """Create or find memory on Windows, whose names last as long as the memory is used; no name is removed there."""
        while self._name is None:
            path = _make_filename() if name is None else name
            try:
                handle, whole = named_section(path, new_size)
            except FileExistsError:
                if name is not None:
                    raise
                continue
            try:
                self._size = whole if new_size is None else new_size
                self._mmap = map_named(path, self._size)
            finally:
                close_number(handle)
            self._name, self._buf = path, memoryview(self._mmap)

    def _register(self) -> None:
        if self._track and not self._registered:
            resource_tracker.register(self._path(), "shared_memory")
            self._registered = True

    def _unregister(self) -> None:
        if self._registered or (self._track and resource_tracker._resource_tracker._fd is not None):
            # Also for a segment of a process that shares the tracker. A process with another tracker unregisters in `close`.
            self._registered = False
            if self._has_random_name:
                _send_kept_at_end()
                resource_tracker.unregister_later(self._path(), "shared_memory")
            else:
                resource_tracker.unregister(self._path(), "shared_memory")

    def _path(self) -> str:
        if self._name is None:
            raise ValueError("this segment was never opened")
        return self._name

    def _open(self, path: str) -> None:
        self._file = None
        opened: list[int] = []
        try:
            # As `call_into` does, in fewer steps.
            opened.extend(map(shm_open, (path,), (self._flags,), (self._mode,)))
            self._fd, self._name = opened[0], path
        except BaseException:
            if opened:
                self._fd = opened[0]  # a signal handler has raised; the end of this object closes it
            raise

    def _open_unused_name(self) -> None:
        while self._name is None:
            path = _make_filename()
            try:
                if self._track and resource_tracker._resource_tracker._fd is not None:
                    # Before the segment is made: no process that ends or is killed in between leaves it behind. A name that a
                    # program chooses may be another segment's, so it is registered afterwards. So is the first one, for which the
                    # tracker has to be started.
                    resource_tracker.register(path, "shared_memory")
                    self._registered = True
                self._open(path)
                self._has_random_name = True
            except BaseException as problem:
                if not isinstance(problem, FileExistsError):
                    # A signal handler may have raised after the segment was made.
                    with suppress(OSError):
                        shm_unlink(path)
                if self._registered:
                    self._registered = False
                    resource_tracker.unregister(path, "shared_memory")
                if not isinstance(problem, FileExistsError):
                    raise

    def _map(self, new_size: int | None) -> None:
        if new_size is not None:
            os.ftruncate(self._fd, new_size)
        self._file, self._size, _ = file_at(self._fd)
        self._mmap = memory = map_file(self._fd, self._size)
        self._buf = memoryview(memory)

    @property
    def buf(self) -> memoryview:
        """The content of the block, a writable memoryview."""
        # None after `close`, so that an access raises TypeError.
        return self._buf  # type: ignore[return-value]

    @property
    def name(self) -> str:
        """The name of the block, by which other processes attach to it."""
        if self._prepend_leading_slash:
            return self._path().removeprefix("/")
        return self._path()

    @property
    def size(self) -> int:
        """The size of the block in bytes."""
        return self._size

    def close(self) -> None:
        """Release the block in this process. The block itself exists until `unlink`.

        An array that was made with ``buffer=block.buf`` stays valid: its memory is released with the array. (In the standard
        package, an access to it crashes the process.)

        Raises:
            BufferError: a memoryview of `buf` is still in use.
        """
        buf, memory = self._buf, self._mmap
        if buf is not None:
            buf.release()
            self._buf = None
            if memory is not None and is_held_elsewhere(buf, 1):
                pin(buf, memory)
        if memory is not None:
            # This object and the local variable refer to it.
            if is_held_elsewhere(memory, 2) and is_exported(memory):
                raise BufferError(
                    f"{self.name!r} cannot be closed: there are views of its memory, such as slices of buf; "
                    "release or delete them first"
                )
            # The mapping is not closed here: it is unmapped when the last reference to it is gone.
            self._mmap = None
        self._close_descriptor()

    def _close_descriptor(self) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        try:
            found, _, names = self._look_at(fd)
        except OSError:
            return  # the program has closed it
        if self._file is not None and self._file != found:
            return  # the program has another file under the number
        try:
            # A process with another tracker may have removed the segment that this process registered.
            if self._registered and not names:
                self._unregister()
        finally:
            self._close_fd(fd)

    def unlink(self) -> None:
        """Remove the name of the block; the memory is freed when the last process releases it. Only one process calls this.

        On Windows the call has no effect: the name goes with the memory.

        Raises:
            FileNotFoundError: the name has been removed already.
        """
        if self._name is None or not _USE_POSIX:
            return
        try:
            shm_unlink(self._name)
        except FileNotFoundError:
            if self._registered:
                self._unregister()
            raise
        self._unregister()

    def __del__(self) -> None:
        # Not `suppress`: at the end of the interpreter the names of this module may be None.
        try:
            if type(self).close is not SharedMemory.close:
                self.close()
        except Exception:
            pass
        try:
            # The last view of the memory unmaps it.
            self._close_descriptor()
        except Exception:
            pass

    def __reduce__(self) -> tuple[Any, ...]:
        # An untracked segment stays untracked in the process that unpickles it, or that process's tracker would remove it.
        cls = type(self) if self._track else functools.partial(type(self), track=False)
        return cls, (self.name, False, self.size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, size={self.size})"


class ShareableList(ListLayout, public_module.Generic[_Item]):
    """A list of fixed length in shared memory. Its items are int (64 bits), float, bool, str, bytes or None.

    An item may be replaced by one of another type. A str or bytes may not need more bytes than the item's slot had at first (its
    size rounded up to a multiple of 8).

    Args:
        sequence: the items of a new list; None attaches to the list `name`.
        name: the name of the block of shared memory.

    Attributes:
        shm: the `SharedMemory` block of the list; call its `close` and `unlink`.

    Raises:
        ValueError, which is also a KeyError: an item has another type.

    Example::

        numbers = ShareableList([1, 2.5, "three", None])
        same = ShareableList(name=numbers.shm.name)
    """

    def __init__(self, sequence: Iterable[_Item] | None = None, *, name: str | None = None) -> None:
        if name is not None and sequence is None:
            self._attach(name)
        else:
            self._create([] if sequence is None else list(sequence), name)

    def _create(self, values: list[Any], name: str | None) -> None:
        formats = [self._format_for(value) for value in values]
        offsets = [0, *itertools.accumulate(int(fmt[:-1]) if fmt[-1] == "s" else 8 for fmt in formats)]
        self._list_len = len(values)
        self._allocated_offsets = offsets
        size = self._offset_back_transform_codes + self._list_len
        self.shm = SharedMemory(name, create=True, size=size)
        try:
            # All of it is written now. Without room in the file system, a write would end the process (SIGBUS).
            self._reserve(size)
            pack_into(f"q{len(offsets)}q", self.shm.buf, 0, self._list_len, *offsets)
            self._store_all(formats, values)
        except BaseException:  # a number that is too large
            self.shm.close()
            self.shm.unlink()
            raise

    def _reserve(self, size: int) -> None:
        try:
            os.posix_fallocate(self.shm._fd, 0, size)
        except (AttributeError, OSError) as problem:
            if getattr(problem, "errno", None) in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT):
                explain_shortage(problem, "the shared list cannot be created")
                raise
            # The system cannot reserve room.

    def _attach(self, name: str) -> None:
        self.shm = SharedMemory(name)
        (self._list_len,) = unpack_from("q", self.shm.buf)
        self._allocated_offsets = list(unpack_from(self._format_size_metainfo, self.shm.buf, 8))

    def __getitem__(self, position: int) -> _Item:
        item: _Item = self._load(self._slot(position, "index out of range"))
        return item

    def __setitem__(self, position: int, value: _Item) -> None:
        self._store(self._slot(position, "assignment index out of range"), value)

    def __len__(self) -> int:
        return self._list_len

    def __iter__(self) -> Iterator[_Item]:
        return map(self.__getitem__, range(self._list_len))

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), name=self.shm.name), ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)}, name={self.shm.name!r})"

    def count(self, value: Any) -> int:
        """Return the number of items that equal `value`."""
        return sum(item == value for item in self)

    def index(self, value: Any) -> int:
        """Return the position of the first item that equals `value`.

        Raises:
            ValueError: no item equals `value`.
        """
        for position, item in enumerate(self):
            if item == value:
                return position
        raise ValueError(f"{value!r} is not in this container")


public_module.finish(globals())
