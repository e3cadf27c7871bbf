"""Connections of the family AF_PIPE between this package and the standard package, with each once on each side.

A program for Windows's Python, which has the package on its path; another system runs it under Wine:

    KIT/run KIT/py311/python.exe tests/windows/pipe_peers.py      # after scripts/build_windows.sh KIT

Each row has one side here, and the other in a process that imports the other package. The last line is the number of rows
that passed and failed; the exit status is 0 if all passed.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

OURS, STOCK = "maniple", "multiprocessing"
SIZES = [1, 100, 4096, 65_535, 65_536, 65_537, 1_000_000, 10_000_000]
LIMIT = 120


def echo(connection: Any) -> None:
    """Send back every object until the other side closes."""
    while True:
        try:
            thing = connection.recv()
        except EOFError:
            return
        connection.send(thing)


def exchange(connection: Any) -> None:
    for size in SIZES:
        data = os.urandom(min(size, 1000)) * (size // min(size, 1000))
        connection.send(data)
        assert connection.poll(LIMIT)
        assert connection.recv() == data, size
    for thing in (None, {"a": [1, 2.5, "x"]}, tuple(range(10_000))):
        connection.send(thing)
        assert connection.recv() == thing
    assert not connection.poll(0)


def both_at_once(connection: Any) -> None:
    """Send a megabyte while the other side does, with a thread for each direction."""
    sender = threading.Thread(target=connection.send_bytes, args=(bytes(1_000_000),))
    sender.start()
    assert len(connection.recv_bytes()) == 1_000_000
    sender.join()


def hear_and_end(connection: Any) -> None:
    """Receive until the other side has ended; it must have sent this."""
    assert connection.recv() == "last words"
    try:
        connection.recv()
    except EOFError:
        return
    raise AssertionError("there is more")


def many_small(connection: Any) -> None:
    for number in range(2000):
        connection.send(number)
    for number in range(2000):
        assert connection.recv() == number


def say_and_end(connection: Any) -> None:
    connection.send("last words")
    connection.close()


def empty(connection: Any) -> None:
    connection.send_bytes(b"")
    assert connection.recv_bytes() == b""


# What each side does: the side here, and the other.
ROWS = {
    "objects": (exchange, echo),
    "small": (many_small, echo),
    "full duplex": (both_at_once, both_at_once),
    "ends here": (say_and_end, hear_and_end),
    "ends there": (hear_and_end, say_and_end),
    "empty": (empty, empty),
}


def side(package: str, part: str, address: str, key: str) -> Any:
    connection = importlib.import_module(f"{package}.connection")
    authkey = key.encode() or None
    if part == "dial":
        return connection.Client(address, authkey=authkey)
    with connection.Listener(address, authkey=authkey) as listener:
        print("listening", flush=True)
        return listener.accept()


def other(package: str, part: str, row: str, address: str, key: str) -> None:
    try:
        connection = side(package, part, address, key)
    except Exception as problem:
        print("refused:", type(problem).__name__, flush=True)
        return
    ROWS[row][1](connection)
    print("done", flush=True)


def start_other(*arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, __file__, "other", *arguments]
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)


def run(here: str, there: str, dials: bool, row: str, key: str, their_key: str, number: int) -> str:
    """One row; returns what the other side said."""
    address = rf"\\.\pipe\peers-{os.getpid()}-{number}"
    if dials:
        process = start_other(there, "listen", row, address, their_key)
        assert process.stdout is not None and process.stdout.readline() == "listening\n"
    watchdog: threading.Timer | None = None
    try:
        if not dials:
            process = None  # type: ignore[assignment]

            def later() -> None:
                nonlocal process
                process = start_other(there, "dial", row, address, their_key)

            connection = importlib.import_module(f"{here}.connection")
            with connection.Listener(address, authkey=key.encode() or None) as listener:
                later()
                watchdog = threading.Timer(LIMIT, lambda: process.kill())
                watchdog.start()
                end = listener.accept()
        else:
            watchdog = threading.Timer(LIMIT, lambda: process.kill())
            watchdog.start()
            end = side(here, "dial", address, key)
        ROWS[row][0](end)
        end.close()
    finally:
        if watchdog is not None:
            watchdog.cancel()
        out, _ = process.communicate(timeout=LIMIT)
    return out.strip()


def main() -> int:
    passed = failed = number = 0
    failures = []
    for here, there in ((OURS, STOCK), (STOCK, OURS)):
        for dials in (True, False):
            for key in ("", "a key"):
                for row in ROWS:
                    number += 1
                    name = f"{here} {'dials' if dials else 'listens'}, key {key!r}: {row}"
                    begun = time.monotonic()
                    try:
                        said = run(here, there, dials, row, key, key, number)
                        assert said == "done", said
                        passed += 1
                        print(f"ok      {name} ({time.monotonic() - begun:.1f} s)", flush=True)
                    except BaseException as problem:
                        failed += 1
                        failures.append(name)
                        traceback.print_exc()
                        print(f"FAILED  {name}: {problem!r}", flush=True)
            number += 1
            name = f"{here} {'dials' if dials else 'listens'} with a wrong key"
            try:
                run(here, there, dials, "objects", "a key", "another key", number)
            except importlib.import_module(f"{here}.connection").AuthenticationError:
                passed += 1
                print(f"ok      {name}", flush=True)
            except BaseException as problem:
                failed += 1
                failures.append(name)
                print(f"FAILED  {name}: {problem!r}", flush=True)
            else:
                failed += 1
                print(f"FAILED  {name}: accepted", flush=True)
    print("\n".join(failures))
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    if sys.argv[1:2] == ["other"]:
        other(*sys.argv[2:])
    else:
        sys.exit(main())
