"""The current directory of a child, if the child cannot enter its parent's directory by path.

The directory was removed, or lost its permissions, while the program was in it.  A forked child inherits it.  Other children
receive it as a descriptor.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ... import reduction
from ...context import get_spawning_popen
from .descriptors import above_stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["enter", "handle"]

# The first path can be opened even if the directory has no search permission.
_WAYS = "/proc/self/cwd", "."


def handle() -> Any:
    """Return a picklable object for the current directory, for `enter` in the child; None if no child is being started."""
    popen = get_spawning_popen()
    if not hasattr(popen, "_to_close"):
        return None
    for way in _WAYS:
        with suppress(OSError):
            descriptor = above_stdio(os.open(way, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY))
            popen._to_close.append(descriptor)
            return reduction.DupFd(descriptor)
    raise FileNotFoundError(
        "the current directory of this process cannot be passed to a child: change to another directory"
    )


def enter(handed: Any) -> None:
    """In a child, make the parent's directory the current directory."""
    descriptor = handed.detach()
    try:
        os.fchdir(descriptor)
    except OSError:  # no permission
        if not _is_here(descriptor):
            _enter_nothing()
    finally:
        os.close(descriptor)


def _is_here(descriptor: int) -> bool:
    for way in _WAYS:
        with suppress(OSError):
            return os.path.samestat(os.fstat(descriptor), os.stat(way))
    return False


def _enter_nothing() -> None:
    """Enter a directory that is removed at once, so that relative paths do not resolve to files of another directory."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="pymp-") as folder:
        os.chdir(folder)
