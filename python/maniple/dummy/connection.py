"""Connections between threads: a queue for each direction."""

from __future__ import annotations

import queue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    _Line = queue.Queue[Any]

__all__ = ["Client", "Listener", "Pipe"]

# The only "family" of addresses.
families: list[None] = [None]

Queue = queue.Queue


class Connection:
    """One end of a pair of queues between threads: `send`, `recv`, `poll`."""

    def __init__(self, _in: _Line, _out: _Line) -> None:
        self._in, self._out = _in, _out
        self.send = self.send_bytes = self._out.put
        self.recv = self.recv_bytes = self._in.get

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Return True if something can be received; wait for it at most `timeout` seconds (None: no limit)."""
        if self._in.qsize() == 0 and (timeout is None or timeout > 0):
            with self._in.not_empty:
                self._in.not_empty.wait_for(self._in._qsize, timeout)
        return self._in.qsize() > 0

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, exc_tb: Any) -> None:
        self.close()


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Return two connected `Connection` objects. Both send and receive; `duplex` has no effect."""
    there: _Line = Queue()
    back: _Line = Queue()
    return Connection(back, there), Connection(there, back)


class Listener:
    """An object that accepts connections from threads that call `Client` with its `address`."""

    def __init__(self, address: Any = None, family: Any = None, backlog: int = 1) -> None:
        self._waiting: _Line | None = Queue(backlog)

    @property
    def address(self) -> _Line | None:
        """The object that `Client` accepts."""
        return self._waiting

    def accept(self) -> Connection:
        """Wait for a client, and return the connection to it."""
        if self._waiting is None:
            raise OSError("the listener is closed")
        return Connection(*self._waiting.get())

    def close(self) -> None:
        """Accept no more clients."""
        self._waiting = None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, exc_tb: Any) -> None:
        self.close()


def Client(address: _Line) -> Connection:
    """Connect to the listener with this address, and return the connection."""
    there: _Line = Queue()
    back: _Line = Queue()
    address.put((there, back))
    return Connection(back, there)
