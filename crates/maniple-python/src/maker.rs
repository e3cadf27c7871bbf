//! A process that does not outlive its creator.
#![allow(unsafe_code)]

use crate::error::python;
use crate::handles::borrow;
use maniple_engine::process::lifeline;
use maniple_sys::{BorrowedHandle, RawHandle};
use pyo3::prelude::*;
use std::time::Duration;

/// end_after(lifeline, maker, grace)
///
/// End this process when the process `maker` has ended and the pipe `lifeline`, which stays open, has hung up: SIGTERM,
/// and SIGKILL `grace` milliseconds later. Raise OSError if the system cannot do that.
#[pyfunction]
pub fn end_after(lifeline: RawHandle, maker: i32, grace: u32) -> PyResult<()> {
    // SAFETY: `process._bootstrap`, the only caller, keeps its parent's sentinel open to the end.
    let pipe = unsafe { BorrowedHandle::borrow_raw(lifeline) };
    lifeline::arm_gently(pipe, maker, Duration::from_millis(grace.into())).map_err(python)
}

/// end_with(lifeline)
///
/// Kill this process when the pipe `lifeline` hangs up. The caller may close its descriptor. Raise OSError if the
/// system cannot do that.
#[pyfunction]
pub fn end_with(lifeline: RawHandle) -> PyResult<()> {
    let copy = borrow(&lifeline)?.try_clone_to_owned()?;
    lifeline::arm(copy).map_err(python)
}
