"""Ctrl-C while the workers are busy: the program ends at once, with one traceback, and no process is left."""

from __future__ import annotations

import os
import signal

from .bench import Bench
from .programs import victim
from .registry import scenario

# Far more than it takes, far less than the tasks' minute.
PATIENCE = 6.0


def interrupt(bench: Bench, wait: str, work: str, *, group: bool) -> None:
    folder = bench.folder()
    bench.at("starting the program")
    with victim(bench, "wait_for_busy_workers", folder, wait, work) as program:
        workers = bench.announced(folder, 2)
        bench.at("waiting for the program to end")
        if group:
            os.killpg(program.pid, signal.SIGINT)
        else:
            os.kill(program.pid, signal.SIGINT)
        code = program.end(PATIENCE)
        printed = program.stderr()
        tracebacks = printed.count("Traceback (most recent call last)")
        assert tracebacks == 1, f"{tracebacks} tracebacks in {printed.count(chr(10))} lines: {printed[-3000:]}"
        assert printed.startswith("Traceback"), f"something stands before the traceback: {printed[:1000]}"
        assert printed.splitlines()[-1] == "KeyboardInterrupt", printed[-1000:]
        assert code in (-signal.SIGINT, 128 + signal.SIGINT), f"exit code {code}"
        bench.assert_gone(workers, PATIENCE)


@scenario(
    "Ctrl-C to the whole group, main waits in {wait}", warm_up=False, wait=["map", "get", "get_timeout", "imap", "join"]
)
def to_the_group(bench: Bench, wait: str) -> None:
    interrupt(bench, wait, "announce_and_sleep", group=True)


@scenario("SIGINT to the main process alone, main waits in {wait}", warm_up=False, wait=["map", "imap", "join"])
def to_main(bench: Bench, wait: str) -> None:
    interrupt(bench, wait, "announce_and_sleep", group=False)


@scenario(
    "Ctrl-C to the whole group, workers in {work}",
    warm_up=False,
    work=["announce_and_spin", "announce_and_hold_the_interpreter", "announce_and_ignore_sigterm"],
)
def while_computing(bench: Bench, work: str) -> None:
    interrupt(bench, "map", work, group=True)
