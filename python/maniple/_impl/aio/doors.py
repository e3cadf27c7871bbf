"""The *door* of an event loop, through which all waits of its tasks for this package go.

A task waits for a *source* (a result, room in a queue) or until a descriptor is readable. No wait has a thread::

    thread that ends the call ── number of the wait ──▶ mailbox ──▶ the loop wakes the task
    queue, connection, process ── descriptor ──▶ epoll of the door ──▶ the loop wakes the task

The loop watches two descriptors for any number of waits: the mailbox's and the epoll's. So the program may watch the same queue or
connection with the loop itself.

A source has two methods. ``_tell(mailbox, number)`` posts the number when the wait is over, or returns True if it is over already.
``_give_up(mailbox, number)`` ends the wait of a task that was cancelled.

This module imports no event loop: a loop that runs is imported already.
"""

from __future__ import annotations

import select
import sys
from collections import deque
from itertools import count
from weakref import WeakKeyDictionary, WeakSet, ref

from ..._maniple import Mailbox, tell_of_closed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Door", "descriptor_closed", "door"]

# Windows has no epoll: `handle_watch` is in its place.
_READABLE: int = getattr(select, "EPOLLIN", 0) | getattr(select, "EPOLLONESHOT", 0)

# The doors of this process, for threads that close a descriptor.
_all_doors: WeakSet[Door] = WeakSet()


def descriptor_closed(fd: int) -> None:
    """Wake the tasks of all event loops that wait for a descriptor, which was closed. Any thread may call this."""
    # The references: iterating over the set itself fails if another thread makes a door.
    for reference in list(_all_doors.data):  # type: ignore[attr-defined]
        if (door := reference()) is not None:
            door.descriptor_closed(fd)


# A connection calls it natively.
tell_of_closed(descriptor_closed)


class Door:
    """The waits of one event loop, whose thread alone uses the object."""

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self._numbers = count(1)
        # The waits for sources by number, and the waits for descriptors.
        self._waiting: dict[int, Any] = {}
        self._readers: dict[int, deque[Any]] = {}
        self._poller: Any = None
        self._handles: Any = None
        # The descriptors that were closed, by the number of the note.
        self._closed: dict[int, int] = {}
        _all_doors.add(self)

    # ---- what the loops do differently ----

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Have the loop call `ready` whenever `fd` is readable."""
        raise NotImplementedError

    def sleeper(self) -> Any:
        """Return an object for the wait of the current task."""
        raise NotImplementedError

    def wake(self, sleeper: Any) -> bool:
        """Wake a task; return False if it was woken or cancelled before."""
        raise NotImplementedError

    async def pause(self, sleeper: Any, timeout: float | None = None) -> None:
        """Wait until the current task is woken, or for `timeout` seconds."""
        raise NotImplementedError

    async def checkpoint(self) -> None:
        """Let other tasks run, and the current task be cancelled, if that is usual in calls that do not have to wait."""

    async def sleep(self, seconds: float) -> None:
        """Wait for a time."""
        raise NotImplementedError

    # ---- waits ----

    async def until(self, source: Any, timeout: float | None = None) -> None:
        """Wait until `source` says that the wait is over, or for `timeout` seconds."""
        number = next(self._numbers)
        try:
            if source._tell(self.mailbox, number):
                await self.checkpoint()
            else:
                self._waiting[number] = sleeper = self.sleeper()
                await self.pause(sleeper, timeout)
                if number in self._waiting:
                    source._give_up(self.mailbox, number)  # the time is up
        except BaseException:
            source._give_up(self.mailbox, number)
            raise
        finally:
            self._waiting.pop(number, None)

    def deliver(self) -> None:
        """Wake the tasks whose waits are over. The loop calls it."""
        end, wake = self._waiting.pop, self.wake
        for number in self.mailbox.take():
            if (sleeper := end(number, None)) is not None:
                wake(sleeper)
            elif (fd := self._closed.pop(number, None)) is not None:
                for sleeper in self._readers.pop(fd, ()):
                    wake(sleeper)

    def descriptor_closed(self, fd: int) -> None:
        """Wake the tasks that wait for a descriptor, which was closed: the kernel does not report it. Any thread may call this."""
        if fd in self._readers:
            self._closed[number := next(self._numbers)] = fd
            self.mailbox.post(number)

    async def readable(self, fd: int, timeout: float | None = None) -> None:
        """Wait until a descriptor is readable, or for `timeout` seconds. Of several tasks one is woken, and the next if the descriptor
        stays readable.

        The task is also woken when the descriptor is closed. The number may belong to another one by then, so the caller looks again.
        """
        if (sleepers := self._readers.get(fd)) is None:
            sleepers = self._readers[fd] = deque()
        sleepers.append(sleeper := self.sleeper())
        try:
            self._arm(fd)
            await self.pause(sleeper, timeout)
        except BaseException:
            try:
                sleepers.remove(sleeper)
            except ValueError:
                pass  # the task was woken, and cancelled before it ran
            if sleepers:
                self._arm(fd)
            elif self._readers.get(fd) is sleepers:
                del self._readers[fd]
            raise
        if timeout is not None and self._readers.get(fd) is sleepers and sleeper in sleepers:
            # The time is up. The descriptor stays watched for the others.
            sleepers.remove(sleeper)
            if not sleepers:
                del self._readers[fd]

    def _arm(self, fd: int) -> None:
        """Have the loop told once when a descriptor is readable."""
        if sys.platform == "win32":
            self._handle_watch().once(fd, lambda: self._wake_readers_of(fd))
            return
        if self._poller is None:
            self._poller = select.epoll()
            self.watch(self._poller.fileno(), self._wake_readers)
        # The kernel forgets a closed descriptor, so this object may not know whether `fd` is registered.
        try:
            self._poller.modify(fd, _READABLE)
        except FileNotFoundError:
            self._poller.register(fd, _READABLE)

    def _wake_readers(self) -> None:
        assert self._poller is not None
        for fd, _ in self._poller.poll(0):
            self._wake_readers_of(fd)

    def _wake_readers_of(self, fd: int) -> None:
        sleepers = self._readers.get(fd)
        while sleepers and not self.wake(sleepers.popleft()):
            pass
        if sleepers:
            self._arm(fd)
        else:
            self._readers.pop(fd, None)

    def _handle_watch(self) -> Any:
        if self._handles is None:
            from .handle_watch import HandleWatch

            self._handles = HandleWatch(*self.loop_calls())
        return self._handles

    def loop_calls(self) -> tuple[Callable[[Callable[[], None]], object], Callable[[], bool]]:
        """Return a function that has the loop call a function soon, from any thread, and one that says whether the loop has ended."""
        raise NotImplementedError


class AsyncioDoor(Door):
    """The door of an asyncio loop. Only the loop refers to it, by what it watches, so it goes with the loop."""

    def __init__(self, loop: Any) -> None:
        super().__init__()
        self._loop = loop
        self.watch(self.mailbox.fileno(), self.deliver)

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Have the loop call `ready` whenever `fd` is readable."""
        if sys.platform == "win32":
            self._handle_watch().always(fd, ready)
        else:
            self._loop.add_reader(fd, ready)

    def loop_calls(self) -> tuple[Callable[[Callable[[], None]], object], Callable[[], bool]]:
        """Return a function that has the loop call a function soon, from any thread, and one that says whether the loop has ended."""
        return self._loop.call_soon_threadsafe, self._loop.is_closed

    def sleeper(self) -> Any:
        """Return an object for the wait of the current task."""
        return self._loop.create_future()

    def wake(self, sleeper: Any) -> bool:
        """Wake a task; return False if it was woken or cancelled before."""
        if sleeper.done():
            return False
        sleeper.set_result(None)
        return True

    async def pause(self, sleeper: Any, timeout: float | None = None) -> None:
        """Wait until the current task is woken, or for `timeout` seconds."""
        if timeout is None:
            await sleeper
            return
        timer = self._loop.call_later(timeout, self.wake, sleeper)
        try:
            await sleeper
        finally:
            timer.cancel()

    async def sleep(self, seconds: float) -> None:
        """Wait for a time."""
        await self.pause(self.sleeper(), seconds)


class _Sleeper:
    """The wait of a task of trio."""

    __slots__ = ("is_over", "task")

    def __init__(self, task: Any) -> None:
        self.task, self.is_over = task, False


class TrioDoor(Door):
    """The door of a run of trio, which refers to it by a `RunVar`."""

    def __init__(self, trio: Any) -> None:
        super().__init__()
        self._trio, self._lowlevel = trio, trio.lowlevel
        self.watch(self.mailbox.fileno(), self.deliver)

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Have the loop call `ready` whenever `fd` is readable."""
        if sys.platform == "win32":
            self._handle_watch().always(fd, ready)
        else:
            self._lowlevel.spawn_system_task(self._watch, fd, ready, name="maniple")

    def loop_calls(self) -> tuple[Callable[[Callable[[], None]], object], Callable[[], bool]]:
        """Return a function that has the loop call a function soon, from any thread, and one that says whether the loop has ended."""
        post = self._lowlevel.current_trio_token().run_sync_soon

        def is_over() -> bool:
            try:
                post(int)  # a function that does nothing
            except RuntimeError:
                return True
            return False

        return post, is_over

    async def _watch(self, fd: int, ready: Callable[[], None]) -> None:
        while True:
            await self._lowlevel.wait_readable(fd)
            ready()

    def sleeper(self) -> Any:
        """Return an object for the wait of the current task."""
        return _Sleeper(self._lowlevel.current_task())

    def wake(self, sleeper: Any) -> bool:
        """Wake a task; return False if it was woken or cancelled before."""
        if sleeper.is_over:
            return False
        sleeper.is_over = True
        self._lowlevel.reschedule(sleeper.task)
        return True

    async def pause(self, sleeper: Any, timeout: float | None = None) -> None:
        """Wait until the current task is woken, or for `timeout` seconds."""

        def give_up(_: object) -> Any:
            sleeper.is_over = True
            return self._lowlevel.Abort.SUCCEEDED

        if timeout is None:
            await self._lowlevel.wait_task_rescheduled(give_up)
            return
        with self._trio.move_on_after(timeout):
            await self._lowlevel.wait_task_rescheduled(give_up)

    async def checkpoint(self) -> None:
        """Let other tasks run, and the current task be cancelled."""
        await self._lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        """Wait for a time."""
        await self._trio.sleep(seconds)


_doors: WeakKeyDictionary[Any, ref[Door]] = WeakKeyDictionary()
_doors_of_trio: Any = None


def _door_of_trio(trio: Any) -> Door:
    global _doors_of_trio
    if _doors_of_trio is None:
        _doors_of_trio = trio.lowlevel.RunVar("maniple")
    try:
        found: Door = _doors_of_trio.get()
    except LookupError:
        found = TrioDoor(trio)
        _doors_of_trio.set(found)
    return found


def _in_trio(lowlevel: Any) -> bool:
    try:
        lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def door() -> Door:
    """Return the door of the event loop that runs the calling task.

    Raises:
        RuntimeError: the caller is not in a task of asyncio or trio.
    """
    # First, because trio may be the guest of an asyncio loop.
    lowlevel = getattr(sys.modules.get("trio"), "lowlevel", None)
    if lowlevel is not None and _in_trio(lowlevel):
        return _door_of_trio(sys.modules["trio"])
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    loop = None if running is None else running()
    if loop is None:
        raise RuntimeError(
            "await needs a running event loop of asyncio or trio (or of anyio, which runs on one of them)"
        )
    known = _doors.get(loop)
    found = None if known is None else known()
    if found is None:
        found = AsyncioDoor(loop)
        _doors[loop] = ref(found)
    return found
