//! A pipe that carries a worker's standard error to the hub, which forwards it to its own.
#![allow(unsafe_code)]

use super::{line, nt, ready, stream};
use crate::{BorrowedHandle, OwnedHandle};
use std::io::{self, IoSlice, Write};
use windows_sys::Win32::System::Console::{STD_ERROR_HANDLE, SetStdHandle};

/// Returns the hub's end and the worker's end.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    stream::pipe()
}

/// Returns the two ends of a line for records: neither waits, and a record stays in one piece.
pub fn records() -> io::Result<(OwnedHandle, OwnedHandle)> {
    line::pair(true)
}

/// The greatest length of a write that [`records`] keep in one piece.
pub const RECORD: usize = 4096;

/// Writes one record. False: there is no room, or no reader.
pub fn record(handle: BorrowedHandle<'_>, bytes: &[u8]) -> bool {
    line::of(handle).is_some_and(|end| {
        end.write(handle.as_raw(), &[IoSlice::new(bytes)], &[], true)
            .is_ok_and(|done| done == line::Done::Bytes(bytes.len()))
    })
}

/// Makes `handle` this process's standard error, for programs that ask the system for it. (A C library that has opened
/// its own keeps it.)
pub fn redirect(handle: OwnedHandle) -> io::Result<()> {
    // SAFETY: the handle stays open until this process ends.
    nt::check(unsafe { SetStdHandle(STD_ERROR_HANDLE, nt::raw(handle.into_raw())) })
}

/// Reads available bytes into `buffer` without waiting, and returns their number; `None` if the worker's end is closed.
pub fn drain(handle: BorrowedHandle<'_>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    Ok(match stream::read_available(handle, buffer)? {
        None => Some(0),
        Some(0) if !buffer.is_empty() => None,
        Some(got) => Some(got),
    })
}

/// Writes to this process's standard error; it ignores errors, such as a closed stream.
pub fn forward(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

/// As [`forward`], and returns the number of bytes: the system does not tell whether a pipe has room.
pub fn forward_at_once(bytes: &[u8]) -> usize {
    forward(bytes);
    bytes.len()
}

/// [`drain`]s and [`forward`]s until all writers have closed their end.
pub fn forward_until_closed(handle: BorrowedHandle<'_>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match drain(handle, &mut buffer) {
            Ok(Some(0)) => drop(ready::wait_for(ready::Interest::new(handle))),
            Ok(Some(n)) => forward(&buffer[..n]),
            Ok(None) | Err(_) => return,
        }
    }
}
