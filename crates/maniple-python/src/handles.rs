//! Descriptor numbers from Python as owned handles.
#![allow(unsafe_code)]

use crate::args::Out;
use crate::deadline::deadline;
use crate::error::{Saying as _, os};
use crate::message::waiting;
use maniple_engine::channel::readiness;
use maniple_engine::process::Exit;
use maniple_engine::wait::Until;
use maniple_sys::own::File;
use maniple_sys::ready::Interest;
use maniple_sys::{self as sys, BorrowedHandle, OwnedHandle, RawHandle, stream};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::io::{self, IoSlice};

/// Takes over the descriptors: from now on the owner of the handles closes them.
pub fn adopt(numbers: Vec<RawHandle>) -> Vec<OwnedHandle> {
    // SAFETY: the callers pass descriptors that their Python code gives up. `_impl/pool/workers.py` calls `serve`.
    // `_impl/manager/rpc.py` calls `Line` with the descriptor of the connection that the line replaces.
    // `_impl/sync/native.py` and `_impl/transport/queue_ends.py` call `SyncArena.adopt` and `Log.adopt` with
    // descriptors that they have detached. `close_handle`'s callers own the handle.
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

/// close_handle(number)
///
/// Close a handle that the caller owns.
#[pyfunction]
pub fn close_handle(number: RawHandle) {
    drop(adopt(vec![number]));
}

/// duplicate_handle(number)
///
/// Return another handle on the same object, which programs started from here do not inherit.
#[pyfunction]
pub fn duplicate_handle(number: RawHandle) -> PyResult<RawHandle> {
    let copy = borrow(&number)?.try_clone_to_owned().map_err(|e| os("duplicate a handle", e))?;
    Ok(copy.into_raw())
}

/// claim_handle(number)
///
/// Take over a handle that this process inherited at its start, and return its number; if it was taken over before, return
/// another handle on the same object. Raise OSError if it is not open.
#[pyfunction]
pub fn claim_handle(number: RawHandle) -> PyResult<RawHandle> {
    // SAFETY: `spawn.py` and `popen_spawn_win32.py` pass numbers that the parent has opened for this process.
    match unsafe { sys::process::claim(number) } {
        Some(claimed) => Ok(claimed.into_raw()),
        // Two pickles of one start may name the same handle.
        None => duplicate_handle(number),
    }
}

/// companion(number)
///
/// Return a handle that has to stay open until the process to which this handle travels has called `recognize_handle`;
/// None if there is none. The caller closes it.
#[pyfunction]
pub fn companion(number: RawHandle) -> PyResult<Option<RawHandle>> {
    Ok(stream::companion(borrow(&number)?).map(OwnedHandle::into_raw))
}

/// recognize_handle(number)
///
/// Learn what a handle leads to that came from another process.
#[pyfunction]
pub fn recognize_handle(number: RawHandle) {
    stream::recognize(number);
}

/// own_process()
///
/// Return a handle on this process, which becomes ready when this process ends.
#[pyfunction]
pub fn own_process() -> PyResult<RawHandle> {
    let own = sys::process::open(sys::process_id()).map_err(|e| os("open this process", e))?;
    Ok(own.into_raw())
}

/// wait_for_handles(numbers, timeout)
///
/// Wait until at least one handle is ready, and return the positions of those that are. None means no time limit.
#[pyfunction]
#[pyo3(signature = (numbers, timeout))]
pub fn wait_for_handles(py: Python<'_>, numbers: Vec<RawHandle>, timeout: Option<f64>) -> PyResult<Out<Vec<usize>>> {
    let handles = numbers.iter().map(borrow).collect::<PyResult<Vec<_>>>()?;
    let mut interests: Vec<_> = handles.into_iter().map(Interest::new).collect();
    let until = match timeout {
        Some(seconds) if seconds <= 0.0 => Until::Now,
        limit => deadline(limit).map_or(Until::Ever, Until::Then),
    };
    waiting(py, |interrupted| readiness::any(&mut interests, until, "wait for handles", interrupted))?;
    Ok(Out(interests.iter().enumerate().filter(|(_, interest)| interest.ready()).map(|(at, _)| at).collect()))
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
