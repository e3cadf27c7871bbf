"""Large arrays that the workers of a `joblib.Parallel` share with the caller through files.

Pickling a task calls `SharedArrays.reduce` for each array.  An array of more than `max_nbytes` bytes is written to a file once for
each call of `Parallel`, and each task that uses it maps the file.  An array that is a part of a `numpy.memmap` travels as the name of
its file.

A file lives in a folder, usually in shared memory, until no open task uses it and the array is gone, or until the call ends.  The
owner of a folder holds a lock on the file `owner` in it.  So the next program can remove the folder of a program that was killed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from uuid import uuid4
from weakref import finalize, ref

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["SharedArrays", "reduce_result"]

_PREFIX = "maniple_joblib_"
_OWNER = "owner"
_RAM = "/dev/shm"
# The least free space in bytes for which the system's folder in memory is used, as in joblib.
_LEAST_RAM = 2_000_000_000
# `os.write` takes at most 2 GiB at a time on Linux.
_PIECE = 1 << 30


class _File:
    """The file of one array."""

    __slots__ = ("__weakref__", "array", "name", "tasks")

    def __init__(self, name: str) -> None:
        self.name = name
        #: a weak reference to the array
        self.array: Any = None
        #: the number of open tasks that use the file
        self.tasks = 0


class SharedArrays:
    """The shared arrays of one `joblib.Parallel` object."""

    def __init__(self, max_nbytes: int | None, mmap_mode: str | None, temp_folder: str | None) -> None:
        self._max_nbytes = None if mmap_mode is None else max_nbytes
        # An existing file is never truncated.
        self._mode = "r+" if mmap_mode == "w+" else mmap_mode
        self._root = temp_folder
        self.folder: str | None = None
        self._remove: Callable[[], object] | None = None
        # By the id of the array, which is valid as long as the array lives.
        self._files: dict[int, _File] = {}
        # The files of the task that is pickled now.
        self._used: set[_File] = set()
        # A weak reference's callback may run in any thread, and between any two steps of this one.
        self._lock = threading.RLock()

    # ---- the files of a task ----

    def reducers(self) -> dict[type, Callable[[Any], Any]]:
        """Return how to pickle arrays. There are none before the program imports NumPy."""
        numpy = sys.modules.get("numpy")
        if numpy is None or not hasattr(numpy, "memmap"):
            return {}
        return {numpy.ndarray: self.reduce, numpy.memmap: self.reduce}

    def begin(self) -> None:
        """Begin to record the files of a task. `pickled` ends the record."""
        self._used = set()

    def pickled(self) -> Iterable[_File]:
        """Return the files that the task uses; `release` receives them when the task has ended."""
        used, self._used = self._used, set()
        with self._lock:
            for file in used:
                file.tasks += 1
        return used

    def release(self, files: Iterable[_File]) -> None:
        """Record that a task has ended, and remove the files whose arrays are gone."""
        with self._lock:
            for file in files:
                file.tasks -= 1
                self._look_at(file)

    def _look_at(self, file: _File) -> None:
        if file.tasks <= 0 and file not in self._used and file.array() is None:
            _unlink(file.name)

    def _gone(self, number: int, array: object) -> None:
        with self._lock:
            file = self._files.get(number)
            if file is not None and file.array is array:
                del self._files[number]
                self._look_at(file)

    # ---- pickling ----

    def reduce(self, array: Any) -> Any:
        """Return how to pickle an array, in the form of ``__reduce__``."""
        import numpy as np

        if (mapped := _backing(array, np)) is not None:
            return _by_file(array, mapped)
        least = self._max_nbytes
        if least is not None and array.nbytes > least and array.ndim and not array.dtype.hasobject:
            file = self._file_of(array, np)
            if file is not None:
                order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
                return map_file, (file.name, array.dtype, self._mode, 0, order, array.shape, None, None)
        return np.asarray(array).__reduce_ex__(5)

    def _file_of(self, array: Any, np: Any) -> _File | None:
        """Return the file of an array; None if there is no room for it."""
        with self._lock:
            file = self._files.get(id(array))
        if file is None or file.array() is not array:
            name = os.path.join(self._made_folder(), uuid4().hex)
            try:
                _write(name, array, np)
            except OSError:
                _unlink(name)
                return None
            file, number, own = _File(name), id(array), ref(self)

            def gone(array: object) -> None:
                if (arrays := own()) is not None:
                    arrays._gone(number, array)

            file.array = ref(array, gone)
            with self._lock:
                self._files[number] = file
        self._used.add(file)
        return file

    # ---- the folder ----

    def _made_folder(self) -> str:
        if self.folder is None:
            root = _root(self._root)
            os.makedirs(root, exist_ok=True)
            _sweep(root)
            name = f"{os.getpid()}_{uuid4().hex}"
            # `_sweep` does not see the folder before it has its final name.
            hidden, folder = os.path.join(root, f".{_PREFIX}{name}"), os.path.join(root, f"{_PREFIX}{name}")
            os.mkdir(hidden, 0o700)
            owner = os.open(os.path.join(hidden, _OWNER), os.O_RDWR | os.O_CREAT, 0o600)
            if fcntl is not None:
                fcntl.flock(owner, fcntl.LOCK_EX)
            os.rename(hidden, folder)
            self._remove = finalize(self, _end_folder, folder, owner, os.getpid())
            self.folder = folder
        return self.folder

    def end_call(self) -> None:
        """Remove the files. Arrays may change between calls, so each call writes them again."""
        with self._lock:
            files, self._files = list(self._files.values()), {}
        for file in files:
            _unlink(file.name)

    def end(self) -> None:
        """Remove the folder."""
        self.end_call()
        if self._remove is not None:
            self._remove()
        self.folder = self._remove = None


def _end_folder(folder: str, owner: int, pid: int) -> None:
    os.close(owner)
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _unlink(name: str) -> None:
    try:
        os.unlink(name)
    except OSError:
        pass  # it is gone


def _root(chosen: str | None) -> str:
    """Return the folder for the folders of arrays: the chosen one, or the one that joblib would use."""
    root = chosen or os.environ.get("JOBLIB_TEMP_FOLDER")
    if root is None and os.access(_RAM, os.W_OK | os.X_OK):
        about = os.statvfs(_RAM)
        if about.f_bsize * about.f_bavail > _LEAST_RAM:
            root = _RAM
    return os.path.abspath(os.path.expanduser(root or tempfile.gettempdir()))


# The roots that this process has searched for folders without an owner.
_swept: set[str] = set()


def _sweep(root: str) -> None:
    """Remove the folders of programs that were killed."""
    if root in _swept or fcntl is None:
        return
    _swept.add(root)
    for name in os.listdir(root):
        if not name.startswith(_PREFIX):
            continue
        folder = os.path.join(root, name)
        try:
            owner = os.open(os.path.join(folder, _OWNER), os.O_RDWR)
        except OSError:
            continue  # another user's, or just removed
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # its program runs
        finally:
            os.close(owner)


def _write(name: str, array: Any, np: Any) -> None:
    flags = array.flags
    flat = array if flags.c_contiguous else array.T if flags.f_contiguous else np.ascontiguousarray(array)
    content = memoryview(np.asarray(flat).reshape(-1).view(np.uint8))
    to = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        place = 0
        while place < len(content):
            place += os.write(to, content[place : place + _PIECE])
    finally:
        os.close(to)


# ---- arrays in files ----


def _backing(array: Any, np: Any) -> Any:
    """Return the `numpy.memmap` that holds the memory of an array; None if no file does."""
    from mmap import mmap

    while (base := getattr(array, "base", None)) is not None:
        if isinstance(base, mmap):
            return array if isinstance(array, np.memmap) and array.filename is not None else None
        array = base
    return None


def _by_file(array: Any, mapped: Any) -> Any:
    """Return how to pickle an array that is a part of a mapped file."""
    try:
        from numpy.lib.array_utils import byte_bounds
    except ImportError:  # NumPy 1
        from numpy import byte_bounds  # type: ignore[attr-defined,no-redef]
    first, end = byte_bounds(array)
    offset = mapped.offset + first - byte_bounds(mapped)[0]
    flags = array.flags
    order = "F" if flags.f_contiguous and not flags.c_contiguous else "C"
    is_whole = flags.c_contiguous or flags.f_contiguous
    mode = "r+" if mapped.mode == "w+" else mapped.mode
    strides = None if is_whole else array.strides
    # With negative strides, the array's first element is not the first in the file.
    span = None if is_whole else (end - first, array.__array_interface__["data"][0] - first)
    return map_file, (str(mapped.filename), array.dtype, mode, offset, order, array.shape, strides, span)


def map_file(
    name: str, dtype: Any, mode: str, offset: int, order: Any, shape: Any, strides: Any, span: tuple[int, int] | None
) -> Any:
    """Return an array that maps a part of a file. `span` is the size of the part, and the place of the first element in it."""
    import numpy as np

    if span is None:
        return np.memmap(name, dtype=dtype, mode=mode, offset=offset, shape=shape, order=order)  # type: ignore[call-overload]
    size, start = span
    part: Any = np.memmap(name, dtype=np.uint8, mode=mode, offset=offset, shape=(size,))  # type: ignore[call-overload]
    return np.ndarray(shape, dtype, buffer=part, offset=start, strides=strides).view(np.memmap)


def reduce_result(array: Any) -> Any:
    """Return how to pickle a `numpy.memmap` in a result. The files of this module end with the call, so their arrays are copied."""
    import numpy as np

    mapped = _backing(array, np)
    if mapped is None or os.path.basename(os.path.dirname(str(mapped.filename))).startswith(_PREFIX):
        return np.array(array, subok=False).__reduce_ex__(5)
    return _by_file(array, mapped)
