"""Makes `multiprocessing` mean maniple in each Python program that a peer's tests start, however they start it.

So does the package that `MANIPLE_PEERS_ALSO` names, a copy of the standard package that a peer uses instead.
"""

import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

from maniple._impl.run.alias import install

ALSO = os.environ.get("MANIPLE_PEERS_ALSO")


class Also:
    """Finds and loads the modules of that package: they are maniple's."""

    def find_spec(self, name, path=None, target=None):
        package, dot, rest = name.partition(".")
        if package != ALSO or find_spec(f"maniple{dot}{rest}") is None:
            return None
        return ModuleSpec(name, self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        sys.modules[module.__name__] = import_module("maniple" + module.__name__.removeprefix(ALSO))


install()
if ALSO:
    sys.meta_path.insert(0, Also())
