"""The environment variables, the processors and the current directory of a child that differ from its parent's.

A child that reads its data from a pipe applies the variables and the processors before it loads the program's main module, because
libraries read them while they are imported.  A spawned child has the variables from its first instruction.  All children apply
everything again before they call their function: a main module may change the variables.  The current directory changes only then,
so that a main module opens the same files as in the program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Surroundings", "apply_early", "checked_directory", "checked_environment"]


def checked_environment(env: Any) -> dict[str, str | None]:
    """Return a copy of the environment variables for a child, in which None removes a variable.

    Raises:
        TypeError: `env` is not a mapping, or has a key or a value of another type.
        ValueError: a name or a value cannot be in an environment.
    """
    if not isinstance(env, Mapping):
        raise TypeError(f"env must be a dict of environment variables or None, not {type(env).__name__}")
    for name, value in env.items():
        if not isinstance(name, str):
            raise TypeError(f"env: the name of a variable must be a str, not {name!r} of type {type(name).__name__}")
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"env: {name!r} cannot be the name of an environment variable")
        if value is None:
            continue
        if not isinstance(value, str):
            raise TypeError(
                f"env: {name} must be a str, or None to remove the variable, not {value!r} of type {type(value).__name__}"
            )
        if "\0" in value:
            raise ValueError(f"env: the value of {name} contains a null character, which no environment can hold")
    return dict(env)


def checked_directory(cwd: Any) -> str:
    """Return the absolute path of the directory in which a child is to run.

    Raises:
        TypeError: `cwd` is not a path.
        FileNotFoundError, NotADirectoryError: there is no such directory.
    """
    try:
        path = os.fsdecode(cwd)
    except TypeError:
        raise TypeError(
            f"cwd must be the path of a directory or None, not {cwd!r} of type {type(cwd).__name__}"
        ) from None
    if not os.path.exists(path):
        raise FileNotFoundError(f"cwd: there is no directory {path!r}")
    if not os.path.isdir(path):
        raise NotADirectoryError(f"cwd: {path!r} is not a directory")
    return os.path.abspath(path)


class Surroundings:
    """What a child changes before it calls its function. The values have been checked."""

    __slots__ = ("cpus", "cwd", "env")

    def __init__(
        self, env: Mapping[str, str | None] | None = None, cwd: str | None = None, cpus: Iterable[int] | None = None
    ) -> None:
        self.env = dict(env or {})
        self.cwd = cwd
        self.cpus = None if cpus is None else sorted(cpus)

    def early(self) -> tuple[dict[str, str | None], list[int] | None]:
        """Return what a child applies before it loads the program's main module, for `apply_early`."""
        return self.env, self.cpus

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the child: this process's with the changes."""
        whole = {**os.environ, **self.env}
        return {name: value for name, value in whole.items() if value is not None}

    def enter(self) -> None:
        """In the child, apply everything."""
        apply_early(*self.early())
        if self.cwd is not None:
            _go_to(self.cwd)


def apply_early(env: dict[str, str | None], cpus: list[int] | None) -> None:
    """In the child, change the environment variables, and the processors on which the child may run."""
    for name, value in env.items():
        if value is None:
            os.environ.pop(name, None)
        elif os.environ.get(name) != value:
            os.environ[name] = value
    if cpus is not None:
        if sys.platform == "win32":
            from ..._maniple import keep_to_cores

            keep_to_cores(cpus)
        else:
            os.sched_setaffinity(0, cpus)


def _go_to(directory: str) -> None:
    """Change the current directory. Relative entries of the search path still mean the same directories."""
    before = os.getcwd() if any(_is_relative(entry) for entry in sys.path) else ""
    os.chdir(directory)
    if before:
        sys.path[:] = [os.path.join(before, entry) if _is_relative(entry) else entry for entry in sys.path]


def _is_relative(entry: Any) -> bool:
    return isinstance(entry, str) and not os.path.isabs(entry)
