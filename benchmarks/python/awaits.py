"""Cases of calls that an event loop of asyncio waits for."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any

import tasks
from stage import Stage, doubled, expect


async def _together(call: Callable[[int], Awaitable[int]], count: int) -> list[int]:
    return list(await asyncio.gather(*map(call, range(count))))


async def _in_turn(call: Callable[[int], Awaitable[int]], count: int) -> list[int]:
    return [await call(number) for number in range(count)]


async def _measure(stage: Stage, how: Callable[..., Any], count: int) -> None:
    library, setting = stage.library, stage.setting
    async with library.awaiting(setting.workers, library.method_for(setting.method)) as pool:
        call = partial(library.awaited, pool, tasks.double)
        expect(await _together(call, 64), doubled(64))
        gc.collect()
        begun = perf_counter()
        got = await how(call, count)
        stage.seconds += perf_counter() - begun
        stage.units += count
    expect(got, doubled(count))


def together(stage: Stage) -> None:
    asyncio.run(_measure(stage, _together, stage.setting.burst // 2))


def in_turn(stage: Stage) -> None:
    asyncio.run(_measure(stage, _in_turn, stage.setting.calls // 2))


# key, title, unit, function, floor
CASES: tuple[tuple[str, str, str, Callable[[Stage], None], float | None], ...] = (
    ("await-all", "await of 10,000 calls", "rate", together, 2),
    ("await-each", "await of one call, round trip", "us", in_turn, 2),
)
