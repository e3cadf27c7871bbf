"""The server of a `SharedMemoryManager`: at its end it removes the segments that its clients have made."""

from __future__ import annotations

from collections.abc import Callable
from os import fsdecode, getpid

from ... import util
from .rpc import of_managers
from .server import Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    from ... import shared_memory as shared_memory
except ImportError:  # the system has no shared memory: `managers` then has no SharedMemoryManager
    shared_memory = None  # type: ignore[assignment]  # an optional type would need checks at every use

__all__ = ["SharedMemoryServer"]


@of_managers
class _SharedMemoryTracker:
    """The names of the segments that a `SharedMemoryServer` removes at its end."""

    def __init__(self, name: str, segment_names: list[str] | None = None) -> None:
        self.shared_memory_context_name = name
        self.segment_names = [] if segment_names is None else segment_names

    def register_segment(self, segment_name: str) -> None:
        """Add a segment."""
        util.debug("Register segment %r in pid %d", segment_name, getpid())
        self.segment_names.append(segment_name)

    def destroy_segment(self, segment_name: str) -> None:
        """Remove a segment from the system; no process has to be attached to it."""
        util.debug("Destroy segment %r in pid %d", segment_name, getpid())
        self.segment_names.remove(segment_name)
        segment = shared_memory.SharedMemory(segment_name)
        segment.close()
        segment.unlink()

    def unlink(self) -> None:
        """Remove all segments."""
        for segment_name in self.segment_names[:]:
            self.destroy_segment(segment_name)

    # Bound as defaults: the modules may be empty at the end of the interpreter.
    def __del__(self, debug: Callable[..., None] = util.debug, getpid: Callable[[], int] = getpid) -> None:
        debug("Call %s.__del__ in %d", type(self).__name__, getpid())
        self.unlink()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.shared_memory_context_name, self.segment_names

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # the constructor of a subclass takes the subclass's state


@of_managers
class SharedMemoryServer(Server):
    """A server that also tracks segments of shared memory, and removes them at its end."""

    public = Server.public + ["track_segment", "release_segment", "list_segments"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        address = fsdecode(self.address) if isinstance(self.address, bytes) else self.address
        self.shared_memory_context = _SharedMemoryTracker(f"shm_{address}_{getpid()}")
        util.debug("SharedMemoryServer started by pid %d", getpid())

    def create(self, c: Any, typeid: str, /, *args: Any, **kwargs: Any) -> tuple[str, tuple[str, ...]]:
        """Make an object as `Server.create` does; pass the tracker if the proxy type has `_shared_memory_proxy`."""
        if hasattr(self.registry[typeid][-1], "_shared_memory_proxy"):
            kwargs["shared_memory_context"] = self.shared_memory_context
        return super().create(c, typeid, *args, **kwargs)

    def shutdown(self, c: Any) -> None:
        """Remove all segments, and end the server."""
        self.shared_memory_context.unlink()
        return super().shutdown(c)

    def track_segment(self, c: Any, segment_name: str) -> None:
        """Register a segment, which the server removes at its end."""
        self.shared_memory_context.register_segment(segment_name)

    def release_segment(self, c: Any, segment_name: str) -> None:
        """Remove a segment now."""
        self.shared_memory_context.destroy_segment(segment_name)

    def list_segments(self, c: Any) -> list[str]:
        """Return the names of the segments."""
        return self.shared_memory_context.segment_names
