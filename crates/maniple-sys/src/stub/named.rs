//! Shared memory under a name.

use super::unsupported;
use crate::{AsHandle, OwnedHandle};
use std::io;

/// Not supported.
pub fn open(_name: &str, _flags: i32, _mode: u32) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Not supported.
pub fn create(_name: &str, _len: usize) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// Not supported.
pub fn find(_name: &str) -> io::Result<OwnedHandle> {
    Err(unsupported())
}

/// No name leads anywhere.
pub fn leads_to(_name: &str, _handle: impl AsHandle) -> bool {
    false
}

/// Not supported.
pub fn unlink(_name: &str) -> io::Result<()> {
    Err(unsupported())
}
