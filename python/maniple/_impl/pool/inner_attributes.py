"""The inner attributes of the standard package's handles, such as `_event` and `_cond`, which programs read.

The engine holds the state of a call that it runs, so these attributes are views of that state.
"""

from __future__ import annotations

from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .results import ApplyResult

__all__ = ["Ending", "Held", "Inner", "NoCondition", "jobs_of"]


class Inner:
    """An attribute of the standard package's handles: `view` computes it if the engine runs the call; else it is an
    ordinary attribute."""

    def __init__(self, view: Callable[[Any], Any]) -> None:
        self.view = view
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, handle: Any, owner: type | None = None) -> Any:
        if handle is None:
            return self
        if handle._ticket is not None:
            return self.view(handle)
        try:
            return handle.__dict__[self.name]
        except KeyError:
            raise AttributeError(f"{type(handle).__name__!r} object has no attribute {self.name!r}") from None

    def __set__(self, handle: Any, value: Any) -> None:
        if handle._ticket is not None:
            raise AttributeError(f"{self.name} can be read but not set: the outcome of this call comes from the engine")
        handle.__dict__[self.name] = value


class Ending:
    """The end of a call, with the interface of a `threading.Event`."""

    def __init__(self, result: ApplyResult[Any]) -> None:
        self._result = result

    def is_set(self) -> bool:
        """Return True if the call has ended."""
        return self._result.ready()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the call has ended, at most `timeout` seconds; return True if it has."""
        return self._result._wait(timeout)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the event of a call that the engine runs has is_set() and wait(), but no {name!r}")


class Held:
    """The outcomes that no caller has taken. The engine holds them, so only their number is available."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


class NoCondition:
    """Replaces the condition of the standard package's iterator, which the engine would never notify."""

    def __enter__(self) -> NoReturn:
        raise AttributeError("this iterator is fed by the engine and has no condition to wait for; use next(timeout)")

    def __exit__(self, *_: object) -> None:
        """Do nothing; `__enter__` always raises."""

    def __getattr__(self, name: str) -> NoReturn:
        self.__enter__()


def jobs_of(handle: Any) -> Any:
    return {} if handle._pool is None else handle._pool._cache
