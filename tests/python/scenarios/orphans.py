"""The program dies, or just ends, with its pool open: no worker may outlive it."""

from __future__ import annotations

import os
import signal

from .bench import Bench
from .programs import victim
from .registry import scenario

WORK = ["idle", "announce_and_sleep", "announce_and_hold_the_interpreter"]
# A pool's workers receive a signal to end; a worker deep in C code may need another.
PATIENCE = 6.0


@scenario("parent SIGKILLed, workers: {work}", warm_up=False, work=[*WORK, "announce_and_ignore_sigterm"])
def parent_killed(bench: Bench, work: str) -> None:
    folder = bench.folder()
    bench.at("starting the program")
    with victim(bench, "hold", folder, work, "sleep") as program:
        workers = bench.announced(folder, 2)
        os.kill(program.pid, signal.SIGKILL)
        assert program.end(PATIENCE) == -signal.SIGKILL
        bench.at("waiting for the workers to end")
        bench.assert_gone(workers, PATIENCE)
        assert program.stderr() == "", f"the orphans printed: {program.stderr()[-2000:]}"


@scenario("parent leaves by os._exit, workers: {work}", warm_up=False, work=["idle", "announce_and_sleep"])
def parent_exits(bench: Bench, work: str) -> None:
    folder = bench.folder()
    bench.at("starting the program")
    with victim(bench, "hold", folder, work, "os_exit") as program:
        workers = bench.announced(folder, 2)
        assert program.end(PATIENCE) == 0
        bench.at("waiting for the workers to end")
        bench.assert_gone(workers, PATIENCE)


@scenario("program ends with an open pool, workers: {work}", warm_up=False, work=WORK)
def open_pool(bench: Bench, work: str) -> None:
    folder = bench.folder()
    bench.at("starting the program")
    with victim(bench, "hold", folder, work, "end") as program:
        workers = bench.announced(folder, 2)
        bench.at("waiting for the program to end")
        assert program.end(PATIENCE) == 0, program.stderr()[-2000:]
        assert program.stderr() == "", f"it printed: {program.stderr()[-2000:]}"
        bench.assert_gone(workers, PATIENCE)


@scenario("program fails with an open pool, workers busy", warm_up=False)
def failing_program(bench: Bench) -> None:
    folder = bench.folder()
    bench.at("starting the program")
    with victim(bench, "hold", folder, "announce_and_sleep", "error") as program:
        workers = bench.announced(folder, 2)
        bench.at("waiting for the program to end")
        assert program.end(PATIENCE) == 1
        printed = program.stderr()
        assert printed.count("Traceback") == 1, printed[-3000:]
        assert printed.splitlines()[-1] == "ValueError: the program's own error", printed[-1000:]
        bench.assert_gone(workers, PATIENCE)
