//! Descriptor numbers from Python as owned handles.
#![allow(unsafe_code)]

use crate::args::Out;
use crate::error::{Saying as _, os};
use maniple_engine::process::Exit;
use maniple_sys::own::File;
use maniple_sys::{self as sys, BorrowedHandle, OwnedHandle, RawHandle, stream};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::io::{self, IoSlice};

/// Takes over the descriptors: from now on the owner of the handles closes them.
pub fn adopt(numbers: Vec<RawHandle>) -> Vec<OwnedHandle> {
    // SAFETY: the callers pass descriptors that their Python code gives up. `_impl/pool/workers.py` calls `serve`.
    // `_impl/manager/rpc.py` calls `Line` with the descriptor of the connection that the line replaces.
    // `_impl/sync/native.py` and `_impl/transport/queue_ends.py` call `SyncArena.adopt` and `Log.adopt` with
    // descriptors that they have detached.
    numbers.into_iter().map(|number| unsafe { OwnedHandle::from_raw(number) }).collect()
}

/// Borrows a descriptor that its owner keeps open during the call.
pub fn borrow(number: &RawHandle) -> PyResult<BorrowedHandle<'_>> {
    if *number < 0 {
        return Err(PyValueError::saying("a descriptor is not negative"));
    }
    // SAFETY: the number is only passed to the kernel, which refuses a number that is not open. The handle does not
    // outlive the caller's number.
    Ok(unsafe { BorrowedHandle::borrow_raw(*number) })
}

/// `exit_told(pidfd)`: return the exit code of a process that another part of the program has reaped, in the form of
/// `Process.exitcode`; None if the kernel does not report it.
#[pyfunction]
pub fn exit_told(pidfd: RawHandle) -> PyResult<Option<i32>> {
    Ok(sys::process::exit_told(borrow(&pidfd)?).and_then(Exit::number))
}

/// `stdio_is_open()`: whether none of the numbers 0 to 2 is free.
#[pyfunction]
pub fn stdio_is_open() -> bool {
    (0..=2).all(sys::own::is_open)
}

type Found = ((u64, u64), u64, u64);

/// `file_at(descriptor)`: return the file that a descriptor refers to, as its device and inode; its size in bytes; and
/// the number of its names.
///
/// `os.fstat` takes three times as long.
#[pyfunction]
pub fn file_at(descriptor: RawHandle) -> PyResult<Out<Found>> {
    let (file, len, names) = File::with_len_and_names(borrow(&descriptor)?).map_err(|e| os("use a descriptor", e))?;
    Ok(Out((file.numbers(), len, names)))
}

/// `write_own(descriptor, file, content)`: write to a descriptor if it still refers to this file, given by its device
/// and inode; return the number of bytes written. Otherwise raise the error of a closed descriptor: the program has
/// closed it, and may have opened another file under its number.
#[pyfunction]
pub fn write_own(py: Python<'_>, descriptor: RawHandle, file: (u64, u64), content: &[u8]) -> PyResult<usize> {
    let handle = borrow(&descriptor)?;
    if File::of(handle) != Some(File::from_numbers(file)) {
        return Err(os("use a descriptor", sys::own::not_there()));
    }
    loop {
        match py.detach(|| stream::write(handle, &[IoSlice::new(content)])) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => py.check_signals()?,
            done => return done.map_err(|e| os("use a descriptor", e)),
        }
    }
}
