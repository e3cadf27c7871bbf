"""Results that a task of an event loop awaits: `await result`, and `async for` over the results of `imap`.

The mixins need two methods of the class: ``_tell`` and ``_give_up``, as a source of a door (`_impl.aio.doors`).
"""

from __future__ import annotations

import sys
from collections.abc import Generator

from ..._maniple import next_result_now
from ..compat.public_module import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

Result = TypeVar("Result")

__all__ = ["AsyncResults", "Awaitable", "advice_for_asyncio"]

# In place of a result, if there is none yet.
_NOTHING = object()


async def _outcome(result: Any) -> Any:
    from ..aio.doors import door

    await door().until(result)
    return result.get()


def advice_for_asyncio() -> str:
    """Return what the `repr` of a result ends with, if a function of asyncio has called it.

    `asyncio.create_task` and `TaskGroup.create_task` refuse what is no coroutine, and their error contains its `repr`.
    """
    caller = str(sys._getframe(2).f_globals.get("__name__", "")).partition(".")[0]
    return ": await it, or use asyncio.ensure_future in the place of create_task" if caller == "asyncio" else ""


class Awaitable(Generic[Result]):
    """The base class of the results that can be awaited."""

    __slots__ = ()

    if not TYPE_CHECKING:  # it has no further attributes

        def __getattr__(self, name: str) -> Any:
            # Not an attribute of the class: managers read all that `dir` lists. `asyncio.wait` asks for this one.
            of = "await it, or pass asyncio.ensure_future(result) to what needs a future"
            advice = f": {of}" if name == "add_done_callback" else ""
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{advice}", name=name, obj=self
            )

    def __await__(self) -> Generator[Any, Any, Result]:
        """Wait for the result in a task of asyncio, trio or anyio, without blocking the event loop, and return it.

        If the task is cancelled, the call is cancelled as by ``cancel(kill=True)``, unless another task awaits it, too. (A thread
        cannot be ended: of a call of a `ThreadPool`, the tasks that have not begun are cancelled.)

        Raises: what `get` raises.
        """
        return _outcome(self).__await__()


class AsyncResults(Generic[Result]):
    """The base class of the iterators over results, for ``async for``."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        """Wait for the next result in a task of asyncio, trio or anyio, without blocking the event loop, and return it.

        If the task is cancelled, the call is cancelled as by ``cancel(kill=True)``. (A thread cannot be ended: of a `ThreadPool`, the
        calls that have not begun are cancelled.)
        """
        from ..aio.doors import door

        results: Any = self
        here = door()
        try:
            while (result := next_result_now[results, _NOTHING]) is _NOTHING:
                await here.until(results)
        except StopIteration:
            pass
        except StopAsyncIteration as raised:
            raise RuntimeError("a task raised StopAsyncIteration") from raised
        else:
            value: Result = result
            return value
        raise StopAsyncIteration
