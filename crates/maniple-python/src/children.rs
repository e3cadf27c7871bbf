//! Children of this process that have no process object, and the limits of a child that starts others.

use maniple_sys::process::{self, limits};
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};

/// discard_children(pids)
///
/// Kill and reap these children. It is one step: no signal handler interrupts it.
#[pyfunction]
pub fn discard_children(py: Python<'_>, pids: Vec<u32>) {
    py.detach(|| pids.into_iter().for_each(process::discard));
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
