"""A program with a pool whose workers have a memory limit: `memory_groups.py METHOD SCENARIO FOLDER [refused]`.

It prints what happened as one line of JSON. With `refused`, the system refuses control groups.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maniple.shared_memory import SharedMemory

LIMIT = 64_000_000
FAR_BEYOND = 2_000_000_000
#: `SLACK` of the engine, and some of the kernel's own memory.
SLACK = (64 << 20) + 8_000_000


def memory_group() -> Path | None:
    """Return the folder of this process's group in version 1 of the kernel's interface."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if "memory" in names.split(","):
            return Path("/sys/fs/cgroup/memory" + path.rstrip("/"))
    return None


def held_by() -> str:
    """Return the folder of the group that limits this worker; empty if there is none."""
    group = memory_group()
    return str(group) if group is not None and group.name.startswith("maniple-") else ""


def start_resumer(folder: str) -> subprocess.Popen[bytes]:
    """Start a process outside of all groups that lets this process continue once a worker has reached its group's limit."""
    script = f"""
        cd {folder}
        while [ ! -e told ]; do sleep 0.05; done
        read worker group < told
        sleep 0.5
        if [ -n "$group" ]; then
            while [ -d /proc/$worker ] && [ "$(cat $group/memory.failcnt)" = 0 ]; do sleep 0.05; done
            cat $group/memory.max_usage_in_bytes > peak
        fi
        kill -CONT {os.getpid()}
    """
    return subprocess.Popen(["sh", "-c", script])


def stop_the_pool(folder: str, hub: int) -> None:
    """Stop the pool's process until this worker has reached the limit of its group: only the group holds the limit meanwhile."""
    Path(folder, "new").write_text(f"{os.getpid()} {held_by()}\n")
    os.kill(hub, signal.SIGSTOP)
    os.rename(Path(folder, "new"), Path(folder, "told"))


def eat_at_once(folder: str, hub: int) -> None:
    stop_the_pool(folder, hub)
    held = b"x" * FAR_BEYOND
    time.sleep(1000)
    del held


def be_killed(folder: str, hub: int) -> None:
    """Let the kernel end this worker at its limit, as it does where a group cannot stop it."""
    if group := held_by():
        Path(group, "memory.oom_control").write_text("0")
    eat_at_once(folder, hub)


def share(folder: str, hub: int) -> int:
    """Fill more shared memory than the limit and the slack allow, while the pool cannot raise the limit."""
    stop_the_pool(folder, hub)
    piece, filled = b"x" * 4_000_000, 0
    for number in range(60):
        memory = SharedMemory(f"{Path(folder).name}-{hub}-{number}", create=True, size=len(piece))
        try:
            memory.buf[:] = piece
            filled += len(piece)
        finally:
            # It stays until the end of the task, in no process's memory.
            memory.close()
    for number in range(60):
        memory = SharedMemory(f"{Path(folder).name}-{hub}-{number}")
        memory.close()
        memory.unlink()
    return filled


def start_a_large_child(_folder: str, _hub: int) -> int:
    return subprocess.run([sys.executable, "-c", "x = b'x' * 400_000_000; import time; time.sleep(1)"]).returncode


def run_beyond_the_limit(_folder: str, _hub: int) -> None:
    held = []
    while True:
        held.append(b"x" * 1_000_000)
        time.sleep(0.001)


def leave_a_process(_folder: str, _hub: int) -> int:
    silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(["sleep", "1000"], start_new_session=True, **silent).pid


def kill_the_pool(_folder: str, hub: int) -> None:
    os.kill(hub, signal.SIGKILL)


SCENARIOS: dict[str, Callable[[str, int], Any]] = {
    function.__name__: function
    for function in (
        eat_at_once, be_killed, share, start_a_large_child, run_beyond_the_limit, leave_a_process, kill_the_pool,
    )
}  # fmt: skip


def refuse() -> None:
    """Make this process's view of the control groups read-only. Without the right to do so there is no right to make groups either."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, read_only, remount, bind, recursive, private = 1 << 17, 1, 32, 4096, 16384, 1 << 18
    if libc.unshare(clone_newns) or libc.mount(None, b"/", None, recursive | private, None):
        return
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split(" - ")[1].startswith("cgroup"):
            libc.mount(None, line.split(" ")[4].encode(), None, remount | bind | read_only, None)


def main(method: str, scenario: str, folder: str) -> dict[str, Any]:
    import maniple

    told: dict[str, Any] = {}
    resumer = start_resumer(folder) if scenario in ("eat_at_once", "be_killed", "share") else None
    with maniple.get_context(method).Pool(1, memory_limit=LIMIT) as pool:
        told["group"] = pool.apply(held_by)
        if scenario == "kill_the_pool":
            print(json.dumps(told), flush=True)
        try:
            told["value"] = pool.apply(SCENARIOS[scenario], (folder, os.getpid()))
        except maniple.MemoryLimitError as error:
            told.update(error="MemoryLimitError", limit=error.limit, peak=error.peak)
        told["next"] = pool.apply(held_by)
        pool.close()
        pool.join()
    if resumer is not None:
        resumer.wait()
    # The pool removes the group of a process that is still ending at its own end.
    del pool
    gc.collect()
    group = memory_group()
    told["left"] = [str(path) for path in group.glob(f"maniple-*-{os.getpid()}-*")] if group is not None else []
    return told


if __name__ == "__main__":
    if sys.argv[4:] == ["refused"]:
        refuse()
    print(json.dumps(main(*sys.argv[1:4])))
