"""The current directory of a child whose parent is in one that has no name any more, or that may not be entered again.

Such a directory was removed, or its permissions were taken away, while the program was in it.  A forked child is simply
there.  The others get it as a descriptor, since a fork server may be anywhere else.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ... import reduction
from ...context import get_spawning_popen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["enter", "handle"]

# The first leads to the directory even where it may not be searched.
_WAYS = "/proc/self/cwd", "."


def handle() -> Any:
    """The current directory as something that the child which is being started can `enter`; None where none is."""
    popen = get_spawning_popen()
    if not hasattr(popen, "_to_close"):
        return None
    for way in _WAYS:
        with suppress(OSError):
            descriptor = os.open(way, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY)
            popen._to_close.append(descriptor)
            return reduction.DupFd(descriptor)
    raise FileNotFoundError("the current directory of this process cannot be handed to a child: change to another one")


def enter(handed: Any) -> None:
    """In a child: make the directory of the parent the current one."""
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
    """Enter a directory that is removed at once: what is relative to the parent's is not to be found in another one."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="pymp-") as folder:
        os.chdir(folder)
