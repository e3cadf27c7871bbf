"""Named shared memory, and a list of fixed layout inside it.

The layout of `ShareableList` is the standard package's, so a process that uses the standard package can attach to the list.
In order, all in native byte order:

====================  ==================================================================
8 bytes               number of items, n
8 * (n + 1) bytes     offset of each item from the start of the items, and their end
items                 each in a slot of a multiple of 8 bytes
8 * n bytes           the `struct` format of each item, padded with NULs
n bytes               how an item is converted back (`ShareableList._back_transforms_mapping`)
====================  ==================================================================

A str or bytes item whose last byte is NUL has a format of its exact length with a blank behind it (``'3s '``), so that reading
it does not strip the NULs.  `struct` ignores the blank.  The standard package strips the NULs, and replaces the format when it
stores another item.
"""

from __future__ import annotations

import functools
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from struct import calcsize, pack_into, unpack_from

from . import resource_tracker, util  # noqa: F401  # importing `util` registers the package's work at exit
from ._impl.compat import public_module
from ._impl.start.descriptors import MAP_ALONE, Mark
from ._impl.transport.mappings import is_exported, pin
from ._maniple import shm_open, shm_unlink
from .context import ManipleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_Item = public_module.TypeVar("_Item")

__all__ = ["SharedMemory", "ShareableList"]

_USE_POSIX = os.name == "posix"
_SHM_NAME_PREFIX = "/psm_"
#: macOS allows 31 characters, and FreeBSD's jails use some of them
_SHM_SAFE_NAME_LENGTH = 14
_O_CREX = os.O_EXCL | os.O_CREAT


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
    #: attributes, since a segment may be collected when the interpreter ends and the modules are empty
    _close_fd = staticmethod(os.close)
    _look_at = staticmethod(os.fstat)
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
        if name is not None:
            slash = "/" if self._prepend_leading_slash and not name.startswith("/") else ""
            self._open(slash + name)
        else:
            self._open_unused_name()
        try:
            self._map(size if create else None)
            # A process that only attaches must not make its tracker remove a segment that the maker still uses.
            if create or track is not _UNSAID:
                self._register()
        except BaseException:
            self.close()
            if create:
                shm_unlink(self._path())
                if self._registered:
                    self._unregister()
            raise

    def _register(self) -> None:
        if self._track:
            resource_tracker.register(self._path(), "shared_memory")
            self._registered = True

    def _unregister(self) -> None:
        if self._registered or (self._track and resource_tracker._resource_tracker._fd is not None):
            # Also for a segment of a process that shares the tracker. A process with another tracker unregisters in `close`.
            self._registered = False
            resource_tracker.unregister(self._path(), "shared_memory")

    def _path(self) -> str:
        if self._name is None:
            raise ValueError("this segment was never opened")
        return self._name

    def _open(self, path: str) -> None:
        self._file = None
        self._fd = shm_open(path, self._flags, mode=self._mode)
        self._name = path

    def _open_unused_name(self) -> None:
        while self._name is None:
            path = _make_filename()
            try:
                self._open(path)
            except FileExistsError:
                pass
            except BaseException:
                # A signal handler may have raised after the segment was made.
                with suppress(OSError):
                    shm_unlink(path)
                raise

    def _map(self, new_size: int | None) -> None:
        if new_size is not None:
            os.ftruncate(self._fd, new_size)
        found = os.fstat(self._fd)
        self._file = found.st_dev, found.st_ino
        self._size = found.st_size
        self._mmap = memory = mmap.mmap(self._fd, self._size, **MAP_ALONE)
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
            if memory is not None:
                pin(buf, memory)
        if memory is not None:
            if is_exported(memory):
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
            found = self._look_at(fd)
        except OSError:
            return  # the program has closed it
        if self._file is not None and self._file != (found.st_dev, found.st_ino):
            return  # the program has another file under the number
        try:
            # A process with another tracker may have removed the segment that this process registered.
            if self._registered and not found.st_nlink:
                self._unregister()
        finally:
            self._close_fd(fd)

    def unlink(self) -> None:
        """Remove the name of the block. The memory is freed when the last process releases it. Call it once over all processes.

        Raises:
            FileNotFoundError: the name has been removed already.
        """
        if self._name is None:
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


_encoding = "utf8"
_UNCHANGED, _TEXT, _BYTES, _NOTHING = range(4)


class _NotShareable(ManipleError, KeyError, ValueError):
    """A value has a type that a `ShareableList` cannot hold. The standard package raises a KeyError."""

    __str__ = Exception.__str__


class ShareableList(public_module.Generic[_Item]):
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

    _alignment = 8
    #: type -> struct format, all of a multiple of 8 bytes; a number of bytes is filled in for str and bytes
    _types_mapping: dict[type, str] = {
        int: "q",
        float: "d",
        bool: "xxxxxxx?",
        str: "%ds",
        bytes: "%ds",
        type(None): "xxxxxx?x",
    }
    #: recreation code -> function that converts the value from `struct` to the item
    _back_transforms_mapping: dict[int, Callable[[Any], Any]] = {
        _UNCHANGED: lambda value: value,
        _TEXT: lambda value: value.rstrip(b"\0").decode(_encoding),
        _BYTES: lambda value: value.rstrip(b"\0"),
        _NOTHING: lambda _value: None,
    }

    def __init__(self, sequence: Iterable[_Item] | None = None, *, name: str | None = None) -> None:
        if name is not None and sequence is None:
            self._attach(name)
        else:
            self._create([] if sequence is None else list(sequence), name)

    def _create(self, values: list[Any], name: str | None) -> None:
        formats = [self._format_for(value) for value in values]
        offsets = [0]
        for fmt in formats:
            offsets.append(offsets[-1] + calcsize(fmt))
        self._list_len = len(values)
        self._allocated_offsets = offsets
        size = self._offset_back_transform_codes + self._list_len
        self.shm = SharedMemory(name, create=True, size=size)
        try:
            pack_into(f"q{len(offsets)}q", self.shm.buf, 0, self._list_len, *offsets)
            for position, (fmt, value) in enumerate(zip(formats, values)):
                self._store(position, fmt, value)
        except BaseException:  # a number that is too large
            self.shm.close()
            self.shm.unlink()
            raise

    def _attach(self, name: str) -> None:
        self.shm = SharedMemory(name)
        (self._list_len,) = unpack_from("q", self.shm.buf)
        self._allocated_offsets = list(unpack_from(self._format_size_metainfo, self.shm.buf, 8))

    @classmethod
    def _format_for(cls, value: Any) -> str:
        fmt = cls._types_mapping.get(type(value)) or next(
            (known for kind, known in cls._types_mapping.items() if isinstance(value, kind)), None
        )
        if fmt is None:
            raise _NotShareable(
                f"a ShareableList cannot hold {type(value).__name__}: int, float, bool, str, bytes, None"
            )
        if "%" not in fmt:
            return fmt
        slot = cls._alignment * (len(value) // cls._alignment + 1)
        if isinstance(value, str):  # the layout counts characters, which may need several bytes
            slot = max(slot, -(-len(value.encode(_encoding)) // cls._alignment) * cls._alignment)
        if len(fmt % slot) > 8:
            raise ValueError(
                f"an item of {len(value)} is too long for a ShareableList, which takes less than 10 million"
            )
        return fmt % slot

    @staticmethod
    def _extract_recreation_code(value: Any) -> int:
        """Return the key of `_back_transforms_mapping` for `value`."""
        if value is None:
            return _NOTHING
        return _TEXT if isinstance(value, str) else _BYTES if isinstance(value, bytes) else _UNCHANGED

    # The offsets of the parts, in bytes from the start of the segment, and their `struct` formats.

    @property
    def _format_size_metainfo(self) -> str:
        return "q" * (self._list_len + 1)

    @property
    def _format_packing_metainfo(self) -> str:
        return "8s" * self._list_len

    @property
    def _format_back_transform_codes(self) -> str:
        return "b" * self._list_len

    @property
    def _offset_data_start(self) -> int:
        return 8 * (self._list_len + 2)

    @property
    def _offset_packing_formats(self) -> int:
        return self._allocated_offsets[-1] + self._offset_data_start

    @property
    def _offset_back_transform_codes(self) -> int:
        return self._offset_packing_formats + 8 * self._list_len

    def _slot(self, position: int, complaint: str) -> int:
        """Return `position` as an index from the front; raise IndexError with `complaint` if there is no such item."""
        place = position + self._list_len if position < 0 else position
        if not 0 <= place < self._list_len:
            raise IndexError(complaint)
        return place

    def _get_packing_format(self, position: int) -> str:
        """The struct format of one item."""
        place = self._slot(position, "Requested position out of range.")
        (raw,) = unpack_from("8s", self.shm.buf, self._offset_packing_formats + 8 * place)
        text: str = raw.rstrip(b"\0").decode(_encoding)
        return text

    def _get_back_transform(self, position: int) -> Callable[[Any], Any]:
        place = self._slot(position, "Requested position out of range.")
        return self._back_transforms_mapping[self._transform_code(place)]

    def _transform_code(self, place: int) -> int:
        return self.shm.buf[self._offset_back_transform_codes + place]

    def _set_packing_format_and_transform(self, position: int, fmt_as_str: str, value: Any) -> None:
        place = self._slot(position, "Requested position out of range.")
        pack_into("8s", self.shm.buf, self._offset_packing_formats + 8 * place, fmt_as_str.encode(_encoding))
        self.shm.buf[self._offset_back_transform_codes + place] = self._extract_recreation_code(value)

    def _store(self, place: int, fmt: str, value: Any) -> None:
        raw = value.encode(_encoding) if isinstance(value, str) else value
        pack_into(fmt, self.shm.buf, self._offset_data_start + self._allocated_offsets[place], raw)
        if isinstance(raw, bytes) and raw[-1:] == b"\0":
            # From a million bytes on the format has no room for the blank. `_load` then recognizes it because its length
            # differs from the slot's.
            fmt = f"{len(raw)}s "[:8]
        self._set_packing_format_and_transform(place, fmt, value)

    def __getitem__(self, position: int) -> _Item:
        item: _Item = self._load(self._slot(position, "index out of range"))
        return item

    def _load(self, place: int) -> Any:
        start, end = self._allocated_offsets[place : place + 2]
        fmt = self._get_packing_format(place)
        (raw,) = unpack_from(fmt, self.shm.buf, self._offset_data_start + start)
        if isinstance(raw, bytes) and (fmt[-1] == " " or len(raw) != end - start):
            return raw.decode(_encoding) if self._transform_code(place) == _TEXT else raw
        return self._get_back_transform(place)(raw)

    def __setitem__(self, position: int, value: _Item) -> None:
        place = self._slot(position, "assignment index out of range")
        fmt = self._format_for(value)
        if isinstance(value, (str, bytes)):
            room = self._allocated_offsets[place + 1] - self._allocated_offsets[place]
            if len(value.encode(_encoding) if isinstance(value, str) else value) > room:
                raise ValueError("bytes/str item exceeds available storage")
            fmt = f"{room}s"
        self._store(place, fmt, value)

    def __len__(self) -> int:
        return self._list_len

    def __iter__(self) -> Iterator[_Item]:
        return map(self.__getitem__, range(self._list_len))

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), name=self.shm.name), ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)}, name={self.shm.name!r})"

    @property
    def format(self) -> str:
        """The `struct` format of all items."""
        return "".join(map(self._get_packing_format, range(self._list_len)))

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
