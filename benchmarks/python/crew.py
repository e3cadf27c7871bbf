"""The runner's side of the agents: start one, ask it, and be rid of it when it hangs."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START_SECONDS = 60.0
# How long a silent agent is watched, and how much processor time its processes
# must have used by then to count as "still busy" rather than "hung".
WATCH_SECONDS, BUSY_SECONDS = 0.5, 0.05


@dataclass
class Agent:
    """One library's process. It is started on the first question and again after a loss."""

    name: str
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    version: str = ""
    unavailable: str = ""
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process and learn the library's version, or why it cannot be used."""
        with self.log.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "agent.py"), self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **self.environment},
                start_new_session=True,  # so that all of it can be found and ended
            )
        hello = self._listen(START_SECONDS)
        if hello["status"] == "ready":
            self.version = hello["version"]
        else:
            self.unavailable = hello["why"]
            self.stop()

    def ask(self, case: str, setting: dict[str, Any], cap: float) -> dict[str, Any]:
        """Have a case run once. Never raises: the answer's "status" says how it went."""
        if self.process is None and not self.unavailable:
            self.start()
        if self.unavailable:
            return {"status": "unavailable", "why": self.unavailable}
        pipe = self.process.stdin if self.process else None
        with suppress(BrokenPipeError):  # then no answer comes, which says so
            if pipe is not None:
                pipe.write(json.dumps({"case": case, "setting": setting}) + "\n")
                pipe.flush()
        reply = self._listen(cap)
        if reply["status"] in ("hang", "slow", "died"):
            self.stop()
        return reply

    def stop(self) -> None:
        """End the process and everything that it started."""
        if self.process is None:
            return
        leader = self.process.pid
        for pid in session_members(leader) or [leader]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process = None

    def _listen(self, cap: float) -> dict[str, Any]:
        process = self.process
        if process is None or process.stdout is None:
            return {"status": "died", "why": "not running"}
        end = time.monotonic() + cap
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            # A forked worker may hold the pipe open after its agent has died, so
            # the end of the pipe alone does not tell.
            while not selector.select(min(0.25, max(0.0, end - time.monotonic()))):
                if process.poll() is not None:
                    return {"status": "died", "why": f"the benchmark process ended with {process.returncode}"}
                if time.monotonic() >= end:
                    return self._overdue(process.pid, cap)
        line = process.stdout.readline()
        if not line:
            return {"status": "died", "why": f"the benchmark process ended with {process.wait()}"}
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _overdue(self, leader: int, cap: float) -> dict[str, Any]:
        before = processor_seconds(leader)
        time.sleep(WATCH_SECONDS)
        if processor_seconds(leader) - before < BUSY_SECONDS:
            return {"status": "hang", "why": f"idle and without an answer after {cap:.0f} s"}
        return {"status": "slow", "why": f"still busy after {cap:.0f} s"}


def session_members(leader: int) -> list[int]:
    """The processes of the session that `leader` leads; empty where there is no /proc."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(entry.name)) == leader:
                members.append(int(entry.name))
        except OSError:
            continue
    return members


def processor_seconds(leader: int) -> float:
    """What the session's processes have used so far, user and system."""
    ticks = 0
    for pid in session_members(leader):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
