"""The exception of a signal handler leaves the interrupted call: it is not a failure of an item, and no object keeps
it."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pools import METHODS, end_pool, identity, make_pool

processes_only = pytest.mark.parametrize("kind", METHODS, indirect=True)


class Late(Exception):
    """The time is up."""


class LateTypeError(TypeError):
    """A handler's exception of a class that pickle itself raises."""


class Stop(BaseException):
    """The exception of the handler."""


def _with_arguments(kind: type[BaseException], number: int, frame: object) -> None:
    raise kind


class _Callable:
    def __init__(self, kind: type[BaseException]) -> None:
        self._kind = kind

    def __call__(self, number: int, frame: object) -> None:
        raise self._kind

    def method(self, number: int, frame: object) -> None:
        raise self._kind


def _starred(kind: type[BaseException]) -> Callable[..., None]:
    def handler(*_: object) -> None:
        raise kind

    return handler


def _without_arguments(kind: type[BaseException]) -> Callable[..., None]:
    def handler(number: int, frame: object) -> None:
        del number, frame
        raise kind

    return handler


def _once(kind: type[BaseException]) -> Callable[..., None]:
    def handler(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise kind

    return handler


HANDLERS: dict[str, Callable[[type[BaseException]], Any]] = {
    "arguments": lambda kind: functools.partial(_with_arguments, kind),
    "starred": _starred,
    "without arguments": _without_arguments,
    "once": _once,
    "object": _Callable,
    "method": lambda kind: _Callable(kind).method,
}


def spin(seconds: float) -> None:
    """Run Python code for so long, in which a handler can run at any moment."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class SlowToPickle:
    def __init__(self, number: int = 0, seconds: float = 0.01) -> None:
        self.number, self.seconds = number, seconds

    def __reduce__(self) -> Any:
        spin(self.seconds)
        return int, (self.number,)


class SlowToUnpickle:
    """A value that is slow to unpickle in every process except the process that pickled it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        return slowly, (os.getpid(), self.number)


def slowly(maker: int, number: int) -> int:
    if os.getpid() != maker:
        spin(1)
    return number


class SlowError(Exception):
    def __reduce__(self) -> Any:
        return slow_error, (os.getpid(),)


def slow_error(maker: int) -> Exception:
    slowly(maker, 0)
    return ValueError("the task's own")


def slow_result(number: int) -> SlowToUnpickle:
    return SlowToUnpickle(number)


def slow_failure(_: int) -> None:
    raise SlowError


@contextmanager
def handler(made: Any, seconds: float = 0.2) -> Iterator[None]:
    """A handler that a timer calls in so many seconds."""
    before = signal.signal(signal.SIGALRM, made)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def pool_of(mp: ModuleType, kind: str, processes: int = 2, **options: Any) -> Iterator[Any]:
    pool = make_pool(mp, kind, processes, **options)
    try:
        yield pool
    finally:
        end_pool(pool)


# -- queues


@pytest.mark.parametrize("kind", [Late, LateTypeError, Stop, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("form", HANDLERS)
def test_put_is_interrupted_while_it_pickles(mp: ModuleType, form: str, kind: type[BaseException]) -> None:
    queue = mp.Queue()
    with handler(HANDLERS[form](kind)), pytest.raises(kind):
        queue.put([SlowToPickle() for _ in range(300)])
    queue.put("next")
    assert queue.get(timeout=10) == "next"


def test_an_items_own_exception_is_reported(mp: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    class Failing:
        def __reduce__(self) -> Any:
            raise Late("of the item")

    queue = mp.Queue()
    with handler(_starred(Stop), 60):
        queue.put(Failing())
    assert "Late: of the item" in capfd.readouterr().err


# -- results


@processes_only
@pytest.mark.parametrize("raised", [SystemExit, Late])
def test_get_is_interrupted_while_it_unpickles_and_can_be_called_again(
    mp: ModuleType, kind: str, raised: type[BaseException]
) -> None:
    with pool_of(mp, kind) as pool:
        result = pool.apply_async(slow_result, (5,))
        result.wait(20)
        with handler(_starred(raised)), pytest.raises(raised):
            result.get(20)
        assert result.get(20) == 5
        assert result.get(20) is result.get(20)


def test_get_is_interrupted_while_it_unpickles_the_tasks_exception(mp: ModuleType) -> None:
    with pool_of(mp, "fork") as pool:
        result = pool.apply_async(slow_failure, (5,))
        result.wait(20)
        with handler(_starred(SystemExit)), pytest.raises(SystemExit):
            result.get(20)
        with pytest.raises(ValueError, match="the task's own"):
            result.get(20)


def test_a_handler_may_get_the_result_that_it_interrupts(mp: ModuleType) -> None:
    with pool_of(mp, "fork") as pool:
        result = pool.apply_async(slow_result, (7,))
        result.wait(20)
        seen: list[int] = []
        with handler(lambda *_: seen.append(result.get(20))):
            assert result.get(20) == 7
        assert seen == [7]


def test_map_is_interrupted_while_it_unpickles(mp: ModuleType) -> None:
    with pool_of(mp, "fork") as pool:
        results = pool.map_async(slow_result, range(3), 1)
        results.wait(20)
        with handler(_starred(Late)), pytest.raises(Late):
            results.get(20)
        assert results.get(20) == [0, 1, 2]


@pytest.mark.parametrize("way", ["imap", "imap_unordered"])
def test_a_loop_over_results_is_interrupted_and_loses_none(mp: ModuleType, way: str) -> None:
    with pool_of(mp, "fork") as pool:
        results = getattr(pool, way)(slow_result, range(3))
        seen = [next(results)]
        with handler(_starred(Late)), pytest.raises(Late):
            next(results)
        seen += results
        assert sorted(seen) == [0, 1, 2]


# -- calls


@processes_only
@pytest.mark.parametrize("raised", [KeyboardInterrupt, Late, LateTypeError])
def test_map_is_interrupted_while_it_pickles(mp: ModuleType, kind: str, raised: type[BaseException]) -> None:
    with pool_of(mp, kind) as pool:
        pool.map(abs, range(4))
        began = time.monotonic()
        with handler(_starred(raised)), pytest.raises(raised):
            pool.map(identity, [SlowToPickle(n, 0.1) for n in range(100)], 1)
        # All of them take ten seconds.
        assert time.monotonic() - began < 9
        assert pool.apply_async(abs, (-1,)).get(30) == 1


def test_a_call_after_an_interruption_is_whole(mp: ModuleType) -> None:
    with pool_of(mp, "fork") as pool:
        results = pool.map_async(identity, [SlowToPickle(n) for n in range(60)], 4)
        raised = 0
        for _ in range(5):
            try:
                with handler(_starred(Late), 0.05):
                    results.get(30)
            except Late:
                raised += 1
        assert results.get(30) == list(range(60))
        assert raised


def test_apply_async_is_interrupted_while_it_pickles(mp: ModuleType) -> None:
    with pool_of(mp, "fork") as pool:
        for raised in (Late, LateTypeError):
            with handler(_starred(raised)), pytest.raises(raised):
                pool.apply_async(identity, (SlowToPickle(0, 2),))
        assert pool.apply(abs, (-1,)) == 1


def test_start_is_interrupted_while_it_pickles(mp: ModuleType) -> None:
    process = mp.get_context("spawn").Process(target=identity, args=(SlowToPickle(0, 2),))
    with handler(_starred(LateTypeError)), pytest.raises(LateTypeError):
        process.start()


# -- in workers


def alarm(seconds: float, made: Any) -> None:
    signal.signal(signal.SIGALRM, made)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def leave(*_: object) -> None:
    sys.exit(7)


def too_late(*_: object) -> None:
    raise Late


def test_a_handlers_exit_ends_the_worker_during_its_task(mp: ModuleType) -> None:
    with pool_of(mp, "fork", 1) as pool:
        pid = pool.apply(os.getpid)
        pool.apply(alarm, (0.2, leave))
        with pytest.raises(mp.pool.WorkerLostError) as lost:
            pool.apply_async(spin, (10,)).get(30)
        assert (lost.value.pid, lost.value.exitcode) == (pid, 7)
        assert pool.apply_async(abs, (-1,)).get(30) == 1


class SlowToArrive:
    """A function that takes a second to unpickle elsewhere."""

    def __call__(self, number: int) -> int:
        return number

    def __reduce__(self) -> Any:
        return arrive, (os.getpid(),)


def arrive(maker: int) -> SlowToArrive:
    slowly(maker, 0)
    return SlowToArrive()


def test_a_handler_during_the_arrival_of_a_function_fails_one_task(mp: ModuleType) -> None:
    with pool_of(mp, "fork", 1) as pool:
        pool.apply(alarm, (0.3, too_late))
        results = pool.imap(SlowToArrive(), range(3))
        with pytest.raises(Late):
            results.next(30)
        assert list(results) == [1, 2]


def test_a_signal_leaves_calls_of_other_threads_alone(mp: ModuleType) -> None:
    with pool_of(mp, "fork") as pool:
        results: list[Any] = []
        thread = threading.Thread(
            target=lambda: results.append(pool.map(identity, [SlowToPickle(n) for n in range(80)]))
        )
        thread.start()
        with handler(_starred(Late)), pytest.raises(Late):
            time.sleep(30)
        thread.join(30)
        assert results == [list(range(80))]


# -- SIGTERM, in workers that inherit a handler


@contextmanager
def flag_of_the_program(path: str) -> Iterator[None]:
    """A handler for SIGTERM that ends nothing, as frameworks have it; it records which process runs it."""

    def note(*_: object) -> None:
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("calls", [0, 1, 20])
def test_idle_workers_end_without_the_handler_that_they_inherit(mp: ModuleType, tmp_path: Any, calls: int) -> None:
    path = str(tmp_path / "ran")
    with flag_of_the_program(path):
        pool = mp.get_context("fork").Pool(2)
        assert pool.map(abs, range(calls)) == list(range(calls))
        workers = list(pool._pool)
        pool.terminate()
        pool.join()
    # No worker was killed after a delay, and none received a signal.
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert not os.path.exists(path)


def note_and_sleep_deaf(path: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    with open(path, "a") as file:
        file.write("!")
    time.sleep(0.3)


def test_waiting_tasks_do_not_begin_after_terminate(mp: ModuleType, tmp_path: Any) -> None:
    path, begun = str(tmp_path / "ran"), tmp_path / "begun"
    with flag_of_the_program(path):
        pool = mp.get_context("fork").Pool(1)
        worker = pool._pool[0]
        pool.apply(abs, (1,))
        for _ in range(50):
            pool.apply_async(note_and_sleep_deaf, (str(begun),))
        time.sleep(0.1)
        pool.terminate()
        pool.join()
    # Its present task is the last.
    assert worker.exitcode == 0
    assert begun.read_text() == "!"


@pytest.mark.better_than_standard("waits for the task's end")
@pytest.mark.parametrize("kind", ["engine", "queues"])
def test_busy_workers_end_after_the_handler_that_they_inherit(mp: ModuleType, tmp_path: Any, kind: str) -> None:
    path, begun = str(tmp_path / "ran"), tmp_path / "begun"
    classes = importlib.import_module(f"{mp.__name__}.pool")

    class ByQueues(classes.Pool):  # type: ignore[name-defined,misc]
        def _setup_queues(self) -> None:
            super()._setup_queues()

    with flag_of_the_program(path):
        context = mp.get_context("fork")
        pool = context.Pool(1) if kind == "engine" else ByQueues(1, context=context)
        worker = pool._pool[0]
        pool.apply_async(note_and_sleep, (str(begun),))
        while not begun.exists():
            time.sleep(0.01)
        pool.terminate()
        pool.join()
    assert worker.exitcode == -signal.SIGTERM
    with open(path) as ran:
        assert ran.read() == f"{worker.pid}\n"


def note_and_sleep(path: str) -> None:
    with open(path, "a") as file:
        file.write("!")
    time.sleep(60)


# -- handlers that use the pool whose call they interrupt


def test_a_handler_may_call_a_pool_while_its_thread_pickles_a_call(mp: ModuleType) -> None:
    with pool_of(mp, "fork") as pool:
        pool.map(abs, range(4))
        seen: list[Any] = []

        def call(*_: object) -> None:
            seen.append((pool.apply(abs, (-1,)), pool.map(abs, [-2, -3]), list(pool.imap(abs, [-4]))))

        with handler(call):
            assert pool.map(identity, [SlowToPickle(n) for n in range(60)]) == list(range(60))
        assert seen == [(1, [2, 3], [4])]


def test_a_handler_may_terminate_a_pool_while_its_thread_pickles_a_call(mp: ModuleType) -> None:
    with pool_of(mp, "fork") as pool:
        pool.map(abs, range(4))

        def end(*_: object) -> None:
            pool.terminate()
            pool.join()

        with handler(end), pytest.raises(ValueError, match="terminated"):
            pool.map(identity, [SlowToPickle(n) for n in range(100)])


def test_a_handler_that_would_wait_for_its_own_call_gets_an_error(mp: ModuleType) -> None:
    with pool_of(mp, "fork") as pool:
        pool.map(abs, range(4))

        def end(number: int, frame: Any) -> None:
            names = set()
            while frame is not None:
                names.add(frame.f_code.co_name)
                frame = frame.f_back
            if "__reduce__" in names:
                pool.close()
                pool.join()
            else:  # another thread imports it
                signal.setitimer(signal.ITIMER_REAL, 0.01)

        with handler(end), pytest.raises(RuntimeError, match="wait forever"):
            for _ in range(100):
                pool.map(identity, [SlowToPickle(n) for n in range(20)], 20)


class _Signals:
    """Raises a signal while it is pickled for the first time: the interrupted pickling is repeated."""

    raised = False

    def __reduce__(self) -> Any:
        if not self.raised:
            self.raised = True
            signal.raise_signal(signal.SIGUSR1)
        return int, (3,)


@processes_only
@pytest.mark.parametrize("how", ["close", "terminate"])
@pytest.mark.parametrize("call", ["apply", "apply_async", "map_async"])
@pytest.mark.better_than_standard("the call is lost, or waits for ever")
def test_a_handler_may_end_a_pool_during_the_pickling_of_a_call(mp: ModuleType, kind: str, how: str, call: str) -> None:
    """Also during a call with a callback: the thread holds no lock of the pool."""
    pool = make_pool(mp, kind, 2)
    ended = []

    def end(*_: object) -> None:
        getattr(pool, how)()
        try:
            pool.join()
        except RuntimeError as error:
            # The items of a map are pickled while the pool works on them; the handler gets an error instead of waiting for itself.
            assert call == "map_async" and "would wait forever" in str(error)
        ended.append(True)

    before = signal.signal(signal.SIGUSR1, end)
    told = threading.Event()
    try:
        try:
            if call == "apply":
                pool.apply(identity, (_Signals(),))
            elif call == "apply_async":
                pool.apply_async(identity, (_Signals(),), callback=lambda _: told.set()).get(20)
            else:
                pool.map_async(identity, [1, _Signals()], callback=lambda _: told.set()).get(20)
            assert call == "apply" or told.wait(20)
        except ValueError as error:
            assert "not running" in str(error)
        assert ended == [True]
    finally:
        signal.signal(signal.SIGUSR1, before)
        end_pool(pool)


HANDLER_WHILE_LOADING = """
import importlib, signal, sys, time
mp = importlib.import_module(sys.argv[1])
answers = []

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "cloudpickle":
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGUSR1)

if __name__ == "__main__":
    with mp.get_context(sys.argv[2]).Pool(2) as pool:
        pool.map(abs, range(4))
        if sys.argv[3] == "at once":
            signal.signal(signal.SIGUSR1, lambda number, frame: answers.append(pool.apply(lambda: 5)))
            sys.meta_path.insert(0, Interrupting())
        else:
            signal.signal(signal.SIGALRM, lambda number, frame: answers.append(pool.apply(lambda: 5)))
            signal.setitimer(signal.ITIMER_REAL, float(sys.argv[3]))
        print(pool.map(lambda x: x + 1, range(3)), flush=True)
        end = time.monotonic() + 20
        while not answers and time.monotonic() < end:
            time.sleep(0.01)
        print(answers, flush=True)
"""


@pytest.mark.better_than_standard("cannot pickle lambdas")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("when", ["at once", "0.002", "0.006", "0.012"])
def test_a_handler_sends_a_lambda_during_the_import_of_by_value(
    mp_package: str, method: str, when: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(HANDLER_WHILE_LOADING)
    argv = [sys.executable, str(program), mp_package, method, when]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[1, 2, 3]\n[5]\n", done.stdout + done.stderr


HANDLER_STARTS = """
import importlib, signal, sys, time
mp = importlib.import_module(sys.argv[1])
ctx = mp.get_context(sys.argv[2])
started, busy = [], False

def nothing(): pass

def handle(*_):
    global busy
    if busy: return
    busy = True
    process = ctx.Process(target=nothing); process.start(); started.append(process); process.join()
    busy = False

if __name__ == "__main__":
    first = ctx.Process(target=nothing); first.start(); first.join()
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    end = time.monotonic() + 20
    codes = []
    while (len(codes) < 20 or len(started) < 20) and time.monotonic() < end:
        process = ctx.Process(target=nothing); process.start(); process.join(); codes.append(process.exitcode)
    signal.setitimer(signal.ITIMER_REAL, 0)
    print({*codes, *(process.exitcode for process in started)}, bool(started))
"""


@pytest.mark.better_than_standard("waits for ever for the lock of its fork server")
@pytest.mark.parametrize("method", METHODS)
def test_a_handler_starts_processes_while_its_thread_starts_some(mp_package: str, method: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(HANDLER_STARTS)
    argv = [sys.executable, str(program), mp_package, method]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.stdout == "{0} True\n", done.stdout + done.stderr


@pytest.mark.better_than_standard("takes an OSError of the handler for the end of the child")
@pytest.mark.parametrize("method", METHODS)
def test_join_raises_the_os_error_of_a_handler(mp: ModuleType, method: str) -> None:
    def handler(number: int, frame: object) -> None:
        raise TimeoutError("the time is up")

    process = mp.get_context(method).Process(target=time.sleep, args=(60,))
    process.start()
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(TimeoutError, match="the time is up"):
            process.join()
        assert process.is_alive()
    finally:
        signal.signal(signal.SIGALRM, before)
        process.kill()
        process.join()
    assert process.exitcode == -signal.SIGKILL


class Counted:
    """An item that takes a moment to pickle, and counts that."""

    pickled = 0

    def __reduce__(self) -> tuple[Any, ...]:
        Counted.pickled += 1
        until = time.monotonic() + 0.01
        while time.monotonic() < until:
            pass
        return int, (1,)


@processes_only
@pytest.mark.parametrize("call", ["map", "starmap", "map_async"])
def test_an_exception_leaves_the_rest_of_the_items_unpickled(mp: ModuleType, kind: str, call: str) -> None:
    items, noted = [Counted() for _ in range(250)], []

    def note(*_: object) -> None:
        noted.append(Counted.pickled)
        raise Stop

    with pool_of(mp, kind) as pool:
        calls: dict[str, Callable[[], Any]] = {
            "map": lambda: pool.map(nap, items, 1),
            "starmap": lambda: pool.starmap(nap, [(item,) for item in items], 1),
            "map_async": lambda: pool.map_async(nap, items, 1).get(),
        }
        pool.map(nap, [1, 2])
        Counted.pickled = 0
        with handler(note, 0.3), pytest.raises(Stop):
            calls[call]()
        assert Counted.pickled <= noted[0] + 1


def nap(item: Any) -> Any:
    time.sleep(0.005)
    return item
