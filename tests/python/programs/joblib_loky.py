"""joblib with its default backend: loky, which builds queues, a resource tracker and processes from the standard package's parts."""

import os

import numpy as np
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError


def total(block):
    return float(block.sum())


def end():
    os._exit(3)


if __name__ == "__main__":
    with Parallel(n_jobs=2) as parallel:
        print(parallel(delayed(pow)(number, 2) for number in range(20)))
        # Over a megabyte: joblib maps it from a file, which its tracker removes.
        print(parallel(delayed(total)(np.full(200_000, number)) for number in range(4)))
        print(parallel(delayed(lambda x: x + 1)(number) for number in range(3)))
    try:
        Parallel(n_jobs=2)(delayed(pow)(text, 2) for text in ["a"])
    except TypeError as error:
        print("TypeError", str(error)[:20])
    try:
        Parallel(n_jobs=2)(delayed(end)() for _ in range(2))
    except TerminatedWorkerError:
        print("a worker ended")
    print(sum(Parallel(n_jobs=2, return_as="generator_unordered")(delayed(abs)(-number) for number in range(50))))
