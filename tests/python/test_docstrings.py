"""Every public object has a docstring, which `help()` and editors show."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import pydoc
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.better_than_standard("most of the standard package's methods have no docstring")


def public_modules(package: str) -> list[ModuleType]:
    root = importlib.import_module(package)
    names = [each.name for each in pkgutil.iter_modules(root.__path__) if not each.name.startswith("_")]
    return [root, *(importlib.import_module(f"{package}.{name}") for name in names if name != "popen_spawn_win32")]


def members(kind: type, package: str) -> Iterator[tuple[str, Any]]:
    """Return the public members of a class that the package defines, also the inherited ones."""
    for base in kind.__mro__:
        if not base.__module__.startswith(package):
            continue
        for name, member in vars(base).items():
            if not name.startswith("_") and (callable(getattr(kind, name)) or inspect.isdatadescriptor(member)):
                yield f"{kind.__module__}.{kind.__qualname__}.{name}", member


def undocumented(package: str) -> tuple[int, set[str]]:
    """Return the number of public objects in the public modules, and the objects without a docstring."""
    seen: set[str] = set()
    without: set[str] = set()

    def look(path: str, thing: Any, text: str | None) -> None:
        seen.add(path)
        if not (text or "").strip():
            without.add(path)

    for module in public_modules(package):
        look(module.__name__, module, module.__doc__)
        for name, thing in [(name, getattr(module, name)) for name in dir(module) if not name.startswith("_")]:
            if not str(getattr(thing, "__module__", "")).startswith(package):
                continue
            if isinstance(thing, type):
                look(f"{thing.__module__}.{thing.__qualname__}", thing, vars(thing).get("__doc__"))
                for path, member in members(thing, package):
                    look(
                        path, member, inspect.getdoc(getattr(thing, path.rpartition(".")[2])) or inspect.getdoc(member)
                    )
            elif callable(thing):
                look(f"{module.__name__}.{name}", thing, thing.__doc__)
    return len(seen), without


def test_every_public_thing_has_a_docstring(mp_package: str) -> None:
    count, without = undocumented(mp_package)
    assert without == set()
    assert count > 700


def test_the_search_finds_missing_docstrings() -> None:
    _count, without = undocumented("multiprocessing")
    assert {"multiprocessing.queues.Queue", "multiprocessing.queues.Queue.put"} <= without


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("Pool", ["processes", "initializer", "maxtasksperchild", "Raises", "WorkerLostError", "Example", "pool.map("]),
        ("pool.Pool", ["imap_unordered", "buffersize", "seconds", "WorkerLostError", "ResultDecodeError", "Example"]),
        ("Queue", ["maxsize", "queues.Queue", "Raises", "standard package", "Example", "jobs.put("]),
        ("queues.Queue", ["timeout", "seconds", "queue.Empty", "queue.Full", "Example"]),
        ("Process", ["target", "daemon", "exitcode", "sentinel", "Raises", "Example", "child.start()"]),
        ("Lock", ["abandoned", "standard package"]),
        ("synchronize.Lock", ["acquire(self", "block", "seconds", "ValueError", "Example"]),
        ("connection.Connection", ["recv(self", "EOFError", "maxlength"]),
    ],
)
def test_help_shows_parameters_errors_and_an_example(mp: ModuleType, name: str, wanted: list[str]) -> None:
    module, _, inner = name.rpartition(".")
    holder = importlib.import_module(f"{mp.__name__}.{module}") if module else mp
    text = pydoc.plain(pydoc.render_doc(getattr(holder, inner)))
    assert [word for word in wanted if word not in text] == []


@pytest.mark.parametrize(
    "name", ["Pool", "Queue", "Process", "Manager", "Value", "Lock", "Event", "Pipe", "get_context"]
)
def test_a_docstring_begins_with_one_sentence(mp: ModuleType, name: str) -> None:
    """An editor shows only the first line."""
    first, *rest = inspect.getdoc(getattr(mp, name)).splitlines()  # type: ignore[union-attr]
    assert first.endswith(".") and len(first) <= 120
    assert not rest or rest[0] == ""


@pytest.mark.parametrize(
    "name, printed",
    [
        ("Pool", "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n"),
        ("Queue", "9\n"),
        ("Process", "hello world\n0\n"),
        ("Value", ""),
        ("Manager", ""),
        ("Pipe", ""),
    ],
)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_examples_run(mp: ModuleType, tmp_path: Path, name: str, printed: str, method: str) -> None:
    text = inspect.getdoc(getattr(mp, name)) or ""
    example = textwrap.dedent(text.partition("Example::\n")[2])
    assert example.strip()
    package = mp.__name__
    begin = f"import {package}\n{package}.set_start_method({method!r}, force=True)\n"
    script = tmp_path / "example.py"
    if "__main__" not in example:
        example = f"if __name__ == '__main__':\n{textwrap.indent(example, '    ')}"
    script.write_text(begin + example)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")
