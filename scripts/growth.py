"""Decides whether what a long run measured has grown: `judge`.

A program that has just started grows, because its caches fill. So the first `WARM_UP` seconds are left out, or the first
`WARM_UP_SHARE` of a longer run. What follows is divided into `SLICES` of equal length, and each slice has one value, its median.
A quantity has grown by the larger of two numbers:

- the rise of the straight line through these values. Its slope is the median of the slopes between all pairs (Theil 1950, Sen
  1968), which some odd slices cannot change. It finds a slow leak.
- the difference between the last quarter and the first one, each by its median. It finds a step late in the run.

A run whose rest is shorter than `ENOUGH` cannot be judged: it has neither passed nor failed.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

#: Seconds. The caches of the soak test are full after 75 s on two free cores, and after 160 s if builds and tests run beside it.
WARM_UP = 160.0
WARM_UP_SHARE = 0.15
#: Seconds. The memory of all processes goes up and down by a sixth within about 60 s: three such periods.
ENOUGH = 180.0
SLICES = 12

Points = Sequence[tuple[float, float]]


@dataclass
class Growth:
    """What a quantity was after the warm-up, and in the end."""

    before: float
    after: float


def warm_up(seconds: float) -> float:
    """Return the length of the part of a run that is left out."""
    return max(WARM_UP, WARM_UP_SHARE * seconds)


def is_long_enough(seconds: float) -> bool:
    """Whether a run of that length can be judged."""
    return seconds - warm_up(seconds) >= ENOUGH


def judge(points: Points, seconds: float, value: Callable[[Sequence[float]], float] = statistics.median) -> Growth:
    """Return how a quantity has changed after the warm-up.

    Args:
        points: the measurements: (second, value).
        seconds: the length of the run, for which `is_long_enough`.
        value: makes one value of the measurements of a slice.
    """
    begin = warm_up(seconds)
    slices: list[list[float]] = [[] for _ in range(SLICES)]
    for second, measured in points:
        if begin <= second <= seconds:
            slices[min(SLICES - 1, int(SLICES * (second - begin) / (seconds - begin)))].append(measured)
    values = [(place, value(measured)) for place, measured in enumerate(slices) if measured]
    if len(values) < SLICES // 2:
        raise ValueError(f"only {len(values)} of {SLICES} slices have a measurement")
    slope = statistics.median((b - a) / (later - sooner) for (sooner, a), (later, b) in combinations(values, 2))
    offset = statistics.median(v - slope * place for place, v in values)
    line = Growth(offset, offset + slope * (SLICES - 1))
    quarter = len(values) // 4
    step = Growth(statistics.median(v for _, v in values[:quarter]), statistics.median(v for _, v in values[-quarter:]))
    return max(line, step, key=lambda growth: growth.after - growth.before)
