//! Shared memory under a name.

use super::unsupported;
use crate::{AsHandle, OwnedHandle};
use std::io;

/// Returns the error "not supported".
pub fn open(_name: &str, _flags: i32, _mode: u32) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn section(_name: &str, _len: Option<usize>) -> io::Result<(OwnedHandle, usize)> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn create(_name: &str, _len: usize) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn reserve(_handle: impl AsHandle, _len: usize) -> io::Result<()> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn find(_name: &str) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Returns false: no memory has a name.
pub fn leads_to(_name: &str, _handle: impl AsHandle) -> bool {
    false
}

/// Returns the error "not supported".
pub fn unlink(_name: &str) -> io::Result<()> {
    Err(unsupported())
}
