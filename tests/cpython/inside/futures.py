"""Replaces the package `concurrent.futures`: its `ProcessPoolExecutor` is PACKAGE's, all else is the standard library's.

`twin.py` writes this text as `concurrent/futures/__init__.py` of an interpreter's twin, beside links to the other modules.
"""

from importlib import import_module

_FILE = "@FILE@"
with open(_FILE, encoding="utf-8") as _source:
    exec(compile(_source.read(), _FILE, "exec"))
# Until Python 3.14 the names are found by a function, later they are imported at their first use.
_others = globals().get("__getattr__")
globals().pop("ProcessPoolExecutor", None)


def __getattr__(name):
    if name == "ProcessPoolExecutor":
        return import_module("@PACKAGE@").ProcessPoolExecutor
    if _others is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _others(name)
