"""The projects whose tests are run on maniple: their versions, what their tests need, how they are run.

To add one: name the project as pip does, say where its tests are (`place`), and run ``make peers PEERS_ONLY=name``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# What each environment has beside the peer.
COMMON = ("cloudpickle==3.1.2", "pytest==9.2.0")


@dataclass(frozen=True)
class Peer:
    # As pip knows the project, and the version that is run.
    project: str
    version: str
    # What is run, in a few words.
    what: str
    # What the tests need beside the project.
    wants: tuple[str, ...] = ()
    # Where the tests are: "installed" with the package, in its "source" package, in a "checkout" of its repository, or
    # "programs" of our own in scripts/peers/programs.
    place: str = "installed"
    # Of a source package or a repository: what is taken.
    bring: tuple[str, ...] = ("tests",)
    # The import package, where it is called otherwise than the project.
    package: str = ""
    # The version whose tests are run, where that is another one.
    tests_version: str = ""
    repository: str = ""
    tag: str = ""
    # "pytest"; "scripts": each file is one test; "unittest": a runner of the peer's own that prints as unittest -v does.
    runner: str = "pytest"
    # Files or ids (patterns for "scripts"), and more arguments for the runner.
    tests: tuple[str, ...] = ("tests",)
    arguments: tuple[str, ...] = ()
    # Where in the folder of the tests they are run.
    inside: str = "."
    environ: dict[str, str] = field(default_factory=dict, hash=False)
    # Tests that are not run, and why.
    left_out: dict[str, str] = field(default_factory=dict, hash=False)
    # The tests start programs of their own by the interpreter's name: each of those is to run on maniple, too.
    everywhere: bool = False
    # The tests run on joblib's backend "loky", and then on maniple's in its place (`backend/`), without `python -m maniple`.
    backend: bool = False
    # Another name than the project's, for another part of its tests.
    label: str = ""
    # Seconds for one test, and for all.
    limit: int = 150
    whole: int = 3000

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.project)


# The suites that are compared with the standard package and must lose nothing.
JOBLIB = {
    "place": "installed",
    "tests": ("joblib/test",),
    "limit": 100,
    "wants": ("numpy==2.4.6", "psutil==7.2.2", "threadpoolctl==3.6.0", "lz4==4.4.5", "pytest-asyncio==1.5.0"),
}
_PARALLEL = "joblib/test/test_parallel.py::"
LEFT_OUT_OF_JOBLIB_BACKEND = {
    f"{_PARALLEL}test_nested_parallel_warnings[loky-multiprocessing-True]": (
        "demands that joblib's backend multiprocessing refuses a worker of loky's; it works in one of maniple's"
    ),
    **dict.fromkeys(
        (
            f"{_PARALLEL}test_backend_context_manager[parallel_backend-loky]",
            f"{_PARALLEL}test_backend_context_manager[parallel_config-loky]",
            f"{_PARALLEL}test_backend_hinting_and_constraints[parallel_config]",
            f"{_PARALLEL}test_backend_hinting_and_constraints[parallel_backend]",
            f"{_PARALLEL}test_nested_parallelism_limit[parallel_config-loky]",
            f"{_PARALLEL}test_nested_parallelism_limit[parallel_backend-loky]",
        ),
        "demands the class LokyBackend, or its name",
    ),
    f"{_PARALLEL}test_parallel_with_interactively_defined_bound_method_loky": (
        "demands loky's name of a worker process in the log"
    ),
    **{
        f"{_PARALLEL}test_multiple_generator_call_separated_gc[{first}-{second}-loky-True]": (
            "demands an error, because loky ends its workers under another call; maniple's call succeeds"
        )
        for first in ("generator", "generator_unordered")
        for second in ("generator", "generator_unordered")
    },
    "joblib/test/test_memmapping.py::test_child_raises_parent_exits_cleanly[loky]": (
        "reads a private attribute of loky's executor; tests/python/test_joblib.py has the same test"
    ),
}
LEFT_OUT_OF_FLAKE8 = dict.fromkeys(
    (
        "tests/unit/test_checker_manager.py::test_oserrors_cause_serial_fall_back",
        "tests/unit/test_checker_manager.py::test_oserrors_are_reraised",
    ),
    "mocks SemLock of the standard package's C module, which maniple does not use",
)

PEERS = (
    Peer("joblib", "1.5.3", "the whole suite, with backends loky and multiprocessing", **JOBLIB),
    Peer("joblib", "1.6.0", "the whole suite, with backends loky and multiprocessing", **JOBLIB),
    Peer(
        "joblib",
        "1.6.0",
        "the tests of its backends, on loky and then on maniple in its place",
        **{**JOBLIB, "tests": ("joblib/test/test_parallel.py", "joblib/test/test_memmapping.py")},
        label="joblib-backend",
        backend=True,
        left_out=LEFT_OUT_OF_JOBLIB_BACKEND,
    ),
    Peer(
        "loky",
        "3.7.0",
        "the whole suite, less the tests that need much memory",
        place="source",
        wants=("psutil==7.2.2", "packaging==26.3", "numpy==2.4.6"),
        arguments=("--skip-high-memory", "--loky-verbosity=30"),
        limit=100,
    ),
    Peer(
        "viztracer",
        "1.1.1",
        "the tests of multiprocessing, in which each program runs on maniple",
        place="checkout",
        repository="https://github.com/gaogaotiantian/viztracer",
        tests=("tests/test_multiprocess.py", "tests/test_patch.py"),
        everywhere=True,
    ),
    Peer(
        "parmap",
        "1.7.0",
        "the whole suite",
        place="checkout",
        bring=("test_parmap.py",),
        repository="https://github.com/zeehio/parmap",
        tag="v1.7.0",
        tests=("test_parmap.py",),
        wants=("tqdm==4.70.1",),
    ),
    Peer(
        "pathos",
        "0.3.5",
        "its test scripts",
        runner="scripts",
        tests=("pathos/tests/test_*.py",),
    ),
    Peer(
        "pathos",
        "0.3.5",
        "its test scripts, with maniple also in the place of multiprocess, the copy of the standard package that it uses",
        label="pathos-multiprocess",
        runner="scripts",
        tests=("pathos/tests/test_*.py",),
        everywhere=True,
        environ={"MANIPLE_PEERS_ALSO": "multiprocess"},
    ),
    Peer(
        "sanic",
        "25.12.1",
        "the tests of workers",
        place="source",
        tests=("tests/worker",),
        wants=("sanic-testing==24.6.0", "pytest-asyncio", "beautifulsoup4", "chardet==3.0.4", "uvicorn==0.54.0"),
    ),
    Peer(
        "uvicorn",
        "0.54.0",
        "the tests of supervisors and subprocesses",
        place="source",
        tests=("tests/supervisors", "tests/test_subprocess.py", "tests/test_main.py", "tests/test_cli.py"),
        wants=(
            "uvicorn[standard]==0.54.0",
            "trustme==1.2.1",
            "cryptography",
            "httpx",
            "httpx2",
            "pytest-mock==3.15.1",
            "a2wsgi==1.10.10",
            "wsproto==1.3.2",
        ),
    ),
    Peer(
        "flake8",
        "7.3.0",
        "the whole suite, less two tests",
        place="checkout",
        repository="https://github.com/PyCQA/flake8",
        left_out=LEFT_OUT_OF_FLAKE8,
    ),
    *(
        Peer(
            "pebble",
            "5.2.3",
            f"the tests with start method {method}",
            label=f"pebble-{method}",
            place="source",
            bring=("test",),
            tests=tuple(f"test/test_{kind}_{method}.py" for kind in ("concurrent_process", "process_pool")),
            left_out=dict.fromkeys(
                (
                    f"test/test_process_pool_{method}.py::TestProcessPoolDeadlockOnNewFutures::test_pool_deadlock_stop",
                    f"test/test_process_pool_{method}.py::TestProcessPoolDeadlockOnResult::test_pool_deadlock",
                ),
                "a worker that died with the pool's lock breaks the pool: here the next one gets the lock, and it works on",
            ),
        )
        for method in ("fork", "spawn", "forkserver")
    ),
    Peer(
        "mpire",
        "2.10.2",
        "the whole suite",
        place="checkout",
        repository="https://github.com/sybrenjansen/mpire",
        tag="v2.10.2",
        wants=("mpire[dill]==2.10.2", "numpy==2.4.6", "ipywidgets"),
    ),
    Peer(
        "gymnasium",
        "1.3.0",
        "the tests of environments that run in processes",
        place="checkout",
        repository="https://github.com/Farama-Foundation/Gymnasium",
        tag="v1.3.0",
        tests=("tests/vector/test_async_vector_env.py", "tests/vector/utils", "tests/vector/test_vector_env.py"),
        wants=("dill", "scipy==1.17.1", "array_api_extra", "array_api_compat"),
    ),
    Peer(
        "luigi",
        "3.8.1",
        "the tests of workers",
        place="source",
        bring=("test",),
        tests=tuple(
            f"test/{name}_test.py"
            for name in (
                "worker",
                "worker_multiprocess",
                "worker_parallel_scheduling",
                "worker_task",
                "worker_task_process",
                "scheduler_message",
                "task_running_resources",
            )
        ),
        wants=("mock", "psutil==7.2.2", "hypothesis", "requests"),
        left_out={
            "test/worker_task_process_test.py::ContextManagedTaskProcessTest::test_context_manager_with_multiprocessing": (
                "counts on a queue's feeder thread: a child puts its result, then sets an event, and its parent, which looks "
                "at the event when it has the result, is to find it set. Here the parent may have the result first"
            )
        },
    ),
    Peer(
        "django",
        "5.2.19",
        "its test runner with two processes, on some of its tests",
        place="source",
        inside="tests",
        runner="unittest",
        arguments=("runtests.py", "--parallel=2", "-v2", "--noinput"),
        tests=("basic", "test_runner", "transactions", "test_utils", "validators", "queries"),
    ),
    Peer(
        "dask",
        "2026.8.0",
        "the tests of the scheduler that uses processes",
        tests=("dask/tests/test_multiprocessing.py", "dask/tests/test_base.py", "dask/bag/tests/test_bag.py"),
        wants=("dask[array]==2026.8.0", "pandas", "pyarrow", "pytest-mock==3.15.1"),
    ),
    Peer(
        "datasets",
        "5.0.1",
        "the tests that use processes",
        place="checkout",
        repository="https://github.com/huggingface/datasets",
        tests=("tests/test_arrow_dataset.py", "tests/test_py_utils.py", "tests/test_parallel.py"),
        arguments=("-k", "multiproc or num_proc or parallel or proc or pool"),
        wants=("psutil==7.2.2", "absl-py", "decorator"),
        limit=300,
    ),
    Peer(
        "scikit-learn",
        "1.9.1",
        "tests with n_jobs, over joblib",
        package="sklearn",
        tests=(
            "sklearn/utils/tests/test_parallel.py",
            "sklearn/model_selection/tests/test_search.py",
            "sklearn/ensemble/tests/test_voting.py",
            "sklearn/cluster/tests/test_k_means.py",
            "sklearn/decomposition/tests/test_dict_learning.py",
        ),
        arguments=("-k", "parallel or n_jobs or backend or search"),
        wants=("joblib==1.6.0", "pandas"),
    ),
    Peer(
        "tqdm",
        "4.70.1",
        "the tests of tqdm.contrib.concurrent and of its locks",
        place="source",
        tests=("tests/tests_concurrent.py", "tests/tests_synchronisation.py", "tests/tests_rlock.py"),
        wants=("pytest-asyncio",),
    ),
    Peer(
        "coverage",
        "7.17.5",
        "the tests of concurrency, in which each program runs on maniple",
        place="source",
        tests=("tests/test_concurrency.py",),
        arguments=("-o", "python_classes=*Test"),
        wants=("hypothesis", "flaky", "pytest-xdist==3.8.0", "psutil==7.2.2"),
        everywhere=True,
    ),
    Peer(
        "multiprocessing-logging",
        "0.4.0",
        "the whole suite",
        place="source",
    ),
    Peer(
        "aiomultiprocess",
        "0.9.1",
        "the whole suite",
        tests=tuple(f"aiomultiprocess/tests/{name}.py" for name in ("core", "pool", "scheduler")),
        left_out={
            "aiomultiprocess/tests/core.py::CoreTest::test_spawn_method": (
                "wants an error for a function that cannot be found by name: with cloudpickle installed it goes by value"
            )
        },
    ),
    Peer(
        "aioprocessing",
        "2.0.1",
        "the whole suite",
        place="source",
        tests_version="2.0.0",
        tests=tuple(
            f"tests/{name}.py"
            for name in ("connection_tests", "lock_tests", "pickle_test", "pool_test", "process_test", "queue_test")
        ),
    ),
    Peer(
        "torch", "2.15.0", "programs of our own", place="programs", runner="scripts", tests=("torch_*.py",), limit=300
    ),
    *(
        Peer(
            project,
            version,
            "a program of our own",
            label=f"{project}-program",
            place="programs",
            runner="scripts",
            tests=(f"{program}.py",),
            wants=wants,
        )
        for project, version, program, wants in (
            ("uvicorn", "0.54.0", "uvicorn_workers", ()),
            ("fastcore", "2.2.41", "fastcore_parallel", ()),
            ("joblib", "1.5.3", "joblib_memmaps", ("numpy==2.4.6",)),
            ("joblib", "1.6.0", "joblib_memmaps", ("numpy==2.4.6",)),
        )
    ),
)
