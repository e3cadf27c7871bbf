"""Shortages: errors because descriptors, memory, processes or space ran out. They may pass, so the caller can retry.

The module is separate from those that children import, because most processes never need it.
"""

from __future__ import annotations

import errno
import os

__all__ = ["advice", "is_shortage", "says_shortage", "stood_in_the_way"]

# The numbers of `is_shortage` in maniple-sys, and those that only calls of Python code raise.
_NUMBERS = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOBUFS,
    getattr(errno, "ETOOMANYREFS", errno.ENOBUFS),
}


def is_shortage(problem: BaseException) -> bool:
    """Return whether descriptors, memory, processes, threads or space for files ran out."""
    if isinstance(problem, OSError):
        return problem.errno in _NUMBERS
    return isinstance(problem, MemoryError) or (
        isinstance(problem, RuntimeError) and "start new thread" in str(problem)
    )


# The dynamic linker's messages about a library that it cannot load; `ImportError` has only the text.
_SAID = tuple(os.strerror(number) for number in sorted(_NUMBERS)) + (
    "failed to map segment",
    "memory allocation failed",
)


def stood_in_the_way(problem: BaseException | None) -> bool:
    """Return whether a shortage made an import fail. The import may have raised another error because of it.

    An interrupted call counts as well: the interpreter does not retry it when it lists a folder of the search path.
    """
    while problem is not None:
        if is_shortage(problem) or isinstance(problem, InterruptedError):
            return True
        if not isinstance(problem, ImportError):
            return False
        if any(words in str(problem) for words in _SAID):
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def says_shortage(words: str) -> bool:
    """Return whether the last lines of a process's standard error report a shortage, for a process that could not report it otherwise."""
    lines = [line for line in words.splitlines() if line and not line[0].isspace()]
    if not any("Fatal Python error" in line for line in lines):
        lines = lines[-1:]
    return any(
        line.startswith("MemoryError") or any(said in line for said in _SAID) or _has_number(line) for line in lines
    )


def _has_number(line: str) -> bool:
    """Return whether the line is a message of the dynamic linker with only the number of such an error."""
    what, _, number = line.rpartition(": Error ")
    return "shared" in what and number.isdecimal() and int(number) in _NUMBERS


def _limit(name: str) -> str:
    """Return this process's limit as text, without an import, which would need a descriptor."""
    number = os.sysconf(name)
    return str(number) if number >= 0 else "any number of"


def advice(problem: BaseException) -> str:
    """Return a text that says what to do about a shortage."""
    number = problem.errno if isinstance(problem, OSError) else None
    if number == errno.EMFILE:
        return (
            f"this process may have {_limit('SC_OPEN_MAX')} descriptors, of which a worker takes three and another child one: "
            "raise the limit (ulimit -n), or ask for less"
        )
    if number == errno.ENFILE:
        return "the system has no free descriptor (fs.file-max): close files, in any process"
    if number == errno.EAGAIN or isinstance(problem, RuntimeError):
        # The interpreter does not say why it has no thread.
        memory = " Or memory is limited (ulimit -v)." if isinstance(problem, RuntimeError) else ""
        return (
            f"this user may have {_limit('SC_CHILD_MAX')} processes and threads (ulimit -u), and a container may have fewer (pids.max): "
            f"raise the limit, or ask for less.{memory}"
        )
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free space for shared memory; the limit on the size of files (ulimit -f) applies to it as well"
    return "memory is short, or limited (ulimit -v, a container's limit)"
