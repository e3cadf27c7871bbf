"""concurrent.futures' own executor, which brings the standard package with it, on a context of maniple's."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import maniple

prepared = None


def prepare(value):
    global prepared
    prepared = value


def work(number):
    return number * number, prepared, type(maniple.current_process()).__mro__[1].__module__


def fail(text):
    raise LookupError(text)


if __name__ == "__main__":
    context = maniple.get_context(sys.argv[1])
    with ProcessPoolExecutor(2, mp_context=context, initializer=prepare, initargs=("ready",)) as executor:
        print(
            list(executor.map(work, range(50), chunksize=7)) == [(n * n, "ready", "maniple.process") for n in range(50)]
        )
        print(sorted(future.result()[0] for future in as_completed(executor.submit(work, n) for n in range(9))))
        print(repr(executor.submit(fail, "told").exception()))
        refused = executor.submit(fail, lambda: None).exception()
        print("refused" if "pickle" in str(refused) else refused)
        large = bytes(3_000_000)
        print(executor.submit(len, large).result())
    executor = ProcessPoolExecutor(1, mp_context=context)
    try:
        executor.submit(os._exit, 3).result()
    except BrokenProcessPool:
        print("broken")
    executor.shutdown()
    print(maniple.active_children())
