//! A pipe that carries a worker's standard error to the hub.

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle};
use std::io::{self, Write};

/// The greatest length of a write that [`records`] keep in one piece.
pub const RECORD: usize = 4096;

/// Returns the error "not supported".
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn records() -> io::Result<(OwnedHandle, OwnedHandle)> {
    Err(unsupported())
}

/// Returns false: the pipe has no reader.
pub fn record(_handle: BorrowedHandle<'_>, _bytes: &[u8]) -> bool {
    false
}

/// Returns the error "not supported".
pub fn redirect(_handle: OwnedHandle) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn drain(_handle: BorrowedHandle<'_>, _buffer: &mut [u8]) -> io::Result<Option<usize>> {
    Err(unsupported())
}

/// Writes to this process's standard error.
pub fn forward(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

/// As [`forward`], and returns the number of bytes.
pub fn forward_at_once(bytes: &[u8]) -> usize {
    forward(bytes);
    bytes.len()
}

/// Returns at once: the pipe is closed.
pub fn forward_until_closed(_handle: BorrowedHandle<'_>) {}
