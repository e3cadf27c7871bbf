"""Shared memory under a name: views that outlive it, its removal, and the items that a list in it returns."""

from __future__ import annotations

import gc
import importlib
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import uuid
from multiprocessing import resource_tracker
from multiprocessing import shared_memory as standard
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS

VIEWS = """
import ctypes, gc, sys
import numpy as np
from {package}.shared_memory import SharedMemory, ShareableList

def make():
    if kind == "list":
        return ShareableList([b"x" * 79_999], name=None).shm
    return SharedMemory(create=True, size=80_000)

def numpy_array(buf):
    return np.ndarray((80_000,), dtype="u1", buffer=buf)

def numpy_slice(buf):
    return np.ndarray((40_000,), dtype="u1", buffer=buf)[100:].reshape(2, -1)

def frombuffer(buf):
    return np.frombuffer(buf, dtype="u1")

def asarray(buf):
    return np.asarray(buf)

def part(buf):
    return buf[10:]

def whole(buf):
    return buf

def from_ctypes(buf):
    return (ctypes.c_ubyte * 1000).from_buffer(buf)

class Raw:
    # As native code does that takes the address, gives the buffer back and keeps the object (torch.frombuffer).
    def __init__(self, buf):
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(buf))
        self.buf = buf

    def __getitem__(self, place):
        return ctypes.string_at(self.address + place, 1)[0]

    def __setitem__(self, place, value):
        ctypes.memset(self.address + place, value, 1)

kind, view, how = sys.argv[1:]
shm = make()
shm.unlink()
array = globals()[view](shm.buf)
said = ""
if how == "close":
    try:
        shm.close()
    except BufferError:
        said = "BufferError"
else:
    del shm
    gc.collect()
first = array if view != "numpy_slice" else array[1]
try:
    first[20] = 7
    assert first[20] == 7
except ValueError as released:
    said += str(released).split()[-2]
del array, first
if said == "BufferError":
    shm.close()
gc.collect()
with open("/proc/self/maps") as maps:
    print(said, "deleted" if "/dev/shm" in maps.read() else "unmapped")
"""

EXPORTING = ("frombuffer", "asarray", "part", "from_ctypes")


@pytest.mark.better_than_standard("the memory is taken away under a view")
@pytest.mark.parametrize("how", ["close", "collect"])
@pytest.mark.parametrize("view", ["numpy_array", "numpy_slice", *EXPORTING, "whole", "Raw"])
def test_a_view_keeps_the_memory(mp_package: str, view: str, how: str) -> None:
    argv = [sys.executable, "-c", VIEWS.format(package=mp_package), "list" if view == "part" else "block", view, how]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, (done.returncode, done.stderr)
    refused = how == "close" and view in EXPORTING
    said = "BufferError" if refused else "memoryview" if (view, how) == ("whole", "close") else ""
    assert done.stdout.strip() == f"{said} unmapped".strip()
    assert done.stderr == ""


def test_closed_memory_is_gone_at_once(mp_package: str) -> None:
    memory = importlib.import_module(f"{mp_package}.shared_memory").SharedMemory(create=True, size=12345)
    path = f"/dev/shm/{memory.name}"

    def mapped() -> bool:
        with open("/proc/self/maps") as maps:
            return path in maps.read()

    assert mapped()
    gc.disable()
    try:
        memory.close()
        assert not mapped()
    finally:
        gc.enable()
    memory.close()
    memory.unlink()


def run(code: str, *arguments: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=40)
    return done.stdout.strip(), done.stderr


@pytest.fixture
def segment(mp_package: str) -> Any:
    memory = importlib.import_module(f"{mp_package}.shared_memory").SharedMemory(create=True, size=100)
    yield memory
    memory.close()
    try:
        memory.unlink()
    except FileNotFoundError:
        pass


ATTACH = "import sys; from {}.shared_memory import SharedMemory; SharedMemory(sys.argv[1]{}).close()"


@pytest.mark.better_than_standard("a program that has attached removes the memory")
@pytest.mark.parametrize("option", ["", ", track=False"])
def test_an_attaching_program_leaves_the_memory_to_its_maker(mp_package: str, segment: Any, option: str) -> None:
    assert run(ATTACH.format(mp_package, option), segment.name) == ("", "")
    type(segment)(segment.name).close()


@pytest.mark.better_than_standard("track= is new in 3.13")
def test_track_makes_an_attaching_program_remove_the_memory(mp_package: str, segment: Any) -> None:
    _, errors = run(ATTACH.format(mp_package, ", track=True"), segment.name)
    assert "1 leaked shared_memory" in errors
    with pytest.raises(FileNotFoundError):
        type(segment)(segment.name)
    # The maker detects it, and the tracker does not look for it again.
    with pytest.raises(FileNotFoundError):
        segment.unlink()


MAKER = """
import sys
from {package} import get_context
from {package}.shared_memory import SharedMemory

def use(name, what, go_on):
    go_on.wait()
    memory = SharedMemory(name)
    memory.buf[0] = 7
    memory.close()
    if what == "unlink":
        memory.unlink()

if __name__ == "__main__":
    method, what, first = sys.argv[1:]
    ctx = get_context(method)
    go_on = ctx.Event()
    name = "maniple-test-{unique}"
    child = ctx.Process(target=use, args=(name, what, go_on))
    if first == "child":
        child.start()
    memory = SharedMemory(name, create=True, size=100)
    if first == "maker":
        child.start()
    go_on.set()
    child.join()
    print(child.exitcode, memory.buf[0])
    memory.close()
    if what == "close":
        memory.unlink()
"""


@pytest.mark.better_than_standard("trackers warn of what is not left")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", ["close", "unlink"])
@pytest.mark.parametrize("first", ["child", "maker"])
def test_trackers_do_not_warn_of_removed_memory(
    mp_package: str, method: str, what: str, first: str, tmp_path: Any
) -> None:
    script = tmp_path / "script.py"
    script.write_text(MAKER.format(package=mp_package, unique=uuid.uuid4().hex))
    argv = [sys.executable, str(script), method, what, first]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=40)
    assert (done.stdout, done.stderr) == ("0 7\n", "")


LEFT = """
import sys
from {package}.shared_memory import SharedMemory
print(SharedMemory(create=True, size=100).name)
"""


def test_the_tracker_removes_a_programs_leftovers(mp_package: str) -> None:
    name, errors = run(LEFT.format(package=mp_package))
    assert "1 leaked shared_memory" in errors
    with pytest.raises(FileNotFoundError):
        importlib.import_module(f"{mp_package}.shared_memory").SharedMemory(name)


# ---------------------------------------------------------------- lists


@pytest.fixture
def lists(mp_package: str) -> Any:
    """Makes lists, which end with the test."""
    kind = importlib.import_module(f"{mp_package}.shared_memory").ShareableList
    made: list[Any] = []

    def make(*args: Any, **options: Any) -> Any:
        made.append(kind(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.shm.close()
        try:
            one.shm.unlink()
        except FileNotFoundError:
            pass


def random_item(chance: random.Random) -> Any:
    length = chance.choice([0, 1, 7, 8, 9, 15, 16, 17, 100])
    texts = ["a", "\0", "ü", "€", "\U00010000", " ", "\n"]
    return chance.choice(
        [
            None,
            True,
            False,
            chance.randint(-(2**63), 2**63 - 1),
            chance.random(),
            bytes(chance.choices(b"\0\0a\xff ", k=length)),
            "".join(chance.choices(texts, k=length)),
            b"\0" * length,
        ]
    )


@pytest.mark.better_than_standard("NULs at the end are lost")
def test_a_list_returns_its_items(lists: Any) -> None:
    chance = random.Random(49)
    for _ in range(100):
        values = [random_item(chance) for _ in range(chance.randint(0, 12))]
        one = lists(values)
        other = lists(name=one.shm.name)
        assert list(other) == values
        assert [type(value) for value in other] == [type(value) for value in values]
        for place in range(len(values)):
            value = random_item(chance)
            try:
                other[place] = value
            except ValueError:  # no room
                continue
            values[place] = value
        assert list(one) == values


@pytest.mark.better_than_standard("clears an item before it refuses a number")
def test_a_refused_item_leaves_the_old_one(lists: Any) -> None:
    values = [5, 2.5, "text", b"bytes", True, None]
    made = lists(values)
    for place in range(len(values)):
        for refused in (2**64, -(2**63) - 1, "x" * 100, b"x" * 100, object(), "\ud800"):
            with pytest.raises((ValueError, struct.error)):
                made[place] = refused
            assert list(made) == values


@pytest.mark.better_than_standard("NULs at the end are lost")
def test_long_items_keep_their_zeros(lists: Any) -> None:
    for length in (999_999, 1_000_000, 1_000_007, 1_000_008):
        values = [b"\0" * length, "x" * (length - 1) + "\0"]
        one = lists(values)
        assert list(one) == values
        one[0] = b"short"
        one[1] = "short\0"
        assert list(one) == [b"short", "short\0"]


@pytest.mark.better_than_standard("the list that was being made stays")
def test_a_failed_list_leaves_nothing(lists: Any) -> None:
    name = f"maniple-test-{uuid.uuid4().hex}"
    for values, error in (([2**64], Exception), (["\ud800"], UnicodeEncodeError), ([b"x" * 10_000_000], ValueError)):
        with pytest.raises(error):
            lists(values, name=name)
    assert list(lists([1], name=name)) == [1]


def test_the_standard_package_reads_and_changes_a_list(lists: Any) -> None:
    values = [b"a\0\0", "text\0", b"\0", b"plain", "ü\0", 5, None, b"x\0" * 10]
    one = lists(values)
    peer = standard.ShareableList(name=one.shm.name)
    resource_tracker.unregister(peer.shm._name, "shared_memory")  # type: ignore[attr-defined]  # else it removes the list
    try:
        assert list(peer) == [b"a", "text", b"", b"plain", "ü", 5, None, (b"x\0" * 10)[:-1]]
        # An item that it stores may use the whole slot, and is read unchanged.
        peer[0], peer[1], peer[2], peer[4], peer[7] = b"abcdefgh", 7, "text", b"12345678", b"y\0y"
        assert list(one) == [b"abcdefgh", 7, "text", b"plain", b"12345678", 5, None, b"y\0y"]
    finally:
        peer.shm.close()


def test_the_package_reads_and_changes_a_standard_list(lists: Any) -> None:
    values = [b"some bytes", "text", None, 1.5]
    peer = standard.ShareableList(values)
    try:
        one = lists(name=peer.shm.name)
        assert list(one) == values
        one[0], one[1], one[3] = b"end\0\0", "\0", True
        if type(one) is not type(peer):
            assert list(one) == [b"end\0\0", "\0", None, True]
        assert list(peer) == [b"end", "", None, True]
        peer[0], peer[1] = b"0123456789abcde", "12345678"
        assert list(one) == [b"0123456789abcde", "12345678", None, True]
    finally:
        peer.shm.close()
        peer.shm.unlink()


def test_subclasses_of_the_types_are_accepted(lists: Any, mp: ModuleType, mp_package: str) -> None:
    if mp_package == "multiprocessing":
        pytest.skip("KeyError there")

    class Text(str):
        pass

    one = lists([Text("text"), 1])
    one[0] = Text("other")
    one[1] = Text("number")
    assert list(one) == ["other", "number"]


def test_references_elsewhere_are_seen() -> None:
    pytest.importorskip("maniple")
    from maniple._impl.memory.mappings import is_held_elsewhere

    class Owner:
        memory: Any = None

    owner = Owner()
    owner.memory = memory = mmap.mmap(-1, 4096)
    view: Any = memoryview(memory)
    assert is_held_elsewhere(memory, 2)  # by the view
    other = view
    assert is_held_elsewhere(view, 1)
    del other
    assert not is_held_elsewhere(view, 1)
    view.release()
    assert not is_held_elsewhere(memory, 2)


KILLED = """
import os, signal, {package}.shared_memory as shared_memory
first = shared_memory.SharedMemory(create=True, size=10)
first.close()
first.unlink()
made = shared_memory.shm_open
def open_and_die(path, flags, mode):
    made(path, flags, mode)
    print(path, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
shared_memory.shm_open = open_and_die
shared_memory.SharedMemory(create=True, size=10)
"""


def test_a_process_that_is_killed_while_it_makes_a_segment_leaves_no_name() -> None:
    pytest.importorskip("maniple")
    program = [sys.executable, "-c", KILLED.format(package="maniple")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30)
    name = done.stdout.strip()
    assert name.startswith("/psm_")
    # The tracker removes it when it sees the end of the process; it has the process's output, which `run` has read to its end.
    assert not os.path.exists(f"/dev/shm{name}")


REMOVES = """
import importlib, os, signal, sys
memory = importlib.import_module(sys.argv[1] + ".shared_memory")
for _ in range(int(sys.argv[2])):
    block = memory.SharedMemory(create=True, size=10)
    block.close()
    block.unlink()
left = memory.SharedMemory(create=True, size=10) if sys.argv[3] == "leaves one" else None
print(left and left.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize("what", ["leaves none", "leaves one"])
def test_the_tracker_of_a_killed_process_removes_what_there_is(mp_package: str, count: int, what: str) -> None:
    # The output ends when the tracker has ended, which holds it.
    argv = [sys.executable, "-c", REMOVES, mp_package, str(count), what]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    name = done.stdout.strip()
    if what == "leaves none":
        assert done.stderr == ""
    else:
        assert f"1 leaked shared_memory objects to clean up at shutdown: ['/{name}']" in done.stderr
        assert not os.path.exists(f"/dev/shm/{name}")


MAKES = """
import importlib, os, sys
memory = importlib.import_module(sys.argv[1] + ".shared_memory")
blocks = [memory.SharedMemory(create=True, size=10) for _ in range(2)]
print(*(block.name for block in blocks), flush=True)
sys.stdin.read()
os._exit(0)
"""


def test_the_tracker_tells_of_a_segment_that_a_stranger_has_removed(mp_package: str) -> None:
    argv = [sys.executable, "-c", MAKES, mp_package]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, **pipes) as program:
        assert program.stdout is not None
        gone, there = program.stdout.readline().split()
        os.unlink(f"/dev/shm/{gone}")
        _, errors = program.communicate("", timeout=60)
    assert "There appear to be 2 leaked shared_memory objects" in errors
    assert f"'/{gone}': [Errno 2]" in errors
    assert not os.path.exists(f"/dev/shm/{there}")


def test_kept_reports_fit_into_one_message_and_reach_the_tracker(
    mp_package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = importlib.import_module(f"{mp_package}.resource_tracker").ResourceTracker()
    sent: list[bytes] = []
    monkeypatch.setattr(tracker, "_write", sent.append)
    monkeypatch.setattr(tracker, "_use_simple_format", True)
    tracker.__dict__["_fd"] = 1
    try:
        names = [f"/{'n' * 60}{number}" for number in range(30)]
        for name in names:
            tracker.register(name, "shared_memory")
            tracker.unregister_later(name, "shared_memory")
        tracker.send_kept()
    finally:
        tracker.__dict__["_fd"] = None
    assert max(map(len, sent)) <= 512
    assert len(sent) <= 33
    lines = b"".join(sent).decode().splitlines()
    assert lines.index("PROBE:later:noop") < lines.index(f"UNREGISTER:{names[0]}:shared_memory")
    lines.remove("PROBE:later:noop")
    assert sorted(lines) == sorted(
        f"{word}:{name}:shared_memory" for name in names for word in ("REGISTER", "UNREGISTER")
    )
    assert all(
        lines.index(f"REGISTER:{name}:shared_memory") < lines.index(f"UNREGISTER:{name}:shared_memory")
        for name in names
    )


def test_a_replaced_unregister_is_called_at_once(mp_package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = importlib.import_module(f"{mp_package}.resource_tracker")
    memory = importlib.import_module(f"{mp_package}.shared_memory")
    told: list[str] = []
    block = memory.SharedMemory(create=True, size=10)
    block.close()
    original = tracker.unregister
    monkeypatch.setattr(tracker, "unregister", lambda name, rtype: (told.append(name), original(name, rtype)))
    block.unlink()
    assert told == [block._name]
