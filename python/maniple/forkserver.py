"""The fork server: a process without threads and without state, forked for each child.

The first `ensure_running` starts the server as a fresh interpreter.  The server
imports the modules of `set_forkserver_preload` (by default the program's main
module) and waits.  The client connects to its socket once, and both sides prove
that they have the server's key.  After that each message on this connection
requests one child, and consists of descriptors:

    data pipe (read end), status pipe (write end), alive pipe, resource tracker, the child's descriptors …

The server forks, and writes the child's pid, and later its exit code, into the
status pipe.  The child reads its preparation data and its process object from the
data pipe, as in `maniple.spawn`.  If the server lacks descriptors, memory or
processes, it writes the error's number to the connection, closes the status pipe,
and continues.

The client and all children of the server hold the write end of the "alive" pipe.
The server ends when all of them have closed it.  It ignores SIGINT: Ctrl-C ends
the program's processes, and the server still reports their exit codes.
"""

from __future__ import annotations

import atexit
import errno
import os
import select
import signal
import socket as net
import sys
from _pickle import dumps, loads
from collections.abc import Callable, Iterable
from contextlib import suppress
from struct import Struct
from threading import Lock, get_ident
from time import monotonic, sleep

from . import connection, popen_fork, process, resource_tracker, spawn, util  # noqa: F401
from ._impl.compat import public_module
from ._impl.start import launch
from ._impl.start import preload as _preload
from ._impl.start.descriptors import HeldDescriptor, Mark, mark, patiently, pipe, socket_above
from ._impl.start.preload import preload_all as _handle_preload
from ._impl.transport.polling import new_poller
from ._maniple import Hold, SoftLimits, discard_children, get_in
from .context import AuthenticationError as AuthenticationError
from .context import reduction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ensure_running", "get_inherited_fds", "connect_to_new_process", "set_forkserver_preload"]

# Linux refuses more than 253 descriptors in one message.
MAXFDS_TO_SEND: int = 256
SIGNED_STRUCT = Struct("q")
_AUTHKEY_LEN = 32
# Milliseconds after which a client that waits for an answer checks whether the server still runs.
_LOOK = 1000
# Seconds after which a server that has closed its connections has ended.
_ENDING = 0.5
_ON_ERROR = ("ignore", "warn", "fail")
# The standard package always lists the main module here, but before 3.13.10 its server does not import it (a defect).
_PRELOADED = ["__main__"] if sys.version_info >= (3, 13, 10) else []


# ---------------------------------------------------------------- client


def explain(problem: BaseException) -> None:
    """Add a note with the likely cause to an error of the connection to the server."""
    if isinstance(problem, (EOFError, ConnectionError)):
        problem.add_note("Forkserver process may have crashed or exited early: see what it wrote to stderr.")
        if getattr(sys, "frozen", False):
            problem.add_note("A frozen program has to call freeze_support() before it reads its arguments.")


class _Pipe:
    """A pipe; the ends that are in `to_close` are closed at the end of the block."""

    def __enter__(self) -> _Pipe:
        self.r, self.w = pipe()
        self.to_close = {self.r, self.w}
        return self

    def __exit__(self, *exc_info: object) -> None:
        util.close_fds(*self.to_close)


def _has_data(fd: int, lives: Callable[[], bool]) -> bool:
    """Wait until a pipe has data or is closed, or the server has ended; return whether there is data."""
    poller = new_poller()
    poller.register(fd, select.POLLIN)
    alive = True
    # The end of the server need not close the pipe: a child that another thread forks at the moment may hold the other end.
    while not (found := patiently(poller.poll, _LOOK if alive else 0)) and alive:
        alive = lives()
    return any(flags & select.POLLIN for _, flags in found)


class ForkServer:
    """This process's access to its fork server."""

    _forkserver_alive_fd = HeldDescriptor()

    def __init__(self) -> None:
        self._lock: Any = Lock()
        self._holder: int | None = None  # the thread that makes a request
        self._forkserver_pid: int | None = None
        self._forkserver_address: Any = None
        self._forkserver_alive_fd = None
        self._forkserver_authkey: bytes | None = None
        self._owner: int | None = None  # pid of the process whose child the server is
        self._line: net.socket | None = None  # the authenticated connection to the server
        self._line_key: bytes | None = None  # the key that authenticated it
        self._line_file: Mark = None
        self._inherited_fds: list[int] | None = None
        self._preload_modules = _PRELOADED
        self._preload_on_error = "ignore"
        util.register_after_fork(self, type(self)._after_fork)

    def set_forkserver_preload(self, modules_names: list[str], *, on_error: str = "ignore") -> None:
        """Set the modules that the server imports before it forks the first child.

        Args:
            modules_names: the names of the modules, a list of str.
            on_error: what a failed import does: ``'ignore'``, ``'warn'`` (on standard error) or ``'fail'`` (ends the server).
        """
        if not all(type(name) is str for name in modules_names):
            raise TypeError("module_names must be a list of strings")
        if on_error not in _ON_ERROR:
            raise ValueError(f"on_error must be 'ignore', 'warn', or 'fail', not {on_error!r}")
        self._preload_modules = list(modules_names)
        self._preload_on_error = on_error

    def get_inherited_fds(self) -> list[int] | None:
        """In a child of the server, return the descriptors that were sent for it, in order; elsewhere None."""
        return self._inherited_fds

    def connect_to_new_process(self, fds: list[int]) -> tuple[int, int]:
        """Make the server fork a child that receives the descriptors `fds`.

        Returns:
            The read end of the status pipe (process id, then exit code) and the write end of the data pipe.

        Raises:
            OSError: the server cannot fork.
            ValueError: there are too many descriptors.
        """
        ends: list[int] = []
        self._connect(fds, ends)
        return ends[0], ends[1]

    def _connect(self, fds: list[int], ends: list[int]) -> None:
        """Do what `connect_to_new_process` does, and append the pipes' ends to `ends`; they are there also if a signal handler raises."""
        if (count := len(fds) + 4) >= MAXFDS_TO_SEND:
            raise ValueError(f"too many fds: a child can be sent {MAXFDS_TO_SEND - 5}, not {count - 4}")
        me = get_ident()
        for last_try in (False, True):
            try:
                if self._holder == me:
                    self._request_apart(fds, ends)
                    return
                with Hold(self._lock):
                    # No signal handler runs before this step, nor between the last step and the lock's release.
                    self._holder = me
                    try:
                        self._assure()
                        self._request(self._known_line(), fds, ends)
                    finally:
                        self._holder = None
                return
            except (EOFError, ConnectionError) as problem:
                while ends:
                    os.close(ends.pop())
                # A server that was killed is replaced. A server that exited by
                # itself before it was ready is not.
                ended = self._how_it_ended()
                if ended == os.EX_TEMPFAIL:
                    why = "the fork server had too few resources to start; its standard error names them"
                    raise OSError(errno.EAGAIN, why) from problem
                if last_try or ended is None or ended >= 0:
                    explain(problem)
                    raise
        raise AssertionError("not reached")

    def _request_apart(self, fds: list[int], ends: list[int]) -> None:
        """Make a request over a separate connection, in a signal handler that has interrupted a request of this
        thread."""
        if self._forkserver_address is None:
            raise RuntimeError(
                "a signal handler cannot start a process while the thread that it interrupts starts the fork server; "
                "call forkserver.ensure_running() before the handler is set"
            )
        line, _, _ = self._new_line()
        try:
            self._request(line, fds, ends)
        finally:
            line.close()

    def _request(self, line: net.socket, fds: list[int], ends: list[int]) -> None:
        if self._owner == os.getpid() and self._forkserver_pid is not None:
            # The child has the server's limits, and this program's may have been raised since the server began.
            self._limits.lend(self._forkserver_pid)
        with _Pipe() as data, _Pipe() as status:
            try:
                alive: Any = self._forkserver_alive_fd
                reduction.sendfds(line, [data.r, status.w, alive, resource_tracker.getfd(), *fds])
            except BaseException:
                self._give_up(line)  # a part of the message may have been sent
                raise
            # No signal handler runs between these steps, none of which is a call.
            status.to_close, data.to_close = {status.w}, {data.r}
            ends += [status.r, data.w]
        # A request to a server that is being killed is lost without an error.  The
        # caller may repeat it: a child that was forked nevertheless has received
        # nothing, and ends when it finds the data pipe closed.
        if not _has_data(ends[0], self._lives):
            number = self._refusal(line)
            if number:
                raise OSError(number, f"the fork server could not fork: {os.strerror(number)}")
            self._give_up(line)
            raise EOFError("the fork server did not answer")

    def _refusal(self, line: net.socket) -> int:
        """Return the error number that the server sent for a request; 0 if it has closed the connection or ended."""
        with suppress(ConnectionError, EOFError):
            if _has_data(line.fileno(), self._lives):
                return read_signed(line.fileno())
        return 0

    def _known_line(self) -> net.socket:
        """Return the authenticated connection to the server; connect if there is none."""
        if (
            self._line is None
            or self._line_key != self._forkserver_authkey
            or mark(self._line.fileno()) != self._line_file
        ):
            line, key, file = self._new_line()
            self._hang_up()
            self._line, self._line_key, self._line_file = line, key, file
            # An open socket at the end of the interpreter would cause a ResourceWarning.
            atexit.unregister(self._hang_up)
            atexit.register(self._hang_up)
        return self._line

    def _new_line(self) -> tuple[net.socket, bytes, Mark]:
        """Return a new authenticated connection to the server, the key that authenticated it, and the identity of its file."""
        key: Any = self._forkserver_authkey
        line = socket_above(net.socket(net.AF_UNIX))
        try:
            line.settimeout(None)  # the program may have set a default
            line.connect(self._forkserver_address)
            get_in(line.fileno(), key)
        except BaseException as problem:
            line.close()
            if isinstance(problem, EOFError) and not self._is_ending():
                raise OSError(errno.EMFILE, "the fork server has too few resources for another client") from problem
            raise
        return line, key, mark(line.fileno())

    def _give_up(self, line: net.socket) -> None:
        """Close a connection on which a request failed."""
        if line is self._line:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._line is not None:
            if mark(self._line.fileno()) == self._line_file:
                self._line.close()
            else:
                self._line.detach()  # the program has opened another file under the number
            self._line = None

    def _how_it_ended(self) -> int | None:
        """Return the server's exit code, or minus the signal that ended it; None if it runs, or is not a child of this process.

        The call waits up to a second for the server's end.
        """
        if self._holder == get_ident():  # a signal handler, in the middle of a request
            return None
        with Hold(self._lock):
            pid = self._forkserver_pid
            if pid is None or self._owner != os.getpid():
                return None
            sentinel = popen_fork._watch(pid) if popen_fork._have_pidfds() else None
            if sentinel is not None:
                connection.wait([sentinel], 1.0)
                os.close(sentinel)
            gone, status = pid, int(signal.SIGKILL)
            with suppress(ChildProcessError):
                gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                self._forget()
            return os.waitstatus_to_exitcode(status) if gone else None

    def ensure_running(self) -> None:
        """Start the server unless it is running.

        Programs need not call it. A good time to call it is before the program starts threads and uses much memory.
        """
        if self._holder == get_ident():  # a signal handler, in the middle of a request
            return
        with Hold(self._lock):
            self._assure()

    def _assure(self) -> None:
        resource_tracker.getfd()
        # A program that closes all descriptors closes the alive pipe, which ends the server.
        if self._owner is not None and not (self._lives() and ForkServer._forkserver_alive_fd.is_there(self)):
            self._forget()
        if self._owner is None:
            self._launch()

    def _lives(self) -> bool:
        """Return whether the server runs and is a child of this process (a fork copies this object)."""
        if self._owner != os.getpid() or self._forkserver_pid is None:
            return False
        with suppress(ChildProcessError):  # the program has reaped it
            return os.waitpid(self._forkserver_pid, os.WNOHANG) == (0, 0)
        return False

    def _is_ending(self) -> bool:
        """Return whether the server, which has closed the connection, ends within `_ENDING` seconds. The call does not reap it."""
        if self._owner != os.getpid() or self._forkserver_pid is None:
            return True
        until = monotonic() + _ENDING
        with suppress(ChildProcessError):  # the program has reaped it
            while os.waitid(os.P_PID, self._forkserver_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if monotonic() > until:
                    return False
                sleep(0.01)
        return True

    def _launch(self) -> None:
        address = connection.arbitrary_address("AF_UNIX")
        key, setting = os.urandom(_AUTHKEY_LEN), self._setting()
        with socket_above(net.socket(net.AF_UNIX)) as listening, _Pipe() as alive, _Pipe() as secret:
            listening.bind(address)
            if isinstance(address, str) and os.path.exists(address):
                os.chmod(address, 0o600)  # an abstract address has no file
            listening.listen(128)
            numbers = {"listener_fd": listening.fileno(), "alive_r": alive.r, "authkey_r": secret.r}
            argv = launch.helper_command_line("forkserver", **numbers)
            self._limits = SoftLimits()
            pid = launch.run(argv[0], argv, list(numbers.values()), blocked_signals={signal.SIGINT})
            try:
                with suppress(BrokenPipeError):  # the server has ended: the first request raises the error
                    _write_setting(secret.w, key, setting)
            except BaseException:
                discard_children([pid])
                raise
            self._forkserver_alive_fd, alive.to_close = alive.w, {alive.r}
        self._forkserver_address, self._forkserver_authkey = address, key
        self._forkserver_pid, self._owner = pid, os.getpid()

    def _setting(self) -> dict[str, Any]:
        """Return the modules that the server imports, and the main module and search path for these imports.

        The server reads it from the pipe, after the key: it may be too long for an argument of a command line.
        """
        setting: dict[str, Any] = {"preload": self._preload_modules, "on_error": self._preload_on_error}
        if self._preload_modules:
            told = spawn.get_preparation_data("ignore")
            setting.update(
                sys_path=told["sys_path"],
                sys_argv=told["sys_argv"],
                main_path=told.get("init_main_from_path"),
                main_name=told.get("init_main_from_name"),
            )
        return setting

    # ------------------------------------------------------------ end

    def _stop(self) -> None:
        """Close the connection and the alive pipe, and wait for the server's end."""
        with Hold(self._lock):
            self._stop_unlocked()

    def _stop_unlocked(self) -> None:
        pid, mine = self._forkserver_pid, self._owner == os.getpid()
        if pid is not None:
            self._forget()
            if mine:
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _forget(self) -> None:
        """Close and clear the state of a server that has ended, or that is a child of another process."""
        address, mine = self._forkserver_address, self._owner == os.getpid()
        self._hang_up()
        if ForkServer._forkserver_alive_fd.is_there(self):
            os.close(self._forkserver_alive_fd)
        if mine and not util.is_abstract_socket_namespace(address):
            with suppress(OSError):
                os.unlink(address)
        self._forkserver_address = self._forkserver_alive_fd = None
        self._forkserver_authkey = self._forkserver_pid = self._owner = None

    def _after_fork(self) -> None:
        self._lock._at_fork_reinit()
        self._holder = None
        if self._owner is not None:
            self._forget()


# ---------------------------------------------------------------- server


def _write_setting(target: int, key: bytes, setting: dict[str, Any]) -> None:
    """Write the key, as CPython does, and then the setting as one message."""
    os.write(target, key)  # a pipe accepts so few bytes as a whole
    line: connection.Connection = connection.Connection(target, readable=False)
    try:
        line.send_bytes(dumps(setting))
    finally:
        line._detach()


def _read_setting(source: int) -> tuple[bytes, dict[str, Any]]:
    """Read the key and the setting that `_write_setting` wrote from a descriptor, and close it."""
    with connection.Connection(source, writable=False) as line:
        key = os.read(source, _AUTHKEY_LEN)
        try:
            return key, loads(line.recv_bytes())
        except EOFError:
            raise SystemExit(0) from None  # the client has ended


def main(
    listener_fd: int,
    alive_r: int,
    preload: Iterable[str] = (),
    main_path: str | None = None,
    sys_path: list[str] | None = None,
    *,
    sys_argv: list[str] | None = None,
    authkey_r: int | None = None,
    on_error: str = "ignore",
) -> None:
    """Run the fork server that listens on the socket `listener_fd`."""
    from ._impl.start.fork_server import (
        Server,  # late, for clients; early here, before a preloaded module replaces functions
    )

    saved: dict[int, Any] = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    beginning = _preload.Beginning(saved[signal.SIGINT])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    key = b""
    setting: dict[str, Any] = {
        "preload": preload,
        "main_path": main_path,
        "sys_path": sys_path,
        "sys_argv": sys_argv,
        "on_error": on_error,
    }
    if authkey_r is not None:
        key, setting = _read_setting(authkey_r)
    for inherited in (listener_fd, alive_r):
        os.set_inheritable(inherited, False)

    def check(module: str) -> None:
        if authkey_r is not None and beginning.is_spoilt(by_threads=module == "__main__"):
            without = {**setting, "preload": [name for name in setting["preload"] if name != module]}
            beginning.again(authkey_r, lambda target: _write_setting(target, key, without), (listener_fd, alive_r))

    try:
        _handle_preload(after=check, **setting)
    except spawn._SHORT as problem:
        if spawn._reports_shortage(problem):
            raise SystemExit(os.EX_TEMPFAIL) from None  # the client starts another server later
        raise
    util._close_stdin()
    # Python writes to the wakeup descriptor only for signals that have a Python handler.
    saved[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    with net.socket(net.AF_UNIX, fileno=listener_fd) as listener:
        listener.settimeout(None)  # a preloaded module may have set a default
        Server(listener, alive_r, key, saved).run()


def _serve_one(child_r: int, fds: list[int], unused_fds: list[int], handlers: dict[int, Any]) -> int:
    """In a forked child: read the process object from the client, run it, and return the exit code."""
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    util.close_fds(*unused_fds)
    # The child holds the alive pipe open, so that the server outlives it.
    _forkserver._forkserver_alive_fd, tracker_fd, *_forkserver._inherited_fds = fds
    resource_tracker._resource_tracker._fd = tracker_fd
    return spawn._main(child_r, None, _forkserver._inherited_fds)


# ---------------------------------------------------------------- numbers over a status pipe
# The format is CPython's, as are the names: eight bytes in the machine's order, and no frames.


def read_signed(fd: int) -> int:
    """Read one number that `write_signed` wrote.

    Raises:
        EOFError: the pipe ends before the last byte.
    """
    data = b""
    while len(data) < SIGNED_STRUCT.size:
        part = patiently(os.read, fd, SIGNED_STRUCT.size - len(data))
        if not part:
            raise EOFError("unexpected EOF")
        data += part
    (number,) = SIGNED_STRUCT.unpack(data)
    return int(number)


def write_signed(fd: int, n: int) -> None:
    """Write a number as eight bytes."""
    data = SIGNED_STRUCT.pack(n)
    while data:
        data = data[patiently(os.write, fd, data) :]


_forkserver: ForkServer = ForkServer()
ensure_running, get_inherited_fds, connect_to_new_process, set_forkserver_preload = (
    _forkserver.ensure_running,
    _forkserver.get_inherited_fds,
    _forkserver.connect_to_new_process,
    _forkserver.set_forkserver_preload,
)


public_module.finish(globals())
