"""The dependencies of the package's modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "python" / "maniple"


def modules() -> dict[str, Path]:
    """Return the package's modules by their names below it; the package itself is ""."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_at_once(path: Path) -> Iterator[ast.ImportFrom]:
    """Yield the relative imports that run at a module's import."""
    left: list[ast.AST] = [ast.parse(path.read_text())]
    while left:
        node = left.pop()
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            left.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            left.extend(ast.iter_child_nodes(node))


def imports() -> dict[str, set[str]]:
    """Return the modules of the package that each module imports at its import."""
    paths = modules()
    found = {}
    for name, path in paths.items():
        here = name.split(".") if name else []
        if path.name != "__init__.py":
            here = here[:-1]
        wanted = set()
        for node in imported_at_once(path):
            base = here[: len(here) - (node.level - 1)] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                wanted.add(inner if inner in paths else ".".join(base))
        found[name] = wanted & paths.keys() - {name}
    return found


def circle(of: dict[str, set[str]]) -> list[str]:
    """Return the modules of a circle, in order; an empty list if there is no circle."""
    done: set[str] = set()

    def look(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name not in done:
            for other in sorted(of.get(name, ())):
                if found := look(other, [*way, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(of) if (found := look(name, []))), [])


def test_the_check_finds_a_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_each_other() -> None:
    found = imports()
    assert len(found) > 80 and sum(map(len, found.values())) > 150
    # The package itself exists, in part, before its modules.
    del found[""]
    assert circle({name: wanted - {""} for name, wanted in found.items()}) == []


def test_the_subjects_do_not_import_each_other() -> None:
    def subject(name: str) -> str:
        parts = name.split(".")
        return parts[1] if parts[0] == "_impl" and len(parts) == 3 else ""

    between: dict[str, set[str]] = {}
    for name, wanted in imports().items():
        between.setdefault(subject(name), set()).update(map(subject, wanted))
    del between[""]
    assert circle({name: wanted - {name, ""} for name, wanted in between.items()}) == []


def test_public_modules_have_the_standard_names() -> None:
    import multiprocessing

    standard = {path.stem for path in Path(multiprocessing.__file__).parent.glob("*.py")}
    ours = {path.stem for path in PACKAGE.glob("*.py")}
    assert ours == standard | {"__main__", "executor", "joblib"}


def test_the_modules_contain_their_types() -> None:
    """A stub beside a module hides what the module says from type checkers; only native code needs one."""
    assert [path.name for path in PACKAGE.rglob("*.pyi")] == ["_maniple.pyi"]
    assert (PACKAGE / "py.typed").exists()
