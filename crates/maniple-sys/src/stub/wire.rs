//! A local socket between hub and worker.

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle};
use std::io;
use std::time::Duration;

pub use crate::terms::Note;

/// The greatest number of handles of a note.
pub const MOST: usize = 253;

/// One end of the line.
#[derive(Debug)]
pub struct Wire(OwnedHandle);

impl Wire {
    /// Returns the error "not supported".
    pub fn pair() -> io::Result<(Wire, Wire)> {
        Err(unsupported())
    }

    /// Takes over an end that came from another process.
    pub fn from_handle(handle: OwnedHandle) -> Wire {
        Wire(handle)
    }

    /// Returns the error "not supported".
    pub fn for_worker() -> io::Result<(Wire, OwnedHandle)> {
        Err(unsupported())
    }

    /// Returns true: the line has no other end.
    pub fn is_hung_up(&self) -> bool {
        true
    }

    /// Returns the error "not supported".
    pub fn send(&self, _tag: u64, _handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        Err(unsupported())
    }

    /// Returns the error "not supported".
    pub fn receive(&self) -> io::Result<Note> {
        Err(unsupported())
    }

    /// Calls `take`, which returns the error "not supported".
    pub fn take<R: Send>(&self, _is_passing: impl Fn(u64) -> bool, take: impl Fn(&Wire) -> R + Sync) -> R {
        take(self)
    }

    /// Returns the error "not supported".
    pub fn wait(&self, _timeout: Option<Duration>) -> io::Result<()> {
        Err(unsupported())
    }
}

crate::as_handle!(impl[] for Wire, |this| this.0.as_handle());

/// Returns the error of a receive that has no handle left.
pub fn out_of_handles() -> io::Error {
    io::ErrorKind::QuotaExceeded.into()
}

/// Returns whether an error is [`out_of_handles`].
pub fn is_out_of_handles(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::QuotaExceeded
}

/// Returns false.
pub fn is_crowded(_error: &io::Error) -> bool {
    false
}
