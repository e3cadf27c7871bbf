"""What ran out: told from other errors, since it may be there again later, and explained.

Apart from the modules that children load: most processes never need it.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["advice", "is_shortage", "limit_of"]

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


def limit_of(name: str) -> str:
    """This process's limit, for people."""
    import resource

    soft: Any = resource.getrlimit(getattr(resource, name))[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def advice(problem: BaseException) -> str:
    """Say what can be done about a shortage."""
    number = problem.errno if isinstance(problem, OSError) else None
    if number == errno.EMFILE:
        return f"this process may have {limit_of('RLIMIT_NOFILE')} descriptors: raise the limit (ulimit -n), or ask for less"
    if number == errno.ENFILE:
        return "the system has no descriptor left (fs.file-max): close files, in whatever process"
    if number == errno.EAGAIN or isinstance(problem, RuntimeError):
        return (
            f"this user may have {limit_of('RLIMIT_NPROC')} processes and threads (ulimit -u), and a container may have fewer (pids.max): "
            "raise the limit, or ask for less"
        )
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"files, shared memory among them, may have {limit_of('RLIMIT_FSIZE')} bytes (ulimit -f), and there has to be room for them"
    return f"memory is short; this process may have {limit_of('RLIMIT_AS')} bytes (ulimit -v)"
