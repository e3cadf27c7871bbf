"""Processes, pools and locks where the system, or the program, keeps something from them.

Arguments: package, start method, conditions. Says `ok` or what went wrong.

Conditions: `sigchld_ignored`, `reaped_elsewhere`, `no_proc` and `time_namespace` (for root; `skipped` if that is not
possible), or system calls that are refused, by their names and an error's: `pidfd_open,waitid:ENOSYS`.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import platform
import signal
import struct
import sys
import threading
import time
from typing import Any

#: as x86_64 and aarch64 have them
NUMBERS = {
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "waitid": (247, 95),
    "unshare": (272, 97),
    "prlimit64": (302, 261),
    "getrandom": (318, 278),
    "accept4": (288, 242),
    "ppoll": (271, 73),
    "preadv2": (327, 286),
}


def deny(names: list[str], error: int) -> None:
    """From here on the kernel answers these calls with `error`, in this process and its children."""
    column = 1 if platform.machine() == "aarch64" else 0
    # Load the call's number; for each, skip the answer where it is another; allow what is left.
    rows = [(0x20, 0, 0, 0)]
    for name in names:
        rows += [(0x15, 0, 1, NUMBERS[name][column]), (0x06, 0, 0, 0x0005_0000 | error)]
    rows.append((0x06, 0, 0, 0x7FFF_0000))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *row) for row in rows))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rows), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        leave("skipped: no seccomp")


def hide_proc() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() or libc.unshare(0x0002_0000) or libc.mount(b"none", b"/", None, 0x44000, None):
        leave("skipped: not root")
    if libc.mount(b"none", b"/proc", b"tmpfs", 0, None):
        leave("skipped: /proc cannot be hidden")


def enter_time_namespace() -> None:
    """Children begin in a time namespace of their own, in which the machine started earlier."""
    if os.geteuid() or ctypes.CDLL(None, use_errno=True).unshare(0x80):
        leave("skipped: not root")
    with open("/proc/self/timens_offsets", "w") as offsets:
        offsets.write("boottime 5000 0\n")


def reap_all() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.001)


def leave(said: str) -> None:
    print(said, flush=True)
    os._exit(0)


def impose(condition: str) -> None:
    if condition == "sigchld_ignored":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    elif condition == "reaped_elsewhere":
        threading.Thread(target=reap_all, daemon=True).start()
    elif condition == "no_proc":
        hide_proc()
    elif condition == "time_namespace":
        enter_time_namespace()
    elif condition != "none":
        names, _, error = condition.partition(":")
        deny(names.split(","), getattr(errno, error))


def end_with_four() -> None:
    time.sleep(0.05)
    sys.exit(4)


def hold(lock: Any, event: Any) -> None:
    lock.acquire()
    event.set()
    time.sleep(60)


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Checks:
    def __init__(self, mp: Any, method: str, unknown: bool) -> None:
        self.mp, self.ctx = mp, mp.get_context(method)
        # The exit code of a child whose real exit code was lost.
        self.other = [255] if unknown else []

    def a_process_ends(self) -> None:
        process = self.ctx.Process(target=end_with_four)
        process.start()
        assert process.is_alive()
        process.join(20)
        assert not process.is_alive()
        assert process.exitcode in [4, *self.other], process.exitcode
        assert process not in self.mp.active_children()

    def one_that_ends_at_once_is_joined_by_many(self) -> None:
        for _ in range(20):
            process = self.ctx.Process(target=abs, args=(1,))
            process.start()
            codes: list[Any] = []

            def join(process: Any = process, codes: list[Any] = codes) -> None:
                process.join()
                codes.append(process.exitcode)

            threads = [threading.Thread(target=join) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            assert len(codes) == 3 and set(codes) <= {0, *self.other}, codes

    def a_process_is_terminated(self) -> None:
        for how, number in ("terminate", 15), ("kill", 9):
            process = self.ctx.Process(target=time.sleep, args=(60,))
            process.start()
            getattr(process, how)()
            process.join(20)
            assert process.exitcode in [-number, *self.other], process.exitcode
            getattr(process, how)()

    def a_pool_works(self) -> None:
        with self.ctx.Pool(2, maxtasksperchild=3) as pool:
            assert pool.map_async(abs, range(-9, 0), 1).get(20) == list(range(9, 0, -1))
        pool.join()
        pool = self.ctx.Pool(1)
        assert pool.apply_async(abs, (-1,)).get(20) == 1
        pool.close()
        pool.join()

    def a_lost_worker_is_seen(self) -> None:
        with self.ctx.Pool(1) as pool:
            try:
                pool.apply_async(die, (0,)).get(20)
            except self.mp.pool.WorkerLostError:
                pass
            assert pool.apply_async(abs, (-1,)).get(20) == 1

    def busy_workers_are_ended(self) -> None:
        pool = self.ctx.Pool(2)
        pool.map_async(time.sleep, [60] * 4, 1)
        time.sleep(0.3)
        pool.terminate()
        pool.join()

    def a_living_holder_keeps_its_lock(self) -> None:
        lock, event = self.ctx.Lock(), self.ctx.Event()
        process = self.ctx.Process(target=hold, args=(lock, event))
        process.start()
        assert event.wait(20)
        assert not lock.acquire(timeout=1), "the lock of a living holder was taken"
        process.kill()
        process.join(20)

    def a_dead_holders_lock_is_taken_over(self) -> None:
        lock, event = self.ctx.Lock(), self.ctx.Event()
        process = self.ctx.Process(target=hold, args=(lock, event))
        process.start()
        assert event.wait(20)
        process.kill()
        process.join(20)
        assert lock.acquire(timeout=20), "the lock of a dead holder was not taken"

    def other_objects_work(self) -> None:
        queue = self.ctx.Queue()
        queue.put("item")
        assert queue.get(timeout=20) == "item"
        with self.ctx.Manager() as manager:
            assert manager.dict(a=1).copy() == {"a": 1}
        connection = importlib.import_module(f"{self.mp.__name__}.connection")
        with connection.Listener(authkey=b"key") as listener:
            clients: list[Any] = []
            thread = threading.Thread(
                target=lambda: clients.append(connection.Client(listener.address, authkey=b"key"))
            )
            thread.start()
            with listener.accept() as guest:
                thread.join()
                clients[0].send("hello")
                assert guest.recv() == "hello"
            clients[0].close()


def main() -> None:
    package, method, *conditions = sys.argv[1:]
    condition = conditions[-1]
    mp = importlib.import_module(package)
    checks = Checks(mp, method, condition in ("sigchld_ignored", "reaped_elsewhere"))
    for each in conditions:
        impose(each)
    for name, check in vars(Checks).items():
        # If the kernel identifies a process only by its start time, no process can tell which process of another time namespace has ended.
        if not name.startswith("_") and ("dead" not in name or condition != "time_namespace"):
            done = threading.Event()

            def late(name: str = name, done: threading.Event = done) -> None:
                if not done.wait(60):
                    leave(f"{name} hangs")

            threading.Thread(target=late, daemon=True).start()
            try:
                check(checks)
            except BaseException as error:
                leave(f"{name}: {type(error).__name__}: {error}")
            done.set()
    leave("ok")


if __name__ == "__main__":
    main()
