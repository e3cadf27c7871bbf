"""The protocol between a manager's server and its clients.

A client's request is ``(id, method, args, kwds)``: the id of a shared object, or None for a call to the server itself.
The server's answer is a pair:

====================  ======================================================================================
``#RETURN``           the result
``#PROXY``            ``(exposed methods, Token)``: the result stays in the server, and the client makes a proxy for it
``#ERROR``            the exception that the method raised
``#TRACEBACK``        the text of a traceback: the server could not make the call
``#UNSERIALIZABLE``   the text of a traceback: the answer could not be pickled
``#WITHDRAWN``        None: the client has withdrawn the call, and skips this
====================  ======================================================================================

The standard package uses the same protocol, so either side may use that package.  A `Token`, a proxy or a `Namespace` is pickled by
the name of its class, and the standard package only has ``multiprocessing.managers``.  So on these connections this package writes
its classes by their standard names, and reads the standard names as its own classes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from _pickle import Unpickler
from collections.abc import Iterator

from ... import connection, reduction
from ..._maniple import Line, get_in
from ...connection import Client, ConnectionWrapper, Listener, XmlClient, XmlListener
from ...context import ManipleError
from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    Thing = TypeVar("Thing", bound=Any)

__all__ = ["RemoteError", "Token", "convert_to_error", "dispatch", "listener_client"]

_MANAGERS = PACKAGE + ".managers"
#: module of this package -> its names that every version of the standard package has; None: all names without an underscore
_SHARED_NAMES: dict[str | None, frozenset[str] | None] = {
    _MANAGERS: None,
    PACKAGE + ".context": frozenset(("ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError")),
    PACKAGE + ".shared_memory": frozenset(("SharedMemory", "ShareableList")),
}


def of_managers(thing: Thing) -> Thing:
    """Decorate a public name of `managers`: set `managers` as its module."""
    thing.__module__ = _MANAGERS
    return thing


def _resolve(path: str) -> Any:
    """Return the object that `pkgutil.resolve_name` returns, with this package's module for a standard one."""
    from pkgutil import resolve_name

    module, _, name = path.partition(":")
    return resolve_name(f"{_our_module(module)}:{name}")


def _our_module(module: str) -> str:
    top, dot, rest = module.partition(".")
    return PACKAGE + dot + rest if top == "multiprocessing" else module


class _WirePickler(reduction._standard):
    """A pickler that writes the shared classes as a call of `pkgutil.resolve_name` with the standard name."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type) or callable(obj):
            names = _SHARED_NAMES.get(getattr(obj, "__module__", None), ())
            name = getattr(obj, "__qualname__", "_")
            if names != () and (name in names if names else name[0] != "_"):
                from pkgutil import resolve_name  # late: it imports many modules

                return resolve_name, (f"multiprocessing.{obj.__module__.rpartition('.')[2]}:{name}",)
        return NotImplemented


class _WireUnpickler(Unpickler):
    """An unpickler that reads the standard package's names, in either form, as this package's names."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "pkgutil" and name == "resolve_name":
            return _resolve
        return super().find_class(_our_module(module), name)


def _dumps(obj: Any) -> bytes:
    if (pickler := reduction._program_s_pickler(connection, "dumps")) is not None:
        return bytes(pickler.dumps(obj))
    buf = io.BytesIO()
    _WirePickler(buf).dump(obj)
    return buf.getvalue()


def _loads(data: bytes) -> Any:
    if (pickler := reduction._program_s_pickler(connection, "loads")) is not None:
        return pickler.loads(data)
    return _WireUnpickler(io.BytesIO(data)).load()


class _WireListener(Listener):
    """A listener whose connections send and receive the messages of a manager."""

    def accept(self) -> ConnectionWrapper:  # type: ignore[override]  # which is used like a `Connection`
        return ConnectionWrapper(super().accept(), _dumps, _loads)


def _wire_client(*args: Any, **kwds: Any) -> ConnectionWrapper:
    return ConnectionWrapper(Client(*args, **kwds), _dumps, _loads)


def is_ours(connect: Any) -> bool:
    """Return whether `connect` makes connections that support sessions."""
    return connect is _wire_client


def over_wire(address: Any, authkey: bytes, timeout: float) -> ConnectionWrapper:
    """Connect to the server at `address`; raise TimeoutError if a step takes longer than `timeout` seconds."""
    conn = connection._dial(address, timeout)
    try:
        get_in(conn.fileno(), authkey, timeout)
    except BaseException:
        conn.close()
        raise
    return ConnectionWrapper(conn, _dumps, _loads)


#: name of a serializer -> its listener class and its client function
listener_client: dict[str, tuple[Any, Any]] = {
    "pickle": (_WireListener, _wire_client),
    "xmlrpclib": (XmlListener, XmlClient),
}


class _SlowLine:
    """The interface of the native `Line` for any connection. Its calls cannot be withdrawn: an interruption closes it."""

    number = None
    asked = 0

    def __init__(self, conn: ConnectionWrapper) -> None:
        self._conn, self._is_closed, self._waiting, self.fileno = conn, False, False, conn.fileno
        self._process = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether the connection is closed, or belongs to the process that forked this one."""
        return self._is_closed or self._process != os.getpid()

    @property
    def over(self) -> bool:
        """Whether this end is closed, or the other end is known to be closed. The call does not wait."""
        return self.closed or bool(self._conn.poll(0))  # between calls only the end of the stream is readable

    @property
    def ready(self) -> bool:
        """Whether a call can be made: the connection is open, and no call waits for its answer."""
        return not (self.closed or self._waiting)

    def call(self, ident: str, method: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
        """Send a request, and return the answer."""
        self._waiting = True
        try:
            self.send((ident, method, args, kwds))
            return self.recv()
        finally:
            self._waiting = False

    def send(self, message: tuple[Any, ...]) -> None:
        """Send one message."""
        data = self._conn._dumps(message)
        with self._closed_by_failure():
            self._conn.send_bytes(data)

    def recv(self) -> Any:
        """Return the next message; raise EOFError if the other end is closed."""
        with self._closed_by_failure():
            data = self._conn.recv_bytes()
        return self._conn._loads(data)

    @contextlib.contextmanager
    def _closed_by_failure(self) -> Iterator[None]:
        # After an interruption, a late answer would be mistaken for the next call's.
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._is_closed = True
        self._conn.close()


#: listeners that authenticate their clients
AUTHENTICATING = (_WireListener, XmlListener)


def line_over(conn: Any, number: int | None = None) -> Any:
    """Return a `Line`, or a substitute, that takes over `conn` for requests and answers; the caller no longer uses
    `conn`.

    `number` is the line's number at a server, if its calls can be withdrawn there.

    A native `Line` makes the round trip of a proxy's call faster.
    """
    if type(conn) is ConnectionWrapper and conn._dumps is _dumps:
        # The line takes over the descriptor, since there may be no free descriptor for a copy.
        descriptor, conn._conn._handle = conn.fileno(), None
        return Line(descriptor, _dumps, _loads, number)
    return _SlowLine(conn)


@of_managers
class Token:
    """The name of an object in the server of a manager."""

    __slots__ = {
        "typeid": "The name of the type that the object was registered with.",
        "address": "The address of the object's server.",
        "id": "The id of the object in its server, a str.",
    }
    typeid: str
    address: Any
    id: str

    def __init__(self, typeid: str, address: Any, id: str) -> None:
        self.__setstate__((typeid, address, id))

    def __getstate__(self) -> tuple[Any, ...]:
        return self.typeid, self.address, self.id

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.typeid, self.address, self.id = state

    def __repr__(self) -> str:
        return f"{type(self).__name__}(typeid={self.typeid!r}, address={self.address!r}, id={self.id!r})"


@of_managers
class RemoteError(ManipleError):
    """The server of a manager could not make a call; ``args[0]`` is the server's traceback, as text.

    An exception that the called method itself raises is raised unchanged.
    """

    def __str__(self) -> str:
        rule = "-" * 75
        return f"\n{rule}\n{self.args[0]}{rule}"


@of_managers
def convert_to_error(kind: str, result: Any) -> Exception:
    """Return the exception to raise for an answer of the server that is not a result."""
    if kind == "#ERROR":
        return result  # type: ignore[no-any-return]  # an exception, by the protocol
    if kind == "#WITHDRAWN":
        return EOFError("this process has ended its session with the manager, because it ends")
    if kind not in ("#TRACEBACK", "#UNSERIALIZABLE"):
        return ValueError(f"Unrecognized message type {kind!r}")
    if not isinstance(result, str):
        raise TypeError(f"Result {result!r} (kind {kind!r}) type is {type(result)}, not str")
    return RemoteError(result if kind == "#TRACEBACK" else f"Unserializable message: {result}\n")


def no_thread(problem: BaseException) -> OSError:
    """Return the error of a server that has no thread for a client."""
    number = errno.ENOMEM if isinstance(problem, MemoryError) else errno.EAGAIN
    return OSError(
        number, f"the manager's server has no thread for a client: {problem}; raise its limits (ulimit -u, -v)"
    )


@of_managers
def dispatch(c: Any, id: str | None, methodname: str, args: tuple[Any, ...] = (), kwds: dict[str, Any] = {}) -> Any:
    """Make one call over the connection `c`, and return its result.

    Raises: what the called method raises, or `RemoteError` if the server cannot make the call.
    """
    try:
        c.send((id, methodname, args, kwds))
    except (BrokenPipeError, ConnectionResetError):
        # The server may have said why before it closed the connection.
        try:
            told = c.recv()
        except (EOFError, OSError):
            told = None
        if told is None:
            raise
        kind, result = told
    else:
        kind, result = c.recv()
    if kind == "#RETURN":
        return result
    try:
        raise convert_to_error(kind, result)
    finally:
        del result  # the traceback refers to this frame: avoid a cycle
