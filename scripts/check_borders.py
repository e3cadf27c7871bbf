"""Whether the borders between the crates and modules hold.

    python3 scripts/check_borders.py [ROOT]

Three things:

- No crate but `maniple-sys` names a system or a library of one, in its code, its tests or its dependencies.
- The contract is whole: the backends of `maniple-sys` have the same public items, and the contract (the documentation in `lib.rs`) names each.
- No circles: in `maniple-sys`, `maniple-engine` and `maniple`, imports among the modules of each folder point one way.

A module's file and the folder beside it are one module here. What is compiled for tests only is left out of the third.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SYSTEM = re.compile(
    r"\bstd::os\b|\b(?:libc|rustix|nix|windows_sys|winapi)::|\buse (?:libc|rustix|nix|windows_sys|winapi)\b"
)
LIBRARIES = re.compile(r"^\s*(libc|rustix|nix|windows-sys|winapi)\b(?:\s*=|\.)", re.M)
FREE_OF_CIRCLES = ("maniple-sys", "maniple-engine", "maniple")
ITEM = re.compile(r"^(?P<indent> *)pub (?:unsafe )?(?:const )?(?P<kind>fn|struct|enum|const|type) (?P<name>\w+)", re.M)


def code_of(text: str) -> str:
    """A file's text without comments and strings; lines keep their numbers."""
    blank = lambda found: re.sub(r"[^\n]", " ", found[0])  # noqa: E731
    return re.sub(r'//[^\n]*|/\*.*?\*/|b?"(?:\\.|[^"\\])*"', blank, text, flags=re.S)


def end_of_block(text: str, start: int) -> int:
    """Behind the brace that closes the first one that opens from `start` on."""
    depth = 0
    for at in range(text.index("{", start), len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at + 1
    return len(text)


def without_tests(code: str) -> str:
    """Without what `cfg(test)` and the like keep from ordinary builds."""
    for found in reversed(list(re.finditer(r"#\[cfg\([^\]]*\b(?:test|fuzzing)\b[^\]]*\)\]", code))):
        rest = re.compile(r"[^;{]*[;{]").match(code, found.end())
        if rest is not None:
            end = rest.end() if rest[0].endswith(";") else end_of_block(code, found.end())
            code = code[: found.start()] + re.sub(r"[^\n]", " ", code[found.start() : end]) + code[end:]
    return code


def names_of_systems(root: Path) -> Iterator[str]:
    for folder in ("crates", "examples", "fuzz", "benchmarks/rust"):
        for path in sorted((root / folder).rglob("*")):
            where = path.relative_to(root)
            if "target" in where.parts or "maniple-sys" in where.parts:
                continue
            if path.suffix == ".rs":
                # The documentation's examples are code as well.
                text = re.sub(r"^ *//[/!] ?", "", path.read_text(), flags=re.M)
                for found in SYSTEM.finditer(text):
                    yield f"{where}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]} belongs into maniple-sys"
            elif path.name == "Cargo.toml":
                for found in LIBRARIES.finditer(path.read_text()):
                    yield f"{where}: the dependency {found[1]} belongs to maniple-sys"


def items(text: str) -> set[str]:
    return {found["name"] for found in ITEM.finditer(text) if not found["indent"] or "    " == found["indent"]}


def surface(folder: Path) -> dict[str, set[str]]:
    """A backend's public items by module, with those that it has from what the systems share."""
    found = defaultdict(set)
    for path in sorted(folder.rglob("*.rs")):
        module = "::".join(path.relative_to(folder).with_suffix("").parts)
        if not is_public(path, folder):
            continue
        code = without_tests(code_of(path.read_text()))
        # Modules within a file: those that are not public are not part of the contract.
        for inner in reversed(list(re.finditer(r"^(pub )?mod (\w+) \{", code, re.M))):
            end = end_of_block(code, inner.start())
            if inner[1]:
                part = inner[2] if module == "mod" else f"{module}::{inner[2]}"
                found[part] |= items(code[inner.start() : end]) | passed_on(code[inner.start() : end])
            code = code[: inner.start()] + code[end:]
        found[module] |= items(code) | passed_on(code)
        for file, group, one in re.findall(r"pub use crate::unix::(\w+)::(?:\{([^}]*)\}|(\w+));", code):
            text = code_of((folder.parent / "unix" / f"{file}.rs").read_text())
            for name in re.findall(r"\w+", group or one):
                found[module] |= methods(text, name)
        for shared, names in re.findall(r"pub use crate::(unix|lacking|portable)::\{?([\w, ]+)\}?;", code):
            for name in re.findall(r"\w+", names):
                part = name if module == "mod" else f"{module}::{name}"
                found[part] |= of_file(folder.parent / shared / f"{name}.rs")
        for name in re.findall(r"pub use crate::lacking::(\w+)::", code):
            found[module] |= of_file(folder.parent / "lacking" / f"{name}.rs")
    return found


def methods(code: str, name: str) -> set[str]:
    """The public methods of a type, in the file that declares it; none if the name is not a type's."""
    found = set()
    for start in re.finditer(rf"^impl(?:<[^>]*>)? {name}\b[^{{;]*\{{", code, re.M):
        found |= items(code[start.start() : end_of_block(code, start.start())])
    return found


def is_public(path: Path, folder: Path) -> bool:
    """Whether a file's module, and those that contain it, are public in their backend."""
    while path.parent != folder:
        path = path.parent.with_suffix(".rs")
    return path.stem == "mod" or re.search(rf"^pub mod {path.stem};", (folder / "mod.rs").read_text(), re.M) is not None


def of_file(path: Path) -> set[str]:
    code = without_tests(code_of(path.read_text()))
    return items(code) | passed_on(code)


def passed_on(code: str) -> set[str]:
    """What a module has from the words that all backends share."""
    pattern = r"pub use (?:crate::(?:terms|exit|start|unix::\w+)|super::(?:\w+::)*system::\w+)::(?:\{([^}]*)\}|(\w+));"
    # From the private modules of its own folder.
    inner = "|".join(re.findall(r"^mod (\w+);", code, re.M)) or "$"
    inner = r"pub use (?:" + inner + r")::(?:\{([^}]*)\}|(\w+));"
    parts = re.findall(pattern, code) + re.findall(inner, code)
    return {name for group, one in parts for name in re.findall(r"\w+", group or one)}


# No part of the contract: what only one backend needs, and is public for no more than its own modules.
PRIVATE = {"own::both_above_stdio", "mod::unsupported"}


def contract(root: Path) -> Iterator[str]:
    source = root / "crates" / "maniple-sys" / "src"
    unix = source / "unix"
    linux = surface(source / "linux")
    shared = {name: of_file(unix / f"{name}.rs") for name in ("atfork", "epoch", "own")}
    linux |= shared
    documentation = "".join(re.findall(r"^//!(.*\n)", (source / "lib.rs").read_text(), re.M))
    told = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", documentation))))
    handles = of_file(source / "handle" / "stub.rs")
    for form in ("unix", "windows"):
        for name in sorted(handles ^ of_file(source / "handle" / f"{form}.rs")):
            yield f"maniple-sys: handle::{name} is in one form of handles only: stub or {form}"
    for name in sorted(handles - told):
        yield f"maniple-sys: the contract in lib.rs does not name handle::{name}"
    for other in ("stub", "windows", "macos"):
        backend = surface(source / other)
        if other == "macos":
            backend |= shared
        for module in sorted((linux.keys() | backend.keys()) - PRIVATE):
            ours, theirs = linux[module], backend[module]
            for name in sorted(ours | theirs):
                if f"{module}::{name}" in PRIVATE:
                    continue
                if name not in ours or name not in theirs:
                    where, not_there = ("linux", other) if name in ours else (other, "linux")
                    yield f"maniple-sys: {module}::{name} is in {where} and not in {not_there}"
                if name not in told:
                    yield f"maniple-sys: the contract in lib.rs does not name {module}::{name}"


def modules(source: Path) -> dict[tuple[str, ...], Path]:
    """The modules of a crate with their files; the crate itself is the empty name."""
    found = {}
    for path in sorted(source.rglob("*.rs")):
        parts = path.relative_to(source).with_suffix("").parts
        found[() if parts == ("lib",) else parts[:-1] if parts[-1] == "mod" else parts] = path
    return found


def paths_in(code: str) -> Iterator[str]:
    """The paths of a file that begin with `crate` or `super`, with what is grouped in braces taken apart."""
    for found in re.finditer(r"\b(?:crate|super)(?:::\w+)*(?:::\{)?", code):
        if not found[0].endswith("{"):
            yield found[0]
            continue
        prefix, depth, part = found[0][:-1], 1, ""
        stack = [prefix]
        for at in range(found.end(), len(code)):
            letter = code[at]
            if letter == "{":
                stack.append(stack[-1] + part.strip())
                depth, part = depth + 1, ""
            elif letter in ",}":
                if part.strip():
                    yield stack[-1] + re.sub(r"\s+as\s+\w+", "", part.strip())
                part = ""
                if letter == "}":
                    stack.pop()
                    depth -= 1
                    if depth == 0:
                        break
            else:
                part += letter


def uses(source: Path) -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """Return the modules that each module names; a name that a folder re-exports counts for the module that has it."""
    found = modules(source)
    texts = {name: without_tests(code_of(path.read_text())) for name, path in found.items()}
    compiled = {()}
    for name in sorted(found, key=len):
        if name and name[:-1] in compiled and re.search(rf"\bmod {name[-1]}\b", texts[name[:-1]]):
            compiled.add(name)
    names: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = defaultdict(dict)
    for name in compiled:
        for child, group, one in re.findall(
            r"pub(?:\([^)]*\))? use (?:self::)?(\w+)::(?:\{([^}]*)\}|(\w+));", texts[name]
        ):
            if (*name, child) in compiled:
                for item in re.findall(r"\w+", group or one):
                    names[name][item] = (*name, child)
    edges = defaultdict(set)
    for name in compiled:
        for path in paths_in(texts[name]):
            parts = path.split("::")
            at = name if parts[0] == "super" else ()
            while parts and parts[0] in ("super", "crate"):
                if parts.pop(0) == "super":
                    at = at[:-1]
            for part in parts:
                if (*at, part) in compiled:
                    at = (*at, part)
                else:
                    at = names[at].get(part, at)
                    break
            if at != name:
                edges[name].add(at)
    return edges


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """The groups of nodes from each of which all others of the group can be reached (Tarjan)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in number:
            visit(node)
    yield from found


def circles_of(root: Path, crate: str) -> Iterator[str]:
    edges = uses(root / "crates" / crate / "src")
    folders = {name[:depth] for name in edges for depth in range(len(name))}
    for folder in sorted(folders):
        graph: dict[str, set[str]] = defaultdict(set)
        why: dict[tuple[str, str], str] = {}
        for name, others in edges.items():
            for other in others:
                if name[: len(folder)] == other[: len(folder)] == folder and len(name) > len(folder) < len(other):
                    one, two = name[len(folder)], other[len(folder)]
                    if one != two:
                        graph[one].add(two)
                        why.setdefault((one, two), f"{'/'.join(name)} -> {'/'.join(other)}")
        for group in circles(graph):
            where = "::".join((crate, *folder))
            yield f"{where}: a circle among {', '.join(group)}:"
            for (one, two), example in sorted(why.items()):
                if one in group and two in group:
                    yield f"    {example}"


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent)
    wrong = [*names_of_systems(root), *contract(root)]
    for crate in FREE_OF_CIRCLES:
        wrong += circles_of(root, crate)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
