"""The resource tracker, a process that removes shared memory that its users left behind.

Named resources outlive the processes that use them.  So the processes of a program
share one tracker, and report to it over a pipe which resources they made and
removed.  All of them hold the pipe's write end.  When the last process has ended,
also by a kill, the tracker reads end-of-file, removes the resources on its list,
and exits.  (This package's semaphores have no names, so they need no tracker.)

The protocol is the standard package's.  A message is one line, written in a single
call of at most 512 bytes, which POSIX does not interleave with other writes::

    REGISTER | UNREGISTER | PROBE  ':'  name  ':'  type
    {"cmd":"REGISTER","rtype":type,"base64_name":name in UTF-8 and URL-safe base 64}

The tracker reads both forms. The version of Python decides which form is written; names that do not fit into the first
form use the second form. Subclasses of `ResourceTracker` may have another tracker process, with more types and
commands: they override `launch`, `ensure_running` or `_ensure_running_and_write`, and every message goes through these
methods.

A write costs as much as the removal that it reports, so `unregister_later` keeps the reports of removed segments whose random names no
other segment has. They go with the next message, at the end of the process at the latest. If a process is killed before, they are lost. So a
process that keeps reports sends `PROBE:later:noop` before the first one. The tracker then ignores, at its own end, segments that do not exist.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import RLock, local
from warnings import warn
from weakref import ref

from ._impl.start.descriptors import HeldDescriptor, pipe
from .context import ManipleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ReentrantCallError", "ensure_running", "register", "unregister"]

# Bytes that the tracker reads at once: the size of a pipe.
_LONGEST_READ = 65536
# Seconds that the tracker waits when it has no memory for a read.
_PAUSE = 0.05
# Seconds that the tracker waits after each read.
_REST = 0.002
# No file has this device and inode.
_NO_FILE = (0, 0)
_LONGEST_MESSAGE = 512  # the least PIPE_BUF that POSIX allows
# The reports that `unregister_later` keeps at most; with another message they fit into the longest one.
_MOST_KEPT = 8
_LONGEST_NAME = 255  # bytes, of a name in the second form; no system allows more
# The name in the probe of a process that keeps reports.
_LATER = "later"
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _remove_shared_memory(name: str) -> None:
    from ._maniple import shm_unlink

    shm_unlink(name)


def cleanup_noop(name: str) -> None:
    """Raise RuntimeError: a resource of the type "noop" must not be left over."""
    raise RuntimeError(f"noop resource {name!r} should have been unregistered")


# type of resource -> function that removes a resource by its name
_CLEANUP_FUNCS: dict[str, Callable[[str], object]] = {
    "noop": cleanup_noop,
    "shared_memory": _remove_shared_memory,
}
if sys.version_info >= (3, 13):
    # For tests: has no effect outside the tracker.
    _CLEANUP_FUNCS["dummy"] = lambda name: None

# The package sets `preserve_fd` when it forks a child, which shares the tracker.  A
# child of any other fork closes the pipe, since it may outlive the program.
_fork_intent = local()


def _is_dead(problem: OSError) -> bool:
    """Return whether a write failed because the pipe has no reader or is closed.

    Other errors do not replace the tracker: a tracker that loses its writers removes resources that are in use.
    """
    return problem.errno in (errno.EPIPE, errno.EBADF)


def _encode(cmd: str, name: str, rtype: str, simple: bool) -> bytes:
    if simple and name.isascii() and "\n" not in name:
        message = f"{cmd}:{name}:{rtype}\n".encode("ascii")
        if len(message) > _LONGEST_MESSAGE:
            raise ValueError(f"msg too long: the name of a {rtype} is too long to be tracked")
        return message
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) > _LONGEST_NAME:
        raise ValueError(f"{rtype.replace('_', ' ')} name too long (max {_LONGEST_NAME} bytes)")
    from binascii import b2a_base64

    coded = b2a_base64(raw, newline=False).translate(_URL_SAFE).decode("ascii")
    return _as_json({"cmd": cmd, "rtype": rtype, "base64_name": coded})


def _as_json(fields: dict[str, str]) -> bytes:
    if all(
        text.isascii() and text.replace("_", "").replace("-", "").replace("=", "").isalnum() for text in fields.values()
    ):
        # The import of json would take longer than the rest of this call.
        content = ",".join(f'"{key}":"{text}"' for key, text in fields.items())
        return f"{{{content}}}\n".encode("ascii")
    import json

    return (json.dumps(fields, separators=(",", ":")) + "\n").encode("ascii")


def _decode_message(line: bytes) -> tuple[str, str, str]:
    """Return the command, the type and the name of a line in either form."""
    if not line.startswith(b"{"):
        cmd, _, rest = line.strip().decode("ascii").partition(":")
        name, _, rtype = rest.rpartition(":")
        return cmd, rtype, name
    import json
    from base64 import urlsafe_b64decode

    try:
        told = json.loads(line)
        cmd, rtype, coded = told["cmd"], told["rtype"], told.get("base64_name", "")
        return str(cmd), str(rtype), urlsafe_b64decode(coded).decode("utf-8", "surrogateescape")
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"malformed resource_tracker message: {line!r}") from problem


class ReentrantCallError(ManipleError, RuntimeError):
    """A call of the tracker interrupted another call in the same thread.

    This package never raises it, because it queues such a call; the class exists for programs that catch it.
    """


class ResourceTracker:
    """This process's access to the resource tracker, a process that removes resources that their users leave behind."""

    #: write end of the pipe
    _fd = HeldDescriptor()

    def __init__(self) -> None:
        self._lock: Any = RLock()
        # From the native module, which each spawned child would load otherwise: `Hold` (for the lock), `write_own`.
        self._hold: Any = None
        self._write_own: Any = None
        self._fd = None
        self._pid: int | None = None  # None if another process started the tracker
        #: former trackers that are not reaped yet
        self._left: list[int] = []
        self._exitcode: int | None = None
        self._waitpid_timed_out = False
        # Whether lines have the first form; the standard package's tests set it.
        self._use_simple_format = sys.version_info < (3, 15)
        # A finalizer may run in the thread that holds the lock and report a
        # resource: its message is queued, and the interrupted call writes it.
        self._reentrant_messages: deque[bytes] = deque()
        # The reports of `unregister_later`.
        self._kept: deque[bytes] = deque()
        # Whether the tracker knows that reports are kept.
        self._has_said_later = False
        self._busy = False
        # Whether the tracker was used: then a forked child has to reset this object.
        self._touched = False
        if hasattr(os, "register_at_fork"):
            _forget_after_fork(ref(self))

    # ------------------------------------------------------------ messages

    def register(self, name: str, rtype: str) -> None:
        """Make the tracker remove a resource when all its users have ended.

        Args:
            name: the name of the resource.
            rtype: the type of the resource, such as ``"shared_memory"``.
        """
        self._send("REGISTER", name, rtype)

    def unregister(self, name: str, rtype: str) -> None:
        """Make the tracker forget a resource: the caller has removed it, or keeps it."""
        self._send("UNREGISTER", name, rtype)

    def unregister_later(self, name: str, rtype: str) -> None:
        """As `unregister`, of a removed resource whose name no other resource gets: the message goes with the next one."""
        if type(self) is not ResourceTracker or "ensure_running" in self.__dict__ or self.__dict__["_fd"] is None:
            self.unregister(name, rtype)
            return
        if not self._has_said_later:
            self._ensure_running_and_write(self._probe(_LATER))
            self._has_said_later = True
        self._kept.append(_encode("UNREGISTER", name, rtype, self._use_simple_format))
        if len(self._kept) > _MOST_KEPT:
            self.send_kept()

    def send_kept(self) -> None:
        """Send the messages that `unregister_later` has kept."""
        if self._kept and self._fd is not None:
            self._ensure_running_and_write(b"")

    def _with_kept(self, message: bytes) -> bytes:
        # Another thread may send some of them. A message that is lost, because a signal handler raises, is missed by no process.
        kept: list[bytes] = []
        left = _LONGEST_MESSAGE - len(message)
        with suppress(IndexError):
            while len(self._kept[0]) <= left:
                kept.append(self._kept.popleft())
                left -= len(kept[-1])
        return b"".join(kept) + message if kept else message

    def _send(self, cmd: str, name: str, rtype: str) -> None:
        self._ensure_running_and_write(_encode(cmd, name, rtype, self._use_simple_format))

    def _ensure_running_and_write(self, msg: bytes | None = None) -> None:
        """Start the tracker unless it runs, and write the message to it unless that is None."""
        self._touched = True
        if msg is not None:
            # In older versions of Python messages are sent through `ensure_running`, which subclasses override.
            if type(self).ensure_running is not ResourceTracker.ensure_running or "ensure_running" in self.__dict__:
                self.ensure_running()
            self._reentrant_messages.append(msg)
        if self._hold is None:
            from ._maniple import Hold, write_own

            self._write_own, self._hold = write_own, Hold
        with self._hold(self._lock):
            if self._busy:  # a finalizer in the middle of another call: that call writes the message
                return
            self._busy = True
            try:
                if msg is None:
                    self._assure()
                messages, deliver = self._reentrant_messages, self._deliver
                while messages:
                    deliver(self._with_kept(messages.popleft()) if self._kept else messages.popleft())
            finally:
                self._busy = False

    def _assure(self) -> None:
        if self._fd is not None and not self._check_alive():
            self._teardown_dead_process()
        if self._fd is None:
            self._launch()

    def _deliver(self, message: bytes) -> None:
        if not message:
            return
        # Not `self._fd`, which calls a function of Python.
        if self.__dict__["_fd"] is not None:
            try:
                return self._write(message)
            except OSError as problem:
                if not _is_dead(problem):
                    raise
                self._teardown_dead_process()
        self._launch()
        self._write(message)

    def _write(self, msg: bytes) -> None:
        """Write one message to the tracker. An OSError of `_is_dead` means that it does not run."""
        fd, file = type(self)._fd.held(self)
        self._write_own(fd, file or _NO_FILE, msg)

    def _has_pipe(self) -> bool:
        return bool(type(self)._fd.is_there(self))

    # ------------------------------------------------------------ the tracker process

    def getfd(self) -> int:
        """Return the descriptor of a running tracker, which children inherit."""
        self.ensure_running()
        if self._fd is None:  # another thread has stopped the tracker since
            raise RuntimeError("the resource tracker is not running")
        return int(self._fd)

    def ensure_running(self) -> None:
        """Start the tracker unless it is running. If the tracker has died, start another, with a warning."""
        self._ensure_running_and_write()

    def _make_probe_message(self) -> bytes:
        return b"PROBE:0:noop\n" if self._use_simple_format else _as_json({"cmd": "PROBE", "rtype": "noop"})

    def _probe(self, name: str) -> bytes:
        return _encode("PROBE", name, "noop", self._use_simple_format)

    def _check_alive(self) -> bool:
        """Return whether the tracker still reads the pipe."""
        try:
            self._write(self._make_probe_message())
        except OSError as problem:
            return not _is_dead(problem)
        return True

    def _teardown_dead_process(self) -> None:
        """Reap a tracker that died, and warn. The resources on its list are no longer tracked.

        If the program has closed the pipe, the tracker may live: other processes hold the pipe. Then it is reaped later.
        """
        fd, pid = self._fd, self._pid
        if self._has_pipe():
            os.close(fd)
            if pid is not None:
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        elif pid is not None:
            self._left.append(pid)
        self._fd = self._pid = self._exitcode = None
        warn("resource_tracker: process died unexpectedly, relaunching.  Some resources might leak.", stacklevel=2)

    def _reap_former(self) -> None:
        for pid in self._left.copy():
            try:
                lives = os.waitpid(pid, os.WNOHANG) == (0, 0)
            except ChildProcessError:
                lives = False
            if not lives:
                self._left.remove(pid)

    def _launch(self) -> None:
        """Start a tracker, and keep the write end of its pipe."""
        from . import spawn
        from ._impl.start import launch

        self._reap_former()
        spawn._take_over_if_frozen()
        reader, writer = pipe()
        try:
            passed = [reader]
            with suppress(Exception):  # there is no stderr, or it is not a file
                passed.insert(0, sys.stderr.fileno())
            line = launch.helper_command_line("resource_tracker", fd=reader)
            # Blocked until main() ignores them, so that a Ctrl-C during the start does not end the tracker.
            pid = launch.run(
                line[0],
                line,
                passed,
                blocked_signals=_ignored_signals(),
            )
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        self._fd, self._pid = writer, pid
        self._has_said_later = False

    # ------------------------------------------------------------ end

    def _stop(self, use_blocking_lock: bool = True, wait_timeout: float | None = None) -> None:
        """Close the pipe of a tracker that this process started, and wait for the tracker's end."""
        if self._hold is None:  # this process has not used the tracker
            self._stop_locked(wait_timeout=wait_timeout)
            return
        with self._hold(self._lock, -1 if use_blocking_lock else 0) as held:
            if held:
                self._stop_locked(wait_timeout=wait_timeout)

    # Bound as defaults: the modules may be empty at the end of the interpreter.
    def _stop_locked(
        self,
        close: Callable[..., Any] = os.close,
        waitpid: Callable[..., Any] = os.waitpid,
        waitstatus_to_exitcode: Callable[..., int] = os.waitstatus_to_exitcode,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[..., None] = time.sleep,
        WNOHANG: int = getattr(os, "WNOHANG", 0),
        wait_timeout: float | None = None,
    ) -> None:
        pid, fd = self._pid, self._fd
        if pid is None or fd is None:
            return
        owned = self._has_pipe()
        if owned and self._kept:
            with suppress(OSError):
                self._write(self._with_kept(b""))
        self._pid = self._fd = None
        if not owned:
            return  # the program has closed the pipe; the tracker lives as long as other processes hold it
        close(fd)
        # Another process that holds the pipe keeps the tracker running. The
        # deadline keeps that from blocking this process.
        deadline = None if wait_timeout is None else monotonic() + wait_timeout
        try:
            while True:
                got, status = waitpid(pid, 0 if deadline is None else WNOHANG)
                if got:
                    self._exitcode = waitstatus_to_exitcode(status)
                    return
                if deadline is not None and monotonic() >= deadline:
                    self._waitpid_timed_out = True
                    return
                sleep(0.002)
        except ChildProcessError:
            pass

    def __del__(self) -> None:
        try:
            self._stop(use_blocking_lock=False, wait_timeout=1.0)
        except (OSError, AttributeError, TypeError, RuntimeError):
            pass  # the interpreter is shutting down (RuntimeError: gevent's sleep)

    def _after_fork_in_child(self) -> None:
        """Close the pipe of the parent's tracker, unless the fork made a child that shares it."""
        self._lock._at_fork_reinit()
        self._busy = False
        self._reentrant_messages.clear()
        self._kept.clear()
        # The trackers are not children of this process.
        self._left.clear()
        fd, self._pid = self._fd, None
        if fd is not None and not getattr(_fork_intent, "preserve_fd", False):
            owned = self._has_pipe()
            self._fd = None
            if owned:
                os.close(fd)


def _forget_after_fork(tracker_ref: ref[ResourceTracker]) -> None:
    def hook() -> None:
        tracker = tracker_ref()
        if tracker is None:
            return
        own = tracker.__dict__
        if own["_touched"] or own["_fd"] is not None:
            tracker._after_fork_in_child()
        else:  # there is nothing to reset, so the child starts faster
            tracker._lock._at_fork_reinit()

    os.register_at_fork(after_in_child=hook)


def __getattr__(name: str) -> object:
    # The standard module imports both at its top. The tracker process does not need them.
    if name in ("spawn", "util"):
        return importlib.import_module(f".{name}", __package__)
    if name.startswith("__"):  # the import system looks up several
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ._impl.compat.imported_names import find

    return find(__name__, name)


_resource_tracker: ResourceTracker = ResourceTracker()
ensure_running, register, unregister, getfd = (
    _resource_tracker.ensure_running,
    _resource_tracker.register,
    _resource_tracker.unregister,
    _resource_tracker.getfd,
)
_own_unregister = unregister


def unregister_later(name: str, rtype: str) -> None:
    """As `unregister`, of a removed resource whose name no other resource gets."""
    # Programs replace `unregister` by functions that do not track some types.
    (_resource_tracker.unregister_later if unregister is _own_unregister else unregister)(name, rtype)


# ---------------------------------------------------------------- in the tracker process


def _ignored_signals() -> tuple[int, ...]:
    """Return the signals that the tracker ignores: it outlives the processes that Ctrl-C or a closed terminal ends."""
    import signal  # late: children that only report to a tracker do not need it

    return signal.SIGINT, signal.SIGTERM


def main(fd: int) -> None:
    """Run the tracker that reads its messages from the descriptor `fd`, and exit.

    The exit status is 0 if no resource was left over, 1 if a resource was, 2 if a removal failed, and 3 if a message
    was invalid.
    """
    import signal

    ignored = _ignored_signals()
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored)
    _leave_standard_streams()
    listed: dict[str, set[str]] = {rtype: set() for rtype in _CLEANUP_FUNCS}
    status = 0
    may_lack_reports = False
    try:
        with open(fd, "rb", 0) as pipe:
            for line in _lines(pipe):
                try:
                    may_lack_reports |= _note(line, listed)
                except Exception as problem:
                    status = 3
                    _report(problem)
    finally:
        for rtype, names in listed.items():
            if rtype == "shared_memory" and may_lack_reports:
                names = set(filter(_exists, names))
            if names:
                status = max(status, _remove_leftovers(rtype, sorted(names)))
    with suppress(Exception):  # stderr may be gone
        sys.stderr.flush()
    # The program waits for this process, and the interpreter's end would do no work here.
    os._exit(status)


def _lines(pipe: Any) -> Iterator[bytes]:
    """Yield the lines of the pipe until its last writer has closed it.

    A shortage of memory does not end the loop: the tracker would remove resources that are in use.
    """
    begun = b""
    while True:
        try:
            part = pipe.read(_LONGEST_READ)
        except OSError as problem:
            if problem.errno != errno.ENOMEM:
                raise
            time.sleep(_PAUSE)
            continue
        if not part:
            break
        *whole, begun = (begun + part).split(b"\n")
        yield from whole
        # More lines may follow. A write takes a third of the time if it does not wake this process.
        time.sleep(_REST)
    if begun:
        yield begun


def _leave_standard_streams() -> None:
    """Replace stdin and stdout by the null device; stderr stays for warnings."""
    with suppress(OSError):
        empty = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):
            os.dup2(empty, stream)
        if empty > 2:
            os.close(empty)


def _note(line: bytes, listed: dict[str, set[str]]) -> bool:
    """Change the list as the line says, and return whether its writer keeps reports, which its death may lose."""
    command, rtype, name = _decode_message(line)
    if rtype not in _CLEANUP_FUNCS:
        raise ValueError(f"cannot track {name!r}: unknown resource type {rtype!r}")
    if command == "REGISTER":
        listed[rtype].add(name)
    elif command == "UNREGISTER":
        listed[rtype].discard(name)  # two processes may both have removed it
    elif command != "PROBE":
        raise RuntimeError(f"unrecognized command {command!r}")
    return command == "PROBE" and name == _LATER


def _report(problem: Exception) -> None:
    with suppress(Exception):  # stderr may be gone
        sys.excepthook(type(problem), problem, problem.__traceback__)


def _warn(text: str) -> None:
    with suppress(Exception):
        warn(f"resource_tracker: {text}", stacklevel=2)


def _exists(name: str) -> bool:
    """Return whether there is shared memory of this name. A killed process may not have sent that it has removed it."""
    from ._maniple import shm_open

    try:
        os.close(shm_open(name, os.O_RDONLY, 0))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _remove_leftovers(rtype: str, names: list[str]) -> int:
    """Remove the remaining resources of one type, and return the exit status: 1, or 2 if a removal failed."""
    remove, status = _CLEANUP_FUNCS[rtype], 1
    _warn(f"There appear to be {len(names)} leaked {rtype} objects to clean up at shutdown: {names}")
    for name in names:
        try:
            remove(name)
        except Exception as problem:
            status = 2
            _warn(f"{name!r}: {problem}")
    return status
