//! A pool's counters as Python objects. `python/maniple/_impl/pool/stats.py` makes its classes of them.

use crate::args::Arg;
use crate::made;
use maniple_engine::pool::{Latency, PoolStats, WorkerStats};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Sets items of a dict: the names are those of the Python classes.
macro_rules! items {
    ($dict:expr, $($name:literal: $value:expr),* $(,)?) => {{
        let dict = $dict;
        $(dict.set_item(made::text(dict.py(), $name)?, $value.object(dict.py())?)?;)*
    }};
}

/// The counters: numbers, times in seconds, a tuple for each distribution, a dict for each worker.
pub fn object<'py>(py: Python<'py>, stats: &PoolStats) -> PyResult<Bound<'py, PyDict>> {
    let workers = stats.workers.iter().map(|worker| self::worker(py, worker)).collect::<PyResult<Vec<_>>>()?;
    let slowest: Vec<_> = stats.slowest.iter().map(|slow| (slow.duration.as_secs_f64(), &*slow.function)).collect();
    let dict = made::dict(py)?;
    items!(&dict,
        "tasks_received": stats.tasks_received,
        "tasks_launched": stats.tasks_launched,
        "tasks_completed": stats.tasks_completed,
        "tasks_failed": stats.tasks_failed,
        "tasks_lost": stats.tasks_lost,
        "tasks_timed_out": stats.tasks_timed_out,
        "tasks_cancelled": stats.tasks_cancelled,
        "tasks_retried": stats.tasks_retried,
        "tasks_waiting": stats.tasks_waiting,
        "tasks_running": stats.tasks_running,
        "items_done": stats.items_done,
        "items_pending": stats.items_pending,
        "workers_alive": stats.workers_alive,
        "workers_busy": stats.workers_busy,
        "workers_idle": stats.workers_idle,
        "workers_starting": stats.workers_starting,
        "workers_created": stats.workers_created,
        "max_workers_busy_concurrently": stats.max_workers_busy_concurrently,
        "waiting": latency(&stats.waiting),
        "running": latency(&stats.running),
        "working_time": stats.working_time.as_secs_f64(),
        "waiting_time": stats.waiting_time.as_secs_f64(),
        "slowest": slowest,
        "workers": workers,
    );
    Ok(dict)
}

fn latency(of: &Latency) -> (u64, f64, f64, f64, f64, f64) {
    let [total, p50, p90, p99, max] = [of.total, of.p50, of.p90, of.p99, of.max].map(|time| time.as_secs_f64());
    (of.count, total, p50, p90, p99, max)
}

fn worker<'py>(py: Python<'py>, stats: &WorkerStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = made::dict(py)?;
    items!(&dict,
        "number": stats.number,
        "pid": stats.pid,
        "state": stats.state.name(),
        "task": (&*stats.task),
        "task_time": stats.task_time.as_secs_f64(),
        "tasks_completed": stats.tasks_completed,
        "tasks_failed": stats.tasks_failed,
        "tasks_lost": stats.tasks_lost,
        "tasks_timed_out": stats.tasks_timed_out,
        "created": stats.created,
        "start_up_time": stats.start_up_time.as_secs_f64(),
        "init_time": stats.init_time.as_secs_f64(),
        "waiting_time": stats.waiting_time.as_secs_f64(),
        "working_time": stats.working_time.as_secs_f64(),
        "memory": stats.memory,
    );
    Ok(dict)
}
