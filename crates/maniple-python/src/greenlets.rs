//! Waits under libraries (gevent, eventlet) that replace threads by greenlets, which share one thread of the system.
//!
//! The threads of a pool are greenlets then. A wait in native code would keep them from running, and with them what the
//! wait is for: the start of a worker, or the reading of an input. So such a wait is cut into slices, between which it
//! calls the library's `time.sleep`.

use crate::args::Calls as _;
use crate::error::python;
use crate::signals::{held, look_for_signals};
use maniple_engine::Result;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a wait lasts before it lets greenlets run.
const SLICE: Duration = Duration::from_millis(1);
/// How long (s) the waiting greenlet then sleeps.
const PAUSE: f64 = 0.0002;

static ARE_USED: AtomicBool = AtomicBool::new(false);
static SLEEP: Mutex<Option<Py<PyAny>>> = Mutex::new(None);

/// `greenlets_sleep_by(sleep)`: record that threads are greenlets, and that `sleep` lets others run.
#[pyfunction]
pub fn greenlets_sleep_by(sleep: Py<PyAny>) {
    let before = SLEEP.lock().unwrap_or_else(PoisonError::into_inner).replace(sleep);
    drop(before);
    ARE_USED.store(true, Ordering::Relaxed);
}

/// Whether threads are greenlets.
pub fn are_used() -> bool {
    ARE_USED.load(Ordering::Relaxed)
}

/// Lets other greenlets run.
pub fn let_run(py: Python<'_>) -> PyResult<()> {
    let sleep = SLEEP.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|sleep| sleep.clone_ref(py));
    sleep.map_or(Ok(()), |sleep| sleep.bind(py).with((PAUSE,)).map(drop))
}

/// Waits without the interpreter lock: `wait` waits until a time, and ends early if its argument, which it calls when a
/// signal handler may have run, returns false. Returns false if the time limit has passed.
pub fn wait(
    py: Python<'_>,
    deadline: Option<Instant>,
    mut wait: impl FnMut(Option<Instant>, &mut dyn FnMut() -> bool) -> Result<bool> + Send,
) -> PyResult<bool> {
    loop {
        let slice = are_used().then(|| Instant::now() + SLICE).filter(|end| deadline.is_none_or(|d| *end < d));
        let mut raised = None;
        let waited = py.detach(|| {
            wait(slice.or(deadline), &mut || {
                raised = look_for_signals();
                raised.is_none()
            })
        });
        match (waited, raised.or_else(held)) {
            (_, Some(error)) => return Err(error),
            (Err(error), None) => return Err(python(error)),
            (Ok(false), None) if slice.is_some() => let_run(py)?,
            (Ok(is_ready), None) => return Ok(is_ready),
        }
    }
}
