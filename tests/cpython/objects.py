"""One object of each kind that a multiprocessing package makes; the same calls for the standard package and for ours."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

Make = Callable[[Any, contextlib.ExitStack], Any]

# Each is made in the context of one start method. The stack closes what must be closed.
IN_CONTEXT: dict[str, Make] = {
    "Lock()": lambda context, stack: context.Lock(),
    "RLock()": lambda context, stack: context.RLock(),
    "Semaphore()": lambda context, stack: context.Semaphore(2),
    "BoundedSemaphore()": lambda context, stack: context.BoundedSemaphore(2),
    "Condition()": lambda context, stack: context.Condition(),
    "Event()": lambda context, stack: context.Event(),
    "Barrier()": lambda context, stack: context.Barrier(2),
    "Queue()": lambda context, stack: closed(stack, context.Queue()),
    "JoinableQueue()": lambda context, stack: closed(stack, context.JoinableQueue()),
    "SimpleQueue()": lambda context, stack: closed(stack, context.SimpleQueue()),
    "Value(int)": lambda context, stack: context.Value("i", 1),
    "Value(c_char)": lambda context, stack: context.Value("c", b"a"),
    "Array(int)": lambda context, stack: context.Array("i", 3),
    "Array(char)": lambda context, stack: context.Array("c", 3),
    "RawValue()": lambda context, stack: context.RawValue("i", 1),
    "RawArray()": lambda context, stack: context.RawArray("i", 3),
    "Process()": lambda context, stack: context.Process(),
    "Pipe()": lambda context, stack: [stack.enter_context(end) for end in context.Pipe()][0],
    "Pipe(False)": lambda context, stack: [stack.enter_context(end) for end in context.Pipe(False)][1],
}
# Each is made by a module of the package.
BY_MODULE: dict[str, tuple[str, Make]] = {
    "SharedMemory()": ("shared_memory", lambda module, stack: shared(stack, module.SharedMemory(create=True, size=16))),
    "ShareableList()": ("shared_memory", lambda module, stack: listed(stack, module.ShareableList([1, "a"]))),
    "Listener()": ("connection", lambda module, stack: stack.enter_context(module.Listener())),
    "ThreadPool()": ("pool", lambda module, stack: stack.enter_context(module.ThreadPool(1))),
    "dummy.Process()": ("dummy", lambda module, stack: module.Process()),
    "dummy.Pool()": ("dummy", lambda module, stack: stack.enter_context(module.Pool(1))),
    "dummy.Queue()": ("dummy", lambda module, stack: module.Queue()),
    "current_process()": ("process", lambda module, stack: module.current_process()),
    "get_logger()": ("util", lambda module, stack: module.get_logger()),
}
# What a running pool and a running manager give out.
BY_POOL: dict[str, Callable[[Any], Any]] = {
    "Pool()": lambda pool: pool,
    "Pool().apply_async()": lambda pool: pool.apply_async(abs, (1,)),
    "Pool().map_async()": lambda pool: pool.map_async(abs, [1]),
    "Pool().imap()": lambda pool: pool.imap(abs, [1]),
    "Pool().imap_unordered()": lambda pool: pool.imap_unordered(abs, [1]),
}
BY_MANAGER: dict[str, Callable[[Any], Any]] = {
    "Manager()": lambda manager: manager,
    "Manager().list()": lambda manager: manager.list([1]),
    "Manager().dict()": lambda manager: manager.dict(a=1),
    "Manager().Namespace()": lambda manager: manager.Namespace(),
    "Manager().Lock()": lambda manager: manager.Lock(),
    "Manager().RLock()": lambda manager: manager.RLock(),
    "Manager().Condition()": lambda manager: manager.Condition(),
    "Manager().Event()": lambda manager: manager.Event(),
    "Manager().Barrier()": lambda manager: manager.Barrier(2),
    "Manager().Semaphore()": lambda manager: manager.Semaphore(1),
    "Manager().Queue()": lambda manager: manager.Queue(),
    "Manager().Value()": lambda manager: manager.Value("i", 1),
    "Manager().Array()": lambda manager: manager.Array("i", [1]),
}


def closed(stack: contextlib.ExitStack, thing: Any) -> Any:
    stack.callback(thing.close)
    return thing


def shared(stack: contextlib.ExitStack, memory: Any) -> Any:
    stack.callback(memory.unlink)
    stack.callback(memory.close)
    return memory


def listed(stack: contextlib.ExitStack, sequence: Any) -> Any:
    shared(stack, sequence.shm)
    return sequence


def made(name: str) -> Iterator[tuple[str, Any]]:
    """Each label with its object, or with the exception that kept it from being made. Closed after the last one."""
    package = importlib.import_module(name)
    with contextlib.ExitStack() as stack:
        for method in package.get_all_start_methods():
            context = package.get_context(method)
            for label, make in IN_CONTEXT.items():
                yield f"{method}.{label}", attempt(make, context, stack)
        for label, (module, make) in BY_MODULE.items():
            yield label, attempt(make, importlib.import_module(f"{name}.{module}"), stack)
        context = package.get_context("spawn")
        pool = stack.enter_context(context.Pool(1))
        for label, give in BY_POOL.items():
            yield label, attempt(give, pool)
        manager = stack.enter_context(context.Manager())
        for label, give in BY_MANAGER.items():
            yield label, attempt(give, manager)


def attempt(make: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return make(*arguments)
    except Exception as error:
        return error
