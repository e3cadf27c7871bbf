"""Programs that get interrupted, killed, or that end with a pool open.

`python -m scenarios.victims NAME PACKAGE METHOD [ARGUMENT ...]`. They are programs of
their own since what counts is how the whole program ends.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from typing import Any

from . import tasks


def wait_for_busy_workers(context: Any, folder: str, wait: str, work: str) -> None:
    """Two workers do `work` on four items; this process waits in the call named `wait`."""
    task = getattr(tasks, work)
    jobs = [folder] * 4
    with context.Pool(2) as pool:
        if wait == "map":
            pool.map(task, jobs, chunksize=1)
        elif wait == "get":
            pool.apply_async(task, (folder,))
            pool.apply_async(task, (folder,)).get()
        elif wait == "get_timeout":
            pool.map_async(task, jobs, chunksize=1).get(timeout=60)
        elif wait == "imap":
            for _ in pool.imap(task, jobs):
                pass
        elif wait == "join":
            pool.map_async(task, jobs, chunksize=1)
            pool.close()
            pool.join()
        else:
            raise ValueError(wait)


def hold(context: Any, folder: str, work: str, ending: str) -> None:
    """A pool with two workers, busy or idle, whose pids stand in `folder`; then the end."""
    pool = context.Pool(2)
    if work == "idle":
        pool.starmap(tasks.meet, [(folder, 2)] * 2, chunksize=1)
    else:
        pool.map_async(getattr(tasks, work), [folder] * 4, chunksize=1)
        while len(os.listdir(folder)) < 2:
            time.sleep(0.01)
    if ending == "sleep":
        time.sleep(60)
    elif ending == "os_exit":
        os._exit(0)
    elif ending == "error":
        raise ValueError("the program's own error")
    # Else the program just ends, with its pool open.


def main() -> None:
    name, package, method, *arguments = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    context = importlib.import_module(package).get_context(method)
    globals()[name](context, *arguments)


if __name__ == "__main__":
    main()
