"""The layout of a `ShareableList` in shared memory.

The layout is the standard package's, so a process that uses the standard package can attach to the list. It consists of
these parts, in native byte order:

====================  ==================================================================
8 bytes               number of items, n
8 * (n + 1) bytes     offset of each item from the start of the items, and their end
items                 each in a slot of a multiple of 8 bytes
8 * n bytes           the `struct` format of each item, padded with NULs
n bytes               how an item is converted back (`ListLayout._back_transforms_mapping`)
====================  ==================================================================

A str or bytes item whose last byte is NUL has a format of its exact length with a blank behind it (``'3s '``), so that reading
it does not strip the NULs.  `struct` ignores the blank.  The standard package strips the NULs, and replaces the format when it
stores another item.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import pack, pack_into, unpack_from

from ...context import ManipleError
from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...shared_memory import SharedMemory

__all__ = ["ENCODING", "ListLayout"]

ENCODING = "utf8"
_UNCHANGED, _TEXT, _BYTES, _NOTHING = range(4)
_BLANK = ord(" ")


def _format_in_list(raw: bytes, room: int) -> bytes:
    """Return the format that the list has for a str or bytes item in a slot of `room` bytes."""
    if raw[-1:] == b"\0":
        # From a million bytes on the format has no room for the blank. `_load` then recognizes it because its length differs
        # from the slot's.
        return b"%ds " % len(raw)
    return b"%ds" % room


class _NotShareable(ManipleError, KeyError, ValueError):
    """A value has a type that a `ShareableList` cannot hold. The standard package raises a KeyError."""

    __module__ = f"{PACKAGE}.shared_memory"
    __str__ = Exception.__str__


class ListLayout:
    """The base class of `ShareableList`: the position of each item, and its conversion to bytes and back."""

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
        _TEXT: lambda value: value.rstrip(b"\0").decode(ENCODING),
        _BYTES: lambda value: value.rstrip(b"\0"),
        _NOTHING: lambda _value: None,
    }

    shm: SharedMemory
    _list_len: int
    #: the offset of each item from the start of the items, and their end
    _allocated_offsets: list[int]

    @classmethod
    def _format_for(cls, value: Any) -> str:
        fmt = cls._types_mapping.get(type(value)) or next(
            (known for kind, known in cls._types_mapping.items() if isinstance(value, kind)), None
        )
        if fmt is None:
            raise _NotShareable(
                f"a ShareableList holds int, float, bool, str, bytes and None, and not {type(value).__name__}"
            )
        if "%" not in fmt:
            return fmt
        slot = cls._alignment * (len(value) // cls._alignment + 1)
        if isinstance(value, str):  # the layout counts characters, which may need several bytes
            slot = max(slot, -(-len(value.encode(ENCODING)) // cls._alignment) * cls._alignment)
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
        """Return the `struct` format of an item."""
        place = self._slot(position, "Requested position out of range.")
        (raw,) = unpack_from("8s", self.shm.buf, self._offset_packing_formats + 8 * place)
        text: str = raw.rstrip(b"\0").decode(ENCODING)
        return text

    def _get_back_transform(self, position: int) -> Callable[[Any], Any]:
        place = self._slot(position, "Requested position out of range.")
        return self._back_transforms_mapping[self.shm.buf[self._offset_back_transform_codes + place]]

    def _set_packing_format_and_transform(self, position: int, fmt_as_str: str, value: Any) -> None:
        place = self._slot(position, "Requested position out of range.")
        pack_into("8s", self.shm.buf, self._offset_packing_formats + 8 * place, fmt_as_str.encode(ENCODING))
        self.shm.buf[self._offset_back_transform_codes + place] = self._extract_recreation_code(value)

    def _store(self, place: int, value: Any) -> None:
        """Replace an item.

        Raises:
            ValueError: there is no room for it, or a list cannot hold it.
        """
        buf, offsets, length = self.shm.buf, self._allocated_offsets, self._list_len
        start, end = offsets[place], offsets[place + 1]
        items = 8 * (length + 2)
        if (simple := _SIMPLE.get(type(value))) is not None:
            fmt, name, code = simple
            # Packed first: `pack_into` clears the bytes before it refuses a number.
            buf[items + start : items + start + 8] = pack(fmt, value)
        elif isinstance(value, str | bytes):
            raw, code = (value.encode(ENCODING), _TEXT) if isinstance(value, str) else (value, _BYTES)
            room = end - start
            if len(raw) > room:
                raise ValueError("bytes/str item exceeds available storage")
            pack_into(f"{room}s", buf, items + start, raw)
            name = _format_in_list(raw, room)
        else:  # of a class that is derived from a number's, or one that the list cannot hold
            fmt, code = self._format_for(value), _UNCHANGED
            buf[items + start : items + start + 8] = pack(fmt, value)
            name = fmt.encode(ENCODING)
        formats = items + offsets[length]
        pack_into("8s", buf, formats + 8 * place, name)
        buf[formats + 8 * length + place] = code

    def _load(self, place: int) -> Any:
        buf, offsets, length = self.shm.buf, self._allocated_offsets, self._list_len
        start, end = offsets[place], offsets[place + 1]
        items = 8 * (length + 2)
        formats = items + offsets[length]
        (name,) = unpack_from("8s", buf, formats + 8 * place)
        name = name.rstrip(b"\0")
        # A str, as everywhere: `struct` compares the formats that it knows, and `python -bb` refuses to compare bytes with str.
        (raw,) = unpack_from(name.decode(ENCODING), buf, items + start)
        code = buf[formats + 8 * length + place]
        if code == _UNCHANGED:
            return raw
        if code == _TEXT or code == _BYTES:
            if name[-1] != _BLANK and len(raw) == end - start:
                raw = raw.rstrip(b"\0")
            return raw.decode(ENCODING) if code == _TEXT else raw
        return self._back_transforms_mapping[code](raw)

    def _store_all(self, formats: list[str], values: list[Any]) -> None:
        """Store the items of a new list, whose offsets are known."""
        raws, names, codes = [], [], []
        for fmt, value in zip(formats, values):
            raw = value.encode(ENCODING) if isinstance(value, str) else value
            raws.append(raw)
            names.append(_format_in_list(raw, int(fmt[:-1])) if fmt[-1] == "s" else fmt.encode(ENCODING))
            codes.append(self._extract_recreation_code(value))
        buf, length, items = self.shm.buf, self._list_len, self._offset_data_start
        # All slots are multiples of 8 bytes, so nothing is between them.
        pack_into("".join(formats), buf, items, *raws)
        pack_into(self._format_packing_metainfo, buf, self._offset_packing_formats, *names)
        pack_into(f"{length}B", buf, self._offset_back_transform_codes, *codes)

    @property
    def format(self) -> str:
        """The `struct` format of all items."""
        return "".join(map(self._get_packing_format, range(self._list_len)))


# type -> the `struct` format of its items, the same in the list, and the recreation code; of the types whose items have one size
_SIMPLE: dict[type, tuple[str, bytes, int]] = {
    kind: (fmt, fmt.encode(ENCODING), _NOTHING if kind is type(None) else _UNCHANGED)
    for kind, fmt in ListLayout._types_mapping.items()
    if "%" not in fmt
}
