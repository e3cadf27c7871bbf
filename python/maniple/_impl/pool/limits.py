"""The limits that a large pool cannot keep: the pool refuses its size before it starts a worker.

Otherwise the pool would start thousands of workers, and the system would run short before one start fails. Limits that depend on what
else runs, such as free memory, are not checked: a start that fails reports them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

__all__ = ["LARGE", "memory_of_control_group", "refuse_impossible_size"]

#: Smaller pools are not checked: the files of the limits take longer to read than the start of a worker, and the start that fails comes soon.
LARGE = 64

# CAP_SYS_ADMIN and CAP_SYS_RESOURCE: with one of them, RLIMIT_NPROC does not apply (fork(2)).
_UNLIMITED = 1 << 21 | 1 << 24


def refuse_impossible_size(processes: int, descriptors: int) -> None:
    """Raise OSError if this process can never have so many workers at once.

    Args:
        processes: the number of workers.
        descriptors: the number of descriptors of this process that each worker needs.
    """
    need = processes * descriptors
    most = _number_of("SC_OPEN_MAX")
    if most is not None and need >= most:
        raise OSError(
            errno.EMFILE,
            f"{processes} workers take {need} descriptors, but this process may have {most} (RLIMIT_NOFILE): "
            "raise the limit (ulimit -n), or ask for fewer workers",
        )
    for what, most in _process_limits():
        if processes >= most:
            raise OSError(
                errno.EAGAIN,
                f"{processes} workers cannot run at once: {what} allows {most} processes and threads: "
                "raise the limit, or ask for fewer workers",
            )


def _number_of(name: str) -> int | None:
    try:
        number = os.sysconf(name)
    except (AttributeError, OSError, ValueError):
        return None
    return number if number >= 0 else None


def _process_limits() -> Iterator[tuple[str, int]]:
    most = _number_of("SC_CHILD_MAX")
    if most is not None and not _is_exempt():
        yield "RLIMIT_NPROC of this user (ulimit -u)", most
    for name in ("pid_max", "threads-max"):
        if (most := _number_in(f"/proc/sys/kernel/{name}")) is not None:
            yield f"the system (kernel.{name})", most
    for folder in _control_groups("pids"):
        if (most := _number_in(f"{folder}/pids.max")) is not None:
            yield f"the control group of this process ({folder}/pids.max)", most


def _is_exempt() -> bool:
    """Return whether the limit on the user's processes does not apply to this process."""
    if os.getuid() == 0:
        return True
    for line in _lines("/proc/self/status"):
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) & _UNLIMITED)
    return False


def memory_of_control_group() -> int | None:
    """Return the number of bytes that the control groups of this process allow; None if they have no limit."""
    names = "memory.max", "memory.limit_in_bytes"  # versions 2 and 1
    found = (_number_in(f"{folder}/{name}") for folder in _control_groups("memory") for name in names)
    return min((most for most in found if most is not None), default=None)


def _control_groups(controller: str) -> Iterator[str]:
    """Yield the folders of the control groups in which a controller counts this process, from the innermost to the outermost."""
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.rstrip("\n").split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 2 has one hierarchy without a name; version 1 has one for each controller.
        top = f"/sys/fs/cgroup/{controller}" if controllers else "/sys/fs/cgroup"
        while True:
            yield top + path.rstrip("/")
            if path in ("", "/"):
                break
            path = os.path.dirname(path)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readlines()
    except OSError:
        return []


def _number_in(path: str) -> int | None:
    """Return the number in the file; None if there is no such file, or no limit."""
    lines = _lines(path)
    text = lines[0].strip() if lines else ""
    return int(text) if text.isdecimal() else None
