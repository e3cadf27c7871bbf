"""Connections: messages over a pipe or a socket, between processes of one machine or of several.

A message is its length and its bytes.  The length is a signed 32-bit number, most significant byte first; a message
longer than 2 GiB - 1 has -1 there, and its length follows as an unsigned 64-bit number.  `Connection.send` sends the
pickle of an object as one message.  The format is the standard package's: the process at the other end may use that package.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from operator import index

from . import util
from ._impl.compat import public_module
from ._impl.start.descriptors import explain_shortage, mark, socket_above
from ._impl.transport.connection_parts import Parts, go_through_parts
from ._impl.transport.polling import READABLE, has_room, new_poller, wait_for_events
from ._maniple import (
    Channel,
    Reception,
    auth_accept,
    auth_answer,
    auth_challenge,
    auth_judge,
    auth_name_and_payload,
    auth_respond,
    auth_verify,
    auth_words,
    get_in,
    kept_event_of,
    received,
    received_bytes,
    received_into,
    received_now,
    something_is_kept,
)
from .context import AuthenticationError, BufferTooShort, reduction  # noqa: F401
from .reduction import ForkingPickler as _StandardPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket as Socket
    from typing import Any

    from typing_extensions import TypeVar

    from ._maniple import Guest

    # The types of the objects that are sent and received; by default any object.
    _Sent = TypeVar("_Sent", contravariant=True, default=Any)
    _Received = TypeVar("_Received", covariant=True, default=Any)
else:
    _Sent = _Received = object

__all__ = ["Client", "Listener", "Pipe", "wait"]

#: the class that pickles and unpickles objects; a program may replace it
_ForkingPickler = getattr(reduction, "ForkingPickler", _StandardPickler)

# Authentication: one side sends CHALLENGE and random bytes, receives a response, and sends WELCOME or FAILURE; then the two sides
# swap roles.  The listener sends the first challenge.  The engine makes and checks all messages.
(CHALLENGE, WELCOME, FAILURE), _DIGESTS = auth_words()
_CHALLENGE, _WELCOME, _FAILURE = CHALLENGE, WELCOME, FAILURE  # newer Pythons use these names
_MD5ONLY_MESSAGE_LENGTH, _MD5_DIGEST_LEN = 20, 16
_LEGACY_LENGTHS = _MD5ONLY_MESSAGE_LENGTH, _MD5_DIGEST_LEN
_ALLOWED_DIGESTS = frozenset(_DIGESTS)
_MAX_DIGEST_LEN = max(map(len, _ALLOWED_DIGESTS))
_get_digest_name_and_payload, _create_response, _verify_challenge = auth_name_and_payload, auth_respond, auth_verify

# The values of the running Python's package, in bytes: the buffer of a Windows pipe, and the random part of a challenge (this
# package sends 40 on every version; older versions accept them).
BUFSIZE = 65536 if sys.version_info >= (3, 14) else 8192
MESSAGE_LENGTH = 40 if sys.version_info >= (3, 12) else 20
#: the time for which a client retries a busy Windows pipe, in seconds
CONNECTION_TIMEOUT = 20.0

# Bytes of a message that a pipe or a socket takes at once when it can be written to; a page is free then.
_SURE_TO_FIT = 4000

default_family = "AF_UNIX" if os.name == "posix" else "AF_PIPE" if sys.platform == "win32" else "AF_INET"
families: list[str] = list(dict.fromkeys(("AF_INET", default_family)))


class _ConnectionBase(Channel[_Sent, _Received], Parts):
    """The base class of connections: a handle, its directions, and messages of bytes or of objects.

    Sending, receiving and polling are native (`Channel`), except where a subclass overrides the parts of them.
    """

    def __init_subclass__(cls, **kwds: Any) -> None:
        super().__init_subclass__(**kwds)
        go_through_parts(cls)

    def __init__(self, handle: int, readable: bool = True, writable: bool = True) -> None:
        go_through_parts(type(self))  # a program may have replaced methods of the class
        number = handle.__index__()
        if number < 0:
            raise ValueError("invalid handle")
        if not (readable or writable):
            raise ValueError("at least one of `readable` and `writable` must be True")
        self._handle, self._readable, self._writable = number, bool(readable), bool(writable)

    def _detach(self) -> int | None:
        """Release the handle without closing it, and return it."""
        handle, self._handle = self._handle, None
        return handle

    def __del__(self) -> None:
        # For subclasses that override `close`; the native class closes the handle in any case.
        if not self.closed:
            self.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, exc_tb: Any) -> None:
        self.close()

    # Each returns a subscription, because the interpreter runs signal handlers after a call of native code: a handler that raises there
    # would lose the message.

    def recv(self) -> _Received:
        """Wait for an object that the other end has sent, and return it.

        Unpickling can run any code that the sender names, so receive only from trusted processes.

        Raises:
            EOFError: the other end is closed, and nothing is left to receive.
            OSError: this end is closed, or can only send.
            The exception that unpickling the object raises.
        """
        return received[self]  # type: ignore[no-any-return]  # the other end decides

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Wait for a message, and return its bytes.

        Args:
            maxlength: the largest number of bytes to accept; None means no limit.

        Raises:
            EOFError: the other end is closed, and nothing is left to receive.
            OSError: the message is longer than `maxlength`, and the connection can receive no more; or this end is closed.
        """
        message: bytes = received_bytes[self, maxlength]
        return message

    def recv_bytes_into(self, buf: Any, offset: int = 0) -> int:
        """Wait for a message, write it into a buffer, and return its length in bytes.

        Args:
            buf: a writable bytes-like object.
            offset: the position in `buf`, in bytes, of the first byte of the message.

        Raises:
            BufferTooShort: the message does not fit; ``args[0]`` is the message.
            EOFError: the other end is closed, and nothing is left to receive.
        """
        length: int = received_into[self, buf, offset]
        return length

    # Sends the messages that found no room, one after the other.
    _sender: Any = None

    async def recv_async(self) -> _Received:
        """As `recv`, in a task of asyncio, trio or anyio: the event loop is not blocked while no message arrives.

        The loop waits for the rest of a message that has begun to arrive. If the task is cancelled, the message stays in the connection.

        Raises: what `recv` raises.
        """
        from ._impl.aio.doors import door

        here = door()
        await here.checkpoint()
        if type(self).recv is not _ConnectionBase.recv:
            # A subclass receives in its own way.
            while not self.poll():
                await here.readable(self.fileno())
            return self.recv()
        while (message := received_now[self]) is None:
            await here.readable(self.fileno())
        return message[0]  # type: ignore[no-any-return]  # the other end decides

    async def send_async(self, obj: _Sent) -> None:
        """As `send`, in a task of asyncio, trio or anyio: the event loop is not blocked while the connection is full.

        The messages of several tasks are sent in the order of their calls. If the task is cancelled while its message waits for room,
        the message is sent nevertheless.

        Raises: what `send` raises.
        """
        from ._impl.aio.doors import door
        from ._impl.aio.helpers import Helper, Work

        pickle = _ForkingPickler.dumps(obj)
        here = door()
        await here.checkpoint()
        if self._sender is None or self._sender.is_of_parent:
            self._sender = Helper()
        if self._sender.is_free and len(pickle) <= _SURE_TO_FIT and has_room(self.fileno()):
            self.send_bytes(pickle)
            return
        work = Work(self._sender, partial(self.send_bytes, pickle))
        await here.until(work)
        work.outcome()


class Connection(_ConnectionBase[_Sent, _Received]):
    """One end of a pipe or a socket between two processes. It sends objects (`send`, `recv`) or bytes (`send_bytes`, `recv_bytes`).

    `Pipe`, `Client` and `Listener.accept` return connections. ``Connection[str, int]`` is the type of a connection that sends str and
    receives int.

    Args:
        handle: the file descriptor, which the connection owns and closes.
        readable: whether the connection may receive.
        writable: whether the connection may send.
    """


if sys.platform == "win32":

    class PipeConnection(_ConnectionBase[_Sent, _Received]):
        """One end of a pipe between two processes of this machine, with the methods of `Connection`."""

    _End: Any = PipeConnection
else:
    _End = Connection


def reduce_connection(conn: Any) -> tuple[Any, ...]:
    """Return the reduced form of a connection: a duplicate of its descriptor."""
    if sys.platform == "win32" and type(conn) is not _End:
        return _reduce_socket_connection(conn)
    state = (reduction.DupFd(conn.fileno()), conn.readable, conn.writable)
    if conn._parcels:
        from ._impl.transport.duplex import rebuild_end

        return rebuild_end, state
    return _rebuild, state


reduction.register(Connection, reduce_connection)

if sys.platform == "win32":

    def rebuild_connection(ds: Any, readable: bool, writable: bool) -> Any:
        """Unpickle what `reduce_connection` returned for a connection over a socket."""
        conn = _connection_over(ds.detach())
        conn._readable, conn._writable = readable, writable
        return conn

    def _reduce_socket_connection(conn: Any) -> tuple[Any, ...]:
        import socket

        from . import resource_sharer

        # A view of the connection's socket, which does not close it.
        view = socket.socket(fileno=conn.fileno())
        try:
            return rebuild_connection, (resource_sharer.DupSocket(view), conn.readable, conn.writable)
        finally:
            view.detach()

    def reduce_pipe_connection(conn: Any) -> tuple[Any, ...]:
        """Return the reduced form of an end of a pipe: a duplicate of its handle."""
        return reduce_connection(conn)

    def rebuild_pipe_connection(dh: Any, readable: bool, writable: bool) -> Any:
        """Unpickle what `reduce_pipe_connection` returned."""
        return PipeConnection(dh.detach(), readable, writable)

    reduction.register(PipeConnection, reduce_pipe_connection)
    _rebuild = rebuild_pipe_connection
else:

    def rebuild_connection(df: Any, readable: bool, writable: bool) -> Connection:
        """Unpickle what `reduce_connection` returned."""
        return Connection(df.detach(), readable, writable)

    _rebuild = rebuild_connection


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Return a pair of connected `Connection` objects.

    Args:
        duplex: True makes both ends send and receive. False makes the first end receive only and the second send only.

    Raises:
        OSError: the process has no free file descriptors.

    Large buffers (NumPy arrays, bytes) go through a duplex pipe in shared memory. A one-way pipe holds many more
    small messages before `send` waits for a reader.
    """
    go_through_parts(_End)
    ends = _End.__new__(_End), _End.__new__(_End)
    ends[0]._join(ends[1], bool(duplex))
    return ends


def _connection_over(sock: Socket, guest: Guest | None = None) -> Connection:
    """Return a connection that takes over the descriptor of a connected socket. `guest` owns the descriptor, if it is given."""
    import socket

    if sock.family in (socket.AF_INET, socket.AF_INET6):
        # Each message is written as a whole, so a wait for more data to fill the packet only costs time.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform != "win32":  # there, each call says itself whether it waits
        # The descriptor does not block if socket.setdefaulttimeout() was called, or if sockets are gevent's.
        os.set_blocking(sock.fileno(), True)
    go_through_parts(Connection)
    end = Connection.__new__(Connection)
    if guest is None:
        end._take(socket_above(sock))
    else:
        sock.detach()
        end._take(guest)
    return end


def wait(object_list: Iterable[Any], timeout: float | None = None) -> list[Any]:
    """Wait until at least one object is ready, and return the list of the ready ones, in the order of `object_list`.

    Args:
        object_list: connections, sockets, the `sentinel` of processes, file descriptors, or objects with ``fileno()``.
            A connection is ready if a message or the end of the stream can be received.
        timeout: the time limit in seconds; None means no limit. The list is empty if it passed.
    """
    objects = list(object_list)
    try:
        descriptors = [
            obj if type(obj) is int else obj.fileno() if hasattr(obj, "fileno") else index(obj) for obj in objects
        ]
    except TypeError as error:
        raise ValueError(f"cannot wait for an object that is not a connection, socket or descriptor: {error}") from None
    poller = new_poller()
    for fd in descriptors:
        poller.register(fd, READABLE)
    # Becomes readable when a signal handler in the first thread keeps a message.
    event = kept_event_of(objects) if timeout is None or timeout > 0 else None
    if event is not None:
        poller.register(event, READABLE)
        limit = None if timeout is None else time.monotonic() + timeout
    while True:
        if something_is_kept():
            # A message that a signal handler kept from its receiver is ready, although its descriptor is not.
            kept = {fd for obj, fd in zip(objects, descriptors) if getattr(obj, "_is_kept", False)}
            ready = kept | {fd for fd, _ in wait_for_events(poller, 0 if kept else timeout)}
        else:
            ready = {fd for fd, _ in wait_for_events(poller, timeout)}
        if event in ready and len(ready) == 1:
            # The kept message may belong to another object. Check once more.
            kept_event_of(objects)
            timeout = None if limit is None else max(0.0, limit - time.monotonic())
            continue
        return [obj for obj, fd in zip(objects, descriptors) if fd in ready]


def arbitrary_address(family: str) -> str | tuple[str, int]:
    """Return a free address of the family ``AF_INET``, ``AF_UNIX`` or ``AF_PIPE``."""
    if family == "AF_INET":
        return "localhost", 0
    unique = os.urandom(6).hex()
    if family == "AF_UNIX":
        return os.path.join(util.get_temp_dir(), f"sock-{unique}")
    if family == "AF_PIPE":
        return rf"\\.\pipe\pyc-{os.getpid()}-{unique}"
    raise ValueError(f"unrecognized family {family!r}")


def address_type(address: Any) -> str:
    """Return the family of an address: ``AF_INET`` for a tuple, ``AF_UNIX`` or ``AF_PIPE`` for a str.

    Raises:
        ValueError: the address is of no known family.
    """
    if isinstance(address, tuple):
        return "AF_INET"
    if isinstance(address, str) and address.startswith("\\\\"):
        return "AF_PIPE"
    if isinstance(address, str) or util.is_abstract_socket_namespace(address):
        return "AF_UNIX"
    raise ValueError(f"address type of {address!r} unrecognized")


def _validate_family(family: str) -> None:
    """Raise ValueError if this system does not have the family."""
    windows_only = family == "AF_PIPE"
    if sys.platform == "win32" and family == "AF_UNIX":
        import socket

        if not hasattr(socket, family):
            raise ValueError(f"Family {family} is not recognized.")
        return
    if windows_only and sys.platform != "win32" or family == "AF_UNIX" and family not in families:
        raise ValueError(f"Family {family} is not recognized.")


def _checked_key(authkey: Any) -> bytes | None:
    if authkey is None or isinstance(authkey, bytes):
        return authkey
    raise TypeError("authkey should be a byte string")


def _check_key(authkey: Any) -> None:
    if not isinstance(authkey, bytes):
        raise ValueError(f"Authkey must be bytes, not {type(authkey)!s}")


#: the longest message of an authentication in bytes; checked before the message is read
_LONGEST = 256


def deliver_challenge(connection: Any, authkey: bytes, digest_name: str = "sha256") -> None:
    """Make the process at the other end of `connection` prove that it has the key.

    Raises:
        AuthenticationError: it has another key.
        ValueError: `authkey` is not bytes.
    """
    _check_key(authkey)
    challenge = auth_challenge(digest_name)
    connection.send_bytes(challenge)
    verdict, refusal = auth_judge(authkey, challenge, connection.recv_bytes(_LONGEST))
    connection.send_bytes(verdict)
    if refusal is not None:
        raise refusal


def answer_challenge(connection: Any, authkey: bytes) -> None:
    """Prove to the process at the other end of `connection` that this process has the key.

    Raises:
        AuthenticationError: the other end rejects the key.
        ValueError: `authkey` is not bytes.
    """
    _check_key(authkey)
    connection.send_bytes(auth_answer(authkey, connection.recv_bytes(_LONGEST)))
    auth_accept(connection.recv_bytes(_LONGEST))


class Listener:
    """A listening socket that accepts connections from `Client` in other processes, on this machine or others.

    Args:
        address: ``(host, port)``, or the path of a Unix socket. None chooses a free address.
        family: ``AF_INET`` or ``AF_UNIX``; by default the family of `address`, or the system's default.
        backlog: the number of connections that may wait to be accepted.
        authkey: the key, bytes, that both ends must have; None accepts all clients.

    Raises:
        OSError: the address is in use, or invalid.

    Clients authenticate side by side: a silent client does not delay `accept` for others, and is closed after 20
    seconds. In the standard package it blocks all other clients.

    Example::

        with Listener(("localhost", 6000), authkey=b"secret") as listener:
            with listener.accept() as connection:
                print(connection.recv())
    """

    def __init__(
        self, address: Any = None, family: str | None = None, backlog: int = 1, authkey: bytes | None = None
    ) -> None:
        family = family or address and address_type(address) or default_family
        _validate_family(family)
        self._authkey = _checked_key(authkey)
        self._listener: Any
        try:
            if sys.platform == "win32" and family == "AF_PIPE":
                self._listener = PipeListener(address or arbitrary_address(family), backlog)
            else:
                self._listener = SocketListener(address or arbitrary_address(family), family, backlog)
        except OSError as problem:
            explain_shortage(problem, "the listener cannot be made")
            raise

    def accept(self) -> Connection:
        """Wait for the next client, and return its `Connection`.

        Raises:
            AuthenticationError: the client has another key. The listener can accept more.
            EOFError: the client disconnected before it was authenticated. The listener can accept more.
            OSError: the listener is closed.
        """
        inner, key = self._listener, self._authkey
        if inner is None:
            raise OSError("listener is closed")
        if key is None:
            return inner.accept()  # type: ignore[no-any-return]  # a listener of the program may be anything
        if isinstance(inner, SocketListener) and type(inner).accept is SocketListener.accept:
            return inner._admit(key)
        if sys.platform == "win32" and type(inner) is PipeListener:
            return inner._admit(key)
        return _let_in(inner.accept(), key)  # a listener of the program

    def close(self) -> None:
        """Stop listening; the path of a Unix socket is removed. An `accept` in another thread raises OSError."""
        inner, self._listener = self._listener, None
        if inner is not None:
            inner.close()

    @property
    def address(self) -> Any:
        """The address of the listener, which `Client` accepts."""
        return self._listener._address  # AttributeError once closed, as is standard

    @property
    def last_accepted(self) -> Any:
        """The address of the client that was accepted last; "" or None if it has none."""
        return self._listener._last_accepted  # likewise

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, exc_tb: Any) -> None:
        self.close()


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Connection:
    """Connect to the `Listener` at an address, and return a `Connection`.

    Args:
        address: the address of the listener.
        family: the family of the address; by default it follows from the address.
        authkey: the key, bytes, that the listener has too; None if it has none.

    Raises:
        AuthenticationError: the listener has another key, or no key.
        ConnectionRefusedError, FileNotFoundError: nothing listens at the address.
    """
    family = family or address_type(address)
    _validate_family(family)
    key = _checked_key(authkey)
    conn = _dial(address)
    if key is not None:
        try:
            get_in(conn.fileno(), key)
        except BaseException:
            conn.close()
            raise
    return conn  # type: ignore[no-any-return]  # a `Connection`, or an end of a pipe


def _dial(address: Any, timeout: float | None = None) -> Any:
    """Connect to the socket or the pipe that listens at `address`."""
    if sys.platform == "win32" and address_type(address) == "AF_PIPE":
        return PipeClient(address, timeout)
    return SocketClient(address, timeout)


def _let_in(conn: Connection, key: bytes) -> Connection:
    """Authenticate the other end of `conn`, and return `conn`; close it and raise the error if that fails."""
    try:
        deliver_challenge(conn, key)
        answer_challenge(conn, key)
    except BaseException:
        conn.close()
        raise
    return conn


class SocketListener:
    """A listening socket, as `Listener` uses it."""

    def __init__(self, address: Any, family: str, backlog: int = 1) -> None:
        import socket

        self._family, self._last_accepted, self._unlink = family, None, None
        self._socket = sock = socket_above(socket.socket(getattr(socket, family)))
        try:
            self._reception, self._file = Reception(), mark(sock.fileno())
            if os.name == "posix":  # so that a port whose last connections linger can be bound again at once
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(True)
            sock.bind(address)
            sock.listen(backlog)
            self._address = sock.getsockname()
        except OSError as problem:
            if problem.errno is not None:
                problem.filename = address  # the message names it
            sock.close()
            raise
        if family == "AF_UNIX" and not util.is_abstract_socket_namespace(address):
            self._unlink = util.Finalize(self, os.unlink, (address,), exitpriority=0)

    def accept(self) -> Connection:
        """Wait for the next client, and return its connection."""
        return self._admit(None)

    def _admit(self, key: bytes | None) -> Connection:
        """Accept the next connection; if `key` is not None, the next authenticated one."""
        if type(self._socket).__module__ != "socket":
            # A socket class of the program, or of gevent, which runs other greenlets while it waits: use its `accept`.
            sock, self._last_accepted = self._socket.accept()
            sock = socket_above(sock)
            conn = _connection_over(sock)
            return conn if key is None else _let_in(conn, key)
        guest = self._reception[self._descriptor(), key, self._socket.gettimeout()]
        if guest is None:
            raise TimeoutError("timed out")
        listening = self._socket
        kind: Any = type(listening)
        sock = kind.__new__(kind)
        try:
            sock.__init__(listening.family, listening.type, listening.proto, guest.fileno())
            try:
                self._last_accepted = sock.getpeername()
            except OSError:  # the client has disconnected already
                self._last_accepted = None
            return _connection_over(sock, guest)
        except BaseException:
            # The guest closes the descriptor, so a client that a signal handler has interrupted learns of it.
            sock.detach()
            raise

    def _descriptor(self) -> int:
        number: int = self._socket.fileno()
        if number >= 0 and mark(number) != self._file:
            raise OSError(errno.EBADF, "the program has closed the descriptor of this listener")
        return number

    def close(self) -> None:
        """Close the socket, and remove its path if it has one."""
        remove_path, self._unlink = self._unlink, None
        try:
            self._reception.close()  # first: an accept() in another thread must not wait for a descriptor number that is reused
            self._let_go()
            self._socket.close()
        finally:
            if remove_path:
                remove_path()

    def _let_go(self, mark: Any = mark) -> None:
        """If the program has closed the descriptor, keep the socket from closing another file under its number."""
        number = self._socket.fileno()
        if number >= 0 and mark(number) != self._file:
            self._socket.detach()

    def __del__(self) -> None:
        # At the end of the interpreter, or of a listener that was not made, an attribute may be missing.
        try:
            self._let_go()
        except Exception:
            pass


def SocketClient(address: Any, timeout: float | None = None) -> Connection:
    """Return a connection to the socket that listens at `address`.

    Raises:
        TimeoutError: `timeout` seconds have passed.
    """
    import socket

    family = address_type(address)
    if family == "AF_INET" and (len(address) > 2 or ":" in address[0]):
        family = "AF_INET6"
    sock = socket_above(socket.socket(getattr(socket, family)))
    try:
        sock.settimeout(timeout)
        sock.connect(address)
        return _connection_over(sock)
    except BaseException as problem:
        if isinstance(problem, OSError) and problem.errno is not None:
            problem.filename = address  # the message names it
        sock.close()
        raise


class ConnectionWrapper:
    """A connection that converts objects to bytes and back with given functions instead of pickle."""

    def __init__(self, conn: Connection, dumps: Callable[[Any], bytes], loads: Callable[[bytes], Any]) -> None:
        self._conn, self._dumps, self._loads = conn, dumps, loads
        self.fileno, self.close, self.poll = conn.fileno, conn.close, conn.poll
        self.recv_bytes, self.send_bytes = conn.recv_bytes, conn.send_bytes

    def send(self, obj: Any) -> None:
        """Send one object."""
        self.send_bytes(self._dumps(obj))

    def recv(self) -> Any:
        """Receive one object."""
        return self._loads(self.recv_bytes())

    def __enter__(self) -> ConnectionWrapper:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()


def _xml_dumps(obj: Any) -> bytes:
    import xmlrpc.client

    return xmlrpc.client.dumps((obj,), allow_none=True).encode("utf-8")


def _xml_loads(s: bytes) -> Any:
    import xmlrpc.client

    (obj,), _method = xmlrpc.client.loads(s.decode("utf-8"))
    return obj


class XmlListener(Listener):
    """A `Listener` whose connections send objects as XML-RPC values."""

    def accept(self) -> ConnectionWrapper:  # type: ignore[override]  # which is used like a `Connection`
        """Wait for the next client, and return its connection."""
        return ConnectionWrapper(super().accept(), _xml_dumps, _xml_loads)


def XmlClient(*args: Any, **kwds: Any) -> ConnectionWrapper:
    """Return a connection as `Client` does; it sends objects as XML-RPC values."""
    return ConnectionWrapper(Client(*args, **kwds), _xml_dumps, _xml_loads)


if sys.platform == "win32":
    from ._impl.transport.named_pipes import NamedPipeListener, dial

    class PipeListener(NamedPipeListener):
        """A pipe with a name, as `Listener` uses it."""

        _End = PipeConnection

    def PipeClient(address: str, timeout: float | None = None) -> Any:
        """Return a connection to the pipe that listens at `address`.

        Raises:
            FileNotFoundError: nothing listens there.
            TimeoutError: the listener has accepted no client for `timeout` seconds, 20 by default.
        """
        return dial(address, PipeConnection, CONNECTION_TIMEOUT if timeout is None else timeout)


public_module.finish(globals())
