"""Pickling of an end of a duplex pipe, so that it always arrives as an object of this package.

The function is not in `connection`: under ``python -m maniple``, pickles name the functions of that module as those of the standard
package, whose connections do not support buffers in shared memory.
"""

from __future__ import annotations

from ... import connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["rebuild_end"]


def rebuild_end(copy: Any, readable: bool, writable: bool) -> Any:
    """Return the end for the duplicate of its descriptor."""
    end = connection._End(copy.detach(), readable, writable)
    end._parcels = True
    return end
