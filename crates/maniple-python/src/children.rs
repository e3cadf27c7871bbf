//! Children of this process that have no process object, and the limits of a child that starts others.

use crate::args::Out;
use crate::error::os;
use crate::handles::adopt;
use maniple_sys::process::{self, limits};
use maniple_sys::{AsHandle, RawHandle, quiet, tap};
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// discard_children(pids)
///
/// Kill and reap these children. It is one step: no signal handler interrupts it.
#[pyfunction]
pub fn discard_children(py: Python<'_>, pids: Vec<u32>) {
    py.detach(|| pids.into_iter().for_each(process::discard));
}

/// allowed_cores()
///
/// Return the numbers of the processors that this process may use, in ascending order.
#[pyfunction]
pub fn allowed_cores() -> PyResult<Out<Vec<usize>>> {
    maniple_sys::allowed_cores().map(Out).map_err(|e| os("look at this process's processors", e))
}

/// keep_to_cores(cores)
///
/// Limit this process to these processors.
#[pyfunction]
pub fn keep_to_cores(cores: Vec<usize>) -> PyResult<()> {
    maniple_sys::keep_to_cores(&cores).map_err(|e| os("choose processors", e))
}

/// terminate_itself()
///
/// Request the end of this process, as `Process.terminate` does.
#[pyfunction]
pub fn terminate_itself(py: Python<'_>) {
    py.detach(process::terminate_itself);
}

/// forward_until_closed(number)
///
/// Have a thread forward what is written to a pipe to this process's standard error, until all writers have closed their
/// end. The call takes over the handle of the pipe.
#[pyfunction]
pub fn forward_until_closed(number: RawHandle) -> PyResult<()> {
    for pipe in adopt(vec![number]) {
        quiet::spawn("maniple-late-output", move || tap::forward_until_closed(pipe.as_handle()))
            .map_err(|e| os("start a thread", e))?;
    }
    Ok(())
}

/// The limits of this process when the object is made. The children that it starts then have the same.
#[pyclass(name = "SoftLimits", module = "maniple._maniple", frozen)]
pub struct PySoftLimits(Mutex<limits::Soft>);

#[pymethods]
impl PySoftLimits {
    #[new]
    fn new() -> Self {
        PySoftLimits(Mutex::new(limits::own()))
    }

    /// Raise the limits of a child that began with these to those that this process has now, as far as the system allows.
    fn lend(&self, pid: u32) {
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *limits = limits::lend(pid, *limits);
    }
}
