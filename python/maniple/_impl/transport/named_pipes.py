"""Listeners and clients of the family ``AF_PIPE``: connections of this machine under a name, on Windows.

The address has the form of the system's pipes, ``\\\\.\\pipe\\NAME``.  What is behind it is this package's own, and
beside it a pipe of the system, for ends of the standard package (``message_pipes.py``).
"""

from __future__ import annotations

from functools import partial

from ..._maniple import Reception, local_client, local_listener
from ...util import Finalize, sub_debug
from ..start.descriptors import close_number
from .connection_parts import go_through_parts
from .message_pipes import Door, pipe_client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["NamedPipeListener", "dial"]

_PREFIX = "\\\\.\\pipe\\"


def _name(address: Any) -> str:
    """Return the name in an address.

    Raises:
        ValueError: it is no address of a pipe of this machine.
    """
    if not isinstance(address, str) or address[: len(_PREFIX)].lower() != _PREFIX or not address[len(_PREFIX) :]:
        raise ValueError(f"{address!r} is not the address of a pipe of this machine, such as {_PREFIX}name")
    # The system's names do not tell upper case from lower case.
    return address[len(_PREFIX) :].lower().replace("\\", "!").replace("/", "!")


def _connection(kind: Any, owner: Any) -> Any:
    """Return a connection of the class `kind` over the handle that `owner` gives up."""
    go_through_parts(kind)
    made = kind.__new__(kind)
    made._take(owner)
    return made


class _Handle:
    """The owner of a handle, until it is detached."""

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        """Give up the handle, and return it."""
        return self._number


class NamedPipeListener:
    """A pipe with a name, as `Listener` uses it."""

    #: the class of the connections
    _End: Any = None

    def __init__(self, address: str, backlog: int | None = None) -> None:
        self._address, self._last_accepted = address, None
        self._reception = Reception()
        try:
            self._handle = local_listener(_name(address), max(backlog or 1, 1))
        except OSError as problem:
            problem.filename = address  # the message names it
            raise
        try:
            door = Door(address, partial(_own_client, address, self._End))
        except BaseException:
            close_number(self._handle)
            raise
        sub_debug("listener created with address=%r", address)
        parts = door, self._reception, self._handle
        self.close = Finalize(self, self._finalize_pipe_listener, parts, exitpriority=0)

    def accept(self) -> Any:
        """Wait for the next client, and return its connection."""
        return self._admit(None)

    def _admit(self, key: bytes | None) -> Any:
        guest = self._reception[self._handle, key, None]
        return _connection(self._End, guest)

    @staticmethod
    def _finalize_pipe_listener(door: Door, reception: Any, handle: int) -> None:
        door.close()
        reception.close()  # first: an accept() in another thread must not wait for a number that is used again
        close_number(handle)


def dial(address: str, kind: Any, timeout: float) -> Any:
    """Return a connection of the class `kind` to the pipe that listens at `address`.

    Raises:
        FileNotFoundError: nothing listens there.
        TimeoutError: the listener has accepted no client for `timeout` seconds.
    """
    try:
        number = local_client(_name(address), timeout)
    except ConnectionRefusedError:
        try:
            return pipe_client(address, kind, timeout)
        except FileNotFoundError:
            raise FileNotFoundError(2, "no pipe listens at this address", address) from None
    return _connection(kind, _Handle(number))


def _own_client(address: str, kind: Any) -> Any:
    """Return a connection to this process's own listener, for a client of the system's pipe."""
    from ...connection import CONNECTION_TIMEOUT

    return _connection(kind, _Handle(local_client(_name(address), CONNECTION_TIMEOUT)))
