"""Reads from a program's source which names its top level binds when another process loads it.

A process that loads the program's file runs it under another module name, so the code under ``if __name__ == "__main__"`` does not run.
"""

from __future__ import annotations

import ast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["names_bound"]


def names_bound(text: str) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Return the names that loading binds (None if they are unknown), and the names that only the main program binds."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None, frozenset()
    loaded: set[str] = set()
    only_main: set[str] = set()
    complete = True
    for node, for_main in _parts(tree.body, False):
        for name in _names(node):
            if for_main:
                only_main.add(name)
            elif name:
                loaded.add(name)
            else:
                complete = False
    return frozenset(loaded) if complete else None, frozenset(only_main - loaded)


def _parts(body: list[ast.stmt], for_main: bool) -> Iterator[tuple[ast.AST, bool]]:
    """Yield the parts of a block that contain no statements, each with whether only the main program runs it."""
    for statement in body:
        branches = _guarded(statement)
        if branches is not None:
            yield from _parts(branches[0], True)
            yield from _parts(branches[1], for_main)
            continue
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield statement, for_main
            continue
        inner: list[ast.stmt] = []
        pending = list(ast.iter_child_nodes(statement))
        while pending:
            node = pending.pop()
            if isinstance(node, ast.stmt):
                inner.append(node)
            elif isinstance(node, (ast.ExceptHandler, ast.match_case)):
                pending.extend(ast.iter_child_nodes(node))
                if isinstance(node, ast.ExceptHandler) and node.name:
                    yield ast.alias(node.name), for_main
            else:
                yield node, for_main
        if inner:
            yield from _parts(inner, for_main)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue  # the loop above has yielded its names
        else:
            yield statement, for_main


def _guarded(statement: ast.stmt) -> tuple[list[ast.stmt], list[ast.stmt]] | None:
    """Return the branches of ``if __name__ == "__main__"``: the main program's branch, and the other; None for other
    statements."""
    if not isinstance(statement, ast.If):
        return None
    test: ast.expr = statement.test
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        # All conditions have to be true, so the guard decides.
        test = next((part for part in test.values if _compares_name(part)), test)
    if not isinstance(test, ast.Compare) or not _compares_name(test):
        return None
    if isinstance(test.ops[0], ast.Eq):
        return statement.body, statement.orelse
    return (statement.orelse, statement.body) if isinstance(test.ops[0], ast.NotEq) else None


def _compares_name(test: ast.expr) -> bool:
    if not isinstance(test, ast.Compare) or len(test.ops) != 1:
        return False
    sides = (test.left, test.comparators[0])
    return any(isinstance(side, ast.Name) and side.id == "__name__" for side in sides) and any(
        isinstance(side, ast.Constant) and side.value == "__main__" for side in sides
    )


def _names(part: ast.AST) -> Iterator[str]:
    """Yield the names that a part of a statement binds in the module; '' if it may bind any name."""
    pending = [part]
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
            continue
        if isinstance(node, ast.Lambda):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield "" if node.name == "*" else node.asname or node.name.partition(".")[0]
        elif isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name:
            yield node.name
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("exec", "globals", "vars")
        ):
            yield ""
        pending.extend(ast.iter_child_nodes(node))
