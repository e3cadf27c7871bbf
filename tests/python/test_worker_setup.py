"""The options that shape a pool's workers: variables, directory, threads, processors, accelerators, finalizer, seed; their numbers and state."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import psutil
import pytest
import surroundings
from pools import METHODS, identity, pid, square

NewPool = Callable[..., Any]

every_method = pytest.mark.parametrize("kind", METHODS, indirect=True)
quick = pytest.mark.parametrize("kind", ["fork"], indirect=True)
threads = pytest.mark.parametrize("kind", ["thread"], indirect=True)

PROGRAMS = Path(__file__).resolve().parent / "programs"
ALLOWED = sorted(os.sched_getaffinity(0))
MANY = 40


def wait_until(condition: Callable[[], bool], patience: float = 20.0) -> bool:
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# -- environment and directory


@every_method
def test_env_adds_and_removes_variables(new_pool: NewPool) -> None:
    names = ("SETUP_NEW", "HOME", "PATH", "SETUP_NEVER")
    _, home, path, _ = surroundings.variables(*names)
    assert home and path
    # The fork server may have been started before this test, so the variables are those of the whole run.
    pool = new_pool(2, env={"SETUP_NEW": "a=b ü", "HOME": None, "SETUP_NEVER": None})
    assert pool.starmap(surroundings.variables, [names] * 8) == [("a=b ü", None, path, None)] * 8
    assert surroundings.variables(*names) == (None, home, path, None)


@every_method
def test_a_replacing_worker_has_the_variables_too(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(1, env={"SETUP_NEW": "x"})
    with pytest.raises(mp.WorkerLostError):
        pool.apply(os._exit, (1,))
    assert pool.apply(surroundings.variables, ("SETUP_NEW",)) == ("x",)


@every_method
def test_cwd_is_the_directory_of_initializer_and_tasks(new_pool: NewPool, tmp_path: Path) -> None:
    here = os.getcwd()
    pool = new_pool(1, cwd=tmp_path, initializer=open, initargs=("made by the initializer", "x"))
    assert pool.apply(surroundings.directory) == str(tmp_path)
    assert (tmp_path / "made by the initializer").exists()
    assert os.getcwd() == here


@every_method
def test_a_relative_cwd_and_relative_search_paths_mean_what_they_mean_here(
    new_pool: NewPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "library" / "setup_neighbour.py").write_text("CONTENT = 'found'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("library")
    pool = new_pool(1, cwd="work")
    assert pool.apply(surroundings.directory) == str(tmp_path / "work")
    assert pool.apply(surroundings.content_of, ("setup_neighbour",)) == "found"


@pytest.mark.parametrize("method", METHODS)
def test_a_process_has_env_and_cwd(
    mp: ModuleType, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETUP_GONE", "1")
    context = mp.get_context(method)
    queue = context.SimpleQueue()
    names = ("SETUP_NEW", "SETUP_GONE")
    child = context.Process(
        target=surroundings.tell, args=(queue, *names), env={"SETUP_NEW": "y", "SETUP_GONE": None}, cwd=tmp_path
    )
    child.start()
    assert queue.get() == (str(tmp_path), ("y", None))
    child.join()
    assert child.exitcode == 0
    child.close()
    queue.close()


def test_a_spawned_process_has_its_variables_from_its_first_instruction(mp: ModuleType) -> None:
    context = mp.get_context("spawn")
    child = context.Process(target=time.sleep, args=(60,), env={"SETUP_NEW": "first", "SETUP_MORE": None})
    child.start()
    try:
        assert wait_until(lambda: psutil.Process(child.pid).environ().get("SETUP_NEW") == "first")
    finally:
        child.kill()
        child.join()
        child.close()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_variables_are_set_before_the_main_module_is_loaded(method: str, tmp_path: Path) -> None:
    program = PROGRAMS / "variables_at_import.py"
    done = subprocess.run(
        [sys.executable, program, method], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["2", "yes", str(tmp_path), str(tmp_path.parent)], "")


# -- threads


@every_method
def test_threads_per_worker_sets_the_variables(new_pool: NewPool) -> None:
    pool = new_pool(1, threads_per_worker=3)
    expected = ("3",) * len(surroundings.THREAD_VARIABLES)
    assert pool.apply(surroundings.variables, surroundings.THREAD_VARIABLES) == expected
    assert pool.apply(pid) != os.getpid()


@quick
def test_env_takes_precedence_over_threads_per_worker(new_pool: NewPool) -> None:
    pool = new_pool(1, threads_per_worker=3, env={"OMP_NUM_THREADS": "5"})
    assert pool.apply(surroundings.variables, ("OMP_NUM_THREADS", "MKL_NUM_THREADS")) == ("5", "3")


@quick
def test_libraries_that_a_fork_has_copied_are_limited_by_threadpoolctl(
    new_pool: NewPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test replaces threadpoolctl, which need not be installed; the forked worker has the replacement, too."""
    fake = ModuleType("threadpoolctl")
    told: list[int] = []
    fake.threadpool_limits = told.append  # type: ignore[attr-defined]
    fake.told = lambda: list(told)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "threadpoolctl", fake)
    pool = new_pool(1, threads_per_worker=2)
    assert pool.apply(lambda: sys.modules["threadpoolctl"].told()) == [2]  # type: ignore[attr-defined]
    assert told == []


@quick
def test_no_threadpoolctl_is_no_error(new_pool: NewPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # the import fails
    assert new_pool(1, threads_per_worker=2).apply(square, (3,)) == 9


# -- processors


@every_method
def test_affinity_spread_shares_the_processors_out(new_pool: NewPool) -> None:
    pool = new_pool(len(ALLOWED), affinity="spread")
    places = dict(pool.map(surroundings.place_and_processors, range(MANY), chunksize=1))
    assert places and all(cpus == (ALLOWED[number],) for number, cpus in places.items())
    assert sorted(os.sched_getaffinity(0)) == ALLOWED


def test_spread_gives_each_processor_to_one_worker() -> None:
    from maniple._impl.pool.options import setup_of

    setup = setup_of(env=None, cwd=None, threads_per_worker=None, affinity="spread", accelerators=None, finalizer=None)
    assert setup is not None
    for processors in (1, 2, 5, 8, 13):
        setup._cpus = [list(range(10, 10 + processors))]
        for workers in range(1, 20):
            shares = [setup._cpus_of(number, workers) or [] for number in range(workers)]
            assert all(shares), "each worker has a processor"
            assert {cpu for share in shares for cpu in share} == set(range(10, 10 + processors))
            if workers <= processors:
                sizes = [len(share) for share in shares]
                assert sum(sizes) == processors and max(sizes) - min(sizes) <= 1


@every_method
def test_affinity_sets_go_to_the_workers_in_turn(new_pool: NewPool) -> None:
    sets = [{ALLOWED[0]}, set(ALLOWED)]
    pool = new_pool(3, affinity=sets)
    places = dict(pool.map(surroundings.place_and_processors, range(MANY), chunksize=1))
    assert all(cpus == tuple(sorted(sets[number % 2])) for number, cpus in places.items())


# -- accelerators


@every_method
def test_each_worker_has_its_accelerator(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(2, accelerators=["7", "GPU-abc"])
    seen = {
        (number, told) for number, _, told in pool.map(surroundings.place_and_accelerator, range(MANY), chunksize=1)
    }
    assert seen <= {(0, ("7", "7", "7", "1")), (1, ("GPU-abc",) * 3 + ("1",))} and seen


@quick
def test_a_pool_cannot_have_more_workers_than_accelerators_later(new_pool: NewPool) -> None:
    pool = new_pool(1, accelerators=2)
    pool.resize(2)
    with pytest.raises(ValueError, match="3 workers cannot have an accelerator each"):
        pool.resize(3)
    assert pool._processes == 2 and pool.apply(square, (3,)) == 9


@every_method
def test_a_replacing_worker_takes_over_the_accelerator_and_the_number(new_pool: NewPool, mp: ModuleType) -> None:
    pool = new_pool(2, accelerators=2)
    for _ in range(3):
        number, first, told = pool.apply(surroundings.place_and_accelerator)
        other = next(worker.pid for worker in pool._pool if worker.pid != first)
        os.kill(first, 9)
        assert wait_until(lambda: first not in [w.pid for w in pool._pool] and len(pool._pool) == 2)  # noqa: B023
        seen: dict[int, Any] = {}
        while len(seen) < 2:
            seen |= {who: (n, t) for n, who, t in pool.map(surroundings.place_and_accelerator, range(20), chunksize=1)}
        assert other in seen and first not in seen
        (replaced,) = (what for who, what in seen.items() if who != other)
        assert replaced == (number, told)


def test_the_default_number_of_workers_is_that_of_the_accelerators(mp: ModuleType) -> None:
    with mp.get_context("fork").Pool(accelerators=[0, 1, 2]) as pool:
        assert pool._processes == 3


# -- numbers and state


@every_method
def test_workers_have_numbers(new_pool: NewPool) -> None:
    pool = new_pool(3)
    numbers: dict[int, set[Any]] = {}
    while len(numbers) < 3:
        for number, count, process in pool.map(surroundings.place, range(MANY), chunksize=1):
            assert count == 3
            numbers.setdefault(process, set()).add(number)
    assert sorted(numbers.values(), key=min) == [{0}, {1}, {2}]


@every_method
def test_recycled_workers_pass_their_numbers_on(new_pool: NewPool) -> None:
    pool = new_pool(2, maxtasksperchild=3)
    seen = pool.map(surroundings.place, range(30), chunksize=1)
    assert {number for number, _, _ in seen} <= {0, 1}
    assert len({process for _, _, process in seen}) >= 5


def test_the_program_itself_is_no_worker(mp: ModuleType) -> None:
    assert mp.worker_id() is None and mp.worker_count() is None
    state = mp.worker_state()
    assert state is mp.worker_state()


@every_method
def test_a_child_of_a_worker_is_no_worker(new_pool: NewPool) -> None:
    assert new_pool(1).apply(surroundings.place_of_child) == (None, None, {})


@threads
def test_threads_have_no_number(new_pool: NewPool) -> None:
    assert new_pool(1).apply(surroundings.place)[:2] == (None, None)


@every_method
def test_each_worker_has_a_state_of_its_own(new_pool: NewPool, mp: ModuleType) -> None:
    mp.worker_state()["calls"] = 1000
    try:
        pool = new_pool(2)
        counts: dict[int, list[int]] = {}
        for process, calls in pool.map(surroundings.count_calls, range(MANY), chunksize=1):
            counts.setdefault(process, []).append(calls)
        assert all(sorted(calls) == list(range(1, len(calls) + 1)) for calls in counts.values())
        assert mp.worker_state()["calls"] == 1000
    finally:
        mp.worker_state().clear()


# -- finalizer


def files_in(folder: Path) -> dict[str, list[str]]:
    return {file.name: file.read_text().split() for file in folder.iterdir()}


@every_method
def test_the_finalizer_runs_in_each_worker_after_close(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(2, finalizer=surroundings.sign_off, finalargs=(str(tmp_path), "bye"))
    counts = pool.map(surroundings.count_calls, range(MANY), chunksize=1)
    pool.close()
    pool.join()
    told = files_in(tmp_path)
    assert sorted(number for number, *_ in told.values()) == ["0", "1"]
    assert sum(int(calls) for _, calls, _ in told.values()) == len(counts)
    assert {word for *_, word in told.values()} == {"bye"}


@every_method
def test_the_finalizer_runs_in_a_recycled_worker(new_pool: NewPool, tmp_path: Path) -> None:
    pool = new_pool(1, maxtasksperchild=2, finalizer=surroundings.sign_off, finalargs=[str(tmp_path)])
    processes = [process for process, _ in pool.map(surroundings.count_calls, range(6), chunksize=1)]
    pool.close()
    pool.join()
    assert set(map(str, processes)) <= set(files_in(tmp_path)) and len(set(processes)) == 3


@every_method
def test_the_finalizer_does_not_run_after_terminate_or_death(new_pool: NewPool, mp: ModuleType, tmp_path: Path) -> None:
    pool = new_pool(1, finalizer=surroundings.sign_off, finalargs=(str(tmp_path),))
    with pytest.raises(mp.WorkerLostError):
        pool.apply(os._exit, (1,))
    assert pool.apply(square, (2,)) == 4
    pool.terminate()
    pool.join()
    assert files_in(tmp_path) == {}


@every_method
def test_a_finalizer_that_raises_harms_no_result(new_pool: NewPool, capfd: pytest.CaptureFixture[str]) -> None:
    pool = new_pool(1, finalizer=surroundings.fail_at_end)
    assert pool.map(square, range(10)) == [number * number for number in range(10)]
    pool.close()
    assert pool.join(30)
    assert "the finalizer has failed" in capfd.readouterr().err


# -- seeds


def all_draws(pool: Any, chunksize: int | None) -> list[Any]:
    items = range(20)
    return [
        pool.map(surroundings.draw, items, chunksize=chunksize),
        pool.map(surroundings.draw_slowly, list(items), chunksize=chunksize),
        list(pool.imap(surroundings.draw, items, chunksize=chunksize or 1)),
        list(pool.imap(surroundings.draw, iter(items), chunksize=chunksize or 1)),
        pool.starmap(surroundings.draw_two, [(1, 2)] * 7, chunksize=chunksize),
        pool.apply(surroundings.draw),
        pool.apply(surroundings.draw, (1,)),
        pool.apply(surroundings.draw_two, (1,), {"two": 2}),
        pool.map(surroundings.draw, items, chunksize=chunksize, priority=3),
        sorted(pool.imap_unordered(surroundings.draw_slowly, items, chunksize=chunksize or 1)),
        pool.map_async(surroundings.draw, items, chunksize).get(),
        pool.map(surroundings.draw, [1]),
        pool.map(surroundings.draw, items, task_timeout=60, retries=1),
    ]


@every_method
def test_seeded_tasks_draw_the_same_numbers_in_any_worker_and_chunk(new_pool: NewPool) -> None:
    first = all_draws(new_pool(1, seed=2**100 + 7), None)
    for processes, chunksize in ((3, 1), (2, 7)):
        assert all_draws(new_pool(processes, seed=2**100 + 7), chunksize) == first
    flat = [draw for part in first for draw in (part if isinstance(part, list) else [part])]
    assert len(set(flat)) == len(flat), "each item has numbers of its own"
    assert all(one != two for one, two in flat), "the two modules draw different numbers"
    assert all_draws(new_pool(1, seed=8), None) != first


@every_method
def test_a_retried_task_draws_its_numbers_again(new_pool: NewPool, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    calm = new_pool(1, seed=3).apply(surroundings.draw_and_die_once, (str(tmp_path / "there"),))
    died = new_pool(1, seed=3).apply(surroundings.draw_and_die_once, (str(tmp_path / "died"),), retries=2)
    assert died == calm and (tmp_path / "died").exists()


def test_seeds_are_the_same_for_all_start_methods(mp: ModuleType) -> None:
    drawn = []
    for method in METHODS:
        with mp.get_context(method).Pool(2, seed=1) as pool:
            drawn.append(pool.map(surroundings.draw, range(5)))
    assert drawn[0] == drawn[1] == drawn[2]


@every_method
def test_each_task_has_a_seed_of_its_own(new_pool: NewPool) -> None:
    seeds = []
    for processes, chunksize in ((1, None), (3, 1), (2, 7)):
        pool = new_pool(processes, seed=5)
        seeds.append(
            [
                *pool.map(surroundings.own_seed, range(20), chunksize=chunksize),
                *pool.imap(surroundings.own_seed_slowly, range(5)),
                pool.apply(surroundings.own_seed),
            ]
        )
    assert seeds[0] == seeds[1] == seeds[2]
    assert len(set(seeds[0])) == len(seeds[0])
    assert all(0 <= seed < 2**128 for seed in seeds[0]) and max(seeds[0]) > 2**120
    assert new_pool(1, seed=6).apply(surroundings.own_seed) not in seeds[0]


@every_method
def test_all_tries_of_a_task_have_the_same_seed(new_pool: NewPool, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    calm = new_pool(1, seed=3).apply(surroundings.seed_and_die_once, (str(tmp_path / "there"),))
    assert new_pool(1, seed=3).apply(surroundings.seed_and_die_once, (str(tmp_path / "died"),), retries=2) == calm


@every_method
def test_there_is_no_task_seed_without_a_task_or_a_seed(
    new_pool: NewPool, mp: ModuleType, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    words = "no task of a pool with a seed runs in this process"
    with pytest.raises(RuntimeError, match=words):
        mp.task_seed()
    assert words in new_pool(1).apply(surroundings.refusal_of_seed)
    first, last = str(tmp_path / "first"), str(tmp_path / "last")
    of_workers = {"initializer": surroundings.write_refusal, "finalizer": surroundings.write_refusal}
    pool = new_pool(1, seed=1, initargs=(first,), finalargs=(last,), **of_workers)
    assert pool.apply(surroundings.own_seed)
    pool.close()
    pool.join()
    assert words in Path(first).read_text() and words in Path(last).read_text()


@quick
def test_seeded_calls_fail_as_others_do(new_pool: NewPool) -> None:
    pool = new_pool(2, seed=0)
    with pytest.raises(TypeError, match="'int' object is not iterable"):
        pool.starmap(pow, [(1, 2), 3], chunksize=2)
    with pytest.raises(ZeroDivisionError):
        pool.map(lambda number: 1 / number, [2, 1, 0], chunksize=3)
    assert pool.map(identity, []) == []
    assert pool.starmap(pow, [(2, 3), (3, 2)], chunksize=2) == [8, 9]


@every_method
def test_workers_do_not_share_the_random_state_of_their_parent(new_pool: NewPool) -> None:
    random.seed(1)
    numpy.random.seed(1)
    before = random.getstate(), numpy.random.get_state()[1].tolist()
    pool = new_pool(2)
    drawn: dict[int, tuple[float, float]] = {}
    while len(drawn) < 2:
        for process, numbers in pool.map(lambda _: (os.getpid(), surroundings.draw()), range(10), chunksize=1):
            drawn.setdefault(process, numbers)
    drawn[0] = surroundings.draw()
    assert len({one for one, _ in drawn.values()}) == len({two for _, two in drawn.values()}) == 3
    random.seed(1)
    numpy.random.seed(1)
    assert before == (random.getstate(), numpy.random.get_state()[1].tolist()), "the program's own state is its own"


# -- memory and the number of workers


def test_the_memory_of_the_control_group_limits_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    from maniple._impl.pool import inputs

    monkeypatch.setattr(inputs, "_processors", lambda: 8)
    for memory, limit, expected in ((None, 10, 8), (100, 10, 8), (35, 10, 3), (9, 10, 1), (35, None, 8)):
        monkeypatch.setattr(inputs, "memory_of_control_group", lambda memory=memory: memory)
        assert inputs.default_processes(limit) == expected


# -- bad input

NO_CPU = max(ALLOWED) + 1000


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"env": ["A"]}, TypeError, "env must be a dict"),
        ({"env": {1: "a"}}, TypeError, "name of a variable must be a str"),
        ({"env": {"A": 1}}, TypeError, "A must be a str, or None"),
        ({"env": {"A=B": "1"}}, ValueError, "cannot be the name"),
        ({"env": {"": "1"}}, ValueError, "cannot be the name"),
        ({"env": {"A": "a\0b"}}, ValueError, "null character"),
        ({"cwd": 5.0}, TypeError, "cwd must be the path"),
        ({"cwd": "/no/such/place"}, FileNotFoundError, "no directory '/no/such/place'"),
        ({"cwd": __file__}, NotADirectoryError, "not a directory"),
        ({"threads_per_worker": 0}, ValueError, "threads_per_worker must be 1 or more, not 0"),
        ({"threads_per_worker": 1.5}, TypeError, "threads_per_worker must be an int"),
        ({"threads_per_worker": True}, TypeError, "threads_per_worker must be an int"),
        ({"affinity": "close"}, ValueError, 'affinity must be "spread"'),
        ({"affinity": 3}, TypeError, "affinity must be"),
        ({"affinity": {0, 1}}, TypeError, "list of sets"),
        ({"affinity": []}, ValueError, "affinity is an empty list"),
        ({"affinity": [set()]}, ValueError, "at least one CPU"),
        ({"affinity": [{"0"}]}, TypeError, "number of a CPU must be an int"),
        ({"affinity": [{NO_CPU}]}, ValueError, f"may not run on CPU {NO_CPU}, only on"),
        ({"accelerators": []}, ValueError, "accelerators is an empty list"),
        ({"accelerators": 0}, ValueError, "accelerators must be a number from 1"),
        ({"accelerators": "0,1"}, TypeError, "accelerators must be their number, or a list"),
        ({"accelerators": [1.5]}, TypeError, "an identifier must be an int or a str"),
        ({"accelerators": [0]}, ValueError, "2 workers cannot have an accelerator each, because there is only 1"),
        ({"finalizer": 5}, TypeError, "finalizer must be a callable"),
        ({"seed": "abc"}, TypeError, "seed must be an int or None, not 'abc'"),
        ({"seed": 1.0}, TypeError, "seed must be an int"),
        ({"seed": True}, TypeError, "seed must be an int"),
        ({"seed": -1}, ValueError, "seed must not be negative"),
        ({"seed": 2**128}, ValueError, "at most 128 bits, not 129"),
        ({"spare_workers": 1, "affinity": "spread"}, ValueError, "spare_workers cannot be combined with affinity"),
        ({"spare_workers": 1, "accelerators": 2}, ValueError, "spare_workers cannot be combined with"),
    ],
)
def test_bad_options_are_refused(mp: ModuleType, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        mp.get_context("fork").Pool(2, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"env": {"A": 1}}, TypeError, "A must be a str, or None"),
        ({"cwd": "/no/such/place"}, FileNotFoundError, "no directory"),
    ],
)
def test_bad_options_of_a_process_are_refused(
    mp: ModuleType, options: dict[str, Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        mp.Process(target=print, **options)


@pytest.mark.parametrize(
    ("options", "instead"),
    [
        ({"env": {}}, "os.environ"),
        ({"cwd": "/"}, "absolute paths"),
        ({"threads_per_worker": 1}, "threadpoolctl"),
        ({"affinity": "spread"}, "os.sched_setaffinity"),
        ({"accelerators": 1}, "use a Pool"),
        ({"finalizer": print}, "after join"),
        ({"seed": 1}, "random.Random"),
    ],
)
def test_a_pool_of_threads_says_what_to_do_instead(
    pool_module: ModuleType, options: dict[str, Any], instead: str
) -> None:
    with pytest.raises(ValueError, match=instead):
        pool_module.ThreadPool(1, **options)


def test_a_pool_that_replaces_parts_has_no_setup(pool_module: ModuleType, mp: ModuleType) -> None:
    class Own(pool_module.Pool):  # type: ignore[misc,name-defined]
        def _repopulate_pool(self) -> None:
            super()._repopulate_pool()

    for options in ({"env": {"A": "1"}}, {"seed": 1}):
        with pytest.raises(ValueError, match="replaces parts of Pool"):
            Own(1, context=mp.get_context("fork"), **options)
