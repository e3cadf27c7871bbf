"""What a process does as it ends: `endings.py PACKAGE METHOD WHAT [main]`, in a child or (main) in the program itself."""

from __future__ import annotations

import atexit
import importlib
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

package, method, what = sys.argv[1:4]
mp: Any = importlib.import_module(package)
ctx: Any = mp.get_context(method)


def tell(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def nap() -> None:
    time.sleep(60)


def stop(helper: Any) -> None:
    tell("stop, running:", helper.is_alive())
    helper.terminate()


def stops_helper() -> None:
    helper = ctx.Process(target=nap)
    helper.start()
    atexit.register(stop, helper)


def order() -> None:
    helper = ctx.Process(target=nap, daemon=True)
    helper.start()
    util = importlib.import_module(f"{package}.util")
    util.Finalize(None, lambda: tell("finalizer, helper runs:", helper.is_alive()), exitpriority=5)
    util.Finalize(None, lambda: tell("late finalizer, helper runs:", helper.is_alive()), exitpriority=-5)
    atexit.register(lambda: tell("first handler"))
    atexit.register(lambda: tell("second handler, helper runs:", helper.is_alive()))


def threads_first() -> None:
    def work() -> None:
        time.sleep(0.3)
        tell("thread")

    atexit.register(lambda: tell("handler"))
    threading.Thread(target=work).start()


def thread_waits_for_daemon() -> None:
    helper = ctx.Process(target=nap, daemon=True)
    helper.start()
    threading.Thread(target=helper.join).start()


def executors() -> None:
    ThreadPoolExecutor(1).submit(tell, "thread")
    print("process", ProcessPoolExecutor(1, mp_context=ctx).submit(abs, -1).result())


def handler_in_handler() -> None:
    atexit.register(lambda: atexit.register(tell, "inner"))


def failing_handler() -> None:
    atexit.register(lambda: 1 / 0)
    sys.exit(3)


def prints() -> None:
    atexit.register(print, "printed late", end="")
    print("printed", end=" ")
    raise ValueError("what failed")


if __name__ == "__main__":
    work = globals()[what]
    if sys.argv[4:] == ["main"]:
        work()
    else:
        process = ctx.Process(target=work)
        process.start()
        process.join()
        tell("exit code", process.exitcode)
