"""The options of the calls of a pool of threads: retries, and exceptions in the place of results.

A thread cannot be ended, so there are no limits. A function that tries the call again in the same thread, and that returns its exception,
takes the place of the call's function. So the jobs of threads know nothing of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from weakref import ref

from .no_memory import NO_MEMORY
from .options import CALL_OPTIONS, Retries, refuse, terms_of, unknown_option
from .payload import after_tries
from .thread_stats import name_of_function
from .worker_setup import refusal_of_threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .threads import ThreadWorkers

__all__ = ["ThreadTerms", "thread_terms"]

# Seconds after which a thread that waits for the next try looks whether the pool was terminated.
_SLICE = 0.1
# The options of a pool of threads, and the values with which other options change nothing.
_KNOWN = ("retries", "return_exceptions")
_NEUTRAL = {"task_timeout": None, "soft_timeout": None, "priority": 0}


def thread_terms(options: dict[str, Any], workers: ThreadWorkers | None) -> ThreadTerms | None:
    """Return the terms of a call; None if they change nothing, or without workers, which only checks the options.

    Raises:
        TypeError, ValueError: an option is unknown, has a value that it cannot have, or is not for threads.
    """
    refused = [
        name for name in options if name not in CALL_OPTIONS or options[name] != _NEUTRAL.get(name, options[name])
    ]
    if refused:
        known = refusal_of_threads(refused[:1])
        if isinstance(known, TypeError):
            if workers is None:
                known = TypeError(unknown_option(refused[0], _KNOWN, "a ThreadPool"))
            else:
                refuse({refused[0]: None})
        raise known
    terms_of(options, None)  # raises for what cannot be
    retries, returns = options.get("retries"), bool(options.get("return_exceptions"))
    if retries is not None and not isinstance(retries, Retries):
        retries = Retries(retries)
    if retries is not None and not retries.max_retries:
        retries = None
    if retries is not None and retries.on is None:
        raise ValueError(
            "retries of a ThreadPool need the exceptions after which a call is tried again, since no thread is lost: "
            f"Retries({retries.max_retries}, on=(ConnectionError,))"
        )
    if workers is None or retries is None and not returns:
        return None
    return ThreadTerms(retries, returns, workers)


class ThreadTerms:
    """The retries of a call, and whether its exceptions are returned among its results."""

    #: whether each item has to be a task of its own
    single = True

    def __init__(self, retries: Retries | None, returns: bool, workers: ThreadWorkers) -> None:
        self._retries, self._workers = retries, ref(workers)
        #: whether a call's exception is among its results
        self.returns = returns

    def of_call(self) -> ThreadTerms:
        """Return the terms of one call: these."""
        return self

    def applied_to(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls `func` by these terms."""

        def tried(*args: Any, **kwds: Any) -> Any:
            return self.call(func, args, kwds)

        tried.__qualname__ = name_of_function(func)
        return tried

    def call(self, func: Callable[..., Any], args: Any, kwds: dict[str, Any]) -> Any:
        """Call a function, perhaps several times; return its result or, if the terms say so, its exception."""
        earlier: list[BaseException] = []
        try:
            while True:
                try:
                    return func(*args, **kwds)
                except BaseException as error:
                    if self._is_tried_again(error, len(earlier)):
                        earlier.append(error)
                        continue
                    if earlier:
                        after_tries(error, earlier)
                    if self.returns:
                        try:
                            self._count("returned")
                        except NO_MEMORY:  # which costs a count, and nothing else
                            pass
                        return error
                    raise
        finally:
            earlier = []  # the tracebacks of these exceptions refer to this frame

    def _count(self, what: str) -> None:
        """Count a try, or an exception that is returned, for the pool's `stats`."""
        if (workers := self._workers()) is not None:
            with workers.hub.lock:
                setattr(workers.hub.ended, what, getattr(workers.hub.ended, what) + 1)

    def _is_tried_again(self, error: BaseException, tries: int) -> bool:
        """Return whether a call that has failed is made again, after the pause before it."""
        retries = self._retries
        if retries is None or tries >= retries.max_retries or not isinstance(error, retries.on or ()):
            return False
        try:
            pause = retries.initial_delay * retries.backoff_coefficient**tries
        except OverflowError:
            pause = retries.max_delay if retries.initial_delay else 0.0
        until = time.monotonic() + min(pause, retries.max_delay)
        while (workers := self._workers()) is not None and not workers.is_over:
            del workers
            if (left := until - time.monotonic()) <= 0:
                try:
                    self._count("retried")
                except NO_MEMORY:
                    pass
                return True
            time.sleep(min(left, _SLICE))
        return False
