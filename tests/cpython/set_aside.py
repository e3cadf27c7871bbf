"""The tests of CPython's executors that do not apply to `maniple.ProcessPoolExecutor`, and why.

`run.py --suites ex --set-aside` runs them, too.
"""

from __future__ import annotations

import re

_BROKEN = "demands BrokenProcessPool: here only the dead worker's own task fails, with WorkerLostError, and the executor goes on"
_OWN = (
    "demands BrokenProcessPool: here the task fails with the exception that unpickling raised, and the executor goes on"
)
_START = "demands BrokenExecutor: here each task fails with WorkerLostError, whose cause is the initializer's exception"
_THREAD = "reads the private queue _call_queue"
_DROPPED = "demands BrokenProcessPool for the calls of an executor that was collected: here workers are replaced, and all calls run"
_PATCHED = "replaces private parts of the standard executor, and demands BrokenProcessPool"
_FORCE = "reads or replaces the standard executor's private method _force_shutdown"
_COUNT = (
    "counts the processes after submitting tasks that cannot be pickled: here only a task that waits starts a worker"
)

# What fits a test's `Class.method` -> the reason.
SET_ASIDE: dict[str, str] = {
    r"ProcessPoolExecutorTest\.test_killed_child$": _BROKEN,
    r"ProcessPoolExecutorTest\.test_broken_process_pool_traceback$": _BROKEN,
    r"ProcessPoolExecutorTest\.test_traceback_when_child_process_terminates_abruptly$": _BROKEN,
    r"ProcessPoolExecutorTest\.test_force_shutdown_workers_dead_workers": _BROKEN,
    r"ProcessPoolExecutorTest\.test_force_shutdown_workers_invalid_op$": _FORCE,
    r"ProcessPoolExecutorTest\.test_(kill|terminate)_workers$": _FORCE,
    r"ProcessPoolExecutorTest\.test_(shutdown_no_wait_max_tasks|gc_during_max_tasks_worker_exit)": _DROPPED,
    r"ProcessPoolExecutorTest\.test_(force_shutdown_during_max_tasks|failed_worker_replacement)": _PATCHED,
    r"DeadlockTest\.test_crash_(at|during|big)_": _BROKEN,
    r"DeadlockTest\.test_shutdown_deadlock$": _BROKEN,
    r"ProcessPoolExecutorTest\.test_python_finalization_error$": "demands BrokenProcessPool if the second thread cannot start: here there is one",
    r"DeadlockTest\.test_(exit|error)_at_task_unpickle$": _OWN,
    r"DeadlockTest\.test_(exit|error)_during_result_unpickle_in_result_handler$": _OWN,
    r"FailingInitializerTest\.test_initializer$": _START,
    r"ProcessPoolShutdownTest\.test_(del_shutdown|shutdown_no_wait)$": _THREAD,
    r"(Spawn|Forkserver)ProcessPoolExecutorTest\.test_saturation$": _COUNT,
    r"(Spawn|Forkserver)ProcessPoolShutdownTest\.test_processes_terminate$": _COUNT,
    r"ProcessPoolExecutorTest\.test_traceback$": "demands the private class _RemoteTraceback as the cause: here it is RemoteTraceback",
}


def why_set_aside(test: str) -> str | None:
    """The reason why a test of the suite `ex` is not run; None if it is run."""
    name = test.partition("::")[2]
    return next((why for pattern, why in SET_ASIDE.items() if re.search(pattern, name)), None)
