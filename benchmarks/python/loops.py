"""Cases of `joblib.Parallel`, on the backend that each library has; the standard package's is joblib's own "multiprocessing"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tasks
from stage import LARGE, MIDDLE, Stage, doubled, expect


def _loop(stage: Stage, **options: Any) -> Callable[..., list[Any]]:
    """Return ``Parallel(...)`` as a function of a function and its items; its workers are up."""
    from joblib import Parallel, delayed

    parallel = Parallel(n_jobs=stage.setting.workers, backend=stage.library.parallel(), **options)

    def loop(function: Any, items: Any) -> list[Any]:
        results: list[Any] = parallel(delayed(function)(item) for item in items)
        return results

    expect(loop(tasks.double, range(64)), doubled(64))
    return loop


def small(batch_size: Any) -> Callable[[Stage], None]:
    def run(stage: Stage) -> None:
        count = stage.setting.items // 4
        loop = _loop(stage, batch_size=batch_size)
        expect(stage.timed(lambda: loop(tasks.double, range(count)), count), doubled(count))

    return run


def one_call(stage: Stage) -> None:
    loop = _loop(stage)
    for _ in range(10 * stage.setting.repeats):
        expect(stage.timed(lambda: loop(tasks.double, range(2))), doubled(2))


def one_array(stage: Stage) -> None:
    array = tasks.ready_array(LARGE)
    loop = _loop(stage)
    for _ in range(stage.setting.repeats):
        expect(stage.timed(lambda: loop(tasks.ends, [array] * 16)), [tasks.ends(array)] * 16)


def many_arrays(stage: Stage) -> None:
    base = tasks.ready_array(MIDDLE)
    arrays = [base + number for number in range(16)]
    loop = _loop(stage)
    for _ in range(stage.setting.repeats):
        expect(stage.timed(lambda: loop(tasks.ends, arrays)), [tasks.ends(array) for array in arrays])


def grid_search(stage: Stage) -> None:
    from joblib import parallel_config
    from sklearn.datasets import make_classification
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    data, labels = make_classification(2000, 20, random_state=0)
    search = GridSearchCV(LogisticRegression(), {"C": [0.01, 0.1, 1.0, 10.0]}, n_jobs=stage.setting.workers, cv=5)
    backend = stage.library.parallel()

    def fit() -> float:
        with parallel_config(backend=backend):
            return float(search.fit(data, labels).best_score_)

    wanted = fit()
    for _ in range(stage.setting.repeats):
        expect(stage.timed(fit), wanted)


# key, title, unit, function, floor
CASES: tuple[tuple[str, str, str, Callable[[Stage], None], float | None], ...] = (
    ("joblib-auto", "joblib: small calls, batch_size='auto'", "rate", small("auto"), 1),
    ("joblib-1", "joblib: small calls, batch_size=1", "rate", small(1), 1),
    ("joblib-call", "joblib: one Parallel of two small calls", "ms", one_call, 3),
    ("joblib-array", "joblib: the same 64 MB array, 16 calls", "ms", one_array, 1),
    ("joblib-arrays", "joblib: 16 arrays of 8 MB", "ms", many_arrays, 1),
    ("joblib-grid", "scikit-learn: GridSearchCV, 20 fits", "ms", grid_search, 1),
)
