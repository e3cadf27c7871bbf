"""`scripts/growth.py`, which judges `make soak`: caches that fill are no growth, and a leak is."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
try:
    import growth
finally:
    sys.path.remove(str(SCRIPTS))

#: the bound of `make soak` for the memory of all processes, in MiB
BOUND = 96


def memory(second: float, rng: random.Random) -> float:
    """Return the memory of all processes of a run of 240 s, in MiB: caches fill for 75 s, then it varies."""
    full = 240 + 517 * min(1.0, second / 75)
    return full if second < 75 else 700 + 60 * math.sin(second / 10) + rng.uniform(-20, 20)


def grown(seconds: int, at: Callable[[float, random.Random], float]) -> float:
    rng = random.Random(5)
    change = growth.judge([(second, at(second, rng)) for second in range(seconds)], seconds)
    return change.after - change.before


@pytest.mark.parametrize("seconds", [340, 400, 600, 3600])
def test_caches_that_fill_are_no_growth(seconds: int) -> None:
    assert grown(seconds, memory) < BOUND


@pytest.mark.parametrize("seconds, leak", [(340, 1.0), (600, 0.4), (3600, 0.05)])
def test_a_slow_leak_is_growth(seconds: int, leak: float) -> None:
    assert grown(seconds, lambda second, rng: memory(second, rng) + leak * second) > BOUND


@pytest.mark.parametrize("part", [0.5, 0.8])
def test_a_step_that_stays_is_growth(part: float) -> None:
    assert grown(600, lambda second, rng: memory(second, rng) + (200 if second > part * 600 else 0)) > BOUND


def test_outliers_are_no_growth() -> None:
    assert grown(600, lambda second, rng: memory(second, rng) + (5000 if 540 < second < 560 else 0)) < BOUND


def test_a_quantity_that_shrinks_is_no_growth() -> None:
    assert grown(600, lambda second, rng: 1000 - second) < 0


def test_rare_slow_moments_that_become_frequent_are_growth() -> None:
    rng = random.Random(6)
    every = [(i / 10, 0.1 if rng.random() < i / 6000 * 0.02 else 0.001) for i in range(6000)]

    def rare(took: object) -> float:
        values = sorted(took)  # type: ignore[call-overload]
        return float(values[int(0.99 * len(values))])

    change = growth.judge(every, 600, rare)
    assert change.after > 3 * change.before + 0.005


@pytest.mark.parametrize(
    "seconds, enough", [(20, False), (240, False), (339, False), (340, True), (600, True), (3600, True)]
)
def test_a_run_is_long_enough_if_three_minutes_follow_the_warm_up(seconds: float, enough: bool) -> None:
    assert growth.is_long_enough(seconds) is enough


def test_missing_measurements_are_an_error() -> None:
    with pytest.raises(ValueError, match="only 2 of 12 slices"):
        growth.judge([(second, 1.0) for second in range(230)], 600)


def test_a_short_soak_has_neither_passed_nor_failed(tmp_path: Path, mp_package: str) -> None:
    soak = [sys.executable, SCRIPTS / "soak.py", "--seconds", "3", "--out", tmp_path, "--mp-package", mp_package]
    done = subprocess.run(soak, capture_output=True, text=True)
    assert "NOT JUDGED" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 77
