"""The package's own names: which exist, which classes they represent, and the output of help."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pydoc
import re
import subprocess
import sys
import types
import typing
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

import pytest

pytestmark = pytest.mark.better_than_standard("what the standard package does not have")

CLASSES = {
    "pool": ["Pool"],
    "queues": ["Queue", "JoinableQueue", "SimpleQueue"],
    "synchronize": ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"],
}
NAMES = [(name, module) for module, names in CLASSES.items() for name in names]


def test_the_packages_own_errors_are_among_its_names(mp: ModuleType) -> None:
    for name in ("ManipleError", "WorkerLostError", "ResultDecodeError"):
        assert name in mp.__all__
        assert name in dir(mp)
        assert issubclass(getattr(mp, name), Exception)
    assert "__version__" in dir(mp)
    assert sorted(mp.__all__) == mp.__all__
    assert all(hasattr(mp, name) for name in dir(mp))
    assert set(mp.__all__) <= set(dir(mp))


def test_the_version_is_the_distributions(mp: ModuleType, mp_package: str) -> None:
    assert mp.__version__ == version(mp_package)


def test_importing_the_package_imports_little(mp_package: str) -> None:
    code = (
        f"import sys, {mp_package}; dir({mp_package}); print(*sorted(m for m in sys.modules if '{mp_package}.' in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=40)
    assert done.stdout.split() == [
        f"{mp_package}.{name}"
        for name in (
            "_impl",
            "_impl.compat",
            "_impl.compat.factories",
            "_impl.compat.public_module",
            "_impl.start",
            "_impl.start.imports_in_progress",
            "context",
            "process",
            "reduction",
        )
    ]


def test_queue_types_accept_an_item_type(mp: ModuleType) -> None:
    def work(jobs: mp.Queue[int], done: mp.SimpleQueue[str] | None, more: mp.JoinableQueue[bytes] | None) -> None: ...

    for function in (work, lambda: None):
        hints = typing.get_type_hints(function, {"mp": mp, "Optional": Optional})
        assert all(hint is not None for hint in hints.values())
    assert typing.get_origin(typing.get_type_hints(work, {"mp": mp, "Optional": Optional})["jobs"]) is mp.queues.Queue
    assert mp.Queue[int] == mp.queues.Queue[int]


@pytest.mark.parametrize("name, module", NAMES)
def test_a_name_works_as_the_class_of_its_objects(mp: ModuleType, name: str, module: str) -> None:
    __import__(f"{mp.__name__}.{module}")
    factory, kind = getattr(mp, name), getattr(getattr(mp, module), name)
    assert typing.get_args(factory | None) == (kind, types.NoneType)
    assert typing.get_args(None | factory) == (types.NoneType, kind)
    assert typing.get_args(factory | int) == (kind, int)
    assert issubclass(kind, factory)
    assert not isinstance(5, factory)
    if name not in ("Pool", "Barrier"):
        made = factory()
        assert type(made) is kind
        assert isinstance(made, factory)


@pytest.mark.parametrize("name, module", NAMES)
def test_a_name_is_a_method_of_the_default_context(mp: ModuleType, name: str, module: str) -> None:
    factory: Any = getattr(mp, name)
    method = getattr(mp.context._default_context, name)
    assert inspect.ismethod(factory)
    assert isinstance(factory, types.MethodType)
    assert inspect.isroutine(factory)
    assert callable(factory)
    assert factory == method
    assert method == factory
    assert hash(factory) == hash(method)
    assert (factory.__name__, factory.__doc__, factory.__module__) == (name, method.__doc__, method.__module__)
    assert factory.__self__ is mp.context._default_context
    assert factory.__func__ is method.__func__
    assert inspect.signature(factory) == inspect.signature(method)
    assert repr(factory) == repr(method)
    with pytest.raises(AttributeError):
        factory.no_such_thing  # noqa: B018

    class Holder:
        attribute = factory

    assert Holder().attribute is factory
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert getattr(pickle.loads(pickle.dumps(factory, protocol)), "__name__", "") == name


def test_help_shows_names_and_docstrings(mp: ModuleType) -> None:
    text = pydoc.plain(pydoc.render_doc(mp))
    for name, shown in (
        ("Queue", "maxsize"),
        ("Lock", "Return a lock that any process or thread may release"),
        ("Pool", "initializer"),
    ):
        assert name in text
        assert shown in text
    assert "WorkerLostError" in text
    assert "__annotations__" not in text
    assert "maxsize" in pydoc.plain(pydoc.render_doc(mp.Queue))


@pytest.mark.better_than_standard("neither can be called with a parameter")
def test_a_name_with_a_parameter_can_be_called(mp: ModuleType) -> None:
    queue = mp.Queue[int](2)
    queue.put(1)
    assert queue.get() == 1 and isinstance(queue, mp.queues.Queue)


def test_a_factory_is_no_base_class(mp: ModuleType) -> None:
    with pytest.raises(TypeError):
        type("Mine", (mp.Queue,), {})
    with pytest.raises(TypeError):

        class Mine(mp.Queue): ...  # type: ignore[name-defined,valid-type,misc]


@pytest.mark.parametrize(
    "module", ["connection", "managers", "pool", "process", "queues", "reduction", "shared_memory", "synchronize"]
)
def test_annotations_of_public_classes_can_be_evaluated(mp_package: str, module: str) -> None:
    """As for a program's class with one of them as its base."""
    for thing in vars(importlib.import_module(f"{mp_package}.{module}")).values():
        if isinstance(thing, type) and thing.__module__.startswith(mp_package):
            typing.get_type_hints(thing)


def test_factories_have_no_annotations_that_cannot_be_evaluated(mp: ModuleType) -> None:
    for name in mp.__all__:
        thing = getattr(mp, name)
        if callable(thing) and not isinstance(thing, type):
            typing.get_type_hints(thing)


README = Path(__file__).parents[2] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_the_programs_of_the_readme_run(tmp_path: Path, program: str) -> None:
    script = tmp_path / "program.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_readme_has_programs() -> None:
    assert len(PROGRAMS) >= 3
