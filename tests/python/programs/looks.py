"""The ways in which programs and tools get at multiprocessing, from several threads at once to begin with."""

import importlib
import importlib.util
import inspect
import json
import multiprocessing
import pkgutil
import random
import runpy
import sys
import threading
import typing
from unittest import mock

WANTED = {
    "connection": "Client",
    "heap": "Arena",
    "managers": "SyncManager",
    "pool": "ThreadPool",
    "queues": "SimpleQueue",
    "reduction": "ForkingPickler",
    "resource_sharer": "stop",
    "resource_tracker": "register",
    "shared_memory": "ShareableList",
    "sharedctypes": "Synchronized",
    "spawn": "freeze_support",
    "synchronize": "Lock",
    "util": "Finalize",
}


def import_all(begin, troubles):
    names = list(WANTED.items())
    random.shuffle(names)
    begin.wait()
    for module, name in names:
        try:
            exec(f"from multiprocessing.{module} import {name}", {})
            exec(f"import multiprocessing.{module} as found; found.{name}", {})
            exec(f"from multiprocessing import {module}; {module}.{name}", {})
        except Exception as trouble:
            troubles.append(f"{module}: {trouble!r}")


def imported_by_threads():
    sys.setswitchinterval(1e-5)
    troubles, begin = [], threading.Barrier(6)
    threads = [threading.Thread(target=import_all, args=(begin, troubles)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(0.005)
    return troubles


def found():
    specs = [importlib.util.find_spec(f"multiprocessing.{name}") for name in ("pool", "popen_fork", "dummy.connection")]
    walked = {module.name for module in pkgutil.iter_modules(multiprocessing.__path__)}
    named = pkgutil.resolve_name("multiprocessing.pool:Pool"), importlib.import_module("multiprocessing.pool").Pool
    return (
        [spec.has_location or spec.origin is not None for spec in specs],
        set(WANTED) <= walked,
        named[0] is named[1] is multiprocessing.pool.Pool,
        "nothing" in str(absent("multiprocessing.nothing")),
    )


def absent(name):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        return missing


def looked_into():
    process, queue = multiprocessing.Process, multiprocessing.queues.Queue
    hinted = type("Hinted", (), {"__annotations__": {"q": "Queue"}, "__module__": queue.__module__})
    return (
        inspect.getmodule(process) is sys.modules["multiprocessing.context"],
        inspect.getsource(process).startswith("class Process"),
        inspect.getsourcefile(queue) == multiprocessing.queues.__file__,
        typing.get_type_hints(hinted) == {"q": queue},
        repr(process),
        # Ours has options after these.
        list(inspect.signature(multiprocessing.pool.Pool.map).parameters)[:4],
        runpy.run_module("multiprocessing.spawn", run_name="again")["WINEXE"],
    )


def patched():
    with mock.patch("multiprocessing.pool.Pool.map", lambda self, func, items: "patched"):
        with multiprocessing.pool.ThreadPool(1) as pool:
            inside = pool.map(abs, [-1])
    with (
        mock.patch("multiprocessing.cpu_count", return_value=77),
        mock.patch.object(multiprocessing.queues, "Queue") as fake,
    ):
        return inside, multiprocessing.cpu_count(), multiprocessing.Queue() is fake.return_value


def reloaded():
    before = multiprocessing.pool.Pool
    again = importlib.reload(multiprocessing.pool)
    return again is multiprocessing.pool is sys.modules["multiprocessing.pool"], again.Pool is before, repr(again.Pool)


if __name__ == "__main__":
    for look in imported_by_threads, found, looked_into, patched, reloaded:
        print(look.__name__, json.dumps(look(), default=str))
