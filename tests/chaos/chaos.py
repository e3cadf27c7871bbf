"""Programs at work among kills, stops and shortages, and their accounts afterwards: `make chaos`.

    python tests/chaos/chaos.py [--seconds 600] [--seed 1] [--episodes 1] [--front python,rust] [--method fork] [--length 4]
                                [--mp-package maniple]

An episode is one run of `arena.py`, or of the Rust crate's `arena.rs`, with a seed of its own, from which follows what the program does and what is done to it: signals
(SIGKILL, SIGTERM, SIGSTOP and later SIGCONT) to processes that it started, and limits on descriptors, memory and the size of files that
tighten and loosen again, for it and for them. In some episodes the program itself is killed. After an episode

- every call has returned, each task has had exactly one outcome and has begun once at most, nothing accepted is lost;
- the program, undisturbed, works with the objects that it has;
- nothing more is held than before: no process, zombie, descriptor, thread or shared mapping, no name in /dev/shm;
- where the program was killed, all of its processes have ended.

An episode that fails is printed with the command that repeats it. (The system's own timing cannot be repeated; more than one
attempt may be needed, which `--episodes` replays with the same seed.)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "faults"))
from rust_program import built  # noqa: E402
from watched import MARK, below, end_all, holdings, marked, names_of  # noqa: E402

TASKS = 200_000
METHODS = {"python": ("fork", "spawn", "forkserver"), "rust": ("spawn", "forkserver")}
# Seconds in which a program must have come to its end once it is undisturbed.
END = 80.0
REST = 10.0
LIMITS = {"descriptors": resource.RLIMIT_NOFILE, "memory": resource.RLIMIT_AS, "file size": resource.RLIMIT_FSIZE}
if os.geteuid():
    LIMITS["processes"] = resource.RLIMIT_NPROC


class Episode:
    def __init__(self, seed: int, front: str, method: str, length: float, package: str) -> None:
        self.seed, self.front, self.method, self.length, self.package = seed, front, method, length, package
        self.rng = random.Random(seed * 2 + 1)
        self.mark = uuid.uuid4().hex
        self.done: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.killed = False
        self._heard = b""
        self._later: list[tuple[float, Any]] = []

    def run(self) -> None:
        with tempfile.NamedTemporaryFile(prefix="chaos-") as ledger, tempfile.TemporaryFile() as printed:
            ledger.truncate(TASKS)
            start = [built("arena")] if self.front == "rust" else [sys.executable, str(HERE / "arena.py"), self.package]
            command = [*start, self.method, str(self.seed), ledger.name]
            environment = {**os.environ, MARK: self.mark}
            self.program = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env=environment,
                start_new_session=True,
            )
            try:
                self._play()
            finally:
                # Killed with the program, or it would not end by itself.
                end_all(self.mark)
                self.program.wait()
                for stream in (self.program.stdin, self.program.stdout):
                    with contextlib.suppress(OSError):
                        stream.close()
            printed.seek(0)
            self.printed = printed.read().decode(errors="replace")
        if "CHAOS:" in self.printed:
            self.faults.append("two held one lock")
        if "panicked at" in self.printed:
            self.faults.append("a panic")
        if names := [name for name in os.listdir("/dev/shm") if name.startswith(names_of(self.mark))]:
            self.faults.append(f"left in /dev/shm: {names}")
            for name in names:
                os.unlink(f"/dev/shm/{name}")

    def _play(self) -> None:
        if self._line(30) != "ready":
            self.faults.append("the program did not start")
            return
        self.loose = {name: resource.prlimit(self.program.pid, limit) for name, limit in LIMITS.items()}
        before = holdings(self.program.pid)
        self._say()
        self._line(10)
        until = time.monotonic() + self.length
        dies = self.rng.random() < 0.15
        while (now := time.monotonic()) < until:
            time.sleep(self.rng.expovariate(1 / 0.06))
            self._due(now)
            self._disturb()
            if self.program.poll() is not None:
                self.faults.append(f"the program has ended with {self.program.returncode}")
                return
        if dies:
            self._kill_program()
            return
        self._due(float("inf"))
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._loosen()
        self._say()
        told = self._line(END)
        if not told.startswith("{"):
            self.faults.append(f"the program does not come to its end: {told!r}")
            self._stacks()
            return
        account = json.loads(told)
        self.faults += account["faults"]
        self.counts = Counter(account["counts"])
        if not self.faults:
            self._settle(before)
        self.program.stdin.close()
        self._ends()

    def _stacks(self) -> None:
        """Have all of them print where their threads stand."""
        for pid, state in [(self.program.pid, "?"), *below(self.program.pid)]:
            with contextlib.suppress(OSError):
                waits = Path("/proc", str(pid), "wchan").read_text()
                self.faults.append(f"process {pid}, state {state}, waits in {waits}")
                if b"chaos" in Path("/proc", str(pid), "cmdline").read_bytes():
                    os.kill(pid, signal.SIGUSR1)
                    time.sleep(0.1)

    def _settle(self, before: dict[str, Any]) -> None:
        deadline = time.monotonic() + REST
        while True:
            self._say()
            self._line(10)
            now = holdings(self.program.pid)
            grown = [
                f"{before[what]} -> {now[what]} {what}" for what in before if what != "all" and now[what] > before[what]
            ]
            if not grown:
                return
            if time.monotonic() > deadline:
                fresh = list((Counter(now["all"]) - Counter(before["all"])).elements())
                self.faults.append(f"left: {'; '.join(grown)}; new: {fresh[:12]}")
                return
            time.sleep(0.1)

    def _ends(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.program.wait(15)
        deadline = time.monotonic() + REST
        while (left := list(marked(self.mark))) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            self.faults.append(f"still there after the program: {left}")

    def _kill_program(self) -> None:
        """Kill the program in the midst of all; what it started must end."""
        self.killed = True
        self._due(float("inf"))
        for pid in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._loosen()
        which = self.rng.choice((signal.SIGKILL, signal.SIGTERM))
        self.done[f"{which.name} to the program"] += 1
        self.program.send_signal(which)
        self._ends()

    def _disturb(self) -> None:
        kind = self.rng.choice(("SIGKILL", "SIGTERM", "SIGSTOP", "SIGSTOP", *LIMITS))
        draw, span = self.rng.random(), self.rng.random() * 0.4
        if kind in LIMITS:
            self._tighten(kind, draw, span)
            return
        processes = sorted(self._processes())
        if not processes:
            return
        pid = processes[int(draw * len(processes))]
        # The standard package's helper, which tracks every name, is not expected to be replaced.
        with contextlib.suppress(OSError):
            if b"resource_tracker" in Path("/proc", str(pid), "cmdline").read_bytes():
                return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, getattr(signal, kind))
            self.done[kind] += 1
            if kind == "SIGSTOP":
                self._later.append((time.monotonic() + span, lambda: os.kill(pid, signal.SIGCONT)))

    def _tighten(self, kind: str, draw: float, span: float) -> None:
        """For some process of them a limit just above what it has."""
        processes = [self.program.pid, *sorted(self._processes())]
        pid = processes[int(draw * len(processes))]
        # Rust's own containers end a process that has no memory for them: so does the program with its payloads.
        if kind == "memory" and self.front == "rust" and pid == self.program.pid:
            return
        more = self.rng.random()
        with contextlib.suppress(OSError, ValueError):
            if kind == "descriptors":
                tight = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1 + int(6 * more)
            elif kind == "memory":
                pages = int(Path("/proc", str(pid), "statm").read_text().split()[0])
                tight = pages * resource.getpagesize() + int((8 + 100 * more) * 2**20)
            elif kind == "file size":
                tight = int(2 ** (12 + 12 * more))
            else:
                tight = 1 + len(processes) + int(4 * more)
            resource.prlimit(pid, LIMITS[kind], (tight, self.loose[kind][1]))
            self.done[f"limit on {kind}"] += 1
            self._later.append((time.monotonic() + span, self._loosen))

    def _loosen(self) -> None:
        for pid in [self.program.pid, *self._processes()]:
            for name, limit in LIMITS.items():
                with contextlib.suppress(OSError, ValueError):
                    resource.prlimit(pid, limit, self.loose[name])

    def _due(self, now: float) -> None:
        for later in [one for one in self._later if one[0] <= now]:
            self._later.remove(later)
            with contextlib.suppress(ProcessLookupError):
                later[1]()

    def _processes(self) -> list[int]:
        return [pid for pid, state in below(self.program.pid) if state not in "ZX"]

    def _say(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.program.stdin.write(b"\n")
            self.program.stdin.flush()

    def _line(self, patience: float) -> str:
        deadline = time.monotonic() + patience
        while b"\n" not in self._heard:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.program.stdout], [], [], left)[0]:
                return ""
            if not (more := os.read(self.program.stdout.fileno(), 65536)):
                return ""
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()


def main() -> int:
    options = parse()
    places = [(front, method) for front in options.front for method in METHODS[front] if method in options.method]
    if not places:
        sys.exit(f"--method: there are {METHODS}")
    if "rust" in options.front:
        built("arena")
    started = time.monotonic()
    done: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    episodes = failed = killed = 0
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    while episodes < options.episodes if options.episodes else time.monotonic() - started < options.seconds:
        front, method = places[episodes % len(places)]
        episode = Episode(seed, front, method, options.length, options.mp_package)
        episode.run()
        episodes += 1
        killed += episode.killed
        done += episode.done
        counts += episode.counts
        if episode.faults:
            failed += 1
            print(f"seed {seed}, {front}, {method}: " + "\n    ".join(episode.faults))
            repeats = f"--seed {seed} --front {front} --method {method} --episodes 5"
            print(f"    {os.path.relpath(sys.executable)} tests/chaos/chaos.py {repeats}", flush=True)
            if options.verbose:
                print(episode.printed[-options.verbose * 4000 :], flush=True)
        if not options.episodes or options.seed is None:
            seed += 1
    print(f"\ndone to them: {', '.join(f'{number} {what}' for what, number in sorted(done.items()))}")
    print(f"by them: {', '.join(f'{number} {what}' for what, number in sorted(counts.items()))}")
    print(
        f"chaos: {episodes} episodes ({killed} with the program killed), {done.total()} faults injected, "
        f"{time.monotonic() - started:.0f} s"
    )
    print(f"{episodes - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--episodes", type=int, default=0, help="so many, all with the given seed, instead of for a time"
    )
    parser.add_argument("--front", type=lambda text: text.split(","), default=list(METHODS))
    parser.add_argument("--method", type=lambda text: text.split(","), default=list(METHODS["python"]))
    parser.add_argument("--length", type=float, default=4.0, help="seconds of each episode")
    parser.add_argument("--mp-package", default=os.environ.get("MP_PACKAGE", "maniple"))
    parser.add_argument("-v", "--verbose", action="count", default=0, help="what failing programs printed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
