"""The progress of a call: how many of its items have an outcome, shown as a bar or told to a function of the program.

A call that waits (`map`) looks ten times a second at how far it is, in the caller's thread. For a call that returns at once
(`map_async`, `imap`) a thread does so. A call without `progress=` does none of this.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from contextlib import suppress

from ..._maniple import next_result
from ...context import TimeoutError
from ...util import is_exiting
from ..sync.bells import Letter, SteadyEvent
from ..sync.thread_start import start_steadily
from .results import ApplyResult, IMapIterator, IMapUnorderedIterator, MapResult, Result, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from ..._maniple import Mailbox

    Count = tuple[int, int | None]

__all__ = ["display_of"]

# Seconds between two looks.
PAUSE = 0.1
# Seconds that the end of a call waits for the display.
LONGEST = 5.0
# The same at the end of an iterator that is dropped, perhaps by the garbage collector, in a thread that has a lock of the display.
LONGEST_OF_DROPPED = 1.0


# ---------------------------------------------------------------- displays


class Display:
    """Shows how far a call is. Its methods are called by one thread."""

    def show(self, done: int, total: int | None) -> None:
        """Show that `done` items have an outcome; `total` is None while it is unknown."""

    def close(self) -> None:
        """Leave what was shown last."""

    def attend(self, result: MapResult[Result]) -> list[Result]:
        """Return the results of a call when it has ended, and show its progress meanwhile.

        If the display raises, so does this; the call continues, as after another exception of a waiting caller.
        """
        try:
            while not result._wait(PAUSE):
                self.show(*_of_map(result))
            value = result.get()
            self.show(result._shape[1], result._shape[1])
            return value
        finally:
            self.close()

    def watch_map(self, result: MapResult[Result]) -> MapResult[Result]:
        """Show the progress of a call of `map_async` or `starmap_async` in a thread until it has ended; return its result."""
        return _watched_map(result, self)

    def watch_iterator(self, iterator: IMapIterator[Result]) -> IMapIterator[Result]:
        """Show the progress of a call of `imap` or `imap_unordered` in a thread until it has ended, or its iterator is dropped; return
        the iterator.
        """
        return _watched_iterator(iterator, self)


class Told(Display):
    """Calls a function of the program when the number has changed."""

    def __init__(self, function: Callable[[int, int | None], object]) -> None:
        self._function, self._last = function, (-1, -1)

    def show(self, done: int, total: int | None) -> None:
        if (done, total) != self._last:
            self._last = (done, total)  # type: ignore[assignment]  # -1 means: nothing yet
            self._function(done, total)


class Tqdm(Display):
    """A bar of tqdm, in a notebook one of its widgets."""

    def __init__(self, make: Any, label: str | None) -> None:
        self._make, self._label, self._bar = make, label, None

    def show(self, done: int, total: int | None) -> None:
        bar: Any = self._bar
        if bar is None:
            bar = self._bar = self._make(desc=self._label, total=total)
        if total is not None and bar.total != total:
            bar.total = total
            bar.refresh()
        if done > bar.n:
            bar.update(done - bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class Rich(Display):
    """A bar of rich."""

    def __init__(self, bars: Any) -> None:
        self._bars, self._task = bars, None

    def show(self, done: int, total: int | None) -> None:
        if self._task is None:
            self._bars.start()
            self._task = self._bars.add_task("", total=total)
        self._bars.update(self._task, completed=done, total=total)

    def close(self) -> None:
        self._bars.stop()


class Line(Display):
    """A bar of one line of text, for terminals where tqdm is not installed."""

    WIDTH = 30

    def __init__(self, file: Any, label: str | None) -> None:
        self._file, self._label, self._begun, self._length = file, label, time.monotonic(), 0

    def show(self, done: int, total: int | None) -> None:
        passed = time.monotonic() - self._begun
        rate = done / passed if passed > 0 else 0.0
        parts = [f"{self._label}:"] if self._label else []
        if total:
            filled = self.WIDTH * done // total
            parts.append(f"{100 * done // total:3}% |{'#' * filled}{' ' * (self.WIDTH - filled)}| {done}/{total}")
        else:
            parts.append(f"{done} items")
        left = f", {_clock((total - done) / rate)} left" if total and 0 < done < total and rate else ""
        text = f"{' '.join(parts)} [{_clock(passed)}{left}, {rate:.1f}/s]"
        with suppress(OSError, ValueError):  # the terminal is closed
            self._file.write("\r" + text.ljust(self._length))
            self._file.flush()
        self._length = len(text)

    def close(self) -> None:
        with suppress(OSError, ValueError):
            self._file.write("\n")
            self._file.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"


def _is_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def display_of(progress: Any) -> Display | None:
    """Return what shows the progress of a call that is about to begin, by its option `progress`; None if nothing is to be shown, or if
    there is neither a terminal nor a notebook.

    Raises:
        TypeError: the option is neither a bool, a str nor callable.
        ImportError: it is "rich", which is not installed.
    """
    if progress is None or progress is False:
        return None
    if callable(progress):
        return Told(progress)
    if progress is not True and not isinstance(progress, str):
        raise TypeError(
            f"progress must be True, a label, or a function of two numbers (done, total), not {progress!r:.80} of type {type(progress).__name__}"
        )
    file: Any = sys.stderr
    if progress == "rich":
        try:
            from rich.console import Console
            from rich.progress import Progress
        except ImportError as missing:
            raise ImportError('progress="rich" needs the package rich: pip install rich') from missing
        if _is_notebook():
            # Without ipywidgets rich warns, and shows nothing that changes.
            return Rich(Progress()) if _has_widgets() else Line(file, None)
        return Rich(Progress(console=Console(stderr=True))) if _is_terminal(file) else None
    if not (_is_notebook() or _is_terminal(file)):
        return None
    label = None if progress is True else progress
    try:
        if _is_notebook() and not _has_widgets():
            from tqdm import tqdm  # a bar of text; that of `tqdm.auto` warns
        else:
            from tqdm.auto import tqdm
    except ImportError:
        return Line(file, label)
    return Tqdm(tqdm, label)


def _has_widgets() -> bool:
    """Return whether a notebook can show bars that are more than text."""
    from importlib.util import find_spec

    try:
        return find_spec("ipywidgets") is not None
    except ValueError:  # a module without a spec is in its place
        return "ipywidgets" in sys.modules


def _is_terminal(file: Any) -> bool:
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError):  # there is no such stream, or it is closed
        return False


# ---------------------------------------------------------------- calls


def _of_map(result: MapResult[Any]) -> Count:
    length: int = result._shape[1]
    return length - result._ticket.left(), length


def _nothing_more(_: Display) -> bool:
    return True


class Watch:
    """A thread that shows the progress of a call that has returned at once."""

    def __init__(self, look: Callable[[Display], bool], display: Display) -> None:
        self._look, self._display, self._over = look, display, SteadyEvent()
        # Set when the thread shows nothing more.
        self._ended = SteadyEvent()
        #: whether a call or the input has failed
        self.has_failed = False
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="maniple-progress", daemon=True)
        # The call has begun, and its outcome does not depend on what is shown.
        try:
            start_steadily(self._thread)
        except (MemoryError, RuntimeError):
            self._thread = None
            self._ended.set()

    def _run(self) -> None:
        try:
            try:
                while not self.is_over and not self._look(self._display):
                    self._over.wait(PAUSE)
                if self.is_over:
                    self._look(self._display)
            finally:
                # It refers to the stream, and to this object: a call whose iterator was dropped is cancelled when its stream is dropped.
                self._look = _nothing_more
                self._display.close()
        except BaseException as error:
            tell(error)
        finally:
            self._ended.set()

    @property
    def is_over(self) -> bool:
        """Whether the caller has the outcome."""
        return self._over.is_set()

    # A source of a door (`_impl.aio.doors`).
    def _tell(self, mailbox: Mailbox, number: int) -> bool:
        """Post `number` when the thread shows nothing more; return True, and post nothing, if that is so already."""
        return not self._ended.ring_when_set(Letter(mailbox, number))

    def _give_up(self, mailbox: Mailbox, number: int) -> None:
        """Do nothing: nothing depends on this wait."""

    async def end_async(self) -> None:
        """As `end`, in a task of an event loop. The display may need the loop."""
        from ..aio.doors import door

        self._over.set()
        await door().until(self, LONGEST)
        self._thread = None

    def end(self, longest: float = LONGEST) -> None:
        """Wait until the end of the call is shown, so that nothing that the program writes next is on the line of the bar."""
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            # The display may be a function of the program, which may take long.
            self._ended.wait(longest)


def _runs_event_loop() -> bool:
    """Return whether this thread runs an event loop of asyncio, which a display may need."""
    asyncio: Any = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


class WatchedMapResult(MapResult[Result]):
    """A `MapResult` whose progress is shown."""

    __slots__ = ()
    _watch: Watch

    def __await__(self) -> Generator[Any, Any, list[Result]]:
        return self._outcome().__await__()

    async def _outcome(self) -> list[Result]:
        from ..aio.doors import door

        await door().until(self)
        await self._watch.end_async()
        return self.get()

    def _wait(self, timeout: float | None) -> bool:
        ended = super()._wait(timeout)
        if ended:
            self._watch.end()
        return ended

    def get(self, timeout: float | None = None) -> list[Result]:
        self._wait(timeout)
        return super().get(timeout)


class WatchedIterator(IMapIterator[Result]):
    """An `IMapIterator` whose progress is shown."""

    _watch: Watch

    def __next__(self) -> Result:
        return self.next()

    async def __anext__(self) -> Result:
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            await self._watch.end_async()
            raise
        except Exception:
            self._watch.has_failed = True
            raise

    def __del__(self) -> None:
        # After the end of a loop by `break` or by an exception, nothing that the program writes is on the line of the bar.
        watch: Watch | None = vars(self).get("_watch")
        if watch is not None and not is_exiting():
            watch.end(0.0 if _runs_event_loop() else LONGEST_OF_DROPPED)

    def cancel(self, kill: bool = False) -> bool:
        """As the method of `IMapIterator`; what is shown ends."""
        is_cancelled = super().cancel(kill)
        self._watch.end()
        return is_cancelled

    def next(self, timeout: float | None = None) -> Result:
        try:
            # No call follows the step that takes a result: a signal handler that raises after it would lose the result.
            return next_result[self, timeout]  # type: ignore[no-any-return]
        except StopIteration:
            self._watch.end()
            raise
        except TimeoutError:  # a later call may succeed
            raise
        except BaseException:
            self._watch.has_failed = True
            raise


class WatchedUnorderedIterator(WatchedIterator[Result], IMapUnorderedIterator[Result]):
    """An `IMapUnorderedIterator` whose progress is shown."""


def _watched_map(result: MapResult[Result], display: Display) -> MapResult[Result]:
    def look(display: Display) -> bool:
        length: int = result._shape[1]
        if ended := ApplyResult._wait(result, 0):
            if result.successful():
                display.show(length, length)
        else:
            display.show(*_of_map(result))
        return ended

    result.__class__ = WatchedMapResult
    result._watch = Watch(look, display)  # type: ignore[attr-defined]
    return result


def _watched_iterator(iterator: IMapIterator[Result], display: Display) -> IMapIterator[Result]:
    # The iterator may be dropped with its last result. The stream still tells how far it came, and is dropped then.
    known, stream, length = weakref.ref(iterator), iterator._ticket, iterator._items_there

    def look(display: Display) -> bool:
        done, _, ended = stream.progress()
        # Whether all items of an input without a length have been read is known when the last result has been taken: the input may fail.
        is_whole = watch is not None and watch.is_over and not watch.has_failed
        display.show(done, done if is_whole and length is None else length)
        return known() is None or bool(ended) and length is not None

    watch: Watch | None = None
    ordered = not isinstance(iterator, IMapUnorderedIterator)
    iterator.__class__ = WatchedIterator if ordered else WatchedUnorderedIterator
    iterator._watch = watch = Watch(look, display)  # type: ignore[attr-defined]
    return iterator
