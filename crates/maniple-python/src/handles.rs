//! Descriptor numbers from Python as owned handles.
#![allow(unsafe_code)]

use crate::error::python;
use maniple_engine::Error;
use maniple_engine::process::Exit;
use maniple_sys::{self as sys, BorrowedHandle, OwnedHandle, RawHandle, stream};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Takes the descriptors over: from here on the owner of the handles closes them.
pub fn adopt(numbers: Vec<RawHandle>) -> Vec<OwnedHandle> {
    // SAFETY: all callers pass descriptors that their Python code gives up: `_workers.worker` calls `serve`,
    // `_manager_wire.line_over` calls `Line` (with the descriptor of the connection that the line takes the place of), `_native_sync` and
    // `_queue_ends` call `SyncArena.adopt` and `Log.adopt` with what they `detach()`.
    numbers.into_iter().map(|number| unsafe { OwnedHandle::from_raw(number) }).collect()
}

/// A descriptor that its owner keeps open meanwhile.
pub fn borrow(number: &RawHandle) -> PyResult<BorrowedHandle<'_>> {
    if *number < 0 {
        return Err(PyValueError::new_err("a descriptor is not negative"));
    }
    // SAFETY: what is done with it is done by the kernel, which refuses a number that is not open.
    Ok(unsafe { BorrowedHandle::borrow_raw(*number) })
}

/// `exit_told(pidfd)`: the exit code of a process that another part of the program has reaped, as `Process.exitcode` has it; None if the kernel does
/// not tell.
#[pyfunction]
pub fn exit_told(pidfd: RawHandle) -> PyResult<Option<i32>> {
    Ok(sys::process::exit_told(borrow(&pidfd)?).and_then(Exit::number))
}

/// `socket_pair()`: the descriptors of two connected stream sockets, both above 2.
#[pyfunction]
pub fn socket_pair() -> PyResult<(RawHandle, RawHandle)> {
    let (one, other) = stream::pair().map_err(|source| python(Error::Os { doing: "make a pipe", source }))?;
    Ok((one.into_raw(), other.into_raw()))
}
