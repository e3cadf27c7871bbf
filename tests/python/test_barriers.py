"""Barriers between processes that meet, raise, and are killed."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from bench import LONG, Bench, Rung, ends_well, ring, until, until_asleep


def pass_barrier(barrier: Any, times: int) -> None:
    for _ in range(times):
        barrier.wait(LONG)


def come_and_stay(barrier: Any) -> None:
    barrier.wait()


@pytest.mark.better_than_standard("the barrier waits for the dead to leave")
def test_a_killed_waiter_does_not_stop_a_barrier(bench: Bench) -> None:
    barrier = bench.ctx.Barrier(3)
    doomed = bench.start(come_and_stay, barrier)
    until(lambda: barrier.n_waiting == 1)
    until_asleep(doomed.pid)
    doomed.kill()
    doomed.join()
    # It arrived before it died. The next two rounds need three living parties.
    first = bench.start(pass_barrier, barrier, 3)
    barrier.wait(LONG)
    second = bench.start(pass_barrier, barrier, 2)
    barrier.wait(LONG)
    barrier.wait(LONG)
    ends_well(first)
    ends_well(second)
    assert (barrier.n_waiting, barrier.broken) == (0, False)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.better_than_standard("they wait for ever")
def test_an_action_that_kills_its_process_breaks_the_barrier(bench: Bench) -> None:
    barrier = bench.ctx.Barrier(2, action=die)
    # The last party runs the action, so this process comes first.
    last = bench.start(come_second, barrier)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    last.join(LONG)
    assert last.exitcode == -signal.SIGKILL
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken


@pytest.mark.better_than_standard("they wait for ever")
def test_a_party_killed_in_the_action_breaks_the_barrier_for_later_parties(bench: Bench) -> None:
    begun = bench.ctx.Event()
    barrier = bench.ctx.Barrier(2, action=partial(stay, begun))
    first = bench.start(meet_a_broken_barrier, barrier)
    until(lambda: barrier.n_waiting == 1)
    actor = bench.start(come_and_stay, barrier)
    assert begun.wait(LONG)
    assert barrier.n_waiting == 2
    early = bench.start(meet_a_broken_barrier, barrier)
    until_asleep(early.pid)
    actor.kill()
    ends_well(first)
    ends_well(early)
    barrier.reset()
    assert (barrier.n_waiting, barrier.broken) == (0, False)


def stay(begun: Any) -> None:
    begun.set()
    signal.pause()


def meet_a_broken_barrier(barrier: Any) -> None:
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(LONG)


def test_an_action_may_use_its_barrier(mp: ModuleType) -> None:
    seen: list[Any] = []

    def act() -> None:
        seen.append((barrier.n_waiting, barrier.broken))
        if len(seen) == 2:
            barrier.abort()

    barrier = mp.Barrier(1, act)
    assert barrier.wait() == 0
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    assert barrier.broken
    barrier.reset()
    assert barrier.wait() == 0
    assert seen == [(1, False)] * 3


def test_an_actions_exception_reaches_its_caller_and_breaks_the_barrier(mp: ModuleType) -> None:
    def act() -> None:
        raise LookupError("nothing there")

    barrier = mp.Barrier(2, act)
    told: list[type[BaseException]] = []

    def come() -> None:
        try:
            barrier.wait(LONG)
        except Exception as error:
            told.append(type(error))

    other = threading.Thread(target=come)
    other.start()
    until(lambda: barrier.n_waiting == 1)
    with pytest.raises(LookupError, match="nothing there"):
        barrier.wait(LONG)
    other.join()
    assert told == [threading.BrokenBarrierError]
    assert barrier.broken


def test_private_names_of_a_barrier_return_its_state(mp: ModuleType) -> None:
    barrier = mp.Barrier(2)
    with barrier._cond:
        assert (barrier._state, barrier._count, barrier._parties) == (0, 0, 2)
    other = threading.Thread(target=lambda: pytest.raises(threading.BrokenBarrierError, barrier.wait))
    other.start()
    until(lambda: barrier._count == 1)
    barrier.abort()
    other.join()
    assert (barrier._state, barrier._count) == (-2, 0)


def come_second(barrier: Any) -> None:
    until(lambda: barrier.n_waiting == 1)
    barrier.wait()


def test_an_exception_in_a_barrier_breaks_it(mp: ModuleType) -> None:
    barrier = mp.Barrier(2)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Rung):
            barrier.wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert barrier.broken
