"""Replaces the package `multiprocessing` of the standard library: the name means PACKAGE here, in every process.

`twin.py` writes this text as `multiprocessing/__init__.py` of the interpreter's twin. It holds for every program that the
twin runs, with `-I`, `-E` and `-S` too, and needs nothing from PACKAGE.
"""

import faulthandler
import signal
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

PACKAGE = "@PACKAGE@"


class StandIn:
    """Finds and loads each module of the standard name: it is PACKAGE's module, one object under two names."""

    def find_spec(self, name, path=None, target=None):
        top, dot, rest = name.partition(".")
        if top != "multiprocessing" or not rest:
            return None
        ours = find_spec(PACKAGE + dot + rest)
        # If the package has no such module, there is none: the search must not continue in the files.
        if ours is None:
            raise ModuleNotFoundError(f"No module named {name!r}: {PACKAGE} has none", name=name)
        return ModuleSpec(name, self, origin=ours.origin)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        name = module.__name__
        sys.modules[name] = import_module(PACKAGE + name.removeprefix("multiprocessing"))


# A hang's report asks each process where its threads are. No test uses this signal.
if sys.platform != "win32":
    faulthandler.register(signal.SIGRTMIN + 9, file=2, all_threads=True)
sys.meta_path.insert(0, StandIn())
sys.modules["multiprocessing"] = import_module(PACKAGE)
