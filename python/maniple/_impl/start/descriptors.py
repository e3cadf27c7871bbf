"""Descriptors that this package holds, and calls on them: none is a standard stream's, and each is closed only while it is what it was.

A program may close descriptors that it did not open: one that becomes a daemon closes all of them, and the files that it opens next
get the same numbers.  Others close 0, 1 or 2, which would then be the next numbers to be given out, and which children take for their
standard streams.
"""

from __future__ import annotations

import errno
import os
import sys
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["MAP_ALONE", "HeldDescriptor", "Mark", "above_stdio", "close_own", "mark", "patiently", "pipe"]

#: which file a descriptor leads to; None: it was not open
Mark = tuple[int, int] | None


#: what `mmap.mmap` is told so that it keeps no descriptor of its own, which it would close by its number
MAP_ALONE: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


def above_stdio(fd: int) -> int:
    """Return a descriptor above 2 for the same: ``fd`` itself, or one in its place."""
    if fd > 2:
        return fd
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    moved: int = fcntl(fd, F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def pipe() -> tuple[int, int]:
    """`os.pipe`, with both descriptors above 2."""
    reader, writer = os.pipe()
    if reader > 2 and writer > 2:
        return reader, writer
    return above_stdio(reader), above_stdio(writer)


def mark(fd: int) -> Mark:
    """Tell which file ``fd`` leads to, for `close_own`."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def close_own(fd: int, is_file: Mark) -> None:
    """Close a descriptor, unless the program has closed it and has another file under its number."""
    if is_file is not None and mark(fd) == is_file:
        os.close(fd)


def patiently(call: Callable[P, R], *args: P.args, **kwds: P.kwargs) -> R:
    """``call(*args, **kwds)``, which is made again for about a second while the kernel has no memory for it: it has done nothing then."""
    pause = 0.002
    while True:
        try:
            return call(*args, **kwds)
        except OSError as problem:
            if problem.errno not in (errno.ENOMEM, errno.ENOBUFS) or pause > 0.6:
                raise
        sleep(pause)
        pause *= 2


class HeldDescriptor:
    """An attribute for a descriptor or None, which notes which file that is when it is set."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._number, self._file = name, f"{name} leads to"

    def __get__(self, holder: Any, owner: type | None = None) -> Any:
        return self if holder is None else vars(holder).get(self._number)

    def __set__(self, holder: Any, fd: int | None) -> None:
        vars(holder)[self._number] = fd
        vars(holder)[self._file] = None if fd is None else mark(fd)

    def is_there(self, holder: Any, mark: Any = mark) -> bool:
        """Whether the descriptor is still what it was when it was set."""
        fd, file = vars(holder).get(self._number), vars(holder).get(self._file)
        return fd is not None and file is not None and mark(fd) == file
