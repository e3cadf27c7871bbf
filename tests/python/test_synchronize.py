"""Locks, semaphores, conditions and events between processes that work, raise, and are killed."""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from bench import LONG, Bench, Rung, ends_well, ring, until, until_asleep
from pools import METHODS


def hold(lock: Any, held: Any) -> None:
    lock.acquire()
    held.set()
    time.sleep(3600)


def acquire_once(lock: Any, done: Any = None) -> None:
    assert lock.acquire(timeout=LONG)
    lock.release()
    if done is not None:
        done.release()


def acquire_forever(lock: Any) -> None:
    lock.acquire()


# -- holders that die


@pytest.mark.better_than_standard("it waits for ever")
@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_lock_passes_on_from_a_killed_holder(bench: Bench, kind: str) -> None:
    lock, held = getattr(bench.ctx, kind)(), bench.ctx.Event()
    holder = bench.start(hold, lock, held)
    assert held.wait(LONG)
    assert not lock.acquire(timeout=0.1)
    # Not reaped: a zombie is dead enough.
    os.kill(holder.pid, signal.SIGKILL)
    assert lock.acquire(timeout=LONG)
    assert lock.abandoned
    lock.release()
    with lock:
        assert not lock.abandoned


@pytest.mark.better_than_standard("they wait for ever")
def test_waiters_acquire_a_killed_holders_lock(bench: Bench) -> None:
    lock, held, done = bench.ctx.RLock(), bench.ctx.Event(), bench.ctx.Semaphore(0)
    holder = bench.start(hold, lock, held)
    assert held.wait(LONG)
    heirs = [bench.start(acquire_once, lock, done) for _ in range(3)]
    for heir in heirs:
        until_asleep(heir.pid)
    holder.kill()
    for heir in heirs:
        ends_well(heir)
    assert done.get_value() == 3


@pytest.mark.better_than_standard("it waits for ever")
def test_a_lock_passes_on_from_a_holder_that_ended(bench: Bench) -> None:
    lock = bench.ctx.Lock()
    ends_well(bench.start(acquire_forever, lock))
    assert lock.acquire(timeout=LONG)


def release(lock: Any) -> None:
    lock.release()


def test_another_process_may_release_a_dead_holders_lock(bench: Bench) -> None:
    lock = bench.ctx.Lock()
    ends_well(bench.start(acquire_forever, lock))
    assert not lock.acquire(block=False)
    ends_well(bench.start(release, lock))
    assert lock.acquire(block=False)
    assert not getattr(lock, "abandoned", False)


def test_a_dead_holders_units_of_a_semaphore_stay_acquired(bench: Bench) -> None:
    for semaphore in bench.ctx.Semaphore(1), bench.ctx.BoundedSemaphore(1):
        ends_well(bench.start(acquire_forever, semaphore))
        assert not semaphore.acquire(timeout=0.3)
        semaphore.release()
        assert semaphore.acquire(timeout=LONG)


def increment(value: Any, times: int) -> None:
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def increment_forever(value: Any, begun: Any) -> None:
    begun.set()
    while True:
        increment(value, 1000)


@pytest.mark.better_than_standard("it waits for ever")
def test_a_value_survives_processes_killed_during_a_change(bench: Bench) -> None:
    value = bench.ctx.Value("i", 0)
    for _ in range(5):
        begun = bench.ctx.Event()
        changers = [bench.start(increment_forever, value, begun) for _ in range(2)]
        assert begun.wait(LONG)
        bench.end()
        assert changers
        assert value.get_lock().acquire(timeout=LONG)
        value.get_lock().release()
    before = value.value
    ends_well(bench.start(increment, value, 100))
    assert value.value == before + 100


# -- waiters that die


def wait_for(condition: Any, done: Any) -> None:
    with condition:
        assert condition.wait(LONG)
    done.release()


def waiting(condition: Any) -> int:
    return condition._sleeping_count.get_value() - condition._woken_count.get_value()


@pytest.mark.better_than_standard("notify() waits for the dead")
def test_notify_reaches_the_living_among_killed_waiters(bench: Bench) -> None:
    condition, done = bench.ctx.Condition(), bench.ctx.Semaphore(0)
    for _ in range(2):
        bench.start(wait_for, condition, done)
    until(lambda: waiting(condition) == 2)
    bench.end()
    living = bench.start(wait_for, condition, done)
    until(lambda: waiting(condition) == 3)
    until_asleep(living.pid)
    with condition:
        condition.notify()
    assert done.acquire(timeout=LONG)
    ends_well(living)
    others = [bench.start(wait_for, condition, done) for _ in range(2)]
    until(lambda: waiting(condition) == 4)
    with condition:
        condition.notify_all()
    for other in others:
        ends_well(other)


def test_killed_waiters_cost_no_wake_up(bench: Bench) -> None:
    lock, semaphore = bench.ctx.Lock(), bench.ctx.Semaphore(0)
    lock.acquire()
    doomed = [bench.start(acquire_forever, thing) for thing in (lock, semaphore)]
    for process in doomed:
        until_asleep(process.pid)
        process.kill()
    living = [bench.start(acquire_once, thing) for thing in (lock, semaphore)]
    for process in living:
        until_asleep(process.pid)
    lock.release()
    semaphore.release()
    for process in living:
        ends_well(process)


# -- meaning


def test_a_lock_has_another_holder_in_a_child(bench: Bench) -> None:
    lock, rlock, seen = bench.ctx.Lock(), bench.ctx.RLock(), bench.ctx.SimpleQueue()
    with lock, rlock:
        assert repr(lock) == "<Lock(owner=MainProcess)>"
        assert repr(rlock) == "<RLock(MainProcess, 1)>"
        bench.start(describe, lock, rlock, seen)
        assert seen.get() == ("<Lock(owner=SomeOtherProcess)>", "<RLock(SomeOtherProcess, nonzero)>", "AssertionError")
    seen.close()


def describe(lock: Any, rlock: Any, seen: Any) -> None:
    try:
        rlock.release()
        outcome = "released"
    except Exception as error:
        outcome = type(error).__name__
    seen.put((repr(lock), repr(rlock), outcome))


def test_many_locks_travel_at_once(bench: Bench) -> None:
    locks = [bench.ctx.Lock() for _ in range(1500)]
    for lock in locks:
        lock.acquire()
    ends_well(bench.start(release_all, locks))
    assert all(lock.acquire(block=False) for lock in locks)


def release_all(locks: list[Any]) -> None:
    for lock in locks:
        lock.release()


def test_a_thousand_locks_take_no_thousand_descriptors(mp: ModuleType) -> None:
    before = len(os.listdir("/proc/self/fd"))
    locks = [mp.get_context("fork").Lock() for _ in range(1000)]
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert locks


def test_a_lock_is_pickled_for_children_only(mp: ModuleType) -> None:
    for method in METHODS:
        ctx = mp.get_context(method)
        for thing in ctx.Lock(), ctx.RLock(), ctx.Semaphore(), ctx.Condition(), ctx.Event(), ctx.Value("i"):
            with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
                pickle.dumps(thing)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_lock_for_fork_goes_to_no_other_child(mp: ModuleType, method: str) -> None:
    for thing in mp.get_context("fork").Lock(), mp.get_context("fork").Event():
        process = mp.get_context(method).Process(target=release, args=(thing,))
        with pytest.raises(RuntimeError, match="A SemLock created in a fork context"):
            process.start()


def test_condition_and_event_arrive_as_one_object(bench: Bench) -> None:
    """Two references to one object arrive as one."""
    lock = bench.ctx.Lock()
    event, conditions = bench.ctx.Event(), [bench.ctx.Condition(lock) for _ in range(2)]
    ends_well(bench.start(check_identity, lock, event, event, *conditions))
    assert event.is_set()


def check_identity(lock: Any, first: Any, second: Any, *conditions: Any) -> None:
    assert first is second
    with lock:
        for condition in conditions:
            assert condition._lock is lock
            condition.notify()
    first.set()


def test_releasing_too_often(mp: ModuleType) -> None:
    lock, bounded, rlock = mp.Lock(), mp.BoundedSemaphore(2), mp.RLock()
    for thing in lock, bounded:
        with pytest.raises(ValueError, match="semaphore or lock released too many times"):
            thing.release()
    with pytest.raises(AssertionError, match="attempt to release recursive lock not owned by thread"):
        rlock.release()


@pytest.mark.parametrize(
    ("args", "expected"),
    [((), True), ((False,), False), ((0,), False), ((True, 0.01), False), ((1, 0), False), ((True, -5), False)],
)
def test_ways_to_call_acquire(mp: ModuleType, args: tuple[Any, ...], expected: bool) -> None:
    lock = mp.Lock()
    if not expected:
        lock.acquire()
    assert lock.acquire(*args) is expected
    assert lock.acquire(block=False) is lock.acquire(timeout=0.01) is False


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
@pytest.mark.parametrize("args", [(), (False,), (True,), (1,), (True, None), (False, 3), (True, 0.5), (True, -1)])
def test_a_free_lock_is_acquired_with_any_usual_arguments(mp: ModuleType, kind: str, args: tuple[Any, ...]) -> None:
    lock = getattr(mp, kind)()
    given = dict(zip(("block", "timeout"), args))
    for acquire in (lambda: lock.acquire(*args), lambda: lock.acquire(**given)):
        assert acquire() is True
        lock.release()


@pytest.mark.parametrize("is_free", [False, True])
@pytest.mark.parametrize(
    ("args", "bad"),
    [
        ((), {"block": True, "timeout": "soon"}),
        ((), {"wait": True}),
        ((), {"timeout": object()}),
        ((True, 1, 2), {}),
        ((True,), {"block": True}),
        ((True, 1), {"timeout": 1}),
        ((True, "soon"), {}),
    ],
)
def test_wrong_arguments_of_acquire(mp: ModuleType, args: tuple[Any, ...], bad: dict[str, Any], is_free: bool) -> None:
    lock = mp.Lock()
    if not is_free:
        lock.acquire()
    with pytest.raises(TypeError):
        lock.acquire(*args, **bad)
    assert lock.acquire(False) is is_free


def test_threads_wait_for_each_other_and_not_for_the_interpreter(mp: ModuleType) -> None:
    lock, count = mp.Lock(), []
    lock.acquire()
    threads = [threading.Thread(target=lambda: lock.acquire() and (count.append(1), lock.release())) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert not count
    lock.release()
    for thread in threads:
        thread.join(LONG)
    assert len(count) == 4


def test_a_semaphore_out_of_range_is_refused(mp: ModuleType) -> None:
    with pytest.raises(OSError, match="Errno 22"):
        mp.Semaphore(-1)


# -- signals


@pytest.mark.parametrize("what", ["lock", "semaphore", "condition", "event"])
def test_an_exception_of_a_signal_handler_ends_a_wait(mp: ModuleType, what: str) -> None:
    lock, condition = mp.Lock(), mp.Condition()
    lock.acquire()
    waits: dict[str, Callable[[], Any]] = {
        "lock": lock.acquire,
        "semaphore": mp.Semaphore(0).acquire,
        "event": mp.Event().wait,
        "condition": condition.wait,
    }
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with condition:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Rung):
                waits[what]()
            assert condition._lock._semlock._is_mine()
    finally:
        signal.signal(signal.SIGALRM, before)
    lock.release()
    assert waiting(condition) == 0


@pytest.mark.better_than_standard("an AssertionError about the lock hides it")
def test_an_interruption_of_a_conditions_reacquisition_reaches_the_caller(mp: ModuleType) -> None:
    condition = mp.Condition()
    taken, give = threading.Event(), threading.Event()

    def take() -> None:
        with condition:
            condition.notify()
            taken.set()
            give.wait(LONG)

    def ring_when_taken() -> None:
        taken.wait(LONG)
        time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, ring)
    threads = [threading.Thread(target=target) for target in (take, ring_when_taken)]
    try:
        with pytest.raises(Rung), condition:
            for thread in threads:
                thread.start()
            condition.wait()
    finally:
        give.set()
        for thread in threads:
            thread.join(LONG)
        signal.signal(signal.SIGALRM, before)


def test_a_returning_signal_handler_does_not_end_the_wait(mp: ModuleType) -> None:
    semaphore = mp.Semaphore(0)
    before = signal.signal(signal.SIGALRM, lambda *_: semaphore.release())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert semaphore.acquire(timeout=LONG)
    finally:
        signal.signal(signal.SIGALRM, before)


PROGRAM_THAT_ENDS_WHILE_A_THREAD_WAITS = """
import threading, time
import {package} as mp
things = mp.Lock(), mp.RLock(), mp.Semaphore(0), mp.Condition()
things[0].acquire(), things[1].acquire()
def wait():
    with things[3]:
        things[3].wait()
for target in things[0].acquire, things[1].acquire, things[2].acquire, mp.Event().wait, wait:
    threading.Thread(target=target, daemon=True).start()
time.sleep(0.2)
class Slow:
    def __del__(self):
        end = time.monotonic() + 1.2  # the threads look again meanwhile
        while time.monotonic() < end:
            pass
slow = Slow()
print("end", flush=True)
"""


def test_a_program_ends_while_daemon_threads_wait(mp_package: str) -> None:
    program = PROGRAM_THAT_ENDS_WHILE_A_THREAD_WAITS.format(package=mp_package)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONG)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")


# -- shared values


def test_several_processes_change_a_value(bench: Bench) -> None:
    value, array = bench.ctx.Value("i", 5), bench.ctx.Array("d", [1.0, 2.0, 3.0])
    changers = [bench.start(increment, value, 1000) for _ in range(2)]
    ends_well(bench.start(double, array))
    for changer in changers:
        ends_well(changer)
    assert value.value == 2005
    assert array[:] == [2.0, 4.0, 6.0]


def double(array: Any) -> None:
    for place in range(len(array)):
        array[place] *= 2


def test_a_value_with_a_users_lock(mp: ModuleType) -> None:
    taken = []

    class Noisy:
        def acquire(self) -> bool:
            taken.append("acquire")
            return True

        def release(self) -> None:
            taken.append("release")

    value = mp.Value("i", 1, lock=Noisy())
    value.value += 1
    assert value.value == 2
    assert taken == ["acquire", "release"] * 3
    with pytest.raises(TypeError):
        value.value = "two"
    assert taken == ["acquire", "release"] * 4


@pytest.mark.better_than_standard("has these parts")
def test_a_missing_part_raises_an_explanation(mp: ModuleType) -> None:
    with pytest.raises(AttributeError, match="one word of shared memory"):
        mp.Event()._cond  # noqa: B018
    with pytest.raises(AttributeError, match="n_waiting"):
        mp.Barrier(2)._array  # noqa: B018


def test_classes_with_their_own_constructor(mp: ModuleType) -> None:
    synchronize, ctx = importlib.import_module(f"{mp.__name__}.synchronize"), mp.get_context("fork")

    def with_constructor(base: type, *arguments: object) -> object:
        def __init__(self: Any, extra: int) -> None:
            base.__init__(self, *arguments, ctx=ctx)
            self.extra = extra

        return type("Own", (base,), {"__init__": __init__})(5)

    for name, arguments in (
        ("Lock", ()),
        ("RLock", ()),
        ("Semaphore", (2,)),
        ("BoundedSemaphore", (2,)),
        ("Condition", ()),
        ("Event", ()),
        ("Barrier", (1,)),
    ):
        made: Any = with_constructor(getattr(synchronize, name), *arguments)
        assert made.extra == 5
        getattr(made, "set" if name == "Event" else "wait" if name == "Barrier" else "acquire")()
