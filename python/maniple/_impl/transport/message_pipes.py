"""Named pipes as the standard package uses them: its ends and this package's meet at one address of ``AF_PIPE``.

The standard package sends a message as a message of the system's pipe.  This package's connections are lines, with a
length before each message.  So a *bridge* carries messages between an end of a line and a pipe of the system::

    PipeConnection == line == end | bridge: two threads | pipe of the system == the other program's connection

One thread carries messages out, the other in, so neither direction waits for the other.  If one side is closed, the
bridge closes the other side after it has carried what was sent before.  At the end of the process it carries what was sent.

A listener has a *door*: a thread that takes the clients of the system's pipe at the listener's address.  Each becomes a
client of the listener's own line, through a bridge.  So the listener accepts and authenticates all clients in one way.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from errno import EADDRINUSE
from importlib import import_module

from ...util import Finalize, sub_debug

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Door", "pipe_client"]

# Checked on other systems as well, whose type stubs have none of its names.
_winapi: Any = import_module("_winapi") if sys.platform == "win32" else None

#: bytes of a message that are read by one call; the rest of a longer one is read by a second call
_AT_ONCE = 65536
#: how long the end of the process waits for what a bridge still carries, in seconds
_FLUSH = 20.0
#: the system's errors of a pipe whose other end is closed: broken pipe, no data, not connected
_BROKEN = (109, 232, 233)


def _wait(objects: list[Any], timeout: float | None = None) -> list[Any]:
    from ...connection import wait

    return wait(objects, timeout)


def _number(problem: OSError) -> int:
    """Return the system's number of an error."""
    number: int = getattr(problem, "winerror", None) or 0
    return number


class _Signal:
    """What one thread sets, once, and others wait for together with handles."""

    def __init__(self) -> None:
        from ...connection import Pipe

        self.waitable, self._end = Pipe(duplex=False)

    def set(self) -> None:
        self._end.close()


class _MessagePipe:
    """An end of a pipe of the system for messages."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def read(self, stop: _Signal) -> bytes | None:
        """Return the next message; None if the other end is closed, or `stop` is set."""
        try:
            reading, problem = _winapi.ReadFile(self._handle, _AT_ONCE, overlapped=True)
            if problem == _winapi.ERROR_IO_PENDING and stop.waitable in _wait([reading.event, stop.waitable]):
                reading.cancel()
            _, problem = reading.GetOverlappedResult(True)
            if problem == _winapi.ERROR_OPERATION_ABORTED:
                return None
            message = bytes(reading.getbuffer())
            if problem == _winapi.ERROR_MORE_DATA:
                left = _winapi.PeekNamedPipe(self._handle)[1]
                rest, _ = _winapi.ReadFile(self._handle, left, overlapped=True)
                rest.GetOverlappedResult(True)
                message += rest.getbuffer()
            return message
        except OSError as problem:
            if _number(problem) in _BROKEN:
                return None
            raise

    def write(self, message: bytes) -> bool:
        """Send a message, and wait until it is in the pipe; return False if the other end is closed."""
        try:
            writing, problem = _winapi.WriteFile(self._handle, message, overlapped=True)
            if problem == _winapi.ERROR_IO_PENDING:
                # Wine was seen to hang in a result that waits itself.
                _wait([writing.event])
            _, problem = writing.GetOverlappedResult(True)
            return bool(problem == 0)
        except OSError as problem:
            if _number(problem) in _BROKEN:
                return False
            raise

    def close(self) -> None:
        _winapi.CloseHandle(self._handle)


class _Bridge:
    """Carries messages between a pipe of the system and an end of a line, until one of them is closed.

    Args:
        pipe: the pipe, which the bridge closes.
        connect: returns the end of the line. It is called in the bridge's own thread.
    """

    def __init__(self, pipe: _MessagePipe, connect: Callable[[], Any]) -> None:
        self._pipe, self._connect = pipe, connect
        self._line: Any = None
        self._line_is_closed, self._pipe_is_closed = _Signal(), _Signal()
        # Held while a message is carried out.
        self._carries = threading.Lock()
        self._out = threading.Thread(target=self._run, name="maniple-pipe-out", daemon=True)
        self._flush = Finalize(self, self._carry_the_rest, exitpriority=5)
        self._out.start()

    def _run(self) -> None:
        try:
            self._line = self._connect()
        except OSError as problem:
            sub_debug("a client of a pipe finds no listener: %s", problem)
            self._end()
            return
        inward = threading.Thread(target=self._carry_in, name="maniple-pipe-in", daemon=True)
        inward.start()
        try:
            self._carry_out()
        finally:
            self._line_is_closed.set()
            inward.join()
            self._end()

    def _end(self) -> None:
        self._pipe.close()
        if self._line is not None:
            self._line.close()
        self._flush.cancel()

    def _carry_out(self) -> None:
        # If the pipe is closed at its other end, messages out are lost, but those that came before may still be read.
        leads_on = True
        while self._has_more() or self._line in _wait([self._line, self._pipe_is_closed.waitable]):
            with self._carries:
                try:
                    message = self._line.recv_bytes()
                except (EOFError, OSError):
                    return
                leads_on = leads_on and self._pipe.write(message)

    def _has_more(self) -> bool:
        """Whether a message waits on the line; cheaper than a wait for two handles."""
        try:
            return bool(self._line.poll())
        except OSError:  # it is closed at its other end, which the wait tells
            return False

    def _carry_in(self) -> None:
        while (message := self._pipe.read(self._line_is_closed)) is not None:
            try:
                self._line.send_bytes(message)
            except OSError:
                # The line is closed at its other end. What was sent before that is still carried out.
                return
        self._pipe_is_closed.set()

    def _carry_the_rest(self) -> None:
        """Wait until everything is carried out that this process has sent."""
        until = time.monotonic() + _FLUSH
        while self._out.is_alive() and time.monotonic() < until:
            if self._line is not None and self._carries.acquire(timeout=0.1):
                try:
                    if not _wait([self._line], 0):
                        return
                except OSError:  # it was closed just now
                    return
                finally:
                    self._carries.release()
            time.sleep(0.001)


def pipe_client(address: str, kind: Any, timeout: float) -> Any:
    """Return a connection of the class `kind` that leads to the system's pipe at `address`.

    Raises:
        FileNotFoundError: there is no pipe at the address.
        TimeoutError: the pipe has had no free instance for `timeout` seconds.
    """
    from ...connection import Pipe

    until = time.monotonic() + timeout
    while True:
        try:
            _winapi.WaitNamedPipe(address, 100)
            handle = _winapi.CreateFile(
                address,
                _winapi.GENERIC_READ | _winapi.GENERIC_WRITE,
                0,
                _winapi.NULL,
                _winapi.OPEN_EXISTING,
                _winapi.FILE_FLAG_OVERLAPPED,
                _winapi.NULL,
            )
            break
        except OSError as problem:
            if _number(problem) not in (_winapi.ERROR_SEM_TIMEOUT, _winapi.ERROR_PIPE_BUSY):
                raise
            if time.monotonic() >= until:
                raise TimeoutError(f"the pipe {address!r} has had no room for a client for {timeout:g} s") from None
    _winapi.SetNamedPipeHandleState(handle, _winapi.PIPE_READMODE_MESSAGE, None, None)
    # Without the shared memory of a pipe of this package: the other program finds the bytes in the message.
    ours, theirs = (kind(end._detach()) for end in Pipe())
    _Bridge(_MessagePipe(handle), lambda: theirs)
    return ours


class Door:
    """The system's pipe at a listener's address.

    Args:
        address: the address.
        connect: connects to the listener's own line, for a client of the pipe.

    Raises:
        OSError: a pipe of another program has the address.
    """

    def __init__(self, address: str, connect: Callable[[], Any]) -> None:
        self._address, self._connect, self._stop = address, connect, _Signal()
        try:
            first = self._instance(_winapi.FILE_FLAG_FIRST_PIPE_INSTANCE)
        except PermissionError:
            raise OSError(EADDRINUSE, "another program's pipe has this address", address) from None
        self._thread = threading.Thread(target=self._serve, args=(first,), name="maniple-pipe-door", daemon=True)
        self._thread.start()

    def _instance(self, flags: int = 0) -> int:
        from ...connection import BUFSIZE

        handle: int = _winapi.CreateNamedPipe(
            self._address,
            _winapi.PIPE_ACCESS_DUPLEX | _winapi.FILE_FLAG_OVERLAPPED | flags,
            _winapi.PIPE_TYPE_MESSAGE | _winapi.PIPE_READMODE_MESSAGE | _winapi.PIPE_WAIT,
            _winapi.PIPE_UNLIMITED_INSTANCES,
            BUFSIZE,
            BUFSIZE,
            _winapi.NMPWAIT_WAIT_FOREVER,
            _winapi.NULL,
        )
        return handle

    def _serve(self, handle: int) -> None:
        while True:
            try:
                connecting = _winapi.ConnectNamedPipe(handle, overlapped=True)
                if self._stop.waitable in _wait([connecting.event, self._stop.waitable]):
                    connecting.cancel()
                _, problem = connecting.GetOverlappedResult(True)
                if problem == _winapi.ERROR_OPERATION_ABORTED:
                    break
            except OSError as problem:
                # The client has gone already; a bridge notices that, too.
                if _number(problem) not in _BROKEN:
                    sub_debug("a listener takes no clients of the system's pipes any more: %s", problem)
                    break
            # First, so that there is a pipe at the address at any time.
            following = self._instance()
            _Bridge(_MessagePipe(handle), self._connect)
            handle = following
        _winapi.CloseHandle(handle)

    def close(self) -> None:
        """Take no more clients. The connections of those that were taken continue."""
        self._stop.set()
        self._thread.join(_FLUSH)
