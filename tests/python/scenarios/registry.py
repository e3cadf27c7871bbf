"""The list of scenarios, filled by the `scenario` decorator."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bench import Bench

METHODS = ("fork", "spawn", "forkserver")
MODULES = (
    "deaths",
    "calls",
    "undecodable",
    "escapes",
    "functions",
    "nesting",
    "laziness",
    "interrupts",
    "orphans",
    "initializers",
    "endings",
    "callbacks",
)


@dataclass(frozen=True)
class Scenario:
    """One row of the failure matrix."""

    name: str
    row: str
    run: Callable[[Bench], None]
    warm_up: bool


_known: dict[str, Scenario] = {}


def scenario(row: str, *, warm_up: bool = True, **variants: list[str]) -> Callable:
    """Register a function under "module.function", once for each variant.

    `row` is the line that people read; a variant's value is put in for its name in
    braces. `warm_up=False` is for scenarios which start no pool in their own process.
    """

    def register(function: Callable) -> Callable:
        base = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        if not variants:
            _known[base] = Scenario(base, row, function, warm_up)
        for key, values in variants.items():
            for value in values:
                name = f"{base}:{value}"
                run = partial(function, **{key: value})
                _known[name] = Scenario(name, row.format(**{key: value}), run, warm_up)
        return function

    return register


def all_scenarios() -> dict[str, Scenario]:
    """Every scenario by name, in the order of the files and of the functions in them."""
    for module in MODULES:
        importlib.import_module(f"{__package__}.{module}")
    return dict(_known)


def find(name: str) -> Scenario:
    importlib.import_module(f"{__package__}.{name.partition('.')[0]}")
    try:
        return _known[name]
    except KeyError:
        known = ", ".join(sorted(_known))
        raise SystemExit(f"no scenario named {name!r}; this file has: {known}") from None
