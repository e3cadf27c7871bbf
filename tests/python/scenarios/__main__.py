"""Run one scenario and print its outcome as one line of JSON."""
from __future__ import annotations

import argparse
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

from .bench import Bench
from .registry import METHODS, find
from .tasks import identity


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scenarios", description=__doc__)
    parser.add_argument("name", help="such as deaths.busy_worker:sigkill")
    parser.add_argument("--package", default=os.environ.get("MP_PACKAGE", "maniple"))
    parser.add_argument("--method", choices=METHODS, default="fork")
    parser.add_argument("--workdir", type=Path)
    options = parser.parse_args()

    # The caller's watchdog sends SIGUSR1 to see where a scenario hangs; a shell without
    # job control starts its children with SIGINT ignored; crashes are meant, cores are not.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if options.workdir:
        report(options.workdir, run(options.name, options.package, options.method, options.workdir))
    else:
        with tempfile.TemporaryDirectory() as folder:
            report(Path(folder), run(options.name, options.package, options.method, Path(folder)))


def run(name: str, package: str, method: str, workdir: Path) -> dict[str, str]:
    """The outcome: a status (ok, failed or leaked) and what there is to say about it."""
    try:
        scenario = find(name)
        bench = Bench(package, method, workdir)
        if scenario.warm_up:
            bench.at("warming up")
            # The first pool of a process starts helpers that stay, such as the fork server.
            with bench.mp.Pool(1) as pool:
                pool.map(identity, [1, 2])
                pool.close()
                pool.join()
            del pool
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


def report(workdir: Path, outcome: dict[str, str]) -> None:
    text = json.dumps(outcome)
    (workdir / "outcome.json").write_text(text)
    print(text, flush=True)
    sys.stderr.flush()
    if outcome["status"] != "ok":
        os._exit(1)  # a pool that has failed might hang in its exit handlers


if __name__ == "__main__":
    main()
