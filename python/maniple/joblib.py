"""joblib's parallel loops on maniple's workers.

    import joblib, maniple.joblib

    maniple.joblib.register()
    with joblib.parallel_config(backend="maniple"):
        results = joblib.Parallel(n_jobs=4)(joblib.delayed(work)(job) for job in jobs)

The module needs joblib 1.4 or newer, and imports it in the call of `register`.
"""

from __future__ import annotations

from ._impl.compat import public_module

__all__ = ["register", "shutdown"]


def register(make_default: bool = False) -> None:
    """Register the joblib backend "maniple" in this process.

    `joblib.Parallel` then accepts ``backend="maniple"`` and all its other arguments. The calls of a process share one pool of
    workers. If a worker dies, its task raises `WorkerLostError`, and the next call finds the pool complete.

    Args:
        make_default: whether `joblib.Parallel` uses the backend when neither the call nor `joblib.parallel_config` names one.

    Raises:
        ImportError: joblib is not installed.

    `joblib.Parallel` and `joblib.parallel_config` accept these further arguments with this backend:

    - `inner_max_num_threads` (of `parallel_config`): the number of threads that BLAS and OpenMP use in each worker. The default shares
      the processors among the workers;
    - `start_method`: "forkserver", "spawn" or "fork". The default is a method whose workers do not load the program's main module,
      so the program needs no ``if __name__ == "__main__"``;
    - `idle_worker_timeout`: the time in seconds after which unused workers end; 300 by default;
    - `initializer`, `initargs`: a function that each worker calls once, and its arguments;
    - `task_timeout`, `soft_timeout`, `retries`, `priority`: options of a pool's tasks, as `maniple.pool.Pool` describes them. A task is a
      batch of calls, as joblib makes them: a limit counts for the calls of a batch together, and all of them are tried again.
      With ``batch_size=1`` each call is a batch. What the first batch of a new worker imports counts, too; an `initializer` imports it before. With
      ``n_jobs=1`` the calls run in this thread, without these options;
    - `memory_limit`, `memory_limit_strict`, `max_rss_per_worker`, `max_tasks_per_child`: options of a pool's workers. A call with other
      options than the one before gets new workers.

    Other options of pools are refused.

    Example::

        maniple.joblib.register()
        search = GridSearchCV(model, grid, n_jobs=4)
        with joblib.parallel_config(backend="maniple"):
            search.fit(X, y)
    """
    from ._impl.joblib import backend

    backend.register(make_default)


def shutdown() -> None:
    """End the workers of the backend, and wait for them; calls that run keep theirs. The next call starts new workers.

    A program needs no call of it: unused workers end after `idle_worker_timeout`, and all workers end with the program.
    """
    from ._impl.joblib import pool

    pool.shutdown()


public_module.finish(globals())
