"""One small file per library, each with a class that speaks `base.Adapter`."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .base import Adapter

REFERENCE = "standard"
SUBJECT = "maniple"
# In the order in which a round asks them.
NAMES = (
    REFERENCE,
    SUBJECT,
    "executor",
    "loky",
    "pebble",
    "deadpool",
    "mpire",
    "billiard",
    "multiprocess",
    "zooparallel",
    "aiomultiprocess",
)


def load(name: str) -> Adapter:
    """Import a library's adapter and, with it, the library."""
    module = import_module(f".{name}", __name__)
    adapter: Adapter = module.Library()
    return adapter
