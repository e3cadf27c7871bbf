"""Managers: a process that owns Python objects, and proxies through which other processes use them.

This module has the managers, which start a server or connect to one, and the types that `SyncManager` registers. The other parts
are in `_impl.manager`: `server` (the process that owns the objects), `proxies` and `proxy_types`, and `rpc` (the protocol).
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterable

# Many of these imports exist so that programs find the standard names here.
from . import connection, context, pool, process, resource_tracker, util  # noqa: F401
from ._impl.compat import public_module  # noqa: F401
from ._impl.manager.client import forget_site, request_shutdown, site_at
from ._impl.manager.proxies import (  # noqa: F401
    AutoProxy,
    BaseProxy,
    MakeProxyType,
    ProcessLocalSet,
    RebuildProxy,
    tell_server,
)
from ._impl.manager.proxy_types import AcquirerProxy as AcquirerProxy
from ._impl.manager.proxy_types import ArrayProxy as ArrayProxy
from ._impl.manager.proxy_types import BarrierProxy as BarrierProxy
from ._impl.manager.proxy_types import BaseListProxy as BaseListProxy
from ._impl.manager.proxy_types import BasePoolProxy, _BaseDictProxy, _BaseSetProxy  # noqa: F401
from ._impl.manager.proxy_types import ConditionProxy as ConditionProxy
from ._impl.manager.proxy_types import DictProxy as DictProxy
from ._impl.manager.proxy_types import EventProxy as EventProxy
from ._impl.manager.proxy_types import IteratorProxy as IteratorProxy
from ._impl.manager.proxy_types import ListProxy as ListProxy
from ._impl.manager.proxy_types import NamespaceProxy as NamespaceProxy
from ._impl.manager.proxy_types import PoolProxy as PoolProxy
from ._impl.manager.proxy_types import SetProxy as SetProxy
from ._impl.manager.proxy_types import ValueProxy as ValueProxy
from ._impl.manager.rpc import RemoteError, Token, convert_to_error, dispatch, listener_client, no_thread  # noqa: F401
from ._impl.manager.server import Server, all_methods, public_methods  # noqa: F401
from ._impl.manager.shared_memory_server import SharedMemoryServer, _SharedMemoryTracker  # noqa: F401
from ._impl.manager.shared_memory_server import shared_memory as shared_memory
from ._impl.manager.value_types import Array as Array
from ._impl.manager.value_types import Namespace as Namespace
from ._impl.manager.value_types import Value as Value
from ._impl.manager.value_types import rebuild_as_list, reduce_array  # noqa: F401
from ._impl.start.descriptors import close_number, duplicate, explain_shortage
from .context import ProcessError, get_spawning_popen, reduction  # noqa: F401

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Self, TypeVar, overload

    Item = TypeVar("Item")
    Key = TypeVar("Key")
    Shared = TypeVar("Shared", bound=Any)

get_context = context._default_context.get_context
HAS_SHMEM = shared_memory is not None

__all__ = ["BaseManager", "SyncManager", "BaseProxy", "RemoteError", "Token"]
if HAS_SHMEM:
    __all__.append("SharedMemoryManager")

#: the least time in seconds that a server has to answer the request for its shutdown
_ANSWER = 5.0


class State:
    """The state of a manager, shared with its finalizer."""

    __slots__ = {"value": "`INITIAL`, `STARTED` or `SHUTDOWN`."}
    value: int
    INITIAL, STARTED, SHUTDOWN = range(3)


class BaseManager:
    """A manager starts a server process for Python objects, or connects to one; proxies let other processes use the objects.

    A subclass registers the types of its objects. `SyncManager` has registered the usual ones.

    Args:
        address: the address of the server; None chooses one.
        authkey: the key, bytes, that server and clients must have; None means this process's `authkey`.
        serializer: ``'pickle'`` or ``'xmlrpclib'``.
        ctx: the context whose start method starts the server.
        shutdown_timeout: the time in seconds that the server has to end by itself before it is terminated, and then again
            before it is killed.

    Example::

        class Counters(BaseManager): ...

        Counters.register("Counter", collections.Counter)

        with Counters() as manager:
            counter = manager.Counter("abracadabra")
            print(counter.most_common(1))
    """

    _registry: dict[str, tuple[Any, ...]] = {}
    _Server = Server

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        self._address = address
        self._authkey = process.AuthenticationString(process.current_process().authkey if authkey is None else authkey)
        self._state = State()
        self._state.value = State.INITIAL
        self._serializer = serializer
        self._Listener, self._Client = listener_client[serializer]
        self._ctx = ctx or get_context()
        self._shutdown_timeout = shutdown_timeout

    def _insist_on_being_new(self) -> None:
        if self._state.value != State.INITIAL:
            raise ProcessError(
                "Already started server" if self._state.value == State.STARTED else "Manager has shut down"
            )

    def get_server(self) -> Server:
        """Return a `Server` that runs in the current process when its `serve_forever` is called.

        Raises:
            ProcessError: the manager has started or shut down.
        """
        self._insist_on_being_new()
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self) -> None:
        """Connect to the server that runs at the manager's address.

        Raises:
            AuthenticationError: the server has another key.
            OSError: nothing listens at the address.
        """
        tell_server(self._Client, self._address, self._authkey, "dummy")
        self._state.value = State.STARTED

    def start(self, initializer: Callable[..., Any] | None = None, initargs: Iterable[Any] = ()) -> None:
        """Start the server in a new process.

        Args:
            initializer: a function that the server calls first, as ``initializer(*initargs)``.
            initargs: its arguments.

        Raises:
            ProcessError: the manager has started or shut down.
            TypeError: `initializer` is not callable.
            OSError: the process cannot be started, or has no descriptor or thread for a client.
        """
        self._insist_on_being_new()
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        try:
            if self._address is None and sys.platform != "win32":
                # The server's socket lies in this process's folder, so a server that is killed leaves no folder behind.
                util.get_temp_dir()
            reader, writer = connection.Pipe(duplex=False)
        except OSError as problem:
            explain_shortage(problem, "the manager cannot be started")
            raise
        server = self._ctx.Process(
            target=type(self)._run_server,
            args=(self._registry, self._address, self._authkey, self._serializer, writer, initializer, initargs),
        )
        server.name = "-".join((type(self).__name__, ":".join(map(str, server._identity))))
        server._ends_with_maker = True
        self._process = server
        with reader:
            try:
                with writer:
                    server.start()
                answer = reader.recv()
                if isinstance(answer, OSError):
                    explain_shortage(answer, "the manager's server cannot serve a client")
                    try:
                        raise answer
                    finally:
                        del answer  # its traceback has this frame: a cycle would keep the process's descriptor
                self._address = answer
                # Instead of the method of the class.
                vars(self)["shutdown"] = util.Finalize(
                    self,
                    type(self)._finalize_manager,
                    args=(server, self._address, self._authkey, self._state, self._Client, self._shutdown_timeout),
                    exitpriority=0,
                )
                self._state.value = State.STARTED
            except EOFError:
                if server._popen is None:
                    # The start itself raised it: the fork server has ended.
                    raise
                server.join()
                raise EOFError(
                    f"the manager's process ended with exit code {server.exitcode} before it could serve; "
                    f"its stderr says why"
                ) from None
            except BaseException:
                # The server may run already.
                if server._popen is not None:
                    server.kill()
                    server.join()
                raise

    @classmethod
    def _run_server(
        cls,
        registry: dict[str, tuple[Any, ...]],
        address: Any,
        authkey: bytes,
        serializer: str,
        writer: connection.Connection,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        """Run the server in its process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # after a Ctrl-C the parent may still need the objects
        if initializer is not None:
            initializer(*initargs)
        try:
            server = cls._Server(registry, address, authkey, serializer)
            # A client needs two descriptors: for its control connection and for a call. The writer, which is closed next, has the other.
            close_number(duplicate(writer.fileno()))
            if cls._Server.serve_forever is Server.serve_forever:
                server.begin()
        except (OSError, RuntimeError, MemoryError) as problem:
            from ._impl.start.shortage import is_shortage

            if not is_shortage(problem):
                raise
            with writer:
                writer.send(problem if isinstance(problem, OSError) else no_thread(problem))
            return
        with writer:
            writer.send(server.address)
        util.info("manager serving at %r", server.address)
        server.serve_forever()

    def _create(self, typeid: str, /, *args: Any, **kwds: Any) -> tuple[Token, tuple[str, ...]]:
        """Make an object in the server, and return its token and the names of its exposed methods."""
        shut_down = self._state.value == State.SHUTDOWN
        assert self._state.value == State.STARTED, "the server was shut down" if shut_down else "server not yet started"
        site = site_at(self._address, self._Client)
        site.managers.add(self)
        conn, (ident, exposed), in_session = site.call(self._Client, self._authkey, "create", (typeid,) + args, kwds)
        with conn:
            if in_session:
                # Otherwise the server drops the object when the connection ends.
                conn.send(True)
        return Token(typeid, self._address, ident), exposed

    def join(self, timeout: float | None = None) -> None:
        """Wait until the server process has ended.

        Args:
            timeout: the time limit in seconds; None means no limit.
        """
        if self._process is not None:
            self._process.join(timeout)
            if not self._process.is_alive():
                self._process = None

    def _debug_info(self) -> str:
        """Return a description of the server's objects, for debugging."""
        return str(tell_server(self._Client, self._address, self._authkey, "debug_info"))

    def _number_of_objects(self) -> int:
        return int(tell_server(self._Client, self._address, self._authkey, "number_of_objects"))

    def __enter__(self) -> Self:
        if self._state.value == State.INITIAL:
            self.start()
        if self._state.value != State.STARTED:
            self._insist_on_being_new()
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        self.shutdown()

    def shutdown(self) -> None:
        """End the server process that `start` has started. A second call does nothing.

        The server gets `shutdown_timeout` seconds to end by itself; then it is terminated, and after as long again it is killed.

        Raises:
            AttributeError: this manager has started no server. A server that it has connected to continues.
        """
        raise AttributeError(f"this {type(self).__name__} has started no server, so it has none to shut down")

    @staticmethod
    def _finalize_manager(
        process: Any, address: Any, authkey: bytes, state: State, _Client: Any, shutdown_timeout: float
    ) -> None:
        """End the server: request a shutdown, then terminate it, then kill it."""
        if process.is_alive():
            util.info("sending shutdown message to manager")
            try:
                request_shutdown(_Client, address, authkey, max(shutdown_timeout, _ANSWER))
            except Exception as error:
                util.info("the manager did not accept the shutdown message: %s", error)
            for harder in (process.terminate, process.kill, None):
                process.join(shutdown_timeout)
                if not process.is_alive() or harder is None:
                    break
                util.info("manager still alive after %s seconds: %s", shutdown_timeout, harder.__name__)
                harder()
        state.value = State.SHUTDOWN
        BaseProxy._address_to_local.pop(address, None)
        forget_site(address)

    @property
    def address(self) -> Any:
        """The address of the server; other processes connect to it."""
        return self._address

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,
        proxytype: Any = None,
        exposed: Any = None,
        method_to_typeid: dict[str, str] | None = None,
        create_method: bool = True,
    ) -> None:
        """Register a type, so that managers of this class can make objects of it.

        Args:
            typeid: the name of the type; a method of this name makes an object and returns a proxy.
            callable: the function or class that makes the objects in the server. A manager that only connects needs no callable.
            proxytype: the class of the proxies. None makes proxies with the public methods of the object.
            exposed: the names of the methods that proxies may call.
            method_to_typeid: the names of methods, each with a type. The result of such a method stays in the server, as an object
                of that type, and the method returns a proxy.
            create_method: False adds no method called `typeid`.
        """
        if "_registry" not in cls.__dict__:
            cls._registry = dict(cls._registry)  # leaves the registry of the base class as it is
        if proxytype is None:
            proxytype = AutoProxy
        exposed = exposed or getattr(proxytype, "_exposed_", None)
        method_to_typeid = method_to_typeid or getattr(proxytype, "_method_to_typeid_", None)
        for pair in (method_to_typeid or {}).items():
            for name in pair:
                assert type(name) is str, f"{name!r} is not a string"
        cls._registry[typeid] = callable, exposed, method_to_typeid, proxytype
        if create_method:
            setattr(cls, typeid, _creator(typeid, proxytype))


def _creator(typeid: str, proxytype: Any) -> Callable[..., Any]:
    """Return the method of a manager that makes an object and returns its proxy."""

    def create(self: BaseManager, /, *args: Any, **kwds: Any) -> Any:
        util.debug("requesting creation of a shared %r object", typeid)
        token, exposed = self._create(typeid, *args, **kwds)
        proxy = proxytype(token, self._serializer, manager=self, authkey=self._authkey, exposed=exposed)
        site_at(token.address, self._Client).drop(token.id, self._authkey)  # the proxy holds its own reference by now
        return proxy

    create.__name__ = create.__qualname__ = typeid
    create.__doc__ = f"Make {_with_article(typeid)} in the server process, and return a proxy for it."
    return create


def _with_article(name: str) -> str:
    # "an RLock": the letter R is spoken with a vowel.
    return f"{'an' if name[:1] in 'AEIOaeio' or name == 'RLock' else 'a'} {name}"


if TYPE_CHECKING:
    _Namespace = Namespace


def _pool(*args: Any, **kwds: Any) -> Any:
    """Make a pool in the server. The import is late, so that servers without a pool do not load it."""
    from .pool import Pool

    return Pool(*args, **kwds)


class SyncManager(BaseManager):
    """A manager of containers, locks, queues, pools, values and namespaces. `maniple.Manager` starts one and returns it.

    Each method makes an object in the server process and returns a proxy: `dict`, `list`, `set`, `Namespace`, `Value`, `Array`,
    `Queue`, `JoinableQueue`, `Lock`, `RLock`, `Semaphore`, `BoundedSemaphore`, `Condition`, `Event`, `Barrier`, `Pool`.
    A proxy may be sent to other processes. The object exists as long as a proxy of it exists.

    Example::

        with maniple.Manager() as manager:
            scores = manager.dict()
            with maniple.Pool() as pool:
                pool.starmap(play, [(scores, player) for player in players])
            print(dict(scores))
    """

    # `register` adds these below. Each returns a proxy; it is typed like the object in the server.
    if TYPE_CHECKING:

        def Queue(self, maxsize: int = 0) -> queue.Queue[Any]: ...
        def JoinableQueue(self, maxsize: int = 0) -> queue.Queue[Any]: ...
        def Event(self) -> threading.Event: ...
        def Lock(self) -> threading.Lock: ...
        def RLock(self) -> threading.RLock: ...
        def Semaphore(self, value: int = 1) -> threading.Semaphore: ...
        def BoundedSemaphore(self, value: int = 1) -> threading.BoundedSemaphore: ...
        def Condition(self, lock: Any = None) -> threading.Condition: ...
        def Barrier(
            self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
        ) -> threading.Barrier: ...
        def Pool(
            self,
            processes: int | None = None,
            initializer: Callable[..., object] | None = None,
            initargs: Iterable[Any] = (),
            maxtasksperchild: int | None = None,
        ) -> pool.Pool: ...
        @overload
        def list(self) -> ListProxy[Any]: ...
        @overload
        def list(self, sequence: Iterable[Item], /) -> ListProxy[Item]: ...
        def list(self, *args: Any) -> Any: ...
        @overload
        def dict(self) -> DictProxy[Any, Any]: ...
        @overload
        def dict(self, mapping: Mapping[Key, Item], /) -> DictProxy[Key, Item]: ...
        @overload
        def dict(self, items: Iterable[tuple[Key, Item]], /) -> DictProxy[Key, Item]: ...
        @overload
        def dict(self, **kwargs: Item) -> DictProxy[str, Item]: ...
        def dict(self, *args: Any, **kwargs: Any) -> Any: ...
        @overload
        def set(self) -> SetProxy[Any]: ...
        @overload
        def set(self, items: Iterable[Item], /) -> SetProxy[Item]: ...
        def set(self, *args: Any) -> Any: ...
        def Value(self, typecode: Any, value: Item) -> ValueProxy[Item]: ...
        def Array(self, typecode: str, sequence: Iterable[Item]) -> ArrayProxy[Item]: ...
        def Namespace(self, **attributes: Any) -> _Namespace: ...


for _typeid, _callable, _proxytype in (
    ("Queue", queue.Queue, None),
    ("JoinableQueue", queue.Queue, None),
    ("Event", threading.Event, EventProxy),
    ("Lock", threading.Lock, AcquirerProxy),
    ("RLock", threading.RLock, AcquirerProxy),
    ("Semaphore", threading.Semaphore, AcquirerProxy),
    ("BoundedSemaphore", threading.BoundedSemaphore, AcquirerProxy),
    ("Condition", threading.Condition, ConditionProxy),
    ("Barrier", threading.Barrier, BarrierProxy),
    ("Pool", _pool, PoolProxy),
    ("list", list, ListProxy),
    ("dict", dict, DictProxy),
    ("set", set, SetProxy),
    ("Value", Value, ValueProxy),
    ("Array", Array, ArrayProxy),
    ("Namespace", Namespace, NamespaceProxy),
):
    SyncManager.register(_typeid, _callable, _proxytype)
for _typeid, _parameters in {
    "Queue": "(maxsize=0)",
    "JoinableQueue": "(maxsize=0)",
    "Event": "()",
    "Lock": "()",
    "RLock": "()",
    "Semaphore": "(value=1)",
    "BoundedSemaphore": "(value=1)",
    "Condition": "(lock=None)",
    "Barrier": "(parties, action=None, timeout=None)",
    "Pool": "(processes=None, initializer=None, initargs=(), maxtasksperchild=None)",
    "list": "(sequence=(), /)",
    "dict": "(*mapping_or_items, **kwargs)",
    "set": "(items=(), /)",
    "Value": "(typecode, value, lock=True)",
    "Array": "(typecode, sequence, lock=True)",
    "Namespace": "(**kwds)",
}.items():
    # The signature is the standard package's, `(*args, **kwds)`. The text says what the object takes.
    _create = getattr(SyncManager, _typeid)
    _create.__doc__ = f"{_typeid}{_parameters}\n\n{_create.__doc__}"
del _create, _parameters
SyncManager.register("Iterator", proxytype=IteratorProxy, create_method=False)
SyncManager.register("AsyncResult", create_method=False)
del _typeid, _callable, _proxytype


if HAS_SHMEM:

    class SharedMemoryManager(BaseManager):
        """A manager that removes, when it shuts down, the shared memory that was made through it.

        Example::

            with SharedMemoryManager() as manager:
                block = manager.SharedMemory(size=1024)
        """

        _Server = SharedMemoryServer

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if os.name == "posix":
                # Before the server starts, so that it inherits this tracker: two trackers would report each other's segments.
                resource_tracker.ensure_running()
            super().__init__(*args, **kwargs)
            util.debug("%s created by pid %d", type(self).__name__, os.getpid())

        # Bound as defaults: the modules may be empty at the end of the interpreter.
        def __del__(self, debug: Callable[..., None] = util.debug, getpid: Callable[[], int] = os.getpid) -> None:
            debug("%s.__del__ by pid %d", type(self).__name__, getpid())

        def _entrusted(self, segment: Shared, name: str) -> Shared:
            """Register the segment with the server, which removes it at shutdown, and return `segment`."""
            try:
                tell_server(self._Client, self._address, self._authkey, "track_segment", name)
            except BaseException:
                getattr(segment, "shm", segment).unlink()
                raise
            return segment

        def SharedMemory(self, size: int) -> shared_memory.SharedMemory:
            """Make a block of shared memory, and return it.

            Args:
                size: the size in bytes.

            Raises:
                ValueError: the manager has not started.
            """
            self._insist_on_server()
            segment = shared_memory.SharedMemory(None, create=True, size=size)
            return self._entrusted(segment, segment.name)

        def ShareableList(self, sequence: Iterable[Item] | None) -> shared_memory.ShareableList[Item]:
            """Make a list in shared memory, and return it.

            Args:
                sequence: the items.

            Raises:
                ValueError: the manager has not started.
            """
            self._insist_on_server()
            made = shared_memory.ShareableList(sequence)
            return self._entrusted(made, made.shm.name)

        def _insist_on_server(self) -> None:
            if self._address is None:
                raise ValueError("the manager has no server yet: call its start() first")


public_module.finish(globals())
