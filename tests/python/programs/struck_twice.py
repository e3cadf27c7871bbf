"""Makes and ends a pool while signals arrive whose handler raises: one at a step of the package's code, and one shortly after, which
may hit the code that handles the first. For all steps, the program continues, and no process or thread is left.

    python struck_twice.py PACKAGE METHOD SEED TIMES
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import random
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

PATIENCE = 60


class Struck(Exception):
    pass


class Strikes:
    """Raises a signal at a step of the package's code in the first thread; its handler raises, and arranges for the next signal."""

    def __init__(self, folder: str, step: int, pause: float) -> None:
        self.folder, self.step, self.pause = folder, step, pause
        self.pid, self.steps, self.struck, self.armed = os.getpid(), 0, 0, True
        signal.signal(signal.SIGALRM, self.handle)

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.folder) or os.getpid() != self.pid:
            return None
        if event == "line":
            self.steps += 1
            if self.steps == self.step:
                signal.raise_signal(signal.SIGALRM)
        return self

    def handle(self, number: int, frame: object) -> None:
        if self.armed and os.getpid() == self.pid:
            self.struck += 1
            if self.struck == 1:
                signal.setitimer(signal.ITIMER_REAL, self.pause)
            raise Struck


def strike(ctx: Any, strikes: Strikes) -> None:
    try:
        try:
            sys.settrace(strikes)
            ctx.Pool(1).terminate()
        finally:
            strikes.armed = False
    except Struck:
        strikes.armed = False
    sys.settrace(None)
    signal.setitimer(signal.ITIMER_REAL, 0)


def main(package: str, method: str, seed: str, times: str) -> None:
    mp = importlib.import_module(package)
    ctx, folder, rng = mp.get_context(method), os.path.dirname(mp.__file__), random.Random(seed)
    with ctx.Pool(1) as pool:
        pool.apply(abs, (-1,))
    del pool
    # What handlers raise in finalizers.
    sys.unraisablehook = lambda raised: None
    whole = Strikes(folder, 0, 0.0)
    strike(ctx, whole)
    struck = 0
    for _ in range(int(times)):
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        strikes = Strikes(folder, rng.randrange(1, whole.steps), rng.random() ** 2 * 0.002 + 1e-6)
        strike(ctx, strikes)
        struck += strikes.struck
        gc.collect()
        while threading.active_count() > 1 or mp.active_children():
            time.sleep(0.001)
    with ctx.Pool(1) as pool:
        pool.apply(abs, (-1,))
    print(struck, "strikes")


if __name__ == "__main__":
    main(*sys.argv[1:])
