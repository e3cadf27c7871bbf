"""Starting a fresh interpreter: the program itself, and what it is to import first.

Apart from `util`, which every child imports: most children start none.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from .. import PACKAGE
from ..run import alias
from .descriptors import above_stdio, mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["as_here", "helper_command_line", "importing", "interpreter_options", "run", "start_program"]


_EX_TEMPFAIL = getattr(os, "EX_TEMPFAIL", 1)
# What says that descriptors, memory, processes or room ran out.
_SHORT = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE, errno.ENOSPC)


def _inheritable_strays(keep: set[int]) -> list[int]:
    """Descriptors above 2 that an exec would hand on although nobody asked for it."""
    for listing in ("/proc/self/fd", "/dev/fd"):
        try:
            numbers = [int(name) for name in os.listdir(listing)]
            break
        except (OSError, ValueError):
            continue
    else:
        return []
    strays = []
    for number in numbers:
        if number > 2 and number not in keep:
            with suppress(OSError):  # the listing's own descriptor, closed by now
                if os.get_inheritable(number):
                    strays.append(number)
    return strays


def _goes_along(number: int) -> bool:
    """Whether a descriptor is open and would be handed on by an exec."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


@contextmanager
def _blocking(signals: set[int]) -> Iterator[None]:
    """Block signals in this thread, for a program that is started meanwhile and inherits that."""
    if not signals:
        yield
        return
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run(
    path: str | bytes,
    args: list[str | bytes],
    passfds: Iterable[int],
    *,
    blocked_signals: Iterable[int] = (),
    stderr: int | None = None,
) -> int:
    """Start a child, the fork server or the tracker: by `util.spawnv_passfds`, which a program may have replaced."""
    from ... import util

    if util.spawnv_passfds is util._spawnv_passfds:
        return start_program(path, args, passfds, blocked_signals=blocked_signals, stderr=stderr)
    with _blocking(set(blocked_signals)):
        return util.spawnv_passfds(path, args, list(passfds))


def _is_watched() -> bool:
    """Whether a debugger has put functions of its own where the standard package starts programs (pydevd does)."""
    for module, name in (("_posixsubprocess", "fork_exec"), ("subprocess", "_fork_exec")):
        function = getattr(sys.modules.get(module), name, len)
        if not isinstance(function, type(len)):
            return True
    return False


def start_program(
    path: str | bytes,
    args: Iterable[str | bytes],
    passfds: Iterable[int],
    *,
    blocked_signals: Iterable[int] = (),
    stderr: int | None = None,
) -> int:
    """Start program ``path`` and return its pid.

    The child has this process's environment, descriptors 0 to 2 and ``passfds``
    under the same numbers, and no other; ``stderr``, if given, is its descriptor 2.
    It begins with ``blocked_signals`` blocked on top of this thread's mask.
    """
    # A stream object may name a standard stream that the program has closed.
    wanted = [fd for fd in sorted(set(map(int, passfds))) if fd > 2 or mark(fd) is not None]
    argv = [os.fsencode(arg) for arg in args]
    if not hasattr(os, "posix_spawn") or _is_watched():
        with _blocking(set(blocked_signals)):
            return _start_by_subprocess(path, argv, wanted, stderr)
    strays = _inheritable_strays(set(wanted))
    if max((2, *strays, *wanted)) >= (os.sysconf("SC_OPEN_MAX") & 0x7FFFFFFF):
        # The C library takes no number above the limit, though descriptors from before it was lowered may have such.
        with _blocking(set(blocked_signals)):
            return _start_by_subprocess(path, argv, wanted, stderr)
    # A descriptor that is copied onto itself keeps its close-on-exec flag under
    # older C libraries; a detour over a scratch number clears it everywhere.
    scratch = above_stdio(os.open(os.devnull, os.O_RDONLY))
    try:
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_CLOSE, fd) for fd in strays]
        # Where a standard stream is missing, what the child opens first must not be taken for it.
        actions += [
            (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0)
            for fd in range(3)
            if fd not in wanted and not _goes_along(fd)
        ]
        for fd in wanted:
            if fd > 2 or not _goes_along(fd):
                actions += [(os.POSIX_SPAWN_DUP2, fd, scratch), (os.POSIX_SPAWN_DUP2, scratch, fd)]
        actions.append((os.POSIX_SPAWN_CLOSE, scratch))
        if stderr is not None:
            actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
        extra: dict[str, Any] = {}
        blocked = set(blocked_signals)
        if blocked:
            import signal

            extra["setsigmask"] = signal.pthread_sigmask(signal.SIG_BLOCK, ()) | blocked
        return os.posix_spawn(path, argv, os.environ, file_actions=actions, **extra)
    finally:
        os.close(scratch)


def _start_by_subprocess(path: str | bytes, argv: list[bytes], fds: list[int], own_stderr: int | None) -> int:
    """For the few platforms whose C library has no posix_spawn, and under debuggers."""
    from subprocess import DEVNULL, Popen

    stdin, stdout, stderr = (None if fd in fds or _goes_along(fd) else DEVNULL for fd in range(3))
    if own_stderr is not None:
        stderr = own_stderr
    started = Popen(
        argv, executable=path, pass_fds=fds, restore_signals=False, stdin=stdin, stdout=stdout, stderr=stderr
    )
    started.returncode = 0  # ours to wait for: not to be reaped or warned about there
    return started.pid


def as_here(argv: list[str | bytes]) -> list[str | bytes]:
    """A command line that a program's own function made, with ``multiprocessing`` meaning what it means here."""
    preamble = alias.preamble()
    # Not `in`: text and bytes do not compare under -bb.
    place = next((place for place, word in enumerate(argv[:-1], 1) if isinstance(word, str) and word == "-c"), None)
    if preamble and place is not None and preamble not in (program := os.fsdecode(argv[place])):
        argv = [*argv[:place], preamble + program, *argv[place + 1 :]]
    return argv


def interpreter_options() -> list[str]:
    """The options of this interpreter's command line that a child is to have, too.

    `subprocess` knows most of them.  What it leaves out, which differs from version to version, follows.
    """
    import subprocess

    known: list[str] = list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]
    if getattr(sys, "frozen", False):  # whose program takes no options of Python's
        return known
    there = {word.removeprefix("-X").partition("=")[0] for word in known}
    for name, value in sys._xoptions.items():
        if name not in there and name != "dev":  # which is handed on as a flag
            known += ["-X", name if value is True else f"{name}={value}"]
    # With -u nothing stands between the text and the descriptor.
    if "-u" not in known and isinstance(getattr(sys.__stdout__, "buffer", None), io.RawIOBase):
        known.append("-u")
    checks = getattr(sys.modules.get("_imp"), "check_hash_based_pycs", "default")
    if checks != "default":
        known += ["--check-hash-based-pycs", checks]
    return known


def importing(module: str, names: str) -> str:
    """Source that a child runs first to import ``names`` from our ``module``.

    Modules in the directory that the program happens to be in must not stand in for others: the search path of ``-c`` begins
    with that, the parent's need not.  Under -S, -I or -E, or after an editable install, the child may not find the
    package on its own until it is told the parent's sys.path; so the directory
    that holds it is offered as a last resort.  Where ``multiprocessing`` means us,
    it is to mean us there, too, and is named: there are programs that know the
    standard package's processes by their command lines.
    """
    preamble = alias.preamble()
    named = "multiprocessing" if preamble else PACKAGE
    package = PACKAGE.partition(".")[0]
    home = os.path.dirname(os.path.dirname(os.path.abspath(str(sys.modules[PACKAGE].__file__))))
    program = (
        f"if sys.path[:1] == ['']: del sys.path[0]\n"
        f"try:\n import {package}\n"
        f"except ModuleNotFoundError:\n sys.path.append({home!r})\n"
        f"{preamble}"
        f"from {named}.{module} import {names}\n"
    )
    # The exit code says that something was short, as it does from there on; `shortage` may be as little to be had as the rest.
    return (
        f"import sys\n"
        f"try:\n {program.rstrip().replace(chr(10), chr(10) + ' ')}\n"
        f"except (MemoryError, OSError, ImportError) as e:\n"
        f" sys.excepthook(type(e), e, e.__traceback__)\n"
        f" s = str(e)\n"
        f" sys.exit({_EX_TEMPFAIL} if isinstance(e, MemoryError) or getattr(e, 'errno', 0) in {_SHORT}"
        f" or 'ot allocate mem' in s or 'oo many open f' in s or 'map segment' in s else 1)\n"
    )


def helper_command_line(module: str, **numbers: int) -> list[str | bytes]:
    """The command line of a helper process that calls ``main(**numbers)`` of our ``module``.

    A frozen program has no ``-c``: it is told to be a helper in a way that its `freeze_support` understands.
    """
    from ... import spawn, util

    words = [f"{name}={number}" for name, number in numbers.items()]
    interpreter = spawn._interpreter()
    if getattr(sys, "frozen", False):
        return [interpreter, spawn._HELPER_MARK, module, *words]
    program = importing(module, "main") + f"main({', '.join(words)})"
    return [interpreter, *util._args_from_interpreter_flags(), "-c", program]
