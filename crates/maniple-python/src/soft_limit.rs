//! The soft limit of a task: a signal interrupts the task, and its handler raises an exception in it.
//!
//! The hub sends the signal when the limit has passed. The signal may arrive late, when another task runs. So the handler asks
//! whether the present task has exceeded its limit.

use crate::args::{Calls as _, Out};
use crate::error::helper;
use maniple_engine::pool::WorkerLink;
use maniple_sys::{clock, process};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// No limit.
const NEVER: u64 = u64::MAX;

// When the running task exceeds its limit, and that limit; nanoseconds.
static DUE: AtomicU64 = AtomicU64::new(NEVER);
static LIMIT: AtomicU64 = AtomicU64::new(NEVER);
static HANDLED: AtomicBool = AtomicBool::new(false);

/// The task that the worker runs has this limit.
pub fn arm(py: Python<'_>, link: &WorkerLink, limit: u64) -> PyResult<()> {
    static INSTALL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if limit == NEVER {
        return Ok(());
    }
    if !HANDLED.swap(true, Ordering::Relaxed) {
        helper(py, &INSTALL, "handle_soft_limits")?.with((process::family::interrupt_number(),))?;
        link.handles_interrupts();
    }
    let began = clock::now().saturating_sub(link.ran_for().as_nanos() as u64);
    LIMIT.store(limit, Ordering::Relaxed);
    DUE.store(began.saturating_add(limit), Ordering::Relaxed);
    Ok(())
}

/// The task has ended, or is about to.
pub fn disarm() {
    DUE.store(NEVER, Ordering::Relaxed);
}

/// Return the soft limit in seconds that the running task has exceeded; None if there is none. It is returned once.
#[pyfunction]
pub fn exceeded_soft_limit() -> Out<Option<f64>> {
    let due = DUE.load(Ordering::Relaxed);
    if due == NEVER || clock::now() < due {
        return Out(None);
    }
    disarm();
    Out(Some(Duration::from_nanos(LIMIT.load(Ordering::Relaxed)).as_secs_f64()))
}
