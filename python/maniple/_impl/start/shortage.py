"""What ran out: told from other errors, since it may be there again later, and explained.

Apart from the modules that children load: most processes never need it.
"""

from __future__ import annotations

import errno
import os

__all__ = ["advice", "is_shortage", "says_shortage", "stood_in_the_way"]

# What `maniple_engine::sys::is_shortage` has, and what only this side's calls give.
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
    """Whether something ran out: descriptors, memory, processes, threads, room for files."""
    if isinstance(problem, OSError):
        return problem.errno in _NUMBERS
    return isinstance(problem, MemoryError) or (
        isinstance(problem, RuntimeError) and "start new thread" in str(problem)
    )


# What the dynamic linker says of a library that it cannot load; `ImportError` has nothing else.
_SAID = tuple(os.strerror(number) for number in sorted(_NUMBERS)) + (
    "failed to map segment",
    "memory allocation failed",
)


def stood_in_the_way(problem: BaseException | None) -> bool:
    """Whether a shortage has kept something from being imported: it may have become an error of the import by then.

    An interrupted call counts as well: the interpreter does not repeat it where it lists a folder of the search path.
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
    """Whether the last that a process wrote to its standard error says that it lacked something; for one that could not say it otherwise."""
    lines = [line for line in words.splitlines() if line and not line[0].isspace()]
    if not any("Fatal Python error" in line for line in lines):
        lines = lines[-1:]
    return any(
        line.startswith("MemoryError") or any(said in line for said in _SAID) or _has_number(line) for line in lines
    )


def _has_number(line: str) -> bool:
    """Whether the dynamic linker has written the line, which may know no more than the error's number."""
    what, _, number = line.rpartition(": Error ")
    return "shared" in what and number.isdecimal() and int(number) in _NUMBERS


def _limit(name: str) -> str:
    """This process's limit, for people. Nothing is imported for it: that would take a descriptor."""
    number = os.sysconf(name)
    return str(number) if number >= 0 else "any number of"


def advice(problem: BaseException) -> str:
    """Say what can be done about a shortage."""
    number = problem.errno if isinstance(problem, OSError) else None
    if number == errno.EMFILE:
        return (
            f"this process may have {_limit('SC_OPEN_MAX')} descriptors, of which a worker takes three: raise the limit (ulimit -n), "
            "or ask for less"
        )
    if number == errno.ENFILE:
        return "the system has no descriptor left (fs.file-max): close files, in whatever process"
    if number == errno.EAGAIN or isinstance(problem, RuntimeError):
        return (
            f"this user may have {_limit('SC_CHILD_MAX')} processes and threads (ulimit -u), and a container may have fewer (pids.max): "
            "raise the limit, or ask for less"
        )
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "there has to be room for shared memory, which the limit on the size of files (ulimit -f) applies to as well"
    return "memory is short, or limited (ulimit -v, a container's limit)"
