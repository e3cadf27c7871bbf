"""Functions and classes of the package that programs replace: picklers, reducers, and functions that start programs."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS

STARTED = ("spawn", "forkserver")


@pytest.fixture
def module(mp_package: str) -> Callable[[str], ModuleType]:
    return lambda name: importlib.import_module(f"{mp_package}.{name}")


def run(folder: Path, program: str, *arguments: str) -> str:
    """Return a program's output; the program must succeed."""
    script = folder / "program.py"
    script.write_text(textwrap.dedent(program))
    line = [sys.executable, str(script), *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- picklers


class Json:
    """A pickler of a program that does not trust received data."""

    @staticmethod
    def dumps(obj: Any) -> bytes:
        return json.dumps(obj).encode()

    @staticmethod
    def loads(data: Any) -> Any:
        return json.loads(bytes(data))


class Marked:
    pass


def test_only_queues_use_a_pickler_put_into_queues(
    mp: ModuleType, module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("queues"), "_ForkingPickler", Json())
    ctx = mp.get_context("fork")
    for queue in (ctx.Queue(), ctx.JoinableQueue(3), ctx.SimpleQueue()):
        queue.put({"a": (1, 2)})
        assert queue.get() == {"a": [1, 2]}  # JSON has no tuples
        queue.close()
    ours, theirs = ctx.Pipe()
    ours.send((1, 2))
    assert theirs.recv() == (1, 2)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("duplex", [True, False])
def test_connections_use_a_pickler_put_into_connections(
    mp: ModuleType, module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, duplex: bool
) -> None:
    reader, writer = mp.Pipe(duplex)
    writer.send((1, 2))
    monkeypatch.setattr(module("connection"), "_ForkingPickler", Json())
    writer.send((3, 4))
    monkeypatch.undo()
    assert reader.recv() == (1, 2)
    assert json.loads(reader.recv_bytes()) == [3, 4]
    writer.send((5,))
    assert reader.recv() == (5,)
    reader.close()
    writer.close()


def test_functions_put_into_the_class_itself_are_used(
    mp: ModuleType, module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    forking, seen = module("reduction").ForkingPickler, []

    def dumps(obj: Any, protocol: int | None = None) -> bytes:
        seen.append(("dumps", obj))
        return pickle.dumps(obj, protocol)

    def loads(data: Any) -> Any:
        seen.append(("loads", pickle.loads(data)))
        return pickle.loads(data)

    queue, (reader, writer) = mp.get_context("fork").SimpleQueue(), mp.Pipe(False)
    monkeypatch.setattr(forking, "dumps", dumps)
    monkeypatch.setattr(forking, "loads", loads)
    queue.put("queue")
    assert queue.get() == "queue"
    writer.send("pipe")
    assert reader.recv() == "pipe"
    assert seen == [(what, item) for item in ("queue", "pipe") for what in ("dumps", "loads")]
    monkeypatch.undo()
    queue.put("queue")
    assert queue.get() == "queue" and len(seen) == 4
    for one in (queue, reader, writer):
        one.close()


def test_a_subclass_with_its_own_reducers(
    mp: ModuleType, module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(module("reduction").ForkingPickler):  # type: ignore[name-defined,misc]
        def reducer_override(self, obj: Any) -> Any:
            return (str, ("a marked one",)) if isinstance(obj, Marked) else NotImplemented

    monkeypatch.setattr(module("queues"), "_ForkingPickler", Own)
    queue = mp.get_context("fork").SimpleQueue()
    queue.put([Marked(), 1])
    assert queue.get() == ["a marked one", 1]
    queue.close()


def test_managers_use_a_pickler_put_into_connections(mp_package: str, tmp_path: Path) -> None:
    program = """
        import importlib, sys
        import cloudpickle

        package = sys.argv[1]
        managers = importlib.import_module(package + ".managers")
        connection = importlib.import_module(package + ".connection")
        cloudpickle.Pickler.dumps, cloudpickle.Pickler.loads = cloudpickle.dumps, cloudpickle.loads
        connection._ForkingPickler = cloudpickle.Pickler

        class Caller:
            def call(self, function, *args): return function(*args)

        class Own(managers.BaseManager):
            pass

        Own.register("Caller", Caller)

        if __name__ == "__main__":
            with Own() as manager:
                print(manager.Caller().call(lambda x: x + 1, 2))
    """
    assert run(tmp_path, program, mp_package) == "3\n"


def test_removed_reducers_are_not_used(mp: ModuleType, module: Callable[[str], ModuleType]) -> None:
    forking = module("reduction").ForkingPickler
    queue = mp.get_context("fork").SimpleQueue()

    class Kind:
        def __reduce__(self) -> Any:
            return str, ("plain",)

    def put() -> Any:
        queue.put(Kind())
        return queue.get()

    class Sub(forking):  # type: ignore[misc]
        pass

    def as_text(text: str) -> Callable[[Any], Any]:
        return lambda obj: (str, (text,))

    for change, expected in (
        (lambda: forking.register(Kind, as_text("registered")), "registered"),
        (lambda: forking._extra_reducers.pop(Kind), "plain"),
        (lambda: forking._extra_reducers.update({Kind: as_text("updated")}), "updated"),
        (lambda: forking._extra_reducers.__delitem__(Kind), "plain"),
        (lambda: Sub.register(Kind, as_text("by a subclass")), "by a subclass"),
        (lambda: forking._extra_reducers.pop(Kind), "plain"),
    ):
        change()
        assert put() == expected
        assert pickle.loads(forking.dumps(Kind())) == expected
    queue.close()


def test_reduction_has_the_standard_modules_imports(module: Callable[[str], ModuleType]) -> None:
    assert module("reduction").pickle is pickle
    assert module("reduction").io is io


# -- the reducer of a context

REDUCER = """
    import importlib, io, sys
    package, method, late = sys.argv[1], sys.argv[2], sys.argv[3] == "late"
    mp = importlib.import_module(package)
    reduction = importlib.import_module(package + ".reduction")
    ctx = mp.get_context(method)

    class Kind:
        pass

    class Pickler(reduction.ForkingPickler):
        def reducer_override(self, obj):
            return (str, ("reduced",)) if type(obj) is Kind else NotImplemented

    class Reducer(reduction.AbstractReducer):
        ForkingPickler = Pickler
        dumped = []

        @staticmethod
        def dump(obj, file, protocol=None):
            Reducer.dumped.append(type(obj).__name__)
            Pickler(file, protocol).dump(obj)

    def child(item, queue, end):
        queue.put((item, end is not None))

    if __name__ == "__main__":
        if late:
            process = ctx.Process(target=abs, args=(1,))
            process.start(); process.join()
            ctx.Queue(), ctx.Pipe()
        before = ctx.reducer
        ctx.reducer = Reducer()
        assert ctx.reducer is mp.get_context("fork").reducer is not before
        queue, (a, b) = ctx.Queue(), ctx.Pipe()
        a.send(Kind())
        print(b.recv())
        queue.put(Kind())
        print(queue.get())
        process = ctx.Process(target=child, args=(Kind(), queue, b))
        process.start()
        print(queue.get(), Reducer.dumped)
        process.join()
        ctx.reducer = before
        a.send(1)
        print(b.recv())
"""


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("method", STARTED)
def test_a_context_s_reducer_decides_how_objects_are_pickled(
    mp_package: str, tmp_path: Path, method: str, when: str
) -> None:
    if mp_package == "multiprocessing":
        pytest.xfail(
            "its reducer works only where it is set before other modules are imported, and passes no descriptors"
        )
    kind = "SpawnProcess" if method == "spawn" else "ForkServerProcess"
    assert run(tmp_path, REDUCER, mp_package, method, when).splitlines() == [
        "reduced",
        "reduced",
        f"('reduced', True) ['dict', '{kind}']",
        "1",
    ]


# -- the start of programs

STARTER = """
    import importlib, sys
    package, method = sys.argv[1:]
    mp = importlib.import_module(package)
    util = importlib.import_module(package + ".util")
    original, seen = util.spawnv_passfds, []

    def spawnv_passfds(path, args, passfds):
        assert type(args) is list and all(type(fd) is int for fd in passfds)
        place = args.index("-c")
        for word in ("resource_tracker", "forkserver", "spawn_main"):
            if word in args[place + 1]:
                seen.append(word)
                break
        args = [*args[:place], "-X", "started=by_us", *args[place:]]
        return original(path, args, passfds)

    util.spawnv_passfds = spawnv_passfds

    def child(queue):
        queue.put(sys._xoptions.get("started"))

    if __name__ == "__main__":
        ctx = mp.get_context(method)
        queue = ctx.SimpleQueue()
        process = ctx.Process(target=child, args=(queue,))
        process.start()
        print(queue.get(), sorted(seen))
        process.join()
"""


@pytest.mark.parametrize("method", STARTED)
def test_a_replaced_starter_starts_everything(mp_package: str, tmp_path: Path, method: str) -> None:
    what = "spawn_main" if method == "spawn" else "forkserver"
    out = run(tmp_path, STARTER, mp_package, method)
    assert out == f"by_us {sorted(['resource_tracker', what])}\n"


DEBUGGER = """
    import _posixsubprocess, importlib, subprocess, sys
    original, seen = _posixsubprocess.fork_exec, []

    def fork_exec(args, *rest):
        seen.append(b"spawn_main" in b" ".join(a if type(a) is bytes else a.encode() for a in args))
        return original(args, *rest)

    _posixsubprocess.fork_exec = subprocess._fork_exec = fork_exec
    mp = importlib.import_module(sys.argv[1])
    if __name__ == "__main__":
        process = mp.get_context("spawn").Process(target=abs, args=(1,))
        process.start()
        process.join()
        print(process.exitcode, any(seen))
"""


def test_a_debugger_sees_children(mp_package: str, tmp_path: Path) -> None:
    assert run(tmp_path, DEBUGGER, mp_package) == "0 True\n"


PATCHED = """
    import importlib, sys
    package = sys.argv[1]
    mp = importlib.import_module(package)
    spawn = importlib.import_module(package + ".spawn")
    said = []
    line, data = spawn.get_command_line, spawn.get_preparation_data

    def get_command_line(**kwds):
        said.append(sorted(kwds))
        return line(**kwds)

    def get_preparation_data(name):
        said.append(name)
        return data(name)

    if __name__ == "__main__":
        spawn.get_command_line, spawn.get_preparation_data = get_command_line, get_preparation_data
        process = mp.get_context("spawn").Process(target=abs, args=(1,), name="me")
        process.start()
        process.join()
        print(process.exitcode, said)
"""


def test_replaced_functions_of_spawn_are_called(mp_package: str, tmp_path: Path) -> None:
    assert run(tmp_path, PATCHED, mp_package) == "0 ['me', ['pipe_handle', 'tracker_fd']]\n"


def test_a_programs_own_command_line_gets_this_package(mp_package: str, tmp_path: Path) -> None:
    if mp_package == "multiprocessing":
        pytest.skip("only for maniple")
    (tmp_path / "program.py").write_text(
        textwrap.dedent("""
        import multiprocessing, multiprocessing.spawn, sys

        def get_command_line(**kwds):
            told = ", ".join(f"{name}={value!r}" for name, value in kwds.items())
            text = f"from multiprocessing.spawn import spawn_main; spawn_main({told})"
            return [multiprocessing.spawn._python_exe, "-c", text, "--multiprocessing-fork"]

        def child(queue):
            queue.put(multiprocessing.queues.__name__ == "maniple.queues")

        if __name__ == "__main__":
            multiprocessing.spawn.get_command_line = get_command_line
            ctx = multiprocessing.get_context("spawn")
            queue = ctx.Queue()
            process = ctx.Process(target=child, args=(queue,))
            process.start()
            print(queue.get(timeout=30))
            process.join()
        """)
    )
    line = [sys.executable, "-m", "maniple", "program.py"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("True\n", "")


# -- the resource tracker


@pytest.fixture
def tracker_lines(module: Callable[[str], ModuleType]) -> Any:
    """Makes trackers of a class that keep their lines instead of sending them."""

    def make(**methods: Any) -> Any:
        tracker_class = module("resource_tracker").ResourceTracker
        lines: list[bytes] = []

        def _launch(self: Any) -> None:
            self._fd, reader = os.pipe()[::-1]
            lines.append(b"launched")
            self.reader = reader

        made = type("Tracker", (tracker_class,), {"_launch": _launch, **methods})()
        made.lines = lines
        return made

    return make


def read(tracker: Any) -> bytes:
    os.close(tracker._fd)
    tracker._fd = None
    with open(tracker.reader, "rb") as pipe:
        return pipe.read()


def test_the_lines_are_the_standard_ones(module: Callable[[str], ModuleType], tracker_lines: Any) -> None:
    tracker = tracker_lines()
    tracker._use_simple_format = True
    if not hasattr(module("resource_tracker").ResourceTracker, "_launch"):
        pytest.skip("this Python starts its tracker in ensure_running")
    tracker.register("/name:with:colons", "shared_memory")
    tracker.unregister("/a", "noop")
    assert read(tracker) == b"REGISTER:/name:with:colons:shared_memory\nUNREGISTER:/a:noop\n"
    tracker = tracker_lines()
    tracker._use_simple_format = False
    tracker.register("/a\nb", "shared_memory")
    if hasattr(module("resource_tracker"), "_decode_message"):
        line = read(tracker)
        assert json.loads(line)["cmd"] == "REGISTER" and json.loads(line)["rtype"] == "shared_memory"
        decode = module("resource_tracker")._decode_message
        assert decode(line) == ("REGISTER", "shared_memory", "/a\nb")
        assert decode(b"PROBE:0:noop\n") == ("PROBE", "noop", "0")
        assert decode(b"REGISTER:a:b:semlock\n") == ("REGISTER", "semlock", "a:b")


def test_overrides_of_a_tracker_subclass_are_called(
    mp_package: str, module: Callable[[str], ModuleType], tracker_lines: Any
) -> None:
    if mp_package == "multiprocessing":
        pytest.skip("each Python has another one of the two ways")
    base = module("resource_tracker").ResourceTracker
    calls: list[Any] = []

    def ensure_running(self: Any) -> None:
        calls.append("ensure_running")
        base.ensure_running(self)

    def write(self: Any, msg: bytes | None = None) -> None:
        calls.append(msg)
        base._ensure_running_and_write(self, msg)

    old = tracker_lines(ensure_running=ensure_running)
    old._use_simple_format = True
    old.register("a", "folder")
    assert calls == ["ensure_running"] and read(old).endswith(b"REGISTER:a:folder\n")
    calls.clear()
    new = tracker_lines(_ensure_running_and_write=write)
    new._use_simple_format = True
    new._send("MAYBE_UNLINK", "a", "folder")
    assert calls == [b"MAYBE_UNLINK:a:folder\n"] and read(new) == b"MAYBE_UNLINK:a:folder\n"
    calls.clear()
    patched = tracker_lines()
    patched.ensure_running = lambda: (calls.append("patched"), base.ensure_running(patched))
    patched.register(name="b", rtype="noop")
    patched.unregister("b", "noop")
    assert calls == ["patched"] * 2
    read(patched)


def test_the_tracker_reads_both_forms_of_lines(mp_package: str, module: Callable[[str], ModuleType]) -> None:
    resource_tracker = module("resource_tracker")
    if mp_package == "multiprocessing" and not hasattr(resource_tracker, "_decode_message"):
        pytest.skip("this Python has one form")
    for simple in (True, False):
        tracker = resource_tracker.ResourceTracker()
        tracker._use_simple_format = simple
        tracker.ensure_running()
        tracker.register("/a", "noop")
        tracker._use_simple_format = not simple
        tracker.unregister("/a", "noop")
        assert tracker._check_alive()
        tracker._stop()
        assert tracker._exitcode == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_replaced_register_keeps_blocks(mp_package: str, tmp_path: Path, method: str) -> None:
    """Do nothing for shared memory, as in the recipe by which a process does not own the memory that it attaches to."""
    program = """
        import importlib, sys
        package, method = sys.argv[1:]
        mp = importlib.import_module(package)
        shared_memory = importlib.import_module(package + ".shared_memory")
        tracker = importlib.import_module(package + ".resource_tracker")

        def leave_alone():
            register, unregister = tracker.register, tracker.unregister
            tracker.register = lambda name, rtype: None if rtype == "shared_memory" else register(name, rtype)
            tracker.unregister = lambda name, rtype: None if rtype == "shared_memory" else unregister(name, rtype)
            tracker._CLEANUP_FUNCS.pop("shared_memory", None)

        def child(name):
            leave_alone()
            block = shared_memory.SharedMemory(name=name)
            block.buf[0] += 1
            block.close()

        if __name__ == "__main__":
            block = shared_memory.SharedMemory(create=True, size=10)
            for _ in range(3):
                process = mp.get_context(method).Process(target=child, args=(block.name,))
                process.start(); process.join()
            print(block.buf[0])
            block.close(); block.unlink()
    """
    assert run(tmp_path, program, mp_package, method) == "3\n"


# -- connections


def reversing(connection: ModuleType) -> dict[str, Any]:
    """Parts of a connection that reverse each message."""
    base = connection.Connection

    def _send_bytes(self: Any, buf: Any) -> None:
        original["_send_bytes"](self, bytes(buf)[::-1])

    def _recv_bytes(self: Any, maxsize: int | None = None) -> Any:
        got = original["_recv_bytes"](self, maxsize)
        if got is None:
            return None
        turned = io.BytesIO()
        turned.write(got.getvalue()[::-1])
        return turned

    original = {name: getattr(base, name) for name in ("_send_bytes", "_recv_bytes")}
    return {"_send_bytes": _send_bytes, "_recv_bytes": _recv_bytes}


@pytest.mark.parametrize("how", ["subclass", "in the class"])
def test_overridden_parts_of_a_connection_are_called(
    mp_package: str, tmp_path: Path, module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    connection = module("connection")
    parts = reversing(connection)
    if how == "in the class":
        before = dict(vars(connection.Connection))
        for name, part in parts.items():
            monkeypatch.setattr(connection.Connection, name, part)
        kind = connection.Connection
    else:
        kind = type("Reversing", (connection.Connection,), parts)
    try:
        reader, writer = os.pipe()
        with kind(reader, writable=False) as there, kind(writer, readable=False) as here:
            here.send({"a": [1] * 5})
            assert there.poll(20) and there.recv() == {"a": [1] * 5}
            here.send_bytes(b"-ab-", 1, 2)
            here.send_bytes(b"cd")
            assert os.read(reader, 6) == b"\0\0\0\2ba"
            into = bytearray(3)
            assert there.recv_bytes_into(into, 1) == 2 and into == b"\0cd"
            here.send_bytes(b"x" * 10)
            with pytest.raises(OSError):
                there.recv_bytes(5)
            with pytest.raises(OSError, match="read-only|closed"):
                there.send(1)
            here.close()
            with pytest.raises(OSError, match="closed"):
                here.send(1)
    finally:
        if how == "in the class":
            monkeypatch.undo()
            for name in set(vars(connection.Connection)) - before.keys():
                delattr(connection.Connection, name)


@pytest.mark.parametrize("method", METHODS)
def test_pools_use_a_programs_pickler(mp_package: str, method: str, tmp_path: Path) -> None:
    """As the well-known recipe does that puts dill in the place of `ForkingPickler`."""
    (tmp_path / "program.py").write_text(
        textwrap.dedent(f"""
        import cloudpickle, pickle, {mp_package} as mp
        import {mp_package}.connection, {mp_package}.queues, {mp_package}.reduction

        class Own(cloudpickle.CloudPickler):
            dumps, loads = staticmethod(cloudpickle.dumps), staticmethod(cloudpickle.loads)

        mp.reduction.ForkingPickler = mp.queues._ForkingPickler = mp.connection._ForkingPickler = Own

        if __name__ == "__main__":
            with mp.get_context({method!r}).Pool(1) as pool:
                print(pool.map(lambda x: x * 2, [1, 2]), pool.apply(lambda: lambda: 5)())
        """)
    )
    line = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[2, 4] 5\n", "")
