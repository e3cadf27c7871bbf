"""The start of a fresh interpreter: `posix_spawn`, its command line, and the code that it runs first.

Helper processes and spawned children are started with `os.posix_spawn`:

* it is public, where the C helper behind `subprocess` changes its signature between patch releases;
* the C library runs it with vfork semantics, so the cost does not grow with the size of the parent, and no Python code runs between
  fork and exec, so threads in the parent do no harm (and Python 3.12+ does not warn);
* the call also sets the signal mask of the child, so a helper that must never receive Ctrl-C is safe from its first instruction.

The module is separate from `util`, which every child imports, because most children start no interpreter.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from .. import PACKAGE
from ..run import alias
from .descriptors import EX_TEMPFAIL as _EX_TEMPFAIL
from .descriptors import above_stdio, call_into, mark

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["as_here", "helper_command_line", "importing", "interpreter_options", "run", "start_program"]


#: attempts at an import that signals interrupt
_MOST = 99
# The error numbers of a lack of descriptors, memory, processes or space.
_SHORT = (errno.EAGAIN, errno.ENOMEM, errno.ENFILE, errno.EMFILE, errno.ENOSPC)


def _inheritable_strays(keep: set[int]) -> list[int]:
    """Return the inheritable descriptors above 2 that are not in `keep`."""
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
            with suppress(OSError):  # the descriptor of the listing itself is closed by now
                if os.get_inheritable(number):
                    strays.append(number)
    return strays


def _goes_along(number: int) -> bool:
    """Return whether a descriptor is open and inheritable."""
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


@contextmanager
def _blocking(signals: set[int]) -> Iterator[None]:
    """Block signals in this thread during the block; a program that is started in it inherits the mask."""
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
    started: list[int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Start a child, the fork server or the tracker; if the program has replaced `util.spawnv_passfds`, by that.

    The pid is appended to ``started``, also if a signal handler then raises.
    """
    from ... import util

    started = [] if started is None else started
    if util.spawnv_passfds is util._spawnv_passfds:
        return start_program(
            path,
            args,
            passfds,
            blocked_signals=blocked_signals,
            stderr=stderr,
            started=started,
            environment=environment,
        )
    with _blocking(set(blocked_signals)):
        call_into(started, util.spawnv_passfds, path, args, list(passfds))
        return started[0]


def _is_watched() -> bool:
    """Return whether a debugger (pydevd) has replaced the functions by which the standard package starts programs."""
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
    started: list[int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Start program ``path`` and return its pid, which is appended to ``started``, too.

    The child has this process's environment or ``environment``, descriptors 0 to 2 and ``passfds``
    under the same numbers, and no other; ``stderr``, if given, is its descriptor 2.
    It begins with ``blocked_signals`` blocked on top of this thread's mask.
    """
    started = [] if started is None else started
    # A stream object may name a standard stream that the program has closed.
    wanted = [fd for fd in sorted(set(map(int, passfds))) if fd > 2 or mark(fd) is not None]
    argv = [os.fsencode(arg) for arg in args]
    if not hasattr(os, "posix_spawn") or _is_watched():
        with _blocking(set(blocked_signals)):
            call_into(started, _start_by_subprocess, path, argv, wanted, stderr, environment)
            return started[0]
    strays = _inheritable_strays(set(wanted))
    if max((2, *strays, *wanted)) >= (os.sysconf("SC_OPEN_MAX") & 0x7FFFFFFF):
        # The C library rejects numbers above the limit. Descriptors have such numbers if the limit was lowered later.
        with _blocking(set(blocked_signals)):
            call_into(started, _start_by_subprocess, path, argv, wanted, stderr, environment)
            return started[0]
    # A descriptor that is copied onto itself keeps its close-on-exec flag under older C libraries; a detour over a
    # scratch number clears it everywhere.
    scratch = above_stdio(os.open(os.devnull, os.O_RDONLY))
    try:
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_CLOSE, fd) for fd in strays]
        # If a standard stream is closed, the child gets the null device, so that none of its files gets that number.
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
        variables = os.environ if environment is None else environment
        call_into(started, os.posix_spawn, path, argv, variables, file_actions=actions, **extra)
        return started[0]
    finally:
        os.close(scratch)


def _start_by_subprocess(
    path: str | bytes, argv: list[bytes], fds: list[int], own_stderr: int | None, environment: Mapping[str, str] | None
) -> int:
    """Start a program by `subprocess`: on systems without posix_spawn, and under debuggers."""
    from subprocess import DEVNULL, Popen

    stdin, stdout, stderr = (None if fd in fds or _goes_along(fd) else DEVNULL for fd in range(3))
    if own_stderr is not None:
        stderr = own_stderr
    started = Popen(
        argv,
        executable=path,
        pass_fds=fds,
        restore_signals=False,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
    )
    started.returncode = 0  # this package reaps the process: `subprocess` must neither reap it nor warn
    return started.pid


def as_here(argv: list[str | bytes]) -> list[str | bytes]:
    """Return a command line that the program made, with the preamble that makes ``multiprocessing`` mean the same
    module as here."""
    preamble = alias.preamble()
    # Not `in`: text and bytes do not compare under -bb.
    place = next((place for place, word in enumerate(argv[:-1], 1) if isinstance(word, str) and word == "-c"), None)
    if preamble and place is not None and preamble not in (program := os.fsdecode(argv[place])):
        argv = [*argv[:place], preamble + program, *argv[place + 1 :]]
    return argv


def interpreter_options() -> list[str]:
    """Return the options of this interpreter's command line that a child receives, too.

    `subprocess` returns most of them.  The function adds those that it omits, which differ between versions.
    """
    import subprocess

    known: list[str] = list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]
    if getattr(sys, "frozen", False):  # a frozen program accepts no options of Python
        return known
    there = {word.removeprefix("-X").partition("=")[0] for word in known}
    for name, value in sys._xoptions.items():
        if name not in there and name != "dev":  # `subprocess` passes "dev" on as a flag
            known += ["-X", name if value is True else f"{name}={value}"]
    # With -u the text layer writes directly to the descriptor.
    if "-u" not in known and isinstance(getattr(sys.__stdout__, "buffer", None), io.RawIOBase):
        known.append("-u")
    checks = getattr(sys.modules.get("_imp"), "check_hash_based_pycs", "default")
    if checks != "default":
        known += ["--check-hash-based-pycs", checks]
    return known


def importing(module: str, names: str) -> str:
    """Return the source that a child runs first, which imports ``names`` from the ``module`` of this package.

    The search path of ``-c`` begins with the current directory, and the parent's may not: the source removes that entry, so that
    files there do not replace other modules.  Under -S, -I or -E, or after an editable install, the child may not find the package
    before it receives the parent's `sys.path`, so the source appends the package's directory if the import fails.  If
    ``multiprocessing`` means this package here, the source makes it so in the child, and uses that name: some programs
    recognize the standard package's processes by their command lines.
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
    # The exit code reports a shortage, as in `spawn`. The source cannot use `shortage`, whose import may fail as well.
    return (
        f"import sys\n"
        f"for s in range({_MOST}):\n"
        f" try:\n  {program.rstrip().replace(chr(10), chr(10) + '  ')}\n  break\n"
        f" except (MemoryError, OSError, ImportError) as e:\n"
        # The interpreter does not retry an interrupted listing of a folder of the search path. The program has not
        # begun.
        f"  if isinstance(e, InterruptedError) and s < {_MOST - 1}: continue\n"
        f"  sys.excepthook(type(e), e, e.__traceback__)\n"
        f"  s = str(e)\n"
        f"  sys.exit({_EX_TEMPFAIL} if isinstance(e, MemoryError) or getattr(e, 'errno', 0) in {_SHORT}"
        f" or 'ot allocate mem' in s or 'oo many open f' in s or 'map segment' in s else 1)\n"
    )


def helper_command_line(module: str, **numbers: int) -> list[str | bytes]:
    """Return the command line of a helper process that calls ``main(**numbers)`` of the ``module`` of this package.

    A frozen program has no ``-c``: its command line has a mark that `freeze_support` recognizes.
    """
    from ... import spawn, util

    words = [f"{name}={number}" for name, number in numbers.items()]
    interpreter = spawn._interpreter()
    if getattr(sys, "frozen", False):
        return [interpreter, spawn._HELPER_MARK, module, *words]
    program = importing(module, "main") + f"main({', '.join(words)})"
    return [interpreter, *util._args_from_interpreter_flags(), "-c", program]
