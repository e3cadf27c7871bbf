"""Functions for workers and processes whose environment, directory, processors, numbers and random generators differ."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import maniple

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
ACCELERATOR_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")


def variables(*names: str) -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in names)


def directory(_: object = None) -> str:
    return os.getcwd()


def import_from(folder: str, name: str) -> Any:
    """Return the content of a module that is found through the relative entry `folder` of the search path."""
    sys.path.insert(0, folder)
    return folder, name


def content_of(name: str) -> Any:
    return __import__(name).CONTENT


def place(_: object = None) -> tuple[int | None, int | None, int]:
    return maniple.worker_id(), maniple.worker_count(), os.getpid()


def place_and_processors(_: object = None) -> tuple[int | None, tuple[int, ...]]:
    time.sleep(0.001)
    return maniple.worker_id(), tuple(sorted(os.sched_getaffinity(0)))


def place_and_accelerator(_: object = None) -> tuple[Any, ...]:
    time.sleep(0.001)
    return maniple.worker_id(), os.getpid(), variables(*ACCELERATOR_VARIABLES, "ZE_ENABLE_PCI_ID_DEVICE_ORDER")


def count_calls(_: object = None) -> tuple[int, int]:
    """Return this process's id, and how often this function was called in it."""
    state = maniple.worker_state()
    state["calls"] = state.get("calls", 0) + 1
    return os.getpid(), state["calls"]


def tell_place(queue: Any) -> None:
    queue.put((maniple.worker_id(), maniple.worker_count(), dict(maniple.worker_state())))


def place_of_child(_: object = None) -> Any:
    """Return what a child of this worker says of its place."""
    maniple.worker_state()["own"] = True
    context = maniple.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=tell_place, args=(queue,))
    child.start()
    told = queue.get()
    child.join()
    return told


def sign_off(folder: str, word: str = "") -> None:
    """A finalizer: it leaves a file with the worker's number and what the worker has kept."""
    kept = maniple.worker_state().get("calls", 0)
    Path(folder, f"{os.getpid()}").write_text(f"{maniple.worker_id()} {kept} {word}")


def fail_at_end() -> None:
    raise ValueError("the finalizer has failed")


def tell(queue: Any, *names: str) -> None:
    queue.put((os.getcwd(), variables(*names)))


# ---- random numbers


def draw(_: object = None) -> tuple[float, float]:
    import numpy

    return random.random(), float(numpy.random.random())


def draw_slowly(item: int) -> tuple[float, float]:
    time.sleep(0.001 * (item % 3))
    return draw()


def draw_two(one: int, two: int = 0) -> tuple[float, float]:
    return draw()


def draw_and_die_once(path: str) -> tuple[float, float]:
    drawn = draw()
    if not os.path.exists(path):
        open(path, "x").close()
        os._exit(1)
    return drawn


def own_seed(_: object = None) -> int:
    assert maniple.task_seed() == maniple.task_seed()
    return maniple.task_seed()


def own_seed_slowly(_: object = None) -> int:
    time.sleep(0.002)
    return own_seed()


def seed_and_die_once(path: str) -> int:
    if not Path(path).exists():
        Path(path).touch()
        os._exit(3)
    return own_seed()


def refusal_of_seed(_: object = None) -> str:
    try:
        return str(maniple.task_seed())
    except RuntimeError as error:
        return str(error)


def write_refusal(path: str) -> None:
    Path(path).write_text(refusal_of_seed())
