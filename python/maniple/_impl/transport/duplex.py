"""How an end of a duplex pipe gets to another process: as one of ours there, whatever ``multiprocessing`` means there.

Apart from `connection`, whose functions are taken for the standard package's by pickles under ``python -m maniple``: the
standard one would make a connection that knows nothing of buffers in shared memory.
"""

from __future__ import annotations

from ...connection import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["rebuild_end"]


def rebuild_end(copy: Any, readable: bool, writable: bool) -> Connection:
    """Make the end again, of the duplicate of its descriptor."""
    end = Connection(copy.detach(), readable, writable)
    end._parcels = True
    return end
