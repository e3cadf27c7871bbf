"""The kinds of calls that can be made to fail, and with which errors.

A kind is one thing that a program asks of the system, whichever of several system calls it takes for that.
Each errno is one that the kernel, a limit or a container really returns for it.
"""

from __future__ import annotations

import errno
import platform
from collections.abc import Sequence
from dataclasses import dataclass

MACHINE = platform.machine()

# Numbers by machine: x86_64, then those of the generic table (aarch64, riscv64); None where there is no such call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "poll": (7, None),
    "mmap": (9, 222),
    "pwrite64": (18, 68),
    "writev": (20, 66),
    "dup": (32, 23),
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "bind": (49, 200),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "wait4": (61, 260),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "ftruncate": (77, 46),
    "mkdir": (83, None),
    "futex": (202, 98),
    "timer_create": (222, 107),
    "epoll_wait": (232, None),
    "waitid": (247, 95),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "epoll_pwait": (281, 22),
    "timerfd_create": (283, 85),
    "epoll_ctl": (233, 21),
    "fallocate": (285, 47),
    "accept4": (288, 242),
    "eventfd2": (290, 19),
    "epoll_create1": (291, 20),
    "pipe2": (293, 59),
    "pipe": (22, None),
    "memfd_create": (319, 279),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
}

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}


def number(call: str) -> int | None:
    """The call's number on this machine."""
    return NUMBERS[call][MACHINE != "x86_64"]


@dataclass(frozen=True)
class Where:
    """What an argument of a call must be: `bits` of it, of which `equal` are set. Its low 32 bits are compared."""

    argument: int
    bits: int
    equal: int
    differs: bool = False


CLONE_THREAD = 0x10000
MAP_STACK = 0x20000
FUTEX_COMMAND = 0x7F
ALL = 0xFFFFFFFF


@dataclass(frozen=True)
class Kind:
    """`calls`: names with what their arguments must be. `errors`: names of errno. `spells`: it may fail for a while."""

    name: str
    calls: Sequence[tuple[str, Where | None]]
    errors: Sequence[str]
    spells: bool = True

    def numbers(self) -> list[int]:
        return [code for error in self.errors if (code := getattr(errno, error))]


def plain(*names: str) -> list[tuple[str, Where | None]]:
    return [(name, None) for name in names]


FULL = ("EMFILE", "ENFILE")

KINDS = {
    kind.name: kind
    for kind in [
        Kind("memfd", plain("memfd_create"), ("EMFILE", "ENFILE", "ENOMEM")),
        Kind("resize", plain("ftruncate"), ("ENOSPC", "EFBIG", "ENOMEM", "EINTR")),
        Kind("reserve", plain("fallocate"), ("ENOSPC", "EFBIG", "EOPNOTSUPP", "EINTR")),
        # A mapping of a file; memory that a program's allocator asks for is another matter.
        Kind("map", [("mmap", Where(4, ALL, ALL, differs=True))], ("ENOMEM",)),
        Kind("pwrite", plain("pwrite64"), ("ENOSPC", "EFBIG", "ENOMEM", "EINTR")),
        Kind("socketpair", plain("socketpair"), (*FULL, "ENOBUFS")),
        Kind("socket", plain("socket"), (*FULL, "ENOBUFS")),
        Kind("pipe", plain("pipe2", "pipe"), FULL),
        Kind("eventfd", plain("eventfd2"), (*FULL, "ENOMEM")),
        Kind("dup", [("dup", None), ("fcntl", Where(1, ALL, 1030)), ("fcntl", Where(1, ALL, 0))], ("EMFILE",)),
        Kind("fork", [("clone", Where(0, CLONE_THREAD, 0)), *plain("fork", "vfork")], ("EAGAIN", "ENOMEM")),
        Kind("thread", [("clone", Where(0, CLONE_THREAD, CLONE_THREAD))], ("EAGAIN",)),
        Kind("exec", plain("execve"), ("EAGAIN", "ENOMEM", "EMFILE")),
        Kind("pidfd", plain("pidfd_open"), (*FULL, "ENOMEM", "ENOSYS", "EPERM")),
        Kind("pidfd_signal", plain("pidfd_send_signal"), ("ENOSYS", "EPERM")),
        Kind("epoll", plain("epoll_create1"), FULL),
        Kind("watch", plain("epoll_ctl"), ("ENOSPC", "ENOMEM")),
        Kind("timer", plain("timer_create", "timerfd_create"), ("EAGAIN", "ENOMEM")),
        Kind("open", plain("openat"), (*FULL, "ENOMEM", "EINTR")),
        Kind("folder", plain("mkdir", "mkdirat"), ("ENOSPC",)),
        Kind("flock", plain("flock"), ("EINTR", "ENOLCK")),
        Kind("bind", plain("bind"), ("ENOMEM",)),
        Kind("connect", plain("connect"), ("ENOMEM", "ENOBUFS")),
        Kind("accept", plain("accept", "accept4"), (*FULL, "ECONNABORTED", "EINTR")),
        Kind("sendmsg", plain("sendmsg"), ("ENOBUFS", "ETOOMANYREFS", "ENOMEM", "EINTR")),
        Kind("recvmsg", plain("recvmsg"), ("ENOMEM", "EINTR")),
        Kind("send", plain("sendto"), ("ENOBUFS", "EINTR")),
        Kind("receive", plain("recvfrom"), ("ENOMEM", "EINTR")),
        Kind("read", plain("read"), ("EINTR", "ENOMEM"), spells=False),
        Kind("write", plain("write", "writev"), ("EINTR", "ENOMEM"), spells=False),
        Kind("wait_ready", plain("poll", "ppoll", "epoll_wait", "epoll_pwait", "pselect6"), ("EINTR", "ENOMEM")),
        Kind("wait_child", plain("wait4", "waitid"), ("EINTR",), spells=False),
        Kind(
            "sleep",
            [("futex", Where(1, FUTEX_COMMAND, 0)), ("futex", Where(1, FUTEX_COMMAND, 9))],
            ("EINTR",),
            spells=False,
        ),
    ]
}
