"""The functions of the package that make objects: the methods of contexts, and their forms that annotations can use.

``maniple.Queue`` is a bound method of the default context, as in the standard package, where ``Queue[int]`` or ``Queue | None`` in
an annotation raises a TypeError.  A `Factory` looks like such a method, and also supports annotations.
"""

# mypy: disable-error-code=override
from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from errno import EMFILE, ENFILE
from types import FunctionType, GenericAlias, MethodType

from ... import process
from .. import PACKAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from ctypes import _CData, _SimpleCData

    # The standard library's functions accept contexts; the methods of these return this package's objects.
    from multiprocessing.context import BaseContext as _Accepted
    from typing import Any, Literal, TypeVar, Unpack, overload

    import maniple as _siblings

    from ... import connection, managers, pool, queues, sharedctypes, synchronize
    from ...context import BaseContext
    from ..pool.options import PoolOptions

    Held = TypeVar("Held")
    Kind = TypeVar("Kind", bound=_CData)
    Whole = Literal["b", "B", "h", "H", "i", "I", "l", "L", "q", "Q"]
    Real = Literal["f", "d"]
    Text = Literal["c"] | type[ctypes.c_char]
else:
    _Accepted = object

    def overload(signature: object) -> None:
        """Ignore a signature that only type checkers read; the next definition replaces it."""


__all__ = ["Factory", "ObjectFactories"]


# ---------------------------------------------------------------- the methods of contexts


class _Siblings:
    """The modules of the package, each imported at its first use.

    The import may fail because the process has no free descriptor; the error then names the reason.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            module = process._sibling(name)
        except OSError as problem:
            if problem.errno in (EMFILE, ENFILE):
                del problem.filename
                problem.strerror = (
                    f"could not load a module for the first use of {PACKAGE}.{name}: {problem.strerror}; close some "
                    "files, or raise the limit (ulimit -n)"
                )
            raise
        setattr(self, name, module)
        return module


if not TYPE_CHECKING:
    _siblings = _Siblings()


def _begin_server(ctx: BaseContext, module: str) -> None:
    """Start a context's fork server if this process has not imported a module yet, so that both import at the same
    time.

    The object that needs the server reports the error of a failed start.
    """
    is_time = module not in vars(_siblings) and ctx.get_start_method() == "forkserver"
    me = process.current_process()
    # A process that loads its main module, or is daemonic, gets an error instead.
    if is_time and not getattr(me, "_inheriting", False) and not me._config.get("daemon"):
        with suppress(OSError):
            _siblings.forkserver.ensure_running()


class ObjectFactories(_Accepted):
    """The methods of `BaseContext` that make objects. Each object belongs to the context's start method."""

    if TYPE_CHECKING:

        def get_context(self, method: str | None = None) -> BaseContext: ...

    # ------------------------------------------------------------ passing data

    def Pipe(self, duplex: bool = True) -> tuple[connection.Connection, connection.Connection]:
        """Return a pair of connected `maniple.connection.Connection` objects.

        Args:
            duplex: True makes both ends send and receive. False makes the first end receive only and the second send only.

        Raises:
            OSError: the process has no free file descriptors.

        Example::

            receiver, sender = maniple.Pipe(duplex=False)
            sender.send({"any": "picklable object"})
            receiver.recv()
        """
        return _siblings.connection.Pipe(duplex)

    def Queue(self, maxsize: int = 0) -> queues.Queue[Any]:
        """Return a first-in, first-out queue that any number of processes write to and read from.

        The object is a `maniple.queues.Queue`; ``help(maniple.queues.Queue)`` describes its methods: `put`, `get`,
        `put_nowait`, `get_nowait`, `qsize`, `empty`, `full`, `close`, `join_thread`, `cancel_join_thread`. Pass the
        queue to a child as an argument of its `Process`. In annotations, ``maniple.Queue[int]`` is the type of a queue of int.

        The standard package does not have these methods: `put_many` and `get_many` (several items at a time), `shutdown` (the end of
        the queue for all processes), and, for tasks of asyncio, trio or anyio, `put_async`, `get_async`, `put_many_async` and
        `get_many_async`.

        Args:
            maxsize: the number of items at which `put` waits; 0 or less means no limit but memory.

        Raises:
            OSError: the process has no free file descriptors, or the system has no memory for the queue.

        The queue lies in shared memory. A process may exit, or be killed, right after `put`: the item stays in the queue.
        In the standard package, a feeder thread has to write the item first.

        Example::

            def work(jobs, results):
                for job in iter(jobs.get, None):
                    results.put(job * job)

            if __name__ == "__main__":
                jobs, results = maniple.Queue(), maniple.Queue()
                child = maniple.Process(target=work, args=(jobs, results))
                child.start()
                jobs.put(3)
                jobs.put(None)
                print(results.get(timeout=10))  # 9
                child.join()
        """
        return _siblings.queues.Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> queues.JoinableQueue[Any]:
        """Return a `Queue` whose readers report items as done (`task_done`), so that others can wait for all (`join`).

        The object is a `maniple.queues.JoinableQueue`, which has all methods of a `Queue`.

        Args:
            maxsize: the number of items at which `put` waits; 0 or less means no limit but memory.
        """
        return _siblings.queues.JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> queues.SimpleQueue[Any]:
        """Return a queue that has only `put`, `get`, `empty` and `close`: no limit and no time limits.

        The object is a `maniple.queues.SimpleQueue`. Its `put` does not wait for a reader; in the standard package it
        waits when the pipe is full. As a `Queue` it also has `put_many`, `get_many`, `shutdown`, and the methods whose names end in
        ``_async``.
        """
        return _siblings.queues.SimpleQueue(ctx=self.get_context())

    def Manager(self) -> managers.SyncManager:
        """Start a process that holds Python objects for other processes, and return its `maniple.managers.SyncManager`.

        The manager's methods (`dict`, `list`, `set`, `Namespace`, `Queue`, `Lock`, ...) make objects in that process and return
        proxies for them.

        Raises:
            OSError: the process cannot be started.

        Example::

            with maniple.Manager() as manager:
                shared = manager.dict(total=0)
        """
        ctx = self.get_context()
        _begin_server(ctx, "managers")
        started = _siblings.managers.SyncManager(ctx=ctx)
        started.start()
        return started

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        **options: Unpack[PoolOptions],
    ) -> pool.Pool:
        """Return a pool of worker processes.

        The object is a `maniple.pool.Pool`; ``help(maniple.pool.Pool)`` describes its methods: `map`, `imap`,
        `imap_unordered`, `starmap`, `apply`, their ``_async`` forms, `close`, `terminate`, `join`.

        The standard package does not have these: `resize(processes)`, `cancel_all(kill=False)`, `stats()`, `join(timeout=)` and
        `join_async()`; the options `progress`, `task_timeout`, `soft_timeout`, `retries`, `priority` and `return_exceptions` of each
        call; `cancel(kill=False)`, `cancelled()`, `running()` and `done()` of the results, which can be awaited.

        Args:
            processes: the number of workers. None means the number of processors that this process may use, by its affinity
                and its control group.
            initializer: a function that each worker calls once, as ``initializer(*initargs)``, before its first task.
            initargs: the arguments of `initializer`.
            maxtasksperchild: the number of tasks after which a new worker replaces a worker; None means never.
            options: limits and retries: `task_timeout`, `soft_timeout`, `retries`, `memory_limit`, `worker_init_timeout` and others;
                the workers' processes: `env`, `cwd`, `threads_per_worker`, `affinity`, `accelerators`, `finalizer`, `seed`; see ``help(maniple.pool.Pool)``.

        Raises:
            ValueError: `processes` is less than 1, or `maxtasksperchild` is not a positive int.
            TypeError: `initializer` is not callable.
            OSError: the workers cannot be started.

        What differs from the standard package: a worker that dies fails only its own task, with `WorkerLostError`, and a
        new worker takes its place; a result that cannot be unpickled raises `ResultDecodeError`; `imap` reads only
        a bounded number of items ahead; lambdas and closures can be sent.

        Example::

            def square(x):
                return x * x

            if __name__ == "__main__":
                with maniple.Pool(4) as pool:
                    print(pool.map(square, range(10)))
        """
        ctx = self.get_context()
        if "context" in options:
            raise TypeError(
                "'context' is the object that this method belongs to: use context.Pool(...), or maniple.pool.Pool"
            )
        _begin_server(ctx, "pool")
        return _siblings.pool.Pool(processes, initializer, initargs, maxtasksperchild, context=ctx, **options)

    # ------------------------------------------------------------ synchronisation

    def Lock(self) -> synchronize.Lock:
        """Return a lock that any process or thread may release, no matter which one acquired it.

        The object is a `maniple.synchronize.Lock`. If its holder dies, the next process acquires it, and its attribute
        `abandoned` is true there; in the standard package, all others wait forever.
        """
        return _siblings.synchronize.Lock(ctx=self.get_context())

    def RLock(self) -> synchronize.RLock:
        """Return a lock that the thread which holds it may acquire again; only that thread may release it.

        The object is a `maniple.synchronize.RLock`. If its holder dies, the next process acquires it.
        """
        return _siblings.synchronize.RLock(ctx=self.get_context())

    def Condition(self, lock: Any = None) -> synchronize.Condition:
        """Return a condition variable: processes `wait` on it until another process calls `notify` or `notify_all`.

        Args:
            lock: the `Lock` or `RLock` that belongs to the condition; None makes a new `RLock`.
        """
        return _siblings.synchronize.Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> synchronize.Semaphore:
        """Return a counter: `acquire` decrements it and waits while it is zero; `release` increments it.

        Args:
            value: the initial count, from 0 to 2,147,483,647.

        Raises:
            OSError: `value` is out of range.
        """
        return _siblings.synchronize.Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> synchronize.BoundedSemaphore:
        """Return a `Semaphore` whose `release` raises ValueError instead of exceeding the initial count.

        Args:
            value: the initial count, from 0 to 2,147,483,647.
        """
        return _siblings.synchronize.BoundedSemaphore(value, ctx=self.get_context())

    def Event(self) -> synchronize.Event:
        """Return a flag that processes wait for: `set`, `clear`, `is_set`, `wait`. The flag is false at first.

        The object is a `maniple.synchronize.Event`.
        """
        return _siblings.synchronize.Event(ctx=self.get_context())

    def Barrier(
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> synchronize.Barrier:
        """Return a point at which a fixed number of processes wait for each other.

        Args:
            parties: the number of processes that have to call `wait` before all of them continue.
            action: a function that one of the processes calls when all have arrived, before they continue.
            timeout: the default time limit of `wait` in seconds; None means no limit.

        Raises:
            ValueError: `parties` is less than 1.
        """
        return _siblings.synchronize.Barrier(parties, action, timeout, ctx=self.get_context())

    # ------------------------------------------------------------ shared memory

    @overload
    def RawValue(self, typecode_or_type: type[Kind], *args: Any) -> Kind: ...
    @overload
    def RawValue(self, typecode_or_type: str, *args: Any) -> Any: ...
    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """Return a new ctypes object in shared memory, without a lock.

        Args:
            typecode_or_type: a type code of the module `array`, such as ``'i'`` or ``'d'``, or a ctypes type.
            args: the arguments of the type's constructor; without them the object is zero.

        Raises:
            TypeError: there is no such type code.
        """
        return _siblings.sharedctypes.RawValue(typecode_or_type, *args)

    @overload
    def RawArray(
        self, typecode_or_type: type[Kind], size_or_initializer: int | Iterable[Any]
    ) -> ctypes.Array[Kind]: ...
    @overload
    def RawArray(self, typecode_or_type: str, size_or_initializer: int | Iterable[Any]) -> Any: ...
    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Return a new ctypes array in shared memory, without a lock.

        Args:
            typecode_or_type: a type code of the module `array`, such as ``'i'`` or ``'d'``, or a ctypes type.
            size_or_initializer: the number of items, which are zero, or a sequence of the items.

        Raises:
            TypeError: there is no such type code.
            ValueError: the number of items is negative.
        """
        return _siblings.sharedctypes.RawArray(typecode_or_type, size_or_initializer)

    @overload
    def Value(self, typecode_or_type: type[Kind], *args: Any, lock: Literal[False]) -> Kind: ...
    @overload
    def Value(self, typecode_or_type: str, *args: Any, lock: Literal[False]) -> Any: ...
    @overload
    def Value(
        self, typecode_or_type: type[_SimpleCData[Held]], *args: Any, lock: Any = True
    ) -> sharedctypes.Synchronized[Held]: ...
    @overload
    def Value(self, typecode_or_type: Whole, *args: Any, lock: Any = True) -> sharedctypes.Synchronized[int]: ...
    @overload
    def Value(self, typecode_or_type: Real, *args: Any, lock: Any = True) -> sharedctypes.Synchronized[float]: ...
    @overload
    def Value(self, typecode_or_type: str | type[_CData], *args: Any, lock: Any = True) -> Any: ...
    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """Return a new ctypes object in shared memory; each access to its attribute `value` holds a lock.

        ``counter.value += 1`` is two accesses: hold ``counter.get_lock()`` for both.

        Args:
            typecode_or_type: a type code of the module `array`, such as ``'i'`` or ``'d'``, or a ctypes type.
            args: the arguments of the type's constructor; without them the object is zero.
            lock: True makes a new `RLock`; a lock is used as it is; False returns the ctypes object without a lock.

        Example::

            counter = maniple.Value("i", 0)
            with counter.get_lock():
                counter.value += 1
        """
        return _siblings.sharedctypes.Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    @overload
    def Array(
        self, typecode_or_type: type[Kind], size_or_initializer: int | Iterable[Any], *, lock: Literal[False]
    ) -> ctypes.Array[Kind]: ...
    @overload
    def Array(
        self, typecode_or_type: str, size_or_initializer: int | Iterable[Any], *, lock: Literal[False]
    ) -> Any: ...
    @overload
    def Array(
        self, typecode_or_type: Text, size_or_initializer: int | Iterable[Any], *, lock: Any = True
    ) -> sharedctypes.SynchronizedString: ...
    @overload
    def Array(
        self, typecode_or_type: type[_SimpleCData[Held]], size_or_initializer: int | Iterable[Any], *, lock: Any = True
    ) -> sharedctypes.SynchronizedArray[Held]: ...
    @overload
    def Array(
        self, typecode_or_type: Whole, size_or_initializer: int | Iterable[int], *, lock: Any = True
    ) -> sharedctypes.SynchronizedArray[int]: ...
    @overload
    def Array(
        self, typecode_or_type: Real, size_or_initializer: int | Iterable[float], *, lock: Any = True
    ) -> sharedctypes.SynchronizedArray[float]: ...
    @overload
    def Array(
        self, typecode_or_type: str | type[_CData], size_or_initializer: int | Iterable[Any], *, lock: Any = True
    ) -> Any: ...
    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """Return a new ctypes array in shared memory; each access by index or slice holds a lock.

        Args:
            typecode_or_type: a type code of the module `array`, such as ``'i'`` or ``'d'``, or a ctypes type.
            size_or_initializer: the number of items, which are zero, or a sequence of the items.
            lock: True makes a new `RLock`; a lock is used as it is; False returns the ctypes array without a lock.
        """
        ctx = self.get_context()
        return _siblings.sharedctypes.Array(typecode_or_type, size_or_initializer, lock=lock, ctx=ctx)


# The methods are those of `BaseContext`: so messages and `help` name it.
for _method in vars(ObjectFactories).values():
    if isinstance(_method, FunctionType):
        _method.__module__, _method.__qualname__ = f"{PACKAGE}.context", f"BaseContext.{_method.__name__}"
del _method


# ---------------------------------------------------------------- functions of the package


class _Named(GenericAlias):
    """``maniple.Queue[int]``: it is the generic alias of the class, and a call makes an object of the default context."""

    def __call__(self, *args: Any, **kwds: Any) -> Any:
        from ...context import _default_context

        return getattr(_default_context, self.__origin__.__name__)(*args, **kwds)


class Factory:
    # No docstring here: the property `__doc__` returns the method's docstring.

    __slots__ = ("__weakref__", "_class_is_in", "_method")

    def __init__(self, method: Callable[..., Any], class_is_in: str) -> None:
        self._method, self._class_is_in = method, class_is_in

    def __call__(self, /, *args: Any, **kwds: Any) -> Any:
        return self._method(*args, **kwds)

    # ------------------------------------------------------------ the class

    def _made(self) -> Any:
        from importlib import import_module

        return getattr(import_module(f"{PACKAGE}.{self._class_is_in}"), self._method.__name__)

    def __getitem__(self, item: Any) -> Any:
        named = self._made()[item]
        return _Named(named.__origin__, named.__args__)

    def __mro_entries__(self, bases: Any) -> Any:
        name = self._method.__name__
        raise TypeError(
            f"{name} is a function that makes objects; the class to inherit from is {self._class_is_in}.{name}"
        )

    def __or__(self, other: Any) -> Any:
        return self._made() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._made()

    def __instancecheck__(self, obj: object) -> bool:
        return isinstance(obj, self._made())

    def __subclasscheck__(self, cls: type) -> bool:
        return issubclass(cls, self._made())

    # ------------------------------------------------------------ the method

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self._method, name)
        except AttributeError:
            # The methods of the class, for `help(maniple.Queue.put)`.
            if name.startswith("_"):
                raise
        return getattr(self._made(), name)

    @property  # type: ignore[misc]  # read-only here
    def __class__(self) -> Any:
        return MethodType

    @property
    def __doc__(self) -> Any:
        return self._method.__doc__

    @property
    def __module__(self) -> Any:
        return self._method.__module__

    def __repr__(self) -> str:
        return repr(self._method)

    def __eq__(self, other: object) -> Any:
        return self._method == (other._method if type(other) is Factory else other)

    def __hash__(self) -> int:
        return hash(self._method)

    def __reduce__(self) -> Any:
        return self._method.__reduce__()
