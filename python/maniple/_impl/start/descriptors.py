"""Descriptors and standard streams.

This package's descriptors are above 2, and it closes them only if they still refer to the same file. A program may
close descriptors that it did not open. A program that becomes a daemon closes all of them, and the files that it opens
next get the same numbers. If a program closes 0, 1 or 2, new descriptors would get these numbers, and children would
use them as their standard streams.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from functools import partial
from itertools import starmap
from time import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = [
    "EX_TEMPFAIL",
    "MAP_ALONE",
    "FilledStdio",
    "HeldDescriptor",
    "Mark",
    "above_stdio",
    "arrived",
    "call_into",
    "close_number",
    "close_own",
    "descriptor_limit",
    "duplicate",
    "explain_shortage",
    "flush_without_fail",
    "mark",
    "patiently",
    "pipe",
    "socket_above",
]

#: the device and inode of a descriptor's file; None means that it was not open
Mark = tuple[int, int] | None


#: the exit code of a process that lacked something at its start; Windows has no name for it
EX_TEMPFAIL: int = getattr(os, "EX_TEMPFAIL", 75)

#: arguments of `mmap.mmap` so that it does not duplicate the descriptor, which it would later close by its number
MAP_ALONE: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


def above_stdio(fd: int) -> int:
    """Return ``fd`` if it is above 2; otherwise a duplicate above 2, after closing ``fd``."""
    if fd > 2:
        return fd
    try:
        return _duplicate_above(fd)
    finally:
        os.close(fd)


def _duplicate_above(fd: int) -> int:
    # The import needs a descriptor, and a loader of shared objects.
    from fcntl import F_DUPFD_CLOEXEC, fcntl

    try:
        return int(fcntl(fd, F_DUPFD_CLOEXEC, 3))
    except OSError as problem:
        if problem.errno == errno.EINVAL:  # the limit is so low that there is no such number
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None
        raise


def _has_standard_streams() -> bool:
    try:
        for number in range(3):
            os.fstat(number)
    except OSError:
        return False
    return True


def duplicate(fd: int) -> int:
    """Return a duplicate above 2 that is not inherited. No number of a standard stream is in use meanwhile."""
    return above_stdio(os.dup(fd)) if _has_standard_streams() else _duplicate_above(fd)


def arrived(fd: int) -> int:
    """Return the descriptor, which another process has sent, as `above_stdio` does; ``fd`` itself if there is no other number."""
    if fd > 2:
        return fd
    try:
        moved = duplicate(fd)
    except OSError:
        return fd
    os.close(fd)
    return moved


def socket_above(made: Any) -> Any:
    """Return the socket if its descriptor is above 2; otherwise a socket for a duplicate above 2."""
    return made if made.fileno() > 2 else type(made)(fileno=above_stdio(made.detach()))


class FilledStdio:
    """A ``with`` block in which no new descriptor gets one of the numbers 0 to 2."""

    def __enter__(self) -> None:
        self._fillers: list[int] = []
        try:
            while not self._fillers or self._fillers[-1] <= 2:
                self._fillers.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc_info: object) -> None:
        for fd in self._fillers:
            os.close(fd)


def pipe() -> tuple[int, int]:
    """Return a pipe as `os.pipe` does, with both descriptors above 2."""
    reader, writer = os.pipe()
    if reader > 2 and writer > 2:
        return reader, writer
    return above_stdio(reader), above_stdio(writer)


def mark(fd: int) -> Mark:
    """Return the identity of the file of ``fd``, for `close_own`."""
    try:
        found = os.fstat(fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def close_own(fd: int, is_file: Mark) -> None:
    """Close a descriptor, unless the program has closed it and opened another file under its number."""
    if is_file is not None and mark(fd) == is_file:
        os.close(fd)


def patiently(call: Callable[P, R], *args: P.args, **kwds: P.kwargs) -> R:
    """Return ``call(*args, **kwds)``; retry for about a second while it fails for lack of kernel memory."""
    pause = 0.002
    while True:
        try:
            return call(*args, **kwds)
        except OSError as problem:
            if problem.errno not in (errno.ENOMEM, errno.ENOBUFS) or pause > 0.6:
                raise
        sleep(pause)
        pause *= 2


def explain_shortage(problem: BaseException, what: str) -> None:
    """Add a note that begins with `what` and says what to do, if the error is one of a shortage."""
    try:
        from .shortage import advice, is_shortage

        text = advice(problem) if is_shortage(problem) else ""
    except (OSError, MemoryError, ImportError):  # the import needs a descriptor
        is_full = isinstance(problem, OSError) and problem.errno in (errno.EMFILE, errno.ENFILE)
        text = "no descriptor is left: close some files, or raise the limit (ulimit -n)" if is_full else ""
    if text:
        problem.add_note(f"{what}: {text}")


class HeldDescriptor:
    """An attribute for a descriptor or None. Setting it also stores the identity of the file."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._number, self._file = name, f"{name} leads to"

    def __get__(self, holder: Any, owner: type | None = None) -> Any:
        return self if holder is None else vars(holder).get(self._number)

    def __set__(self, holder: Any, fd: int | None) -> None:
        vars(holder)[self._number] = fd
        vars(holder)[self._file] = None if fd is None else mark(fd)

    def held(self, holder: Any) -> tuple[Any, Mark]:
        """Return the descriptor, and the identity that its file had when it was set."""
        return vars(holder).get(self._number), vars(holder).get(self._file)

    def is_there(self, holder: Any, mark: Any = mark) -> bool:
        """Return whether the descriptor still refers to the file that it had when it was set."""
        fd, file = self.held(holder)
        return fd is not None and file is not None and mark(fd) == file


def call_into(results: list[R], function: Callable[..., R], *args: Any, **kwds: Any) -> None:
    """Append ``function(*args, **kwds)`` to `results`, in one step of the interpreter if the function is native.

    No signal handler runs between the return of the function and the append, so its exception does not make the caller lose a process or a
    descriptor that the function has made.
    """
    results.extend(starmap(partial(function, *args, **kwds), ((),)))


if sys.platform == "win32":
    # The numbers of this package are handles there. No other code closes them, and no standard stream has such a number.
    from ..._maniple import close_handle as close_number
    from ..._maniple import duplicate_handle as duplicate

    def above_stdio(fd: int) -> int:
        """Return the number."""
        return fd

    def arrived(fd: int) -> int:
        """Return the number."""
        return fd

    def socket_above(made: Any) -> Any:
        """Return the socket."""
        return made

    def mark(fd: int) -> Mark:
        """Return the number: it means one object as long as this package has it."""
        return 0, fd

    def close_own(fd: int, is_file: Mark) -> None:
        """Close a handle."""
        close_number(fd)

else:
    close_number = os.close


def descriptor_limit() -> int:
    """Return the number of descriptors that this process may have."""
    try:
        limit = os.sysconf("SC_OPEN_MAX")
    except (AttributeError, OSError, ValueError):
        limit = -1
    return limit if limit > 0 else 256


# ---------------------------------------------------------------- standard streams


class _Nothing(io.RawIOBase):
    """The null device, which is opened only when `fileno` is called."""

    name = os.devnull
    mode = "rb"
    _fd: int | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return 0

    def fileno(self) -> int:
        if self._fd is None:
            self._fd = os.open(os.devnull, os.O_RDONLY)
        return self._fd


# Made at import: making it in a forked child would double the time before the child's work.
_empty_stdin = io.TextIOWrapper(io.BufferedReader(_Nothing(), 1), encoding="utf-8")


def _close_stdin() -> None:
    """Give a child an empty stdin: two processes must not read the same terminal."""
    shared = sys.stdin
    if shared is None or shared is _empty_stdin:
        return
    try:
        # If a thread of the parent was reading when this child was forked, the buffer's lock is held here forever. The raw
        # file below the buffer has no lock, and closing it closes all three.
        (shared.buffer.raw if type(shared) is io.TextIOWrapper else shared).close()
    except Exception:  # the program may have replaced sys.stdin by any object
        pass
    sys.stdin = _empty_stdin


def _flush_std_streams() -> None:
    """Flush stdout and stderr, which a program may have replaced by any object, or removed."""
    # Every forked child runs it: `suppress` would run three more functions, whose memory pages the child has to copy.
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # for example, the terminal is closed
            pass


class _Unfailing:
    """A wrapper of a stream whose `flush` raises no exception."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except Exception:
            pass


def flush_without_fail() -> None:
    """Keep the interpreter's flush at its end from failing, which would change the exit code to 120."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name, None)) is not None:
            setattr(sys, name, _Unfailing(stream))
