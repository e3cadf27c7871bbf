"""What the queues have beyond the standard package: several items at a time, the end of a queue, and calls in an event loop.

Each class here is a mixin of `queues.Queue` or `queues.SimpleQueue`.
"""

from __future__ import annotations

import sys
import time
from itertools import islice
from queue import Empty, Full
from types import FunctionType

from ...context import ManipleError
from ..compat.public_module import Generic, TypeVar
from .fed_queue import Item
from .queue_errors import empty_error, full_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType
    from typing import Any

    from ..._maniple import Log
    from ..aio.helpers import Room

    class ShutDown(ManipleError):
        """Raised by `put` if the queue is shut down, and by `get` if it is also empty. From Python 3.13 on, it is `queue.ShutDown`."""
else:
    try:
        from queue import ShutDown
    except ImportError:

        class ShutDown(ManipleError):
            """Raised by `put` if the queue is shut down, and by `get` if it is also empty. From Python 3.13 on, it is `queue.ShutDown`."""

            __module__ = "maniple.queues"


__all__ = ["QueueExtras", "ShutDown", "SimpleQueueExtras", "name_methods"]

Taken = TypeVar("Taken")

# The number of items that a task puts before other tasks run.
_AT_ONCE = 256
# Seconds between two attempts of a task to put an item into a full queue of the standard form: at first, and at most.
_PAUSES = 0.0005, 0.02


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _check_most(max_items: int | None) -> int | None:
    if max_items is None:
        return None
    if not hasattr(max_items, "__index__"):
        raise TypeError(f"max_items must be an int or None, not {max_items!r} of type {type(max_items).__name__}")
    if max_items < 1:
        raise ValueError(f"max_items must be 1 or more, not {max_items}")
    return max_items.__index__()


def _counting(source: Iterator[Item], given: list[None]) -> Iterator[Item]:
    """Yield the next items of `source`, at most `_AT_ONCE`; `given` gets an element for each."""
    for item in islice(source, _AT_ONCE):
        given.append(None)
        yield item


def _refuse_standard_form(queue: Any) -> None:
    raise NotImplementedError(
        f"{type(queue).__name__} uses the inner parts of the standard package's queue, which cannot be shut down: "
        "put an item that means the end"
    )


class SimpleQueueExtras(Generic[Item]):
    """The further methods of `queues.SimpleQueue`; those of `queues.Queue` override some."""

    # The class that defines them.
    _has_parts = True
    # Whether the queue counts the items that are not reported done.
    _counted = False
    _fed: bool
    _log: Log
    _maxsize = 0
    _reader: Any
    if TYPE_CHECKING:

        def _is_overridden(self, name: str) -> bool: ...
        def _check_open(self) -> None: ...
        def _get_one(self, block: bool, timeout: float | None) -> Item: ...
        def _put_one(self, item: Item, block: bool, timeout: float | None) -> None: ...
        def _report(self, problem: Exception, obj: Any, caller: FrameType) -> None: ...
        def _before_put(self) -> None: ...

    def get_many(self, max_items: int | None = None, block: bool = True, timeout: float | None = None) -> list[Item]:
        """Remove the items that are in the queue, at least one and at most `max_items`, and return them as a list.

        The call waits for the first item only. It is several times as fast as a call of `get` for each item.

        Args:
            max_items: the greatest number of items; None means all that are in the queue at the moment.
            block: whether to wait while the queue is empty.
            timeout: the time limit for that in seconds; None means no limit.

        Raises:
            queue.Empty: the queue is empty (after `timeout` seconds, or at once if `block` is false).
            ShutDown: the queue is empty and shut down, or is shut down at once.
            ValueError: this process has closed the queue, or `max_items` is less than 1.
            The exception that unpickling an item raises. The items before it are returned by the next call.
        """
        most = _check_most(max_items)
        self._check_open()
        if self._fed or self._is_overridden("get"):
            items = [self._get_one(block, timeout)]
            try:
                while most is None or len(items) < most:
                    items.append(self._get_one(False, None))
            except Empty:
                pass
            return items
        place: list[Any] = []
        try:
            self._log.get_many(most, block, timeout, place)
            return place
        except BaseException:
            self._log.take_all_back(place)
            raise

    def put_many(self, iterable: Iterable[Item], block: bool = True, timeout: float | None = None) -> None:
        """Put the items of an iterable into the queue, one after the other. Items of other processes may come in between.

        The call is faster than a call of `put` for each item.

        Args:
            iterable: the items. An item that cannot be pickled is treated as `put` treats it.
            block: whether to wait while the queue is full.
            timeout: the time limit in seconds for the whole call; None means no limit.

        Raises:
            queue.Full: there was no room for an item (after `timeout` seconds, or at once if `block` is false).
            ShutDown: the queue is shut down.
            ValueError: this process has closed the queue.
            The exception of the iterable, or of pickling an item in a `SimpleQueue`.

        The items before the exception are in the queue. `Full` and `ShutDown` have further attributes: `items_put` is the number of
        these items, and `next_items` is a list of the item that was taken from the iterable and is not in the queue, or empty.
        """
        self._check_open()
        until = None if timeout is None else time.monotonic() + timeout
        source = iter(iterable)
        count: list[Any] = [0]
        try:
            if self._fed or self._is_overridden("put"):
                self._put_each(source, block, until, count)
                return
            self._before_put()
            while (stopped := self._log.put_many(source, self._counted, block, _left(until), count)) is not None:
                if stopped is False:
                    raise full_error(self._maxsize, block, timeout)
                problem, item = stopped
                self._report(problem, item, sys._getframe(1))
        except (Full, ShutDown) as error:
            error.items_put, error.next_items = count[0], count[1:]  # type: ignore[union-attr]  # attributes of ours
            raise

    def _put_each(self, source: Iterator[Item], block: bool, until: float | None, count: list[Any]) -> None:
        for item in source:
            try:
                self._put_one(item, block, _left(until))
            except (Full, ShutDown):
                count.append(item)
                raise
            count[0] += 1

    def shutdown(self, immediate: bool = False) -> None:
        """Shut the queue down for all processes: `put` raises `ShutDown`, and so does `get` as soon as the queue is empty.

        Calls that wait raise it, too. A queue cannot be opened again. The standard package's queues have no such method; its
        ``queue.Queue`` has it from Python 3.13 on.

        Args:
            immediate: whether the items that are in the queue are dropped. A `JoinableQueue` reports them done.

        Raises:
            ValueError: this process has closed the queue.
            NotImplementedError: the queue has the form of the standard package's queue, because its class uses inner parts of it.
        """
        self._check_open()
        if self._fed:
            _refuse_standard_form(self)
        self._log.shut_down(bool(immediate), self._counted)

    async def get_async(self, *, timeout: float | None = None) -> Item:
        """As `get`, in a task of asyncio, trio or anyio: the event loop is not blocked.

        If the task is cancelled, no item is lost: a task takes an item only when it returns the item.

        Args:
            timeout: the time limit in seconds; None means no limit.

        Raises: what `get` raises; `queue.Empty` only after `timeout` seconds.
        """
        return await self._get_when_there(lambda: self._get_one(False, None), timeout)

    async def get_many_async(self, max_items: int | None = None, *, timeout: float | None = None) -> list[Item]:
        """As `get_many`, in a task of asyncio, trio or anyio: the event loop is not blocked while the queue is empty.

        If the task is cancelled, no item is lost.

        Args:
            max_items: the greatest number of items; None means all that are in the queue at the moment.
            timeout: the time limit in seconds for the first item; None means no limit.

        Raises: what `get_many` raises; `queue.Empty` only after `timeout` seconds.
        """
        _check_most(max_items)
        return await self._get_when_there(lambda: self.get_many(max_items, False), timeout)

    async def _get_when_there(self, get: Callable[[], Taken], timeout: float | None) -> Taken:
        """Return what `get` returns as soon as it does not raise `Empty`."""
        from ..aio.doors import door

        here, until = door(), _end_of(timeout)
        await here.checkpoint()
        while True:
            self._check_open()
            try:
                return get()
            except Empty:
                if (left := _left(until)) == 0:
                    raise empty_error(True, timeout) from None
            await here.readable(self._reader.fileno(), left)

    async def put_async(self, obj: Item) -> None:
        """As `put`, in a task of asyncio, trio or anyio: the event loop is not blocked.

        If the task is cancelled while it waits, the item is not in the queue.

        Raises: what `put` raises, except `queue.Full`.
        """
        from ..aio.doors import door

        await door().checkpoint()
        self._put_one(obj, True, None)

    async def put_many_async(self, iterable: Iterable[Item], *, timeout: float | None = None) -> None:
        """As `put_many`, in a task of asyncio, trio or anyio: the event loop is not blocked while the queue is full.

        Other tasks run after some hundred items. The iterable itself is read in the task, and should not block. If the task is cancelled,
        the items before are in the queue.

        Args:
            iterable: the items.
            timeout: the time limit in seconds for the whole call; None means no limit.

        Raises: what `put_many` raises; `queue.Full` only after `timeout` seconds.
        """
        from ..aio.doors import door

        self._check_open()
        here, until = door(), _end_of(timeout)
        source = iter(iterable)
        await here.checkpoint()
        # The number of items in the queue, and an item that is taken from the iterable and not in the queue.
        put = 0
        left: list[Item] = []
        try:
            while True:
                if left:
                    await self._put_when_room(left[0], until, timeout)
                    put, left = put + 1, []
                given: list[None] = []
                try:
                    self.put_many(_counting(source, given), False)
                except (Full, ShutDown) as error:
                    put, left = put + error.items_put, error.next_items  # type: ignore[union-attr]  # of `put_many`
                    if isinstance(error, ShutDown) or not left:
                        raise  # without an item that found no room, the iterable raised it
                    continue
                put += len(given)
                if len(given) < _AT_ONCE:
                    return
                await here.sleep(0)
        except (Full, ShutDown) as error:
            error.items_put, error.next_items = put, left  # type: ignore[union-attr]  # attributes of ours
            raise

    async def _put_when_room(self, obj: Item, until: float | None, timeout: float | None) -> None:
        await self.put_async(obj)


def _end_of(timeout: float | None) -> float | None:
    """Return the time (`time.monotonic`) at which a wait ends; None means no limit."""
    if timeout is None:
        return None
    try:
        return time.monotonic() + float(timeout - 0)  # a text has no difference
    except TypeError:
        raise TypeError(
            f"timeout must be a number of seconds or None, not {timeout!r:.80} of type {type(timeout).__name__}"
        ) from None
    except OverflowError:
        raise ValueError("timeout is too large: it must fit into a float; None means no limit") from None


class QueueExtras(SimpleQueueExtras[Item]):
    """The further methods of `queues.Queue`."""

    _has_parts = True
    _maxsize: int
    # The waits of tasks of this process for room.
    _room: Room | None = None

    async def put_async(self, obj: Item, *, timeout: float | None = None) -> None:
        """As `put`, in a task of asyncio, trio or anyio: the event loop is not blocked while the queue is full.

        If the task is cancelled while it waits, the item is not in the queue.

        Args:
            obj: the item.
            timeout: the time limit in seconds; None means no limit.

        Raises: what `put` raises; `queue.Full` only after `timeout` seconds.
        """
        await self._put_when_room(obj, _end_of(timeout), timeout)

    async def _put_when_room(self, obj: Item, until: float | None, timeout: float | None) -> None:
        """As `put_async`, until a time (`time.monotonic`); `timeout` is the time limit of the whole call."""
        from ..aio.doors import door
        from ..aio.helpers import Room

        here = door()
        await here.checkpoint()
        pause, longest = _PAUSES
        room: Room | None = None
        while True:
            try:
                if room is None:
                    return self._put_one(obj, False, None)
                with room.wait() as turn:
                    await here.until(turn, _left(until))
                    return self._put_one(obj, False, None)
            except Full:
                if (left := _left(until)) == 0:
                    raise full_error(self._maxsize, True, timeout) from None
            if self._fed:
                await here.sleep(pause if left is None else min(pause, left))
                pause = min(2 * pause, longest)
            elif room is None:
                room = self._room
                if room is None or room.helper.is_of_parent:
                    room = self._room = Room(self._log, self._maxsize)


def name_methods(queue: type, extras: type) -> None:
    """Give a class of queues the further methods as its own: errors and `help` name the class that the program uses."""
    for klass in reversed(extras.__mro__):
        for name, method in vars(klass).items():
            if isinstance(method, FunctionType) and not name.startswith("_"):
                own = FunctionType(method.__code__, method.__globals__, name, method.__defaults__, method.__closure__)
                own.__kwdefaults__, own.__doc__ = method.__kwdefaults__, method.__doc__
                own.__annotations__ = method.__annotations__
                own.__module__, own.__qualname__ = queue.__module__, f"{queue.__name__}.{name}"
                setattr(queue, name, own)
