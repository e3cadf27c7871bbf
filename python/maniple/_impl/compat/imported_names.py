"""The names that the standard package's modules import, and that programs use there; this package does not need most of them.

``multiprocessing.reduction.pickle`` or ``shared_memory._posixshmem`` returns the module of that name.  The first access imports
it, so that children start without it.  Replacing such a module in the namespace has no effect on this package; replacing a
function of the module itself has its usual effect.
"""

from __future__ import annotations

import sys
from importlib import import_module

from .. import PACKAGE

__all__ = ["find"]

# Module of this package -> names of modules of the standard library, or of objects in them.
_NAMES = {
    "connection": "_multiprocessing errno io itertools selectors socket struct tempfile",
    "context": "functools threading",
    "dummy": "threading weakref",
    "forkserver": "atexit errno selectors socket struct threading warnings",
    "heap": "collections.defaultdict",
    "managers": "array os.getpid sys time traceback.format_exc types",
    "pool": "collections itertools queue time traceback types",
    "popen_fork": "atexit signal",
    "popen_forkserver": "io",
    "popen_spawn_win32": "_winapi msvcrt signal",
    "process": "itertools signal",
    "queues": "_multiprocessing collections errno sys threading time types weakref",
    "reduction": "abc.ABCMeta array copyreg functools pickle socket",
    "resource_sharer": "signal socket threading",
    "resource_tracker": "_multiprocessing _posixshmem base64 json signal threading warnings",
    "shared_memory": "_posixshmem errno functools.partial secrets struct types",
    "sharedctypes": "ctypes weakref",
    "spawn": "runpy",
    "synchronize": "_multiprocessing _multiprocessing.sem_unlink tempfile threading time",
    "util": "itertools weakref",
}
if sys.platform == "win32":
    _NAMES["connection"] += " _winapi" + "".join(
        f" _winapi.{name}" for name in ("INFINITE", "WAIT_ABANDONED_0", "WAIT_OBJECT_0", "WAIT_TIMEOUT")
    )


def find(holder: str, name: str) -> object:
    """Return the object that the standard module imports as ``name``; the module ``holder`` of this package does not have it.

    Raises:
        AttributeError: the standard module does not import it either.
    """
    module = holder.removeprefix(f"{PACKAGE}.")
    for wanted in _NAMES.get(module, "").split():
        source, _, inner = wanted.partition(".")
        if name == (inner or source):
            try:
                found = import_module(source)
            except ImportError as missing:
                raise AttributeError(f"module {holder!r} has no attribute {name!r} here: {missing}") from None
            return getattr(found, inner) if inner else found
    raise AttributeError(f"module {holder!r} has no attribute {name!r}", name=name, obj=sys.modules.get(holder))
