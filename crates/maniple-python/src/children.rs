//! Children of this process that have no process object, and the limits of a child that starts others.

use maniple_sys::process;
use pyo3::prelude::*;

/// discard_children(pids)
///
/// Kill and reap these children. It is one step: no signal handler interrupts it.
#[pyfunction]
pub fn discard_children(py: Python<'_>, pids: Vec<u32>) {
    py.detach(|| pids.into_iter().for_each(process::discard));
}

/// lend_limits(pid)
///
/// Raise the limits of this child to those of this process, as far as the system allows.
#[pyfunction]
pub fn lend_limits(pid: u32) {
    process::limits::lend(pid);
}
