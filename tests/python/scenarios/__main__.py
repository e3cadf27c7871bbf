"""Run scenarios one after the other, up to the first that fails; print an outcome each, a line of JSON."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path

from footprint import Footprint, leaks_since

from .bench import OUTCOMES, Bench
from .registry import METHODS, find


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scenarios", description=__doc__)
    parser.add_argument("names", nargs="+", help="such as deaths.busy_worker:sigkill")
    parser.add_argument("--package", default=os.environ.get("MP_PACKAGE", "maniple"))
    parser.add_argument("--method", choices=METHODS, default="fork")
    parser.add_argument("--workdir", type=Path)
    options = parser.parse_args()

    # The caller's watchdog sends SIGUSR1 to see where a scenario hangs; a shell without
    # job control starts its children with SIGINT ignored; crashes are meant, cores are not.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.ExitStack() as stack:
        workdir = options.workdir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(options.package, options.method, workdir)
        for name in options.names:
            outcome = run(name, bench)
            text = json.dumps({"name": name, **outcome})
            with (workdir / OUTCOMES).open("a") as outcomes:
                print(text, file=outcomes)
            print(text, flush=True)
            sys.stderr.flush()
            if outcome["status"] != "ok":
                os._exit(1)  # a pool that has failed might hang in its exit handlers


def run(name: str, bench: Bench) -> dict[str, str]:
    """The outcome: a status (ok, failed or leaked) and what there is to say about it."""
    try:
        scenario = find(name)
        if scenario.warm_up:
            bench.warm_up()
        before = Footprint.take()
        bench.at("starting")
        scenario.run(bench)
        bench.at("looking for what is left")
        leaks = leaks_since(before)
    except BaseException as error:
        traceback.print_exc()
        return {"status": "failed", "detail": f"{type(error).__name__}: {error}"}
    if leaks:
        return {"status": "leaked", "detail": "; ".join(leaks)}
    return {"status": "ok", "detail": ""}


if __name__ == "__main__":
    main()
