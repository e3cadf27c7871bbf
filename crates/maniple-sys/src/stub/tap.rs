//! A worker's standard error, seen by the hub.

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle};
use std::io::{self, Write};

/// Bytes that [`records`] keep in one piece.
pub const RECORD: usize = 4096;

/// Not supported.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    Err(unsupported())
}

/// Not supported.
pub fn records() -> io::Result<(OwnedHandle, OwnedHandle)> {
    Err(unsupported())
}

/// There is no reader.
pub fn record(_handle: BorrowedHandle<'_>, _bytes: &[u8]) -> bool {
    false
}

/// Not supported.
pub fn redirect(_handle: OwnedHandle) -> io::Result<()> {
    Err(unsupported())
}

/// Not supported.
pub fn drain(_handle: BorrowedHandle<'_>, _buffer: &mut [u8]) -> io::Result<Option<usize>> {
    Err(unsupported())
}

/// Writes to this process's own standard error.
pub fn forward(bytes: &[u8]) {
    let _ = io::stderr().write_all(bytes);
}

/// Nothing is there.
pub fn forward_until_closed(_handle: BorrowedHandle<'_>) {}
