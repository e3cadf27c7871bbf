"""The temporary directory of a program: a private folder for the sockets of connections.

A program that is killed by SIGKILL leaves its folder, with the names of its sockets, which take no space. A later program does not remove
it, because it cannot determine whether the folder is in use:

- The maker's death is not enough. Children that outlive their maker share the folder, and connect to each other through it.
- A process id says nothing about a process of another pid namespace, such as a container that shares ``/tmp``, and is used again.
- The kernel frees a lock on a file when its holders die. But programs that become daemons close all descriptors, and the lock with them,
  and still use the folder; and a spawned child would hold no lock before it uses the folder.
- ``/proc/net/unix`` lists the sockets of one network namespace only.

The names are random, so a folder that is left does not matter to another program. The system cleans ``/tmp`` at its start, or by age.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from ...util import _SUN_PATH_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["make", "remove"]

# The longest directory in which the paths of connections fit.
_LONGEST_SOCKET_DIR = _SUN_PATH_MAX - len("/pymp-12345678/sock-123456789abc") - 1
_TEMP_BASES = "/tmp", "/var/tmp", "/usr/tmp"


def make() -> str:
    """Make the directory, and return its path."""
    base = _temp_base()
    if os.name == "posix" and len(os.fsencode(base)) > _LONGEST_SOCKET_DIR:
        # The paths of sockets below it would be too long: use a directory with a shorter path.
        base = next((d for d in _TEMP_BASES if _may_write(d)), base)
    return _new_folder(base)


def _may_write(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK) and os.path.isdir(folder)


# The import of `tempfile` and `shutil` would take three times as long as the rest of a manager server's start.


def _temp_base() -> str:
    """Return the path that `tempfile.gettempdir` returns, in most cases without importing that module."""
    if os.name == "posix" and "tempfile" not in sys.modules:
        named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
        for folder in (*filter(None, named), *_TEMP_BASES):
            if _may_write(folder):
                return os.path.abspath(folder)
    import tempfile

    return tempfile.gettempdir()


def _new_folder(base: str) -> str:
    """Make a folder that only this user may enter, and return its path."""
    if os.name == "posix" and "tempfile" not in sys.modules:
        with suppress(OSError):
            made = os.path.join(base, f"pymp-{os.urandom(4).hex()}")
            os.mkdir(made, 0o700)
            return made
    import tempfile

    return tempfile.mkdtemp(prefix="pymp-", dir=base)


def remove(folder: str, **how: Any) -> None:
    """Remove a folder as `shutil.rmtree` does; that module is imported only if the folder contains folders.

    When a Ctrl-C ends the program, the import would change the exit code: it executes source code, after which the interpreter no
    longer knows that a KeyboardInterrupt ends it.
    """
    try:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except OSError:
        from shutil import rmtree

        rmtree(folder, **how)
