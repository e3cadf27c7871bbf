"""Functions for workers of pools with limits: they do not end, use memory, fail at first, or start processes."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import maniple

FOREVER = 1000.0
FAR_TOO_LONG = 10**15
STEP = 1_000_000


def ready() -> None:
    """Import this module in a worker that starts."""


def block_in_c(_: object = None) -> None:
    ctypes.CDLL(None).sleep(int(FOREVER))


def hold_the_interpreter(_: object = None) -> None:
    # One call of C code, which checks for nothing.
    sum(range(FAR_TOO_LONG))


def ignore_signals(_: object = None) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        time.sleep(FOREVER)


def stop_itself(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(FOREVER)


def catch_everything(_: object = None) -> None:
    while True:
        try:
            time.sleep(FOREVER)
        except BaseException:
            pass


ENDLESS = (block_in_c, hold_the_interpreter, ignore_signals, stop_itself, catch_everything)


class SlowToPickle:
    """An object whose pickle takes forever in a worker."""

    def __reduce__(self) -> Any:
        end = time.monotonic() + FOREVER
        while maniple.parent_process() is not None and time.monotonic() < end:
            time.sleep(0.001)
        return SlowToPickle, ()


class Maker:
    """A call with this object as its argument gets what it holds."""

    def __init__(self, made: Any) -> None:
        self.made = made


def same(made: Any) -> Any:
    return made.made if isinstance(made, Maker) else made


def start_a_family(folder: str) -> None:
    """Start a process that starts another, tell their numbers, and wait for them."""
    script = f"echo $$ > {folder}/child; sleep 1000 & echo $! > {folder}/grandchild; wait"
    subprocess.run(["sh", "-c", script], check=False)


def endless_at(job: tuple[int, int]) -> int:
    item, bad = job
    if item == bad:
        time.sleep(FOREVER)
    return item


def clean_up(folder: str) -> str:
    try:
        time.sleep(FOREVER)
    except maniple.SoftTimeoutError as error:
        Path(folder, "cleaned").touch()
        return str(error)
    return "not interrupted"


def raise_timeout(_: object = None) -> None:
    raise TimeoutError("of the program itself")


def tries(folder: str) -> int:
    """Count this call, also if the process ends."""
    path = Path(folder, "tries")
    with path.open("a") as file:
        file.write("x")
    return len(path.read_text())


def die_at_first(folder: str, times: int) -> int:
    count = tries(folder)
    if count <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def hang_at_first(folder: str, times: int) -> int:
    count = tries(folder)
    if count <= times:
        time.sleep(FOREVER)
    return count


def fail_at_first(folder: str, times: int) -> int:
    count = tries(folder)
    if count <= times:
        raise ConnectionError(f"try {count}")
    return count


def eat_at_first(folder: str, times: int) -> int:
    count = tries(folder)
    if count <= times:
        eat_in_steps(FAR_TOO_LONG)
    return count


def eat_in_steps(total: int) -> int:
    held = []
    for _ in range(total // STEP):
        held.append(b"x" * STEP)
        time.sleep(0.0005)
    return len(held)


def eat_at_once(total: int) -> None:
    held = b"x" * total
    time.sleep(FOREVER)
    del held


def eat_when_told(folder: str, total: int) -> None:
    tell_and_wait(folder, 0)
    eat_at_once(total)


def read_shared(name: str) -> int:
    """Read a shared memory, and stay for several looks of the pool at the memory of this process."""
    from maniple.shared_memory import SharedMemory

    memory = SharedMemory(name)
    try:
        return sum(memory.buf[::4096])
    finally:
        time.sleep(0.2)
        memory.close()


def read_file(path: str) -> int:
    """As `read_shared`, with a file that is mapped."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        total = sum(mapped[::4096])
        time.sleep(0.2)
        return total


def grow(total: int) -> int:
    """Use memory while the task runs, long enough to be seen."""
    held = b"x" * total
    time.sleep(0.2)
    del held
    return os.getpid()


def tell_and_wait(folder: str, number: int) -> int:
    """Say that the call has begun, and wait until it may end."""
    Path(folder, f"begun {number}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.005)
    return number


def pid_after(seconds: float) -> int:
    """Return the process id, after some looks of the pool at the memory of this process."""
    time.sleep(seconds)
    return os.getpid()


def worker_number(seconds: float) -> int | None:
    """Return the worker's number."""
    import maniple

    time.sleep(seconds)
    return maniple.worker_id()


def note_and_sleep(job: tuple[str, float]) -> None:
    """Add a letter to a file, and sleep."""
    path, seconds = job
    with open(path, "a") as file:
        file.write("x")
    time.sleep(seconds)
