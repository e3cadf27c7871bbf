"""Hands open descriptors (Windows: sockets) to related processes that ask for them.

A pickled `DupFd` holds the address of a small server thread in the process that
made it and a number.  Whoever unpickles it connects, proves to know the family's
key, names the number and is sent the descriptor.  Each can be fetched once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock, Thread
from time import sleep

from . import process, util
from ._impl.start.descriptors import above_stdio, close_own, mark
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
            kept = above_stdio(os.dup(fd))

            def send(conn: Any, pid: int) -> None:
                reduction.send_handle(conn, kept, pid)

            self._id = _resource_sharer.register(send, partial(close_own, kept, mark(kept)))

        def detach(self) -> int:
            """Fetch the descriptor, and return it. Call it once."""
            return _fetch(self._id, reduction.recv_handle)  # type: ignore[no-any-return]  # what it is told to receive


def _fetch(ticket: tuple[Any, int], receive: Callable[[Any], Any]) -> Any:
    with _ResourceSharer.get_connection(ticket) as conn, _told_once_gone(conn):
        return receive(conn)


# Seconds in which a process that has closed its connection is seen to end, if that is why.
_TEARDOWN = 0.5


@contextmanager
def _told_once_gone(conn: Any) -> Iterator[None]:
    """Let a lost connection be an error only when the process at its other end has ended, if it is ending.

    The kernel closes a process's descriptors before the process counts as ended.  A caller that sees the error asks
    which of its processes is no longer alive, as PyTorch's data loader does: it is to get the true answer.
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
        with socket.socket(fileno=os.dup(conn.fileno())) as other:
            credentials = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return
    pid = struct.unpack("3i", credentials)[0]
    for child in list(process._children):
        if child.pid == pid:
            # A child of the fork server's has ended when the server says so.
            wait([child.sentinel], _TEARDOWN)
            return
    try:
        ended = os.pidfd_open(pid)
    except (AttributeError, OSError, ValueError):
        return  # not on this system, or the process is gone, or in another namespace
    try:
        wait([ended], _TEARDOWN)
    finally:
        os.close(ended)


# Seconds that the server thread waits where it lacks something.
_PAUSE = 0.05
# Seconds in which a client that has shown the key makes its request, unless something is wrong with it.
_AT_ONCE = 0.1


def _insist(send: Callable[[Any, int], None], conn: Any, pid: int) -> None:
    """Send a resource.  Where something is short it is tried again for a second: the client waits, and can ask but once."""
    from ._impl.start.shortage import is_shortage

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
    """The server thread, started with the first resource, and what it has on offer."""

    def __init__(self) -> None:
        self._lock = Lock()
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
        """Offer a resource, and return the ticket by which another process fetches it.

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
        """Connect to the process that offers the resource of a ticket, and ask for it."""
        from . import connection
        from ._maniple import get_in

        address, number = ident
        conn = connection.SocketClient(address)
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
        # The thread lives on in the parent only; the copies of its resources
        # and of its listening socket must not stay open here.
        for _, close in self._cache.values():
            close()
        self._lock._at_fork_reinit()  # type: ignore[attr-defined]  # what `threading` itself calls after a fork
        self._close_listener()
        self._forget_server()

    def _close_listener(self) -> None:
        if listener := self._listener:
            listener.close()

    def _serve_from_now_on(self) -> None:
        from . import connection  # noqa: F401  # the first for later, when there may be no descriptor for an import
        from ._impl.start import shortage  # noqa: F401  # the first for later, when there may be no descriptor for an import

        util.debug("starting listener and thread for sending handles")
        key = process.current_process().authkey
        listener = self._listener = connection.Listener(authkey=key, backlog=128)
        self._address = listener.address
        thread = Thread(target=self._serve, args=(listener, self._cache), name="maniple-resource-sharer", daemon=True)
        try:
            thread.start()
        except BaseException:  # no thread: with the listener open, whoever asks would wait for ever
            self._close_listener()
            self._listener = self._address = None
            raise
        self._thread = thread

    def _serve(self, listener: Any, offers: _Offers) -> None:
        from .context import AuthenticationError

        if sys.platform != "win32":
            from signal import SIG_BLOCK, pthread_sigmask, valid_signals

            pthread_sigmask(SIG_BLOCK, valid_signals())  # they are the main thread's business
        while True:
            try:
                try:
                    conn = listener.accept()
                except (AuthenticationError, EOFError) as stranger:
                    util.info("a client was not let in: %s", stranger)
                    continue
                except (OSError, MemoryError):
                    if listener._listener is not None:
                        sleep(_PAUSE)  # no descriptor is left for a client, say, who waits meanwhile
                    raise
                if not conn.poll(_AT_ONCE):
                    # A relative that was stopped, say: the others are not to wait for it.
                    Thread(target=self._hand_out_late, args=(conn, offers, listener), daemon=True).start()
                elif not self._hand_out(conn, offers):
                    return
            except Exception:
                # One bad customer: no reason to stop.
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
        """Give a client what it asks for; False where it asks the thread to end."""
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


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name.startswith("__"):  # the import system asks for some
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ._impl.compat.imported_names import find

        return find(__name__, name)
