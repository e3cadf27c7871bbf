"""The package's modules have the imports of the standard modules, and a child need not import them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import itertools
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import maniple
import pytest

MODULES = [
    path.stem
    for path in Path(maniple.__file__).parent.glob("[a-z]*.py")
    # Some modules have no counterpart in the standard package.
    if not path.stem.startswith("popen_spawn_win32") and importlib.util.find_spec(f"multiprocessing.{path.stem}")
]


def imported_by(source: str) -> set[str]:
    """Return the names that a module's top level imports from outside its package."""

    def imports(body):
        for node in body:
            if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level):
                yield from (alias.asname or alias.name for alias in node.names)
            elif isinstance(node, (ast.If, ast.Try)):
                yield from imports([*node.body, *node.orelse])

    return set(imports(ast.parse(source).body))


@pytest.mark.parametrize("name", MODULES)
def test_our_module_has_the_standard_modules_imports(name):
    theirs = importlib.import_module(f"multiprocessing.{name}")
    ours = importlib.import_module(f"maniple.{name}")
    for key in imported_by(Path(theirs.__file__).read_text()):
        wanted = getattr(theirs, key, None)
        if wanted is not None:
            assert getattr(ours, key) is not None, key
            assert type(getattr(ours, key)) is type(wanted), key


def test_an_unknown_name_raises_attribute_error():
    module = importlib.import_module("maniple.heap")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = module.nonsense
    assert not hasattr(module, "__wrapped__")


def test_the_first_access_imports_a_name():
    program = "import sys, maniple.pool, maniple.reduction; print('maniple._impl.compat.imported_names' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"


def test_the_names_of_modules_are_collected_while_another_thread_imports() -> None:
    pytest.importorskip("maniple")
    from maniple._impl.pool.worker_main import _loaded_modules

    over = threading.Event()

    def load() -> None:
        for number in itertools.cycle(range(50)):
            name = f"made_by_this_test_{number}"
            if sys.modules.pop(name, None) is None:
                sys.modules[name] = ModuleType(name)
            if over.is_set():
                return

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(20_000):
            assert "sys" in _loaded_modules()
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(before)
        for number in range(50):
            sys.modules.pop(f"made_by_this_test_{number}", None)
