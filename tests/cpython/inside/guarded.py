"""Replaces a C extension of the standard library: the tests may use it, PACKAGE may not.

CPython's tests name `_multiprocessing` themselves. A package that leaned on it would be tested against itself.
"""

import importlib.util
import sys

PACKAGE = "@PACKAGE@"
_spec = importlib.util.spec_from_file_location("@NAME@", "@FILE@")
_real = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_real)


def __getattr__(name):
    # The import system looks for these itself, on behalf of any importer.
    if name.startswith("__"):
        raise AttributeError(name)
    asking = sys._getframe(1).f_globals.get("__name__", "")
    if asking.partition(".")[0] == PACKAGE:
        raise ImportError(f"{asking} uses the standard library's @NAME@.{name}: {PACKAGE} is not independent of it")
    return getattr(_real, name)
