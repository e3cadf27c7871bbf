"""A gate between a program and the kernel, at which chosen system calls fail.

The gate is a seccomp filter with a listener. The program puts the filter up (`put_up`), and all of its children have it, too:
forked or spawned, by any language and library. Each call of one of the kinds waits until the keeper (`Gate`, in another
process) decides whether it continues or fails. So the test covers the package as it is shipped, down to the interpreter
below it and the C library, and a released build has nothing in it for the sake of tests.

What a filter cannot see, memory, is not asked for: `clone3` is refused, so that the C library falls back on `clone`,
whose flags are in a register.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass

from kinds import AUDIT, KINDS, MACHINE, Where, number

# The program's line to the keeper has this number. What goes over it passes.
CONTROL = 250

libc = ctypes.CDLL(None, use_errno=True)

# linux/bpf_common.h, linux/seccomp.h, linux/audit.h
LOAD, JUMP_EQUAL, JUMP, AND, RETURN = 0x20, 0x15, 0x05, 0x54, 0x06
ALLOW, NOTIFY, REFUSE = 0x7FFF0000, 0x7FC00000, 0x00050000
SECCOMP_CALL = {"x86_64": 317}.get(MACHINE, 277)
SET_MODE_FILTER, NEW_LISTENER, WAIT_KILLABLE = 1, 8, 32
NO_NEW_PRIVS = 38
NOTIF, ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
RECEIVE, SEND = 0xC0502100, 0xC0182101
CONTINUE = 1
FIRST_ARGUMENT = 16


def filter_code() -> bytes:
    """The filter: every kind's calls wait for the keeper."""
    ends: list[tuple[int, int, int, int]] = []

    def op(code: int, value: int, yes: int = 0, no: int = 0) -> tuple[int, int, int, int]:
        return code, yes, no, value

    code = [op(LOAD, 4), op(JUMP_EQUAL, AUDIT[MACHINE], 1, 0), op(RETURN, ALLOW), op(LOAD, 0)]
    if (clone3 := number("clone3")) is not None:
        code += [op(JUMP_EQUAL, clone3, 0, 1), op(RETURN, REFUSE | errno.ENOSYS)]
    calls: dict[int, list[Where | None]] = {}
    for kind in KINDS.values():
        for name, where in kind.calls:
            if (found := number(name)) is not None:
                calls.setdefault(found, []).append(where)
    for found, conditions in calls.items():
        body = [op(LOAD, FIRST_ARGUMENT), op(JUMP_EQUAL, CONTROL, 0, 1), op(RETURN, ALLOW)]
        for where in conditions:
            if where is None:
                body.append(op(RETURN, NOTIFY))
                continue
            body += [op(LOAD, FIRST_ARGUMENT + 8 * where.argument), op(AND, where.bits)]
            body += [op(JUMP_EQUAL, where.equal, *((1, 0) if where.differs else (0, 1))), op(RETURN, NOTIFY)]
        body.append(op(RETURN, ALLOW))
        code += [op(JUMP_EQUAL, found, 0, len(body)), *body]
    code.append(op(RETURN, ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in [*code, *ends])


def put_up(control: socket.socket) -> None:
    """Put the gate up for this process and all that come of it; the listener goes over `control`."""
    code = filter_code()
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "could not give up new privileges")
    for flags in (NEW_LISTENER | WAIT_KILLABLE, NEW_LISTENER):
        listener = libc.syscall(SECCOMP_CALL, SET_MODE_FILTER, flags, program)
        if listener >= 0:
            break
    else:
        raise OSError(ctypes.get_errno(), "the kernel gives no listener for a seccomp filter: this needs Linux 5.5")
    socket.send_fds(control, [b"L"], [listener])
    os.close(listener)


@dataclass
class Fault:
    """The `n`-th call of `kind` fails with `error`, made by `who`: parent, children or all; for `spell` seconds those after it, too."""

    kind: str
    error: str
    who: str = "all"
    n: int = 1
    spell: float = 0.0


class Gate:
    """The keeper's side: answers for the calls of one program, whose process has the number `program`."""

    def __init__(self, listener: int, program: int) -> None:
        self.listener = listener
        self.program = program
        self.fault: Fault | None = None
        self.seen: Counter[tuple[str, str]] = Counter()
        self.counting = False
        self.met = 0
        self._until = 0.0
        self._kinds: dict[int, list[tuple[str, Where | None]]] = {}
        for kind in KINDS.values():
            for name, where in kind.calls:
                if (found := number(name)) is not None:
                    self._kinds.setdefault(found, []).append((kind.name, where))

    def fileno(self) -> int:
        return self.listener

    def arm(self, fault: Fault | None) -> None:
        """From now on calls are counted, and fail as `fault` says."""
        self.fault, self.met, self.counting, self._until = fault, 0, True, 0.0
        self.seen.clear()

    def disarm(self) -> None:
        self.fault, self.counting = None, False

    def answer(self) -> None:
        """Answer for one call that waits."""
        request = bytearray(NOTIF.size)
        try:
            fcntl.ioctl(self.listener, RECEIVE, request)
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.EINTR):
                return  # the caller has ended
            raise
        identity, task, _flags, call, _arch, _ip, *arguments = NOTIF.unpack(request)
        error = self._error(task, call, arguments) if self.counting else 0
        reply = bytearray(ANSWER.pack(identity, 0, -error, 0 if error else CONTINUE))
        try:
            fcntl.ioctl(self.listener, SEND, reply)
        except OSError as e:
            if e.errno != errno.ENOENT:
                raise

    def _error(self, task: int, call: int, arguments: list[int]) -> int:
        kind = next((name for name, where in self._kinds.get(call, ()) if holds(where, arguments)), None)
        if kind is None:
            return 0
        who = "parent" if self._process_of(task) == self.program else "children"
        self.seen[kind, who] += 1
        fault = self.fault
        if fault is None or kind != fault.kind or fault.who not in (who, "all"):
            return 0
        count = self.seen[kind, who] if fault.who == who else self.seen[kind, "parent"] + self.seen[kind, "children"]
        now = time.monotonic()
        if count == fault.n:
            self._until = now + fault.spell
        elif count < fault.n or now >= self._until:
            return 0
        self.met += 1
        return getattr(errno, fault.error)

    def _process_of(self, task: int) -> int:
        if task == self.program:
            return task
        return self.program if os.path.exists(f"/proc/{self.program}/task/{task}") else task


def holds(where: Where | None, arguments: list[int]) -> bool:
    if where is None:
        return True
    return ((arguments[where.argument] & where.bits) == where.equal) != where.differs
