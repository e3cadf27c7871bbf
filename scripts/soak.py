"""A pool, a queue and a manager at work for a long time, and what that costs: `make soak`.

    python scripts/soak.py [--seconds 600] [--method fork] [--out build/soak] [--mp-package maniple]

Two pools (one renews its workers), a queue with a writer and a manager work at payloads of 10 bytes to 4 MB without a pause; every few
seconds a worker is killed, and the descriptors run short for a moment. Ten times a second a *probe*, a small call, is timed.
Once a second the program's own descriptors, mappings and memory are noted, and those of all of its processes together.

In the end `growth.py` compares what was measured after the warm-up, in which caches fill: descriptors, mappings, memory and the
median and the 99th percentile of the probes must not have grown. All samples are written as a table, and as a picture where
matplotlib is there. The exit code is 1 if something has grown or an answer was wrong, and 77 if nothing was wrong but the run was
too short to tell whether something grows: 340 s are needed. `--leak` shows that growth is found.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import errno
import importlib
import os
import random
import resource
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from growth import ENOUGH, WARM_UP, is_long_enough, judge, warm_up

# Sizes of payloads, and how often each is taken: tens of millions of small ones an hour, and gigabytes of large ones.
SIZES = [10] * 60 + [1000] * 25 + [20_000] * 8 + [100_000] * 4 + [1_000_000] * 2 + [4_000_000]
# How much a quantity may grow after the warm-up.
MORE = {
    "descriptors": 4,
    "mappings": 20,
    "memory_mb": 32,
    "all_descriptors": 20,
    "all_mappings": 120,
    "all_memory_mb": 96,
}
# Other programs on the machine make latencies vary; a queue that grows, or a list that is searched, makes them many times as long.
SLOWER = 3.0
# The exit code of a run that cannot be judged; Automake's and Meson's for a test that was skipped.
NOT_JUDGED = 77


@dataclass
class Sample:
    """One look at the program; memory in MiB, latencies of the probes since the last one in ms."""

    second: float
    descriptors: int
    mappings: int
    memory_mb: float
    all_descriptors: int
    all_mappings: int
    all_memory_mb: float
    processes: int
    tasks: int
    median_ms: float
    worst_ms: float


def square(number: int) -> int:
    return number * number


def turned(data: bytes) -> bytes:
    return data[::-1]


def fill(queue: Any) -> None:
    rng = random.Random(1)
    number = 0
    while True:
        queue.put((number, os.urandom(16) * (rng.choice(SIZES) // 16)))
        number += 1


class Soak:
    def __init__(self, mp: Any, method: str, leak: float = 0.0) -> None:
        self.mp, self.ctx = mp, mp.get_context(method)
        self.over = threading.Event()
        self.tasks = 0
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.latencies: list[float] = []
        self.every: list[tuple[float, float]] = []
        self.samples: list[Sample] = []
        #: MiB a second that the program leaks, and what it has leaked
        self.leak, self.leaked = leak, list[bytes]()
        self.allowed = (mp.WorkerLostError, MemoryError, EOFError, ConnectionError)

    def run(self, seconds: float) -> None:
        parts = [self.small, self.large, self.recycled, self.queue, self.manager, self.probes]
        self.started = time.monotonic()
        threads = [threading.Thread(target=self.part, args=(part,), name=part.__name__) for part in parts]
        for thread in threads:
            thread.start()
        rng = random.Random(7)
        while (now := time.monotonic() - self.started) < seconds:
            time.sleep(1)
            if self.leak:
                self.leaked.append(os.urandom(int(self.leak * 2**20)))
            self.samples.append(self.look(now))
            if len(self.samples) % 5 == 0:
                self.kill_one(rng)
            if len(self.samples) % 17 == 0:
                self.squeeze()
            if len(self.samples) % 60 == 0:
                last = self.samples[-1]
                print(
                    f"{now:6.0f} s: {self.tasks:,} tasks, {last.descriptors} descriptors, {last.all_memory_mb:.0f} MiB",
                    flush=True,
                )
        self.holders = sorted(holders(self.mp), reverse=True)[:6]
        self.over.set()
        for thread in threads:
            thread.join(60)
            if thread.is_alive():
                self.faults.append(f"{thread.name} does not end")

    def part(self, what: Any) -> None:
        try:
            what()
        except BaseException as e:
            self.faults.append(f"{what.__name__}: {e!r}")

    def checked(self, what: Any, wanted: Any, tasks: int) -> None:
        """One call and its answer; an error that a killed worker or a shortage explains is counted."""
        try:
            found = what()
        except self.allowed as e:
            self.counts[type(e).__name__] += 1
        except OSError as e:
            if e.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            self.counts[os.strerror(e.errno)] += 1
            time.sleep(0.05)
        else:
            if found != wanted:
                self.faults.append(f"a wrong answer: {str(found)[:100]}")
            self.tasks += tasks

    def small(self) -> None:
        with self.ctx.Pool(2) as self.pool:
            squares = [i * i for i in range(20_000)]
            while not self.over.is_set():
                self.checked(lambda: self.pool.map(square, range(20_000)), squares, 20_000)

    def large(self) -> None:
        rng = random.Random(2)
        kept: list[Any] = []
        with self.ctx.Pool(2) as pool:
            while not self.over.is_set():
                items = [os.urandom(16) * (rng.choice(SIZES) // 16 + 1) for _ in range(200)]
                wanted = [item[::-1] for item in items]
                self.checked(lambda items=items: list(pool.imap(turned, items, 3)), wanted, len(items))
                # Some arguments stay for a while, as programs keep them.
                kept = (kept + items[::20])[-30:]

    def recycled(self) -> None:
        with self.ctx.Pool(2, maxtasksperchild=500) as pool:
            while not self.over.is_set():
                calls = [pool.apply_async(square, (i,)) for i in range(100)]
                for number, call in enumerate(calls):
                    self.checked(call.get, number * number, 1)

    def queue(self) -> None:
        while not self.over.is_set():
            try:
                queue = self.ctx.Queue(100)
                writer = self.ctx.Process(target=fill, args=(queue,), daemon=True)
                writer.start()
                for wanted in range(20_000):
                    number, _data = queue.get(timeout=20)
                    if number != wanted:
                        self.faults.append(f"the queue gave {number} for {wanted}")
                    self.tasks += 1
                    if self.over.is_set():
                        break
            except Exception as e:  # the writer is killed from time to time, and descriptors run short
                self.counts[f"queue: {type(e).__name__}"] += 1
                time.sleep(0.1)
            finally:
                writer.kill()
                writer.join()
                queue.close()

    def manager(self) -> None:
        with self.ctx.Manager() as manager:
            table, lock = manager.dict(), manager.Lock()
            while not self.over.is_set():
                for number in range(200):
                    with lock:
                        table["a"] = number
                    self.checked(lambda: table["a"], number, 1)
                shared = manager.list(range(50))
                self.checked(shared.__len__, 50, 1)

    def probes(self) -> None:
        with self.ctx.Pool(1) as pool:
            while not self.over.wait(0.1):
                began = time.perf_counter()
                self.checked(lambda: pool.apply(square, (3,)), 9, 1)
                took = time.perf_counter() - began
                self.latencies.append(took)
                self.every.append((time.monotonic() - self.started, took))

    def kill_one(self, rng: random.Random) -> None:
        """Kill a worker of one of the pools; not a manager's server, which holds what cannot be got back."""
        workers = [child for child in self.mp.active_children() if "PoolWorker" in child.name]
        if workers:
            rng.choice(workers).kill()
            self.counts["workers killed"] += 1

    def squeeze(self) -> None:
        """For a moment there are hardly any descriptors."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(map(int, os.listdir("/proc/self/fd"))) + 2
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        time.sleep(0.2)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.counts["descriptors run short"] += 1

    def look(self, now: float) -> Sample:
        own = measured(os.getpid())
        total = Counter(own)
        others = list(descendants(os.getpid()))
        for pid in others:
            with contextlib.suppress(OSError):
                total.update(measured(pid))
        probes, self.latencies = self.latencies or [0.0], []
        return Sample(
            round(now, 1), own["descriptors"], own["mappings"], own["memory_mb"],
            total["descriptors"], total["mappings"], total["memory_mb"], 1 + len(others), self.tasks,
            1000 * statistics.median(probes), 1000 * max(probes),
        )  # fmt: skip


def measured(pid: int) -> dict[str, Any]:
    place = Path("/proc", str(pid))
    # What is shared counts once, divided among those who have it.
    shares = [line.split() for line in (place / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:")]
    return {
        "descriptors": len(os.listdir(place / "fd")),
        "mappings": (place / "maps").read_bytes().count(b"\n"),
        "memory_mb": int(shares[0][1]) / 1024,
    }


def holders(mp: Any) -> Any:
    """How much memory each process has, in MiB, and its name."""
    named = {child.pid: child.name for child in mp.active_children()}
    for pid in (os.getpid(), *descendants(os.getpid())):
        with contextlib.suppress(OSError):
            yield round(measured(pid)["memory_mb"]), named.get(pid, "the program" if pid == os.getpid() else "another")


def descendants(pid: int) -> Any:
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield int(child)
                yield from descendants(int(child))


def verdict(soak: Soak) -> list[str]:
    """What has grown. The run is long enough to be judged."""
    span = soak.samples[-1].second
    grown = []
    for name, more in MORE.items():
        change = judge([(sample.second, getattr(sample, name)) for sample in soak.samples], span)
        print(f"{name:16} {change.before:9.1f} -> {change.after:9.1f}")
        if change.after > change.before + more:
            grown.append(f"{name} grew from {change.before:.1f} to {change.after:.1f}")
    for name, share in (("median", 0.5), ("99th percentile", 0.99)):
        change = judge(soak.every, span, lambda took, share=share: quantile(took, share))
        print(f"{name:16} {1000 * change.before:9.3f} -> {1000 * change.after:9.3f} ms")
        if change.after > SLOWER * change.before + 0.005:
            grown.append(
                f"the {name} of the probes grew from {1000 * change.before:.2f} to {1000 * change.after:.2f} ms"
            )
    return grown


def quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def write(soak: Soak, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / "samples.csv").open("w") as file:
        table = csv.writer(file)
        table.writerow(field.name for field in fields(Sample))
        table.writerows(map(astuple, soak.samples))
    try:
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        print(f"no picture, as there is no matplotlib; the samples are in {out / 'samples.csv'}")
        return
    pyplot.switch_backend("agg")
    figure, axes = pyplot.subplots(5, 1, figsize=(10, 13), sharex=True)
    seconds = [sample.second for sample in soak.samples]
    rows = [
        ("descriptors", ["descriptors", "all_descriptors"]),
        ("mappings", ["mappings", "all_mappings"]),
        ("memory, MiB", ["memory_mb", "all_memory_mb"]),
        ("probe, ms", ["median_ms", "worst_ms"]),
        ("tasks, millions", ["tasks"]),
    ]
    for axis, (title, names) in zip(axes, rows):
        for name in names:
            scale = 1e6 if name == "tasks" else 1
            axis.plot(seconds, [getattr(sample, name) / scale for sample in soak.samples], label=name, linewidth=0.9)
        axis.set_ylabel(title)
        axis.legend(loc="upper left", fontsize=8)
        axis.grid(alpha=0.3)
        axis.axvspan(0, min(warm_up(seconds[-1]), seconds[-1]), color="0.9")
    axes[3].set_yscale("log")
    for axis in axes[:3]:
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("seconds")
    axes[0].set_title(
        f"{soak.tasks:,} tasks; {', '.join(f'{n} {what}' for what, n in sorted(soak.counts.items()))}", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(out / "soak.png", dpi=90)
    print(f"the picture: {out / 'soak.png'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--method", default="fork")
    parser.add_argument("--out", type=Path, default=Path("build/soak"))
    parser.add_argument("--mp-package", default=os.environ.get("MP_PACKAGE", "maniple"))
    parser.add_argument("--leak", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    soak = Soak(importlib.import_module(options.mp_package), options.method, options.leak)
    soak.run(options.seconds)
    judged = is_long_enough(options.seconds)
    faults = soak.faults[:20] + (verdict(soak) if judged else [])
    write(soak, options.out)
    print(f"met: {', '.join(f'{number} {what}' for what, number in sorted(soak.counts.items()))}")
    print(f"most memory in the end: {', '.join(f'{much} MiB {name}' for much, name in soak.holders)}")
    for fault in faults:
        print(f"FAILED: {fault}")
    if faults:
        outcome = "FAILED"
    elif judged:
        outcome = "flat"
    else:
        outcome = f"NOT JUDGED: whether something grows takes {WARM_UP + ENOUGH:.0f} s or more to tell"
    print(f"soak: {soak.tasks:,} tasks in {options.seconds:.0f} s, {outcome}", flush=True)
    return 1 if faults else 0 if judged else NOT_JUDGED


if __name__ == "__main__":
    sys.exit(main())
