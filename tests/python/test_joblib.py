"""The joblib backend "maniple"."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import maniple
import maniple.joblib
import pytest

joblib = pytest.importorskip("joblib")
np = pytest.importorskip("numpy")
from joblib import Parallel, delayed, parallel_config  # noqa: E402


@pytest.fixture(autouse=True)
def on_maniple():
    maniple.joblib.register()
    with parallel_config(backend="maniple"):
        yield


@pytest.fixture(autouse=True, scope="module")
def ended_workers():
    yield
    maniple.joblib.shutdown()


def square(number):
    return number * number


def pid_of(number):
    return os.getpid()


def divide(number):
    return 1 // number


def about(array):
    return type(array).__name__, array.flags.writeable, getattr(array, "filename", None)


def first_of(array):
    return float(array[0])


def fill(array, value):
    array[:] = value


def touch_and_sleep(path, seconds):
    Path(path).write_text(str(os.getpid()))
    time.sleep(seconds)


def wait_for(condition):
    while not condition():
        time.sleep(0.01)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def worker_pids(tmp_path_factory):
    """A function that returns the process ids of the pool's workers, each of which runs one call."""

    def pids(count=2):
        folder = tmp_path_factory.mktemp("workers")

        def meet():
            (folder / str(os.getpid())).touch()
            wait_for(lambda: len(list(folder.iterdir())) == count)
            return os.getpid()

        return set(Parallel(n_jobs=count, batch_size=1)(delayed(meet)() for _ in range(count)))

    return pids


# ---- calls ----


@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
@pytest.mark.parametrize("pre_dispatch", ["all", "2 * n_jobs", 3])
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_results_of_all_forms(return_as, pre_dispatch, batch_size):
    parallel = Parallel(n_jobs=2, return_as=return_as, pre_dispatch=pre_dispatch, batch_size=batch_size)
    results = list(parallel(delayed(square)(number) for number in range(100)))
    assert (sorted(results) if return_as == "generator_unordered" else results) == [n * n for n in range(100)]


def test_importing_maniple_does_not_import_joblib():
    program = "import maniple, maniple.pool, maniple.joblib, sys; print('joblib' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "False\n"


def test_numbers_of_jobs():
    cpus = joblib.cpu_count()
    assert joblib.effective_n_jobs(-1) == cpus
    assert joblib.effective_n_jobs(-2) == max(cpus - 1, 1)
    assert joblib.effective_n_jobs(3) == 3
    with pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0)(delayed(square)(n) for n in range(2))
    assert Parallel(n_jobs=-1)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def test_one_job_runs_in_the_caller():
    assert Parallel(n_jobs=1)(delayed(pid_of)(n) for n in range(2)) == [os.getpid()] * 2


def test_input_is_read_as_results_come():
    read = []

    def numbers():
        for number in range(20):
            read.append(number)
            yield delayed(square)(number)

    results = Parallel(n_jobs=2, pre_dispatch=2, batch_size=1, return_as="generator")(numbers())
    assert len(read) < 20
    assert list(results) == [n * n for n in range(20)]


def test_verbose_tells_the_progress(capfd):
    Parallel(n_jobs=2, verbose=11)(delayed(square)(n) for n in range(4))
    err = capfd.readouterr().err
    assert "ManipleBackend with 2 concurrent workers" in err and "finished" in err


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"return_exceptions": True}, ValueError, "joblib raises the first exception"),
        ({"env": {"A": "b"}}, ValueError, "'env' is not an option of the joblib backend"),
        ({"task_timout": 3}, ValueError, "did you mean task_timeout"),
        ({"retrys": 1}, ValueError, "did you mean retries"),
        ({"memory_limt": "1GB"}, ValueError, "did you mean memory_limit"),
        ({"max_rss": "1GB"}, ValueError, "did you mean max_rss_per_worker"),
        ({"affinity": "spread"}, ValueError, "it takes task_timeout, soft_timeout, retries, priority, memory_limit"),
        ({"threads_per_worker": 1}, ValueError, "inner_max_num_threads"),
        ({"task_timeout": 0}, ValueError, "task_timeout must be more than 0 seconds"),
        ({"retries": "two"}, TypeError, "retries must be an int or Retries"),
        ({"memory_limit": "much"}, ValueError, "memory_limit must be"),
        ({"max_tasks_per_child": 0}, ValueError, "max_tasks_per_child must be 1 or more"),
    ],
    ids=str,
)
def test_bad_options(options, kind, words):
    with pytest.raises(kind, match=words), parallel_config(backend="maniple", **options):
        Parallel(n_jobs=2)(delayed(abs)(n) for n in range(2))
    with pytest.raises(kind, match=words):
        Parallel(n_jobs=2, **options)(delayed(abs)(n) for n in range(2))


@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_batch_beyond_its_time_limit_is_ended(tmp_path, return_as):
    with parallel_config(backend="maniple", task_timeout=3):
        with pytest.raises(maniple.TaskTimeoutError, match="3 s") as raised:
            list(Parallel(n_jobs=2, return_as=return_as)(delayed(touch_and_sleep)(tmp_path / "pid", 3600) for _ in "a"))
        assert raised.value.task == "touch_and_sleep, item 0"
        pid = int((tmp_path / "pid").read_text())
        wait_for(lambda: not is_running(pid))
        assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]
    # A limit of `Parallel`, for all calls of a batch together.
    with pytest.raises(maniple.TaskTimeoutError):
        Parallel(n_jobs=2, batch_size=4, pre_dispatch="all", task_timeout=1)(delayed(time.sleep)(0.4) for _ in range(8))
    Parallel(n_jobs=2, batch_size=1, pre_dispatch="all", task_timeout=10)(delayed(time.sleep)(0.1) for _ in range(8))


def test_soft_limit_of_a_batch(tmp_path):
    with pytest.raises(maniple.SoftTimeoutError):
        Parallel(n_jobs=2, soft_timeout=0.5)(delayed(touch_and_sleep)(tmp_path / "pid", 3600) for _ in "a")


def die_at_first(path, array):
    if not path.exists():
        path.touch()
        os._exit(3)
    return float(array.sum())


@pytest.mark.parametrize("max_nbytes", [None, 1000])
def test_batch_of_a_dead_worker_is_tried_again(tmp_path, max_nbytes):
    array = np.ones(100_000)
    calls = [delayed(die_at_first)(tmp_path / str(n), array) for n in range(3)]
    assert Parallel(n_jobs=2, retries=5, max_nbytes=max_nbytes)(calls) == [100_000.0] * 3
    with pytest.raises(maniple.WorkerLostError) as raised:
        Parallel(n_jobs=2, retries=2)(delayed(os._exit)(3) for _ in "a")
    assert len(raised.value.earlier_errors) == 2


def fail_at_first(path):
    if not path.exists():
        path.touch()
        raise OSError("not yet")
    return 3


def test_batch_is_tried_again_after_the_exceptions_that_are_named(tmp_path):
    with parallel_config(backend="maniple", retries=maniple.Retries(2, on=OSError)):
        assert Parallel(n_jobs=2)(delayed(fail_at_first)(tmp_path / str(n)) for n in range(3)) == [3] * 3


def test_worker_beyond_its_memory_limit_is_ended():
    with parallel_config(backend="maniple", memory_limit="300MB"):
        with pytest.raises(maniple.MemoryLimitError):
            Parallel(n_jobs=2)(delayed(np.ones)(10**8) for _ in "a")
        assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def test_workers_are_replaced_after_their_tasks():
    with parallel_config(backend="maniple", max_tasks_per_child=1):
        assert len(set(Parallel(n_jobs=2, batch_size=1)(delayed(pid_of)(n) for n in range(4)))) == 4


def test_timeout_ends_the_workers_of_the_call(tmp_path):
    Parallel(n_jobs=2)(delayed(square)(n) for n in range(4))  # the start of workers is not what the limit is about
    with pytest.raises(Exception) as caught:
        Parallel(n_jobs=2, timeout=2)(delayed(touch_and_sleep)(tmp_path / str(n), 3600) for n in range(2))
    assert isinstance(caught.value, TimeoutError) or type(caught.value).__name__ == "TimeoutError"
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert pids
    wait_for(lambda: not any(is_running(pid) for pid in pids))
    assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def test_unused_generator_ends_its_calls(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib says that results were not used
        results = Parallel(n_jobs=2, batch_size=1, return_as="generator")(
            delayed(touch_and_sleep)(tmp_path / str(n), 3600) for n in range(4)
        )
        wait_for(lambda: [path for path in tmp_path.iterdir() if path.read_text()])
        del results
    pids = [int(path.read_text()) for path in tmp_path.iterdir() if path.read_text()]
    wait_for(lambda: not any(is_running(pid) for pid in pids))


def test_generator_feeds_another_call():
    """The input of a call waits for results of the same pool, whichever thread reads it."""
    first = Parallel(n_jobs=2, return_as="generator")(delayed(square)(n) for n in range(30))
    second = Parallel(n_jobs=2, return_as="generator")(delayed(square)(n) for n in first)
    third = Parallel(n_jobs=2)(delayed(square)(n) for n in second)
    assert third == [n**8 for n in range(30)]


def test_calls_of_several_threads():
    results = {}

    def call(number):
        results[number] = Parallel(n_jobs=2, backend="maniple")(delayed(square)(number + n) for n in range(50))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [(number + n) ** 2 for n in range(50)] for number in range(3)}


# ---- failures ----


def test_exception_of_a_call_has_the_workers_traceback():
    with pytest.raises(ZeroDivisionError) as caught:
        Parallel(n_jobs=2)(delayed(divide)(n) for n in (1, 0, 1))
    assert "in divide" in str(caught.value.__cause__)


def test_exception_ends_other_calls_at_once(tmp_path):
    def fail():
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        raise LookupError("told")

    with pytest.raises(LookupError, match="told"):
        Parallel(n_jobs=2, batch_size=1)([delayed(touch_and_sleep)(tmp_path / "pid", 3600), delayed(fail)()])
    wait_for(lambda: not is_running(int((tmp_path / "pid").read_text())))


def test_exception_of_one_call_leaves_other_threads_calls_alone(tmp_path):
    results = []

    def wait_and_tell():
        wait_for(lambda: (tmp_path / "go").exists())
        return os.getpid()

    def other():
        results.append(Parallel(n_jobs=2, backend="maniple")(delayed(wait_and_tell)() for _ in range(1)))

    thread = threading.Thread(target=other)
    thread.start()
    with pytest.raises(ZeroDivisionError):
        Parallel(n_jobs=2)(delayed(divide)(n) for n in (1, 0, 1))
    (tmp_path / "go").touch()
    thread.join()
    assert len(results) == 1


def test_exception_of_the_input():
    def numbers():
        yield delayed(square)(1)
        raise LookupError("input")

    with pytest.raises(LookupError, match="input"):
        Parallel(n_jobs=2, pre_dispatch=1)(numbers())


def test_dead_worker_fails_its_call_and_the_next_call_works():
    with pytest.raises(maniple.WorkerLostError):
        Parallel(n_jobs=2)(delayed(os._exit)(3) for _ in range(1))
    assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def exit_at(number):
    os._exit(number)


def exit_at_three(number):
    if number == 3:
        os._exit(number)


@pytest.mark.parametrize(("size", "named"), [(1, "exit_at_three, item 3"), (2, "exit_at_three, items 2 to 3")])
@pytest.mark.parametrize("return_as", ["list", "generator_unordered"])
def test_error_of_a_dead_worker_names_the_items(size, named, return_as):
    with pytest.raises(maniple.WorkerLostError) as raised:
        list(Parallel(n_jobs=2, batch_size=size, return_as=return_as)(delayed(exit_at_three)(n) for n in range(8)))
    assert raised.value.task == named


def test_error_of_a_dead_worker_names_the_function():
    with pytest.raises(maniple.WorkerLostError) as raised:
        Parallel(n_jobs=2)(delayed(exit_at)(3) for _ in range(1))
    assert raised.value.task == "exit_at, item 0"
    assert "it was running exit_at, item 0" in str(raised.value)


def test_dead_worker_in_a_managed_block():
    with Parallel(n_jobs=2) as parallel:
        with pytest.raises(maniple.WorkerLostError):
            parallel(delayed(os._exit)(3) for _ in range(1))
        assert parallel(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def test_failing_initializer_fails_the_call_and_not_the_next():
    with pytest.raises(maniple.WorkerLostError, match="initializer raised ZeroDivisionError"):
        Parallel(n_jobs=2, initializer=divide, initargs=(0,))(delayed(square)(n) for n in range(4))
    assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def test_unpicklable_argument():
    from pickle import PicklingError

    with pytest.raises(PicklingError, match="task to send") as caught:
        Parallel(n_jobs=2)(delayed(id)(threading.Lock()) for _ in range(4))
    assert "lock" in str(caught.value.__cause__)


INTERRUPTED = """
import os, signal, threading, time
import maniple.joblib
from joblib import Parallel, delayed
from pathlib import Path
maniple.joblib.register()
def work(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(3600)
def interrupt():
    while not Path("PATH").exists() or not Path("PATH").read_text():
        time.sleep(0.01)
    signal.raise_signal(signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    Parallel(n_jobs=2, backend="maniple")(delayed(work)("PATH") for _ in range(1))
except KeyboardInterrupt:
    print("interrupted")
print(Parallel(n_jobs=2, backend="maniple")(delayed(abs)(n) for n in range(3)))
"""


def test_keyboard_interrupt_ends_the_call(tmp_path):
    program = INTERRUPTED.replace("PATH", str(tmp_path / "pid")).replace("    signal.raise_signal(signal.SIGINT)\n", "")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=80)
    assert done.stdout == "interrupted\n[0, 1, 2]\n", done.stderr
    assert not is_running(int((tmp_path / "pid").read_text()))


# ---- workers ----


def test_calls_share_the_workers_and_the_pool_resizes(worker_pids):
    first = worker_pids()
    assert worker_pids() == first
    more = worker_pids(3)
    assert len(more) == 3
    if joblib.cpu_count() < 4:  # otherwise the libraries' limits differ, so the pool is another one
        assert more > first
    assert len(worker_pids() & more) == 2 or joblib.cpu_count() >= 4
    wait_for(lambda: sum(map(is_running, more)) <= 2)


def test_shutdown_ends_the_workers(worker_pids):
    pids = worker_pids()
    maniple.joblib.shutdown()
    assert not any(is_running(pid) for pid in pids)
    maniple.joblib.shutdown()
    assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def test_idle_workers_end(worker_pids):
    with parallel_config(backend="maniple", idle_worker_timeout=0.2):
        pids = worker_pids()
        wait_for(lambda: not any(is_running(pid) for pid in pids))
        assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


@pytest.mark.parametrize("method", maniple.get_all_start_methods())
def test_start_methods(method):
    with parallel_config(backend="maniple", start_method=method):
        assert Parallel(n_jobs=2)(delayed(lambda n: n + 1)(n) for n in range(10)) == list(range(1, 11))


def test_initializer_and_its_arguments():
    def set_variable(value):
        os.environ["OF_INITIALIZER"] = value

    with parallel_config(backend="maniple", initializer=set_variable, initargs=("told",)):
        got = Parallel(n_jobs=2)(delayed(os.getenv)("OF_INITIALIZER") for _ in range(4))
    assert got == ["told"] * 4


def test_threads_of_libraries_in_workers(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with parallel_config(backend="maniple", inner_max_num_threads=3):
        assert Parallel(n_jobs=2)(delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(2)) == ["3"] * 2
    default = str(max(joblib.cpu_count() // 2, 1))
    assert Parallel(n_jobs=2)(delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(2)) == [default] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert Parallel(n_jobs=2)(delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(2)) == ["7"] * 2


def test_library_limits_its_threads():
    limits = pytest.importorskip("threadpoolctl")

    def threads():
        np.ones((50, 50)) @ np.ones((50, 50))
        return [about["num_threads"] for about in limits.threadpool_info()]

    for method in maniple.get_all_start_methods():
        with parallel_config(backend="maniple", inner_max_num_threads=1, start_method=method):
            (got,) = Parallel(n_jobs=2)(delayed(threads)() for _ in range(1))
            assert set(got) <= {1}, method


def test_nested_levels_are_threads_and_then_sequential():
    def inner():
        backend, _ = joblib.parallel.get_active_backend()
        deeper = Parallel(n_jobs=2)(delayed(innermost)() for _ in range(2))
        return type(backend).__name__, deeper, os.getpid()

    def innermost():
        return type(joblib.parallel.get_active_backend()[0]).__name__, os.getpid()

    for name, deeper, pid in Parallel(n_jobs=2)(delayed(inner)() for _ in range(2)):
        assert name == "ThreadingBackend"
        assert deeper == [("SequentialBackend", pid)] * 2
        assert pid != os.getpid()


def test_nested_call_that_names_the_backend():
    def inner(number):
        return Parallel(n_jobs=2, backend="maniple")(delayed(square)(number + n) for n in range(3))

    assert Parallel(n_jobs=2)(delayed(inner)(n) for n in range(2)) == [[0, 1, 4], [1, 4, 9]]


SCRIPT = """
import maniple.joblib
from joblib import Parallel, delayed
maniple.joblib.register()
print("begin")
factor = 2
class Item:
    def __init__(self, value):
        self.value = value
def scaled(item):
    return item.value * factor
def scale_all():
    return Parallel(n_jobs=2, backend="maniple")(delayed(scaled)(Item(n)) for n in range(3))
def constant():
    return factor
print(scale_all())
factor = 3
print(scale_all(), Parallel(n_jobs=2, backend="maniple")(delayed(constant)() for n in range(3)))
factor = [1]
first = Parallel(n_jobs=2, backend="maniple")(delayed(constant)() for n in range(2))
factor.append(2)
print(first, Parallel(n_jobs=2, backend="maniple")(delayed(constant)() for n in range(2)))
print(Parallel(n_jobs=2, backend="maniple")(delayed(lambda n: n + 1)(n) for n in range(3)))
"""


def test_script_without_a_guard_sends_its_present_definitions(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=80)
    assert (done.stdout, done.stderr) == (
        "begin\n[0, 2, 4]\n[0, 3, 6] [3, 3, 3]\n[[1], [1]] [[1, 2], [1, 2]]\n[1, 2, 3]\n",
        "",
    )


def test_closure_that_changes_while_the_input_is_read():
    state = [0]

    def read():
        return state[0]

    def numbers():
        for number in range(20):
            state[0] = number
            yield delayed(read)()

    # joblib reads items ahead of those that it sends, in any thread: a call may see a later state, never an earlier one.
    seen = Parallel(n_jobs=2, pre_dispatch=2, batch_size=1)(numbers())
    assert [min(number, value) for number, value in enumerate(seen)] == list(range(20)), seen


def test_forked_child_makes_its_own_pool():
    assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(write, bytes(Parallel(n_jobs=2)(delayed(square)(n) for n in range(4))))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100) == bytes([0, 1, 4, 9])
    os.close(read)
    os.close(write)
    assert Parallel(n_jobs=2)(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


# ---- arrays ----


def test_large_array_is_mapped_read_only_and_once(tmp_path):
    array = np.arange(1000.0)
    told = Parallel(n_jobs=2, max_nbytes=100, temp_folder=tmp_path, batch_size=1)(
        delayed(about)(array) for _ in range(8)
    )
    names = {name for _, _, name in told}
    assert len(names) == 1 and names.pop().startswith(str(tmp_path))
    assert {(kind, writeable) for kind, writeable, _ in told} == {("memmap", False)}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode, writeable", [("r", False), ("r+", True), ("w+", True), ("c", True)])
def test_mmap_modes(mode, writeable):
    array = np.arange(1000.0)
    (told,) = Parallel(n_jobs=2, max_nbytes=100, mmap_mode=mode)(delayed(about)(array) for _ in range(1))
    assert told[:2] == ("memmap", writeable)
    assert Parallel(n_jobs=2, max_nbytes=100, mmap_mode=mode)(delayed(first_of)(array + n) for n in range(4)) == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("options", [{"max_nbytes": None}, {"max_nbytes": 0, "mmap_mode": None}])
def test_arrays_are_copied_on_request(options):
    array = np.arange(100000.0)
    (told,) = Parallel(n_jobs=2, **options)(delayed(about)(array) for _ in range(1))
    assert told == ("ndarray", True, None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(24.0).reshape(4, 6),
        lambda: np.asfortranarray(np.arange(24.0).reshape(4, 6)),
        lambda: np.arange(24.0).reshape(4, 6)[::2, ::-1],
        lambda: np.arange(24, dtype=">i4"),
        lambda: np.arange(24).astype("M8[s]"),
        lambda: np.array([(1, 2.0)] * 5, dtype=[("a", "i4"), ("b", "f8")]),
        lambda: np.array([None, "text"] * 5),
        lambda: np.zeros((0, 4)),
        lambda: np.array(3.0),
    ],
)
def test_arrays_of_all_kinds(make):
    array = make()
    (got,) = Parallel(n_jobs=2, max_nbytes=0)(delayed(lambda array: array)(array) for _ in range(1))
    assert type(got) is np.ndarray and got.dtype == array.dtype and got.shape == array.shape
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("part", [np.s_[:], np.s_[10:20], np.s_[::-3], np.s_[5:50:7]])
def test_mapped_files_go_by_name(tmp_path, part):
    mapped = np.memmap(tmp_path / "numbers", dtype=float, mode="w+", shape=100, offset=16)
    mapped[:] = range(100)
    chosen = mapped[part]
    Parallel(n_jobs=2)(delayed(fill)(chosen, 7) for _ in range(1))
    expected = np.arange(100.0)
    expected[part] = 7
    np.testing.assert_array_equal(mapped, expected)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "numbers", dtype=float, offset=16), expected)


def test_two_dimensional_parts_of_mapped_files(tmp_path):
    mapped = np.memmap(tmp_path / "numbers", dtype=float, mode="w+", shape=(10, 10), order="F")
    mapped[:] = np.arange(100).reshape(10, 10)
    for chosen in (mapped, mapped.T, mapped[2:5, 3:7], mapped[::-2, ::3], np.asarray(mapped)[:, 4]):
        (got,) = Parallel(n_jobs=2)(delayed(np.array)(chosen) for _ in range(1))
        np.testing.assert_array_equal(got, chosen)


def test_mapped_file_in_a_result(tmp_path):
    def open_file():
        return np.memmap(tmp_path / "numbers", dtype=float, mode="r")

    np.arange(10.0).tofile(tmp_path / "numbers")
    (got,) = Parallel(n_jobs=2)(delayed(open_file)() for _ in range(1))
    assert isinstance(got, np.memmap) and got.filename == str(tmp_path / "numbers")


def test_arrays_inside_objects_and_in_closures():
    array = np.arange(1000.0)
    holder = {"deep": [array]}
    assert Parallel(n_jobs=2, max_nbytes=100)(delayed(lambda: about(array)[0])() for _ in range(1)) == ["memmap"]
    told = Parallel(n_jobs=2, max_nbytes=100)(delayed(lambda held: about(held["deep"][0])[0])(holder) for _ in range(1))
    assert told == ["memmap"]


def test_call_sees_changes_of_an_array_since_the_last_call():
    array = np.zeros(1000)
    with Parallel(n_jobs=2, max_nbytes=100) as parallel:
        for number in range(3):
            array[:] = number
            assert parallel(delayed(first_of)(array) for _ in range(2)) == [number] * 2


def test_files_of_arrays_that_are_gone_are_removed_during_the_call(tmp_path):
    most = []

    def numbers():
        for number in range(40):
            most.append(len(list(tmp_path.glob("*/*"))))
            yield delayed(first_of)(np.full(1000, number))

    results = Parallel(n_jobs=2, max_nbytes=100, temp_folder=tmp_path, batch_size=1, pre_dispatch=2)(numbers())
    assert results == list(range(40))
    # The owner's file, and those of the open tasks; joblib reads some items ahead.
    assert max(most) < 12


@pytest.mark.parametrize("how", ["error", "dead"])
def test_failed_call_leaves_no_files(tmp_path, how):
    array = np.zeros(1000)
    function = divide if how == "error" else os._exit
    with pytest.raises((ZeroDivisionError, maniple.WorkerLostError)):
        Parallel(n_jobs=2, max_nbytes=100, temp_folder=tmp_path)(
            [delayed(first_of)(array), delayed(function)(0), delayed(first_of)(array)]
        )
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal
import numpy as np
import maniple.joblib
from joblib import Parallel, delayed
maniple.joblib.register()
parallel = Parallel(n_jobs=2, backend="maniple", max_nbytes=100, temp_folder="PATH").__enter__()
parallel(delayed(len)(np.zeros(1000)) for _ in range(2))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_next_program_removes_the_files_of_a_killed_one(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED.replace("PATH", str(tmp_path))], timeout=80)
    (left,) = tmp_path.iterdir()
    with Parallel(n_jobs=2, max_nbytes=100, temp_folder=tmp_path) as parallel:
        parallel(delayed(len)(np.zeros(1000)) for _ in range(2))
        (mine,) = tmp_path.iterdir()
        assert mine != left
        # A folder whose owner runs stays.
        program = KILLED.replace("PATH", str(tmp_path)).replace("os.kill(os.getpid(), signal.SIGKILL)", "")
        subprocess.run([sys.executable, "-c", program], timeout=80, check=True)
        assert mine.exists()
        assert parallel(delayed(first_of)(np.ones(1000)) for _ in range(2)) == [1, 1]


def test_array_goes_with_its_task_if_the_folder_is_full():
    program = (
        "import resource, signal, numpy as np, maniple.joblib; from joblib import Parallel, delayed;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "maniple.joblib.register(); Parallel(n_jobs=2, backend='maniple')(delayed(abs)(n) for n in range(4));"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "print(Parallel(n_jobs=2, backend='maniple', max_nbytes=100)(delayed(np.sum)(np.ones(1000)) for n in range(2)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=80)
    assert "1000.0" in done.stdout, done.stderr


# ---- scikit-learn ----


def test_grid_search():
    pytest.importorskip("sklearn")
    from sklearn.datasets import make_classification
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    data, labels = make_classification(300, 5, random_state=0)
    scores = []
    for n_jobs in (1, 2):
        search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0, 10.0]}, n_jobs=n_jobs, cv=3)
        search.fit(data, labels)
        scores.append(list(search.cv_results_["mean_test_score"]))
    assert scores[0] == scores[1]


def test_joblibs_own_tests_have_the_same_names_in_its_backends_place():
    # `make peers` compares the outcomes of tests by their names.
    tests = Path(joblib.__file__).parent / "test" / "test_parallel.py"
    backend = Path(__file__).parents[2] / "scripts" / "peers" / "backend"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", str(tests)]
    command += ["-c", str(backend.parent / "inside" / "peers.ini"), "--rootdir", str(tests.parent)]
    names = []
    for first in ([], [str(backend)]):
        path = os.pathsep.join([*first, *filter(None, [os.environ.get("PYTHONPATH")])])
        told = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=100
        )
        names.append(sorted(line for line in told.stdout.splitlines() if "::" in line))
    assert names[0] and names[0] == names[1]
