"""Starts processes, prints which, and ends in the given way: `makers.py PACKAGE METHOD HOW`, where HOW names a function below."""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
import time
from typing import Any

# The tests may be started by any process.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def nap(told: Any, place: str) -> None:
    told.send(os.getpid())
    time.sleep(60)


def ignore(told: Any, place: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    nap(told, place)


def compute(told: Any, place: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: None)
    told.send(os.getpid())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pass


def clean_up(told: Any, place: str) -> None:
    def leave(*_: Any) -> None:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    try:
        nap(told, place)
    finally:
        time.sleep(0.3)
        with open(place, "w") as note:
            note.write("cleaned up")


def start(ctx: Any, target: Any, daemon: bool = True) -> int:
    here, there = ctx.Pipe(duplex=False)
    ctx.Process(target=target, args=(there, sys.argv[4]), daemon=daemon).start()
    return here.recv()


def wait(*_: Any) -> None:
    time.sleep(60)


def run(ctx: Any, how: str) -> None:
    if how == "undaemonic":
        print(start(ctx, nap, daemon=False), flush=True)
        wait()
    elif how == "manager":
        manager = ctx.Manager()
        print(manager._process.pid, flush=True)
        wait()
    elif how in ("ignore", "compute", "clean_up"):
        print(start(ctx, globals()[how]), flush=True)
        wait()
    elif how == "inherited handler":
        signal.signal(signal.SIGTERM, lambda *_: None)
        print(start(ctx, nap), flush=True)
        wait()
    elif how == "exit":
        print(start(ctx, nap), flush=True)
        os._exit(0)
    elif how == "crash":
        print(start(ctx, nap), flush=True)
        ctypes.string_at(0)
    elif how == "thread":
        # The thread that starts the process ends, and the process continues.
        pids: list[int] = []
        thread = threading.Thread(target=lambda: pids.append(start(ctx, nap)))
        thread.start()
        thread.join()
        print(*pids, flush=True)
        wait()
    elif how == "daemonize":
        print(start(ctx, nap), flush=True)
        if os.fork():
            os._exit(0)
        os.setsid()
        print(os.getpid(), flush=True)
        wait()
    elif how == "replace":
        print(start(ctx, nap), flush=True)
        os.execv(sys.executable, [sys.executable, "-c", "import time; print('replaced', flush=True); time.sleep(60)"])
    elif how == "close all":
        print(start(ctx, nap), flush=True)
        os.closerange(3, 1000)
        print("closed", flush=True)
        wait()
    else:
        print(start(ctx, nap), flush=True)
        wait()


if __name__ == "__main__":
    package, method, how = sys.argv[1:4]
    run(importlib.import_module(package).get_context(method), how)
