"""Views of a pool on the engine that look like the inner attributes of the standard package's pool.

Programs count the jobs in `_cache`, check whether work waits in `_taskqueue`, or read the state of the handler threads. The views
return the engine's state. Operations that have no meaning (no queue carries this pool's items) raise an error that says so.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, MutableMapping
from functools import partial

from ..._maniple import Hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["SETTERS", "VIEWS", "View"]


def _refuse(what: str) -> NoReturn:
    raise AttributeError(
        f"{what}: this pool sends tasks to its workers without queues;"
        " a subclass of Pool that overrides _setup_queues gets a pool of queues"
    )


class OpenJob:
    """A job that has not ended and whose handle the pool does not hold. `done` is the number of its items with an outcome."""

    def __init__(self, job: int, done: int) -> None:
        self._job, self.done = job, done

    def ready(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<job {self._job}, {self.done} items done>"

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"read {name} of a job from the handle that the call returned, not through the pool")


class Jobs(MutableMapping):  # type: ignore[type-arg]
    """The jobs that have not ended, by number."""

    def __init__(self, workers: Any) -> None:
        self._workers = workers

    def _open(self) -> dict[int, Any]:
        workers = self._workers
        jobs: dict[int, Any] = {job: OpenJob(job, done) for job, done in workers.hub.open_jobs().items()}
        with Hold(workers.lock):
            # A job with callbacks counts until they have been called. Tasks that the program makes count by their job.
            for job, result in workers.results.items():
                jobs[job] = result
        own: dict[Any, Any] = workers.external.handles
        return {job: result for job, result in jobs.items() if not hasattr(result, "ticket")} | own

    def __getitem__(self, job: int) -> Any:
        return self._open()[job]

    def __setitem__(self, job: int, result: Any) -> None:
        self._workers.external.handles[job] = result

    def __delitem__(self, job: int) -> None:
        if job not in self._workers.external.handles and job in self:
            raise AttributeError(f"job {job} runs in the engine and cannot be removed; drop its handle to abandon it")
        del self._workers.external.handles[job]

    def __iter__(self) -> Iterator[int]:
        return iter(self._open())

    def __len__(self) -> int:
        return len(self._open())

    def __repr__(self) -> str:
        return repr(self._open())


class Tasks:
    """The view in the place of the standard pool's queue of jobs that wait to be sent."""

    def __init__(self, workers: Any) -> None:
        self._workers = workers

    def put(self, entry: Any, block: bool = True, timeout: float | None = None) -> None:
        """Submit a job that the program makes: an iterable of tasks, and None or a function that is called with their number."""
        self._workers.external.put(entry, len(self._workers.processes))

    put_nowait = put

    def qsize(self) -> int:
        """Return the number of jobs without a task at a worker."""
        jobs: int = self._workers.hub.waiting()[0]
        return jobs + int(self._workers.external.waiting)

    def empty(self) -> bool:
        return self.qsize() == 0

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(f"the task queue has no {name!r}")


class Sending:
    """The view in the place of the standard pool's queue of tasks."""

    def __init__(self, workers: Any) -> None:
        self._workers = workers

    def put(self, task: Any) -> None:
        """Submit a task that the program makes: `(job, place, func, args, kwds)`."""
        if task is None:
            _refuse("a worker cannot be ended through the queue")
        self._workers.external.send(task)

    def qsize(self) -> int:
        """Return the number of tasks that wait at a worker behind another task."""
        tasks: int = self._workers.hub.waiting()[1]
        return tasks

    def empty(self) -> bool:
        return self.qsize() == 0

    def get(self, *_: Any) -> NoReturn:
        _refuse("tasks cannot be taken back through the queue")

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(f"the queue of tasks has no {name!r}")


class Receiving:
    """The view in the place of the standard pool's queue of outcomes. The engine delivers outcomes without it."""

    def qsize(self) -> int:
        return 0

    def empty(self) -> bool:
        return True

    def get(self, *_: Any) -> NoReturn:
        _refuse("the engine delivers outcomes, which cannot be taken from a queue")

    def put(self, outcome: Any) -> NoReturn:
        _refuse("outcomes cannot be put into a queue")

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(f"the queue of outcomes has no {name!r}")


class Notifier:
    """The view in the place of the queue that wakes the standard pool's handler of workers."""

    def __init__(self, workers: Any) -> None:
        self._workers = workers

    def put(self, _: Any) -> None:
        self._workers.hub.kick()

    def empty(self) -> bool:
        return True

    def __getattr__(self, name: str) -> NoReturn:
        _refuse(f"the change notifier has no {name!r}")


class Handler:
    """The view in the place of each of the standard pool's three handler threads. The keeper does the work that remains."""

    def __init__(self, pool: Any) -> None:
        self._pool = weakref.ref(pool)
        self._workers = pool._workers

    @property
    def _state(self) -> str:
        pool = self._pool()
        return "TERMINATE" if pool is None else str(pool._state)

    @property
    def daemon(self) -> bool:
        return True

    @property
    def name(self) -> str:
        return "maniple-pool-keeper"

    def is_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._workers.threads())

    def join(self, timeout: float | None = None) -> None:
        for thread in self._workers.threads():
            thread.join(timeout)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in ("_pool", "_workers"):
            raise AttributeError(
                f"{name} of a handler cannot be set: the engine has no such thread; use close() or terminate()"
            )
        object.__setattr__(self, name, value)


class View:
    """An attribute of the class of pools: the view of a pool on the engine. A pool of queues has its own attribute of the name."""

    def __init__(self, name: str, make: Callable[[Any], Any]) -> None:
        self._name, self._make = name, make

    def __get__(self, pool: Any, owner: type) -> Any:
        if pool is None:
            raise AttributeError(f"type object {owner.__name__!r} has no attribute {self._name!r}")
        if pool._workers is None:
            raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}")
        return self._make(pool)


def _of_workers(kind: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda pool: kind(pool._workers)


#: name -> function that makes the view
VIEWS: dict[str, Callable[[Any], Any]] = {
    "_pool": _of_workers(lambda workers: workers.processes),
    "_cache": _of_workers(Jobs),
    "_taskqueue": _of_workers(Tasks),
    "_inqueue": _of_workers(Sending),
    "_outqueue": _of_workers(lambda _: Receiving()),
    "_quick_put": _of_workers(lambda workers: Sending(workers).put),
    "_quick_get": _of_workers(lambda _: Receiving().get),
    "_change_notifier": _of_workers(Notifier),
    "_worker_handler": Handler,
    "_task_handler": Handler,
    "_result_handler": Handler,
    "_initializer": _of_workers(lambda workers: workers.initializer),
    "_initargs": _of_workers(lambda workers: workers.initargs),
    "_maxtasksperchild": _of_workers(lambda workers: workers.maxtasksperchild),
}


def _fixed(name: str) -> Callable[[Any, Any], None]:
    def refuse(pool: Any, value: Any) -> None:
        _refuse(f"{name} cannot be replaced")

    return refuse


def _set_ctx(pool: Any, ctx: Any) -> None:
    pool.__dict__["_ctx"] = ctx
    pool._workers.make_process = partial(pool.Process, ctx)


def _set_initializer(pool: Any, initializer: Any) -> None:
    pool._workers.initializer = initializer


def _set_initargs(pool: Any, initargs: Any) -> None:
    pool._workers.initargs = tuple(initargs)


def _set_maxtasksperchild(pool: Any, tasks: int | None) -> None:
    pool._workers.set_max_tasks(tasks)


def _set_wrap_exception(pool: Any, wrap: bool) -> None:
    raise AttributeError("_wrap_exception of a pool cannot be set: set it in a subclass of Pool")


#: name -> function that sets the attribute of a running pool
SETTERS: dict[str, Callable[[Any, Any], None]] = {
    **{name: _fixed(name) for name in VIEWS},
    "_ctx": _set_ctx,
    "_initializer": _set_initializer,
    "_initargs": _set_initargs,
    "_maxtasksperchild": _set_maxtasksperchild,
    "_wrap_exception": _set_wrap_exception,
}
