"""Sends open descriptors (Windows: sockets) to related processes that request them.

A pickled `DupFd` contains a number, and the address of a server thread in the
process that made it.  The process that unpickles it connects, authenticates with
its `authkey`, sends the number and receives the descriptor.  Each descriptor can be
fetched once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import RLock, Thread
from time import sleep

from . import process, util
from ._impl.compat import public_module
from ._impl.start.descriptors import above_stdio, close_own, duplicate, mark
from ._impl.start.shortage import is_shortage
from ._impl.sync.thread_start import ThreadStart
from ._maniple import Hold
from .context import reduction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _Offers = dict[int, tuple[Callable[[Any, int], None], Callable[[], object]]]

__all__ = ["stop"]


if sys.platform == "win32":
    __all__ += ["DupSocket"]

    class DupSocket:
        """A picklable stand-in for a socket; the process that unpickles it fetches the socket."""

        def __init__(self, sock: Any) -> None:
            kept = sock.dup()

            def send(conn: Any, pid: int) -> None:
                conn.send_bytes(kept.share(pid))

            self._id = _resource_sharer.register(send, kept.close)

        def detach(self) -> Any:
            """Fetch the socket, and return it. Call it once."""
            from socket import fromshare

            return _fetch(self._id, lambda conn: fromshare(conn.recv_bytes()))

else:
    __all__ += ["DupFd"]

    class DupFd:
        """A picklable stand-in for a file descriptor; the process that unpickles it fetches the descriptor."""

        def __init__(self, fd: int) -> None:
            kept = duplicate(fd)

            def send(conn: Any, pid: int) -> None:
                reduction.send_handle(conn, kept, pid)

            self._id = _resource_sharer.register(send, partial(close_own, kept, mark(kept)))

        def detach(self) -> int:
            """Fetch the descriptor, and return it. Call it once."""
            return _fetch(self._id, reduction.recv_handle)  # type: ignore[no-any-return]  # an int, as `recv_handle` returns


def _fetch(ticket: tuple[Any, int], receive: Callable[[Any], Any]) -> Any:
    with _ResourceSharer.get_connection(ticket) as conn, _told_once_gone(conn):
        return receive(conn)


# Seconds to wait for the end of a process that has closed its connection.
_TEARDOWN = 0.5


@contextmanager
def _told_once_gone(conn: Any) -> Iterator[None]:
    """Delay the error of a lost connection until the process at the other end has ended, if it is ending.

    The kernel closes a process's descriptors before the process counts as ended.  A caller that catches the error may check
    which of its processes is alive, as PyTorch's data loader does, and the check has to see that the process has ended.
    """
    try:
        yield
    except (EOFError, ConnectionError):
        _wait_for_end(conn)
        raise


def _wait_for_end(conn: Any) -> None:
    import socket
    import struct

    from .connection import wait

    if not hasattr(socket, "SO_PEERCRED"):
        return
    try:
        with socket.socket(fileno=duplicate(conn.fileno())) as other:
            credentials = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return
    pid = struct.unpack("3i", credentials)[0]
    for child in list(process._children):
        if child.pid == pid:
            # A child of the fork server has ended when the server reports its exit code.
            wait([child.sentinel], _TEARDOWN)
            return
    try:
        ended = above_stdio(os.pidfd_open(pid))
    except (AttributeError, OSError, ValueError):
        return  # the system has no pidfds, or the process has ended, or it is in another namespace
    try:
        wait([ended], _TEARDOWN)
    finally:
        os.close(ended)


# Seconds that the server thread waits after a shortage.
_PAUSE = 0.05
# Seconds in which an authenticated client sends its request, unless it is stopped.
_AT_ONCE = 0.1


def _insist(send: Callable[[Any, int], None], conn: Any, pid: int) -> None:
    """Send a resource. After a shortage it retries for a second, since the client can request the resource only once."""
    pause = 0.005
    while True:
        try:
            return send(conn, pid)
        except (OSError, MemoryError) as problem:
            if pause > 0.5 or not is_shortage(problem):
                raise
        sleep(pause)
        pause *= 2


class _ResourceSharer:
    """The server thread, which starts with the first resource, and the resources that it offers."""

    def __init__(self) -> None:
        # A signal handler may register a resource while the thread that it interrupts does so.
        self._lock: Any = RLock()
        self._forget_server()
        util.register_after_fork(self, type(self)._afterfork)

    def _forget_server(self) -> None:
        self._serial = 0
        # number -> (send, close)
        self._cache: _Offers = {}
        self._listener: Any = None
        self._address: Any = None
        self._thread: Thread | None = None

    def register(self, send: Callable[[Any, int], None], close: Callable[[], object]) -> tuple[Any, int]:
        """Offer a resource, and return the address and the number by which another process fetches it.

        Args:
            send: a function that sends the resource: ``send(connection, pid)``.
            close: a function that closes the resource here.
        """
        with Hold(self._lock):
            if self._thread is None:
                self._serve_from_now_on()
            self._serial += 1
            self._cache[self._serial] = send, close
            return self._address, self._serial

    @staticmethod
    def get_connection(ident: tuple[Any, int]) -> Any:
        """Connect to the process that offers the resource `ident`, authenticate, and request it."""
        from . import connection
        from ._maniple import get_in

        address, number = ident
        conn = connection._dial(address)
        try:
            with _told_once_gone(conn):
                get_in(conn.fileno(), bytes(process.current_process().authkey))
                conn.send((number, os.getpid()))
        except BaseException:
            conn.close()
            raise
        return conn

    def stop(self, timeout: float | None = None) -> None:
        """Stop the server thread, and close the resources that were not fetched."""
        from . import connection

        with Hold(self._lock):
            if (thread := self._thread) is None:
                return
            with connection.Client(self._address, authkey=process.current_process().authkey) as conn:
                conn.send(None)
            thread.join(timeout)
            if thread.is_alive():
                util.sub_warning("_ResourceSharer thread did not stop when asked")
            self._close_listener()
            unclaimed = list(self._cache.values())
            self._forget_server()
        for _, close in unclaimed:
            close()

    def _afterfork(self) -> None:
        # The child has no copy of the thread. It closes its copies of the
        # resources and of the listening socket.
        for _, close in self._cache.values():
            close()
        self._lock._at_fork_reinit()  # as `threading` does after a fork
        self._close_listener()
        self._forget_server()

    def _close_listener(self) -> None:
        if listener := self._listener:
            listener.close()

    def _serve_from_now_on(self) -> None:
        from . import connection

        util.debug("starting listener and thread for sending handles")
        key = process.current_process().authkey
        listener = self._listener = connection.Listener(authkey=key, backlog=128)
        self._address = listener.address
        thread = Thread(target=self._serve, args=(listener, self._cache), name="maniple-resource-sharer", daemon=True)
        self._thread, start = thread, ThreadStart(thread)
        try:
            start()
        except BaseException:
            if start.cancel():  # without the thread, clients of an open listener would wait forever
                self._close_listener()
                self._listener = self._address = self._thread = None
            raise

    def _serve(self, listener: Any, offers: _Offers) -> None:
        from .context import AuthenticationError

        if sys.platform != "win32":
            from signal import SIG_BLOCK, pthread_sigmask, valid_signals

            pthread_sigmask(SIG_BLOCK, valid_signals())  # the main thread handles signals
        while True:
            try:
                try:
                    conn = listener.accept()
                except (AuthenticationError, EOFError) as stranger:
                    util.info("a client failed to authenticate: %s", stranger)
                    continue
                except (OSError, MemoryError):
                    if listener._listener is not None:
                        sleep(_PAUSE)  # for example, no descriptor is free; the client waits in the backlog
                    raise
                if not conn.poll(_AT_ONCE):
                    # For example, the client is stopped: the other clients must not wait for it.
                    Thread(target=self._hand_out_late, args=(conn, offers, listener), daemon=True).start()
                elif not self._hand_out(conn, offers):
                    return
            except Exception:
                # A failure with one client does not end the server.
                if util.is_exiting() or listener._listener is None:
                    return
                sys.excepthook(*sys.exc_info())

    def _hand_out_late(self, conn: Any, offers: _Offers, listener: Any) -> None:
        try:
            if not self._hand_out(conn, offers):
                listener.close()  # ends `_serve`
        except Exception as error:
            util.info("a descriptor was not fetched: %s", error)

    def _hand_out(self, conn: Any, offers: _Offers) -> bool:
        """Send a client the resource that it requests; return False if it requests the end of the thread."""
        with conn:
            request = conn.recv()
            if request is None:
                return False
            number, pid = request
            send, close = offers.pop(number)
            try:
                _insist(send, conn, pid)
            finally:
                close()
        return True


_resource_sharer = _ResourceSharer()
stop = _resource_sharer.stop


public_module.finish(globals())
