"""The fork server: a process without threads and without state, forked for each child.

The first `ensure_running` starts it as a fresh interpreter.  It imports what it
was told to (`set_forkserver_preload`; the program's main module unless told
otherwise) and then waits.  The client connects to its socket once, and both sides
prove that they know the server's key.  After that each message over this line is a
request for one child, and consists of descriptors:

    end of the data pipe (read), status pipe (write), alive, resource tracker, the child's own …

The server forks, and writes the child's pid, later its exit code, into the status
pipe.  The child reads from the data pipe what to be, as in `maniple.spawn`.  Where
the server lacks something (descriptors, memory, processes) it writes the error's
number into the line, closes the status pipe, and goes on.

The server ends when nobody holds the "alive" pipe any more: its client and all
children that came from it do.  It ignores SIGINT, so that Ctrl-C takes the
program's processes away but leaves it to report on them.
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
from functools import partial
from selectors import EVENT_READ, DefaultSelector
from struct import Struct
from threading import Lock
from time import monotonic, sleep
from warnings import warn

from . import connection, popen_fork, process, resource_tracker, spawn, util  # noqa: F401
from ._impl.start import forked as _forked  # noqa: F401
from ._impl.start import launch
from ._impl.start import preload as _preload
from ._impl.start.descriptors import HeldDescriptor, Mark, mark, patiently, pipe
from ._impl.start.preload import preload_all as _handle_preload
from ._maniple import Greeting, Hold, get_in
from .context import AuthenticationError, reduction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ensure_running", "get_inherited_fds", "connect_to_new_process", "set_forkserver_preload"]

# Linux refuses more than 253 descriptors in one message.
MAXFDS_TO_SEND: int = 256
SIGNED_STRUCT = Struct("q")
_AUTHKEY_LEN = 32
# Seconds that a client has to show that it knows the key.  It holds up no other.
_PATIENCE = 10.0
# Seconds that a server that lacks something waits before it looks again.
_PAUSE = 0.05
# Milliseconds after which a client that waits for an answer looks whether the server is still there.
_LOOK = 1000
# Seconds that a server takes to end, at most, after it has closed its connections.
_ENDING = 0.5
_ON_ERROR = ("ignore", "warn", "fail")
# The standard package names the main module from the beginning, but up to 3.13 its server never imports it.
_PRELOADED = ["__main__"] if sys.version_info >= (3, 14) else []


# ---------------------------------------------------------------- client


def explain(problem: BaseException) -> None:
    """Note on an error of the line to the server what is likely behind it."""
    if isinstance(problem, (EOFError, ConnectionError)):
        problem.add_note("Forkserver process may have crashed or exited early: see what it wrote to stderr.")
        if getattr(sys, "frozen", False):
            problem.add_note("A frozen program has to call freeze_support() before it looks at its arguments.")


class _Pipe:
    """A pipe of which nothing is open at the end of the block but what was kept."""

    def __enter__(self) -> _Pipe:
        self.r, self.w = pipe()
        self._to_close = {self.r, self.w}
        return self

    def keep_r(self) -> int:
        """Keep the read end, and return it."""
        self._to_close.discard(self.r)
        return self.r

    def keep_w(self) -> int:
        """Keep the write end, and return it."""
        self._to_close.discard(self.w)
        return self.w

    def __exit__(self, *exc_info: object) -> None:
        util.close_fds(*self._to_close)


def _has_data(fd: int, lives: Callable[[], bool]) -> bool:
    """Wait until a pipe can be read, or the server is gone; tell whether there is data."""
    poller = connection.new_poller()
    poller.register(fd, select.POLLIN)
    alive = True
    # Somebody else may have the pipe's other end by chance: a child that another thread forks just now.
    while not (found := patiently(poller.poll, _LOOK if alive else 0)) and alive:
        alive = lives()
    return any(flags & select.POLLIN for _, flags in found)


class ForkServer:
    """This process's access to its fork server."""

    _forkserver_alive_fd = HeldDescriptor()

    def __init__(self) -> None:
        self._lock: Any = Lock()
        self._forkserver_pid: int | None = None
        self._forkserver_address: Any = None
        self._forkserver_alive_fd = None
        self._forkserver_authkey: bytes | None = None
        self._owner: int | None = None  # whose child the server is
        self._line: net.socket | None = None  # to the server, both sides known
        self._line_key: bytes | None = None  # that was used to get there
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
        if (count := len(fds) + 4) >= MAXFDS_TO_SEND:
            raise ValueError(f"too many fds: a child can be sent {MAXFDS_TO_SEND - 5}, not {count - 4}")
        for last_try in (False, True):
            try:
                with Hold(self._lock):
                    self._assure()
                    return self._request(fds)
            except (EOFError, ConnectionError) as problem:
                # A server that was killed a moment ago is replaced; not one
                # that died by itself while it was still getting ready.
                ended = self._how_it_ended()
                if ended == os.EX_TEMPFAIL:
                    why = "the fork server lacked something before it was ready; its standard error says what"
                    raise OSError(errno.EAGAIN, why) from problem
                if last_try or ended is None or ended >= 0:
                    explain(problem)
                    raise
        raise AssertionError("not reached")

    def _request(self, fds: list[int]) -> tuple[int, int]:
        line = self._known_line()
        with _Pipe() as data, _Pipe() as status:
            try:
                alive: Any = self._forkserver_alive_fd
                reduction.sendfds(line, [data.r, status.w, alive, resource_tracker.getfd(), *fds])
            except BaseException:
                self._hang_up()  # who knows how far it got
                raise
            ends = status.keep_r(), data.keep_w()
        # What was sent to a server that is just being killed is lost without an
        # error.  It is safe to ask once more: a child that was forked after all
        # was told nothing, and ends when it finds the data pipe closed.
        try:
            if not _has_data(ends[0], self._lives):
                number = self._refusal(line)
                if number:
                    raise OSError(number, f"the fork server could not fork: {os.strerror(number)}")
                self._hang_up()
                raise EOFError("the fork server did not answer")
        except BaseException:
            util.close_fds(*ends)
            raise
        return ends

    def _refusal(self, line: net.socket) -> int:
        """The number of the error that the server met with a request; 0: it has hung up, or is gone."""
        with suppress(OSError, EOFError):
            if _has_data(line.fileno(), self._lives):
                return read_signed(line.fileno())
        return 0

    def _known_line(self) -> net.socket:
        """Return a line over which both sides have shown that they know the key."""
        key: Any = self._forkserver_authkey
        if self._line is None or self._line_key != key or mark(self._line.fileno()) != self._line_file:
            line = net.socket(net.AF_UNIX)
            try:
                line.settimeout(None)  # whatever the program's default is
                line.connect(self._forkserver_address)
                get_in(line.fileno(), key)
            except BaseException as problem:
                line.close()
                if isinstance(problem, EOFError) and not self._is_ending():
                    raise OSError(errno.EMFILE, "the fork server lacks something for one more client") from problem
                raise
            self._hang_up()
            self._line, self._line_key, self._line_file = line, key, mark(line.fileno())
            # Or the interpreter complains at its end that it was left open.
            atexit.unregister(self._hang_up)
            atexit.register(self._hang_up)
        return self._line

    def _hang_up(self) -> None:
        if self._line is not None:
            if mark(self._line.fileno()) == self._line_file:
                self._line.close()
            else:
                self._line.detach()  # the number leads to a file of the program's
            self._line = None

    def _how_it_ended(self) -> int | None:
        """The server's exit code, or minus the signal that ended it (waits a little for that); None: it runs, or is not ours."""
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
        with Hold(self._lock):
            self._assure()

    def _assure(self) -> None:
        resource_tracker.getfd()
        # A program that has closed all descriptors has ended the server by that.
        if self._owner is not None and not (self._lives() and ForkServer._forkserver_alive_fd.is_there(self)):
            self._forget()
        if self._owner is None:
            self._launch()

    def _lives(self) -> bool:
        """Tell whether a server is running that is our child (not copied by a fork)."""
        if self._owner != os.getpid() or self._forkserver_pid is None:
            return False
        with suppress(ChildProcessError):  # somebody else has reaped it
            return os.waitpid(self._forkserver_pid, os.WNOHANG) == (0, 0)
        return False

    def _is_ending(self) -> bool:
        """Tell whether the server, which has hung up, is gone within a moment; its exit status is still there afterwards."""
        if self._owner != os.getpid() or self._forkserver_pid is None:
            return True
        until = monotonic() + _ENDING
        with suppress(ChildProcessError):  # somebody else has reaped it
            while os.waitid(os.P_PID, self._forkserver_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if monotonic() > until:
                    return False
                sleep(0.01)
        return True

    def _launch(self) -> None:
        address = connection.arbitrary_address("AF_UNIX")
        key, setting = os.urandom(_AUTHKEY_LEN), self._setting()
        with net.socket(net.AF_UNIX) as listening, _Pipe() as alive, _Pipe() as secret:
            listening.bind(address)
            if isinstance(address, str) and os.path.exists(address):
                os.chmod(address, 0o600)  # a file, unlike an abstract address
            listening.listen(128)
            numbers = {"listener_fd": listening.fileno(), "alive_r": alive.r, "authkey_r": secret.r}
            argv = launch.helper_command_line("forkserver", **numbers)
            pid = launch.run(argv[0], argv, list(numbers.values()), blocked_signals={signal.SIGINT})
            try:
                with suppress(BrokenPipeError):  # dead already: the first request will tell
                    with open(secret.w, "wb", closefd=False) as line:
                        line.write(_as_bytes(key, setting))
            except BaseException:
                popen_fork.end_unwatched(pid)
                raise
            self._forkserver_alive_fd = alive.keep_w()
        self._forkserver_address, self._forkserver_authkey = address, key
        self._forkserver_pid, self._owner = pid, os.getpid()

    def _setting(self) -> dict[str, Any]:
        """What the server is to import, and what that is to find.

        It follows the key through the pipe, since it may be longer than a system
        takes for one argument of a command line.
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
        """Let go of the server and wait for its end."""
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
        """Close and clear what belongs to a server that is gone, or is not ours."""
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
        if self._owner is not None:
            self._forget()


# ---------------------------------------------------------------- server


def _as_bytes(key: bytes, setting: dict[str, Any]) -> bytes:
    pickled = dumps(setting)
    return key + SIGNED_STRUCT.pack(len(pickled)) + pickled


def _read_setting(source: int) -> tuple[bytes, dict[str, Any]]:
    """Read and close what `_as_bytes` made."""
    with open(source, "rb") as pipe:
        key = pipe.read(_AUTHKEY_LEN)
        if len(key) < _AUTHKEY_LEN:
            raise SystemExit(0)  # its client is gone
        (size,) = SIGNED_STRUCT.unpack(pipe.read(SIGNED_STRUCT.size))
        return key, loads(pipe.read(size))


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
            beginning.again(authkey_r, _as_bytes(key, without), (listener_fd, alive_r))

    try:
        _handle_preload(after=check, **setting)
    except spawn._SHORT as problem:
        if spawn._reports_shortage(problem):
            raise SystemExit(os.EX_TEMPFAIL) from None  # the client starts another server later
        raise
    util._close_stdin()
    # Installed, so that the wakeup descriptor is written to.
    saved[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    with net.socket(net.AF_UNIX, fileno=listener_fd) as listener:
        listener.settimeout(None)  # a preloaded module may have set a default
        _Server(listener, alive_r, key, saved).run()


class _Server:
    """The server's loop: new requests, ended children, the end of the last client."""

    def __init__(self, listener: net.socket, alive_r: int, key: bytes, saved_handlers: dict[int, Any]) -> None:
        self._listener, self._alive_r, self._key = listener, alive_r, key
        self._handlers = saved_handlers
        self._status_of: dict[int, int] = {}  # pid -> status pipe
        self._untold: list[tuple[int, int]] = []  # status pipes, and the exit codes for which they had no room
        self._lines: set[net.socket] = set()  # to clients that know the key
        self._guests: dict[net.socket, float] = {}  # to others -> when they are closed
        self._to_import = ["synchronize", "queues", "popen_forkserver", "_impl.pool.payload", "_impl.pool.workers"]
        self._wake_r, self._wake_w = pipe()
        for fd in (self._wake_r, self._wake_w):
            os.set_blocking(fd, False)

    def run(self) -> None:
        """Serve until nobody holds the alive pipe; exits."""
        signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._wake)
        with DefaultSelector() as self._selector:
            for source, action in (
                (self._listener, self._accept),
                (self._wake_r, self._reap),
                (self._alive_r, self._end),
            ):
                self._selector.register(source, EVENT_READ, action)
            while True:
                for ready in self._select():
                    ready()
                if self._guests:
                    self._dismiss_silent()
                if self._untold:
                    self._tell()

    def _select(self) -> list[Callable[[], None]]:
        """Wait until there is something to do; what."""
        try:
            ready = self._selector.select(
                _PAUSE if self._untold else _PATIENCE if self._guests or self._status_of else None
            )
        except OSError:  # no memory, for the moment; nothing else happens to descriptors that are all ours
            sleep(_PAUSE)
            return []
        return [key.data for key, _ in ready] or [self._reap]

    def _wake(self, signum: int, frame: object) -> None:
        """A child has ended.  The interpreter has written to the pipe as well, but does not look whether that failed."""
        with suppress(OSError):
            patiently(os.write, self._wake_w, b"\0")

    def _end(self) -> None:
        try:
            left = os.read(self._alive_r, 1)
        except OSError:
            return sleep(_PAUSE)
        if left:
            raise AssertionError("the alive pipe is only ever closed")
        raise SystemExit

    def _tell(self) -> None:
        """Write exit codes into their pipes; what cannot be written for want of memory is written later."""
        untold, self._untold = self._untold, []
        for status_w, code in untold:
            try:
                write_signed(status_w, code)
            except BrokenPipeError:
                pass  # the client is gone, or has lost interest
            except OSError:
                self._untold.append((status_w, code))
                continue
            os.close(status_w)

    def _reap(self) -> None:
        with suppress(OSError):  # there is nothing, or no memory: it comes again
            os.read(self._wake_r, 65536)
        while True:
            pid = 0
            with suppress(ChildProcessError):  # none left
                pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            status_w = self._status_of.pop(pid, None)
            if status_w is None:  # started by a preloaded module
                warn(f"forkserver: waitpid returned unexpected pid {pid}", stacklevel=2)
                continue
            self._untold.append((status_w, os.waitstatus_to_exitcode(status)))

    def _accept(self) -> None:
        line = None
        try:
            line, _ = self._listener.accept()
            line.settimeout(None)
            greeting = Greeting(line.fileno(), self._key)
            self._selector.register(line, EVENT_READ, partial(self._greet, line, greeting))
        except (OSError, EOFError, MemoryError) as problem:
            if line is not None:
                line.close()
            elif not isinstance(problem, BlockingIOError):
                sleep(_PAUSE)  # whoever waits to be taken goes on to wait
            return
        self._guests[line] = monotonic() + _PATIENCE

    def _greet(self, line: net.socket, greeting: Greeting) -> None:
        try:
            if not greeting.hear():
                return
            patiently(self._selector.modify, line, EVENT_READ, partial(self._serve, line))
        except (OSError, EOFError, AuthenticationError):
            # A stranger, or a client that broke off: no matter for the others.
            self._dismiss(line)
            return
        del self._guests[line]
        self._lines.add(line)

    def _dismiss(self, line: net.socket) -> None:
        self._guests.pop(line, None)
        self._lines.discard(line)
        with suppress(KeyError):  # what cannot be waited for is forgotten by the selector
            self._selector.unregister(line)
        line.close()

    def _dismiss_silent(self) -> None:
        now = monotonic()
        for line in [line for line, end in self._guests.items() if end <= now]:
            self._dismiss(line)

    def _serve(self, line: net.socket) -> None:
        fds: list[int] = []
        try:
            fds = reduction.recvfds(line, MAXFDS_TO_SEND + 1)
            if 4 <= len(fds) <= MAXFDS_TO_SEND:
                self._fork(*fds)
                return
        except (RuntimeError, AssertionError):
            # Some were lost, because there is no descriptor left for them here.
            if self._refuse(line, errno.EMFILE):
                return
        except MemoryError:
            util.close_fds(*fds)
            if self._refuse(line, errno.ENOMEM):
                return
        except (OSError, EOFError) as problem:
            util.close_fds(*fds)
            if fds and self._refuse(line, problem.errno or errno.EAGAIN):  # type: ignore[union-attr]  # EOFError comes without any
                return
            if isinstance(problem, OSError) and problem.errno in (errno.ENOMEM, errno.ENOBUFS, errno.ENFILE):
                sleep(_PAUSE)
                return
            fds = []  # it hung up
        self._dismiss(line)

    @staticmethod
    def _refuse(line: net.socket, number: int) -> bool:
        """Tell a client why there is no child. False: it is not there, or asks again and again and hears nothing."""
        answer = SIGNED_STRUCT.pack(number)
        try:
            return patiently(line.send, answer, net.MSG_DONTWAIT) == len(answer)
        except OSError:
            return False

    def _fork(self, data_r: int, status_w: int, *fds: int) -> None:
        """Fork a child. An OSError or a MemoryError leaves the descriptors open."""
        resource_tracker._fork_intent.preserve_fd = True

        def life() -> int:
            self._selector.close()
            for inherited in (self._listener, *self._lines, *self._guests):
                inherited.close()
            unused = [self._alive_r, self._wake_r, self._wake_w, *self._status_of.values()]
            unused += [other for other, _ in self._untold]
            popen_fork._hold(status_w)  # lasts as long as the child, not its children
            return _serve_one(data_r, list(fds), unused, self._handlers)

        if (pid := os.fork()) == 0:
            _forked.live_and_exit(life)
        try:
            with suppress(BrokenPipeError):
                write_signed(status_w, pid)
        except OSError:
            popen_fork.end_unwatched(pid)  # nobody would ever know of it
            raise
        self._status_of[pid] = status_w
        util.close_fds(data_r, *fds)
        self._stock_up()

    def _stock_up(self) -> None:
        """After the first child, which is not kept waiting by it: import what most children need of this package."""
        try:
            while self._to_import:
                __import__(f"{__package__}.{self._to_import[-1]}")
                self._to_import.pop()
        except (OSError, MemoryError, ImportError):
            pass  # something is short: after the next child


def _serve_one(child_r: int, fds: list[int], unused_fds: list[int], handlers: dict[int, Any]) -> int:
    """In a child just forked: become what the client says; return the exit code."""
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    util.close_fds(*unused_fds)
    # The first is only held: the server lives as long as anyone who came from it.
    _forkserver._forkserver_alive_fd, tracker_fd, *_forkserver._inherited_fds = fds
    resource_tracker._resource_tracker._fd = tracker_fd
    return spawn._main(child_r, None, _forkserver._inherited_fds)


# ---------------------------------------------------------------- numbers over a pipe


def read_signed(fd: int) -> int:
    """Read one number that `write_signed` wrote.

    Raises:
        EOFError: the pipe ends before.
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


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name.startswith("__"):  # the import system asks for some
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ._impl.compat.imported_names import find

        return find(__name__, name)
