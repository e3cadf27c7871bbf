"""Fails each call of each operation, one by one, and looks what comes of it: `make faults`.

    python tests/faults/walk.py [--short] [--only map,queue_items] [--method fork] [--kind memfd] [--errno EMFILE]
                                [--who parent] [-n 3] [--spell 0.5] [-j 2] [--front python|rust]

For each operation and start method a program (`program.py`, or the test program of the Rust crate) does the operation once without a
fault, while its calls are counted by kind and by process. Then, for each kind that it meets, for each errno, and
n = 1, 2, 3 … until it is not met any more, the n-th call fails. Every such run must

- end within the watchdog, with a right result or an error that names what ran out; with a right result where a call was only
  interrupted (EINTR), and never with a lost worker where nothing failed in a worker;
- leave no process, zombie, descriptor, thread or shared mapping more than there was;
- leave the objects in order: the same operation on the same objects then returns the right result.

The exit code is 1 where one does not. Each failure comes with the command that repeats it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import errno
import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gate import Fault, Gate
from kinds import KINDS
from rust_program import built
from watched import MARK, end_all, holdings, marked

HERE = Path(__file__).resolve().parent
METHODS = ("fork", "spawn", "forkserver")
WATCHDOG = 25.0
# The time that late ends and releases may take; the walk waits only if something is left.
REST = 8.0
# Seconds for which what a program holds has to stay the same before it is measured.
SETTLED = 0.5
# Up to here each n has its run; then each is a third larger than the last.
DENSE = 24
# With errors other than a kind's first: the first calls only, since they differ in what is said and not in where.
OTHERS = 3
# After this number of failures of one kind in one operation, the walk continues with the next kind.
ENOUGH = 3
# How errors name it where they say more than the system does.
IN_WORDS = {
    "ENOMEM": ["MemoryError", "out of memory"],
    "EMFILE": ["no descriptor is left"],
    "ENFILE": ["no descriptor is left"],
    "ETOOMANYREFS": ["too many descriptors"],
}
# Nothing has run out that could be there again: a system answers so to one call, or always, and not for a while.
REFUSALS = ("ENOSYS", "EPERM", "EOPNOTSUPP")
# The dynamic loader's message when it cannot continue; it does not repeat interrupted calls.
LOADER = "error while loading shared libraries"
# The short form: what is quick and meets most kinds.
SHORT = ("process_start", "pool_start", "map", "map_large", "recycling", "queue_new", "pipe_echo", "manager_call")


@dataclass
class Failure:
    where: tuple[str, str, str]
    fault: Fault | None
    what: str
    detail: str = ""

    def command(self) -> str:
        front, name, method = self.where
        line = [
            f"{os.path.relpath(sys.executable)} tests/faults/walk.py --front {front} --only {name} --method {method}"
        ]
        if (fault := self.fault) is not None:
            line.append(f"--kind {fault.kind} --errno {fault.error} --who {fault.who} -n {fault.n}")
            if fault.spell:
                line.append(f"--spell {fault.spell:g}")
        return " ".join(line)


@dataclass
class Report:
    """What came of one operation in one start method."""

    where: tuple[str, str, str]
    runs: int = 0
    met: int = 0
    kinds: set[str] = field(default_factory=set)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0


class Hung(Exception):
    """The program did not answer within the watchdog."""


class Ended(Exception):
    """The program has ended without a request to do so."""


class Program:
    """One program behind a gate."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.mark = uuid.uuid4().hex
        self.line, theirs = socket.socketpair()
        self.printed = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [part if part != "CONTROL" else str(theirs.fileno()) for part in command],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self.printed,
            stderr=self.printed,
            env={**os.environ, **environment, MARK: self.mark},
            start_new_session=True,
        )
        theirs.close()
        self.read_up_to = 0
        self._heard = b""
        try:
            self.gate = Gate(self._take_listener(), self.process.pid)
        except BaseException:
            self.kill()
            raise

    def _take_listener(self) -> int:
        self.line.settimeout(WATCHDOG)
        _, listeners, _, _ = socket.recv_fds(self.line, 1, 1)
        if not listeners:
            raise Ended("the program put up no gate")
        return listeners[0]

    def tell(self, command: str) -> dict[str, Any]:
        """Its answer to a command; raises Hung or Ended. Meanwhile its calls are answered."""
        if command:
            with contextlib.suppress(BrokenPipeError):
                self.line.sendall(f"{command}\n".encode())
        deadline = time.monotonic() + WATCHDOG
        while b"\n" not in self._heard:
            self._attend(deadline)
        answer, _, self._heard = self._heard.partition(b"\n")
        return json.loads(answer)

    def _attend(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Hung
        poll = select.poll()
        poll.register(self.gate.listener, select.POLLIN)
        poll.register(self.line, select.POLLIN)
        for fd, _ in poll.poll(1000 * left):
            if fd == self.gate.listener:
                self.gate.answer()
            else:
                self._heard += self._take()

    def _take(self) -> bytes:
        with contextlib.suppress(ConnectionResetError):
            if heard := self.line.recv(65536):
                return heard
        raise Ended

    def settled_holdings(self) -> dict[str, Any]:
        """What it holds once that has not changed for a while: a worker that replaces another may need a moment to start."""
        self.attend(0.1)
        found = holdings(self.process.pid)
        until = time.monotonic() + REST
        # Only processes that come and go change what there is.
        quiet = SETTLED if found["processes"] else 0.0
        since = time.monotonic()
        while (now := time.monotonic()) < since + quiet and now < until:
            self.attend(0.05)
            again = holdings(self.process.pid)
            if again["all"] != found["all"]:
                found, since = again, time.monotonic()
        return found

    def rests_at(self, most: dict[str, Any]) -> list[str]:
        """What it holds beyond `most`, after it has had some time to release it."""
        deadline, pause = time.monotonic() + REST, 0.002
        while True:
            now = holdings(self.process.pid)
            grown = [f"{most[what]} -> {now[what]} {what}" for what in most if what != "all" and now[what] > most[what]]
            if not grown:
                return []
            if time.monotonic() > deadline:
                return [*grown, f"new: {list((Counter(now['all']) - Counter(most['all'])).elements())[:12]}"]
            # What it has done since it answered still passes the gate; and what it no longer needs may be garbage.
            self.attend(pause)
            self.tell("rest")
            pause = min(2 * pause, 0.2)

    def attend(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.gate.listener], [], [], left)[0]:
                self.gate.answer()

    def said(self) -> str:
        """What it and its children have written since the last call."""
        self.printed.seek(self.read_up_to)
        text = self.printed.read()
        self.read_up_to += len(text)
        return text.decode(errors="replace")

    def finish(self) -> list[str]:
        """Let it come to its end; what was wrong with that."""
        self.line.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + WATCHDOG
        try:
            while self.process.poll() is None:
                if time.monotonic() > deadline:
                    raise Hung
                self.attend(0.005)
            faults = [] if self.process.returncode == 0 else [f"exit code {self.process.returncode} at its end"]
            while (left := list(marked(self.mark))) and time.monotonic() < deadline:
                self.attend(0.01)
            return faults + [f"left behind: {one}" for one in left]
        except Hung:
            return [f"does not end; {self.stacks()}"]
        finally:
            self.kill()

    def stacks(self) -> str:
        self.said()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGUSR1)
        self.attend(0.5)
        return self.said()[-3000:]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        if hasattr(self, "gate"):
            # A caller that waits at it gets ENOSYS.
            with contextlib.suppress(OSError):
                os.close(self.gate.listener)
            self.gate.listener = -1
        end_all(self.mark)
        self.process.wait()
        self.line.close()
        self.printed.close()


class Walk:
    """All runs of one operation in one start method."""

    def __init__(self, where: tuple[str, str, str], options: argparse.Namespace) -> None:
        self.where = where
        self.options = options
        self.report = Report(where)
        self.program: Program | None = None
        self.full: dict[str, Any] = {}
        self.bare: dict[str, Any] = {}

    def run(self) -> Report:
        started = time.monotonic()
        try:
            seen = self._calls()
            if self.options.count:
                print(self.where, dict(sorted(seen.items())), flush=True)
            for kind, who in sorted(seen):
                if not self.options.count and self._wanted(kind, who):
                    self._walk_kind(kind, who)
        except (Hung, Ended) as e:
            self._fail(None, f"without a fault: {e!r}")
        finally:
            self._end()
        self.report.seconds = time.monotonic() - started
        return self.report

    def _wanted(self, kind: str, who: str) -> bool:
        options = self.options
        return (not options.kind or kind in options.kind) and (not options.who or options.who in (who, "all"))

    def _calls(self) -> Counter[tuple[str, str]]:
        """How often each process makes each kind of call."""
        program = self._ready()
        program.gate.arm(None)
        answer = program.tell("act")
        program.gate.disarm()
        if "right" not in answer:
            self._fail(None, f"without a fault: {answer}")
        return Counter(program.gate.seen)

    def _walk_kind(self, kind: str, who: str) -> None:
        options = self.options
        failures = 0
        for place, error in enumerate(KINDS[kind].errors):
            if options.errno and error not in options.errno or options.short and place > 0:
                continue
            if options.spell and error in REFUSALS:
                continue
            spells = [options.spell] if options.spell is not None else [0.0]
            if options.spell is None and KINDS[kind].spells and place == 0 and not options.short:
                spells.append(0.4)
            for spell in spells:
                n = options.n or 1
                most = options.n or (3 if options.short else OTHERS if place or spell else 10_000)
                while n <= most:
                    fault = Fault(kind, error, who, n, spell)
                    fine, met = self._one(fault)
                    failures += not fine
                    if not met or failures >= ENOUGH:
                        break
                    n = n + 1 if n < DENSE else n + n // 3
                if failures >= ENOUGH:
                    self.report.outcomes["kinds given up after failures"] += 1
                    return

    def _one(self, fault: Fault) -> tuple[bool, bool]:
        """One run: whether it was fine, and whether the fault was met."""
        program = self._ready()
        gate = program.gate
        program.said()
        gate.arm(fault)
        try:
            answer = program.tell("act")
        except (Hung, Ended) as e:
            met = gate.met > 0
            self._count(fault, met)
            detail = program.stacks() if isinstance(e, Hung) else program.said()[-3000:]
            self._fail(fault, "hangs" if isinstance(e, Hung) else "the program died", detail)
            return False, met
        met, made = gate.met > 0, program.said()
        gate.disarm()
        self._count(fault, met)
        problem, detail = self._judge(fault, met, answer, made)
        if not problem:
            try:
                if fault.who == "children" or "text" in answer:
                    program.tell("renew")
                after = program.tell("act")
                if "right" not in after:
                    problem, detail = "the objects do not work afterwards", str(after.get("text", after)) + made
                elif left := program.rests_at(self.full):
                    problem, detail = f"leaves behind: {'; '.join(left)}", made
            except Hung:
                problem, detail = "hangs when it is done again", program.stacks()
            except Ended:
                problem, detail = "the program died when it was done again", program.said()
        if problem:
            self._fail(fault, problem, f"{answer.get('text', answer)}\n{detail[-3000:]}")
        return not problem, met

    def _count(self, fault: Fault, met: bool) -> None:
        self.report.runs += 1
        if met:
            self.report.met += 1
            self.report.kinds.add(fault.kind)

    def _judge(self, fault: Fault, met: bool, answer: dict[str, Any], made: str) -> tuple[str, str]:
        """What was wrong with an outcome, if anything."""
        count = self.report.outcomes
        if "wrong" in answer:
            return "a wrong answer", answer["wrong"]
        if "right" in answer:
            count["right" if met else "not met"] += 1
            return "", ""
        if not met:
            return "an error without a fault", made
        if fault.error == "EINTR" and not (fault.who == "children" and LOADER in made):
            return "an interrupted call is an error", made
        text = answer["text"]
        if fault.who == "parent" and "WorkerLostError" in text:
            return "a shortage here ended a worker", made
        if named(fault, answer["codes"], text):
            count["named"] += 1
        elif named(fault, [], made):
            # A thread or a process behind a connection can say so there alone; its client sees the connection's end.
            count["named on standard error"] += 1
        elif fault.who == "children":
            # A process that lacks something while it starts may not even be able to say so.
            count["a child's end"] += 1
        else:
            return "an error that does not name what ran out", made
        return "", ""

    def _fail(self, fault: Fault | None, what: str, detail: str = "") -> None:
        self.report.failures.append(Failure(self.where, fault, what, detail))
        program, self.program = self.program, None
        if program is not None:
            program.kill()

    def _ready(self) -> Program:
        """A program that waits for commands: the one that there is, or a new one."""
        if self.program is None:
            front, name, method = self.where
            self.program = program = Program(*command_of(front, name, method))
            first = program.tell("")
            self.bare = holdings(program.process.pid)
            second = program.tell("go")
            for answer in (first, second):
                if "right" not in answer:
                    raise Ended(f"without a fault: {answer.get('text', answer)} {program.said()}")
            self.full = program.settled_holdings()
        return self.program

    def _end(self) -> None:
        program, self.program = self.program, None
        if program is None:
            return
        try:
            answer = program.tell("end")
            left = [answer["text"]] if "text" in answer else program.rests_at(self.bare)
            if left:
                self.report.failures.append(Failure(self.where, None, f"after all runs: {'; '.join(left)}"))
        except (Hung, Ended) as e:
            what = f"after all runs: {e!r} while it tears down"
            self.report.failures.append(Failure(self.where, None, what, program.stacks()))
            program.kill()
            return
        if faults := program.finish():
            self.report.failures.append(Failure(self.where, None, f"after all runs: {'; '.join(faults)}"))


def named(fault: Fault, codes: list[int], text: str) -> bool:
    """Whether an error says what ran out."""
    number = getattr(errno, fault.error)
    words = [os.strerror(number), f"os error {number}", f"Errno {number}", fault.error]
    words += IN_WORDS.get(fault.error, [])
    if fault.kind == "thread":
        words.append("can't start new thread")
    return number in codes or any(word in text for word in words)


def command_of(front: str, name: str, method: str) -> tuple[list[str], dict[str, str]]:
    if front == "python":
        return [
            sys.executable,
            str(HERE / "program.py"),
            "CONTROL",
            os.environ.get("MP_PACKAGE", "maniple"),
            name,
            method,
        ], {}
    return [sys.executable, str(HERE / "behind_gate.py"), "CONTROL", os.environ["MANIPLE_FAULTS_PROGRAM"], name], {}


def operations_of(front: str) -> dict[str, tuple[str, ...]]:
    if front == "python":
        from operations import OPERATIONS

        return {name: made.methods for name, made in OPERATIONS.items()}
    listed = subprocess.run([os.environ["MANIPLE_FAULTS_PROGRAM"], "--operations"], capture_output=True, text=True)
    return dict.fromkeys(listed.stdout.split(), ("native",))


def walk(where: tuple[str, str, str], options: argparse.Namespace) -> Report:
    return Walk(where, options).run()


def check_names(options: argparse.Namespace, operations: dict[str, dict[str, tuple[str, ...]]]) -> None:
    """End the program where a name is not one of those that there are."""
    known = {
        "only": {name for names in operations.values() for name in names},
        "method": {method for names in operations.values() for methods in names.values() for method in methods},
        "kind": set(KINDS),
    }
    for option, names in known.items():
        for name in getattr(options, option):
            if name not in names:
                sys.exit(f"--{option}: there is no {name}; there are {', '.join(sorted(names))}")


def main() -> int:
    options = parse()
    if "rust" in options.front and "MANIPLE_FAULTS_PROGRAM" not in os.environ:
        os.environ["MANIPLE_FAULTS_PROGRAM"] = built("faulted")
    operations = {front: operations_of(front) for front in options.front}
    check_names(options, operations)
    places = [
        (front, name, method)
        for front in options.front
        for name, methods in operations[front].items()
        for method in methods
        if chosen(options, front, name, method)
    ]
    started = time.monotonic()
    reports = []
    # The standard package's processes: what is tested does not run its own test.
    with concurrent.futures.ProcessPoolExecutor(options.j, multiprocessing.get_context("fork")) as executor:
        for done in concurrent.futures.as_completed([executor.submit(walk, place, options) for place in places]):
            report = done.result()
            reports.append(report)
            state = f"{len(report.failures)} FAILED" if report.failures else "ok"
            print(
                f"{' '.join(report.where):40} {report.runs:5} runs {report.met:5} met {report.seconds:6.1f} s  {state}"
            )
            for failure in report.failures:
                tell(failure, options)
    return summarise(reports, time.monotonic() - started, options)


def tell(failure: Failure, options: argparse.Namespace) -> None:
    print(f"    {failure.what}\n        {failure.command()}", flush=True)
    if failure.detail and options.verbose:
        print("        | " + failure.detail.strip().replace("\n", "\n        | "), flush=True)


def chosen(options: argparse.Namespace, front: str, name: str, method: str) -> bool:
    if options.only or options.method:
        return (not options.only or name in options.only) and (not options.method or method in options.method)
    return not options.short or name in SHORT and method in ("fork", "native")


def summarise(reports: list[Report], seconds: float, options: argparse.Namespace) -> int:
    failures = [failure for report in reports for failure in report.failures]
    total: Counter[str] = Counter()
    for report in reports:
        total += report.outcomes
    kinds = set().union(*(report.kinds for report in reports)) if reports else set()
    runs, met = sum(report.runs for report in reports), sum(report.met for report in reports)
    print(
        f"\nfaults: {len(reports)} operations by start method, {len(kinds)} kinds of calls, {runs} runs, {met} faults met, {seconds:.0f} s"
    )
    print(f"outcomes: {', '.join(f'{number} {what}' for what, number in sorted(total.items()))}")
    if not runs and not options.count:
        print("No operation makes such a call.")
    print(f"{runs - len(failures)} passed, {len(failures)} failed", flush=True)
    return 1 if failures or not runs and not options.count else 0


def parse() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--front", type=names, default=["python"])
    parser.add_argument("--only", type=names, default=[], help="operations, with commas between")
    parser.add_argument("--method", type=names, default=[], help="start methods")
    parser.add_argument("--kind", type=names, default=[], help="kinds of calls (kinds.py)")
    parser.add_argument("--errno", type=names, default=[])
    parser.add_argument("--who", choices=["parent", "children"], default="", help="whose calls fail")
    parser.add_argument("-n", type=int, default=0, help="this call alone")
    parser.add_argument("--spell", type=float, help="seconds for which all calls after the n-th fail, too")
    parser.add_argument("--short", action="store_true", help="the form in `make test`")
    parser.add_argument("--count", action="store_true", help="only count the calls, without a fault")
    parser.add_argument("-j", type=int, default=2)
    parser.add_argument("-v", "--verbose", action="store_true", help="what each failing run said")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
