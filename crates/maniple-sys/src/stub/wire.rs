//! A local line between hub and worker for what shared memory cannot carry.

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle};
use std::io;
use std::time::Duration;

pub use crate::terms::Note;

/// How many handles one note carries at most.
pub const MOST: usize = 253;

/// One end of the line.
#[derive(Debug)]
pub struct Wire(OwnedHandle);

impl Wire {
    /// Not supported.
    pub fn pair() -> io::Result<(Wire, Wire)> {
        Err(unsupported())
    }

    /// An end that came from another process.
    pub fn from_handle(handle: OwnedHandle) -> Wire {
        Wire(handle)
    }

    /// Not supported.
    pub fn for_worker() -> io::Result<(Wire, OwnedHandle)> {
        Err(unsupported())
    }

    /// There is no other end.
    pub fn is_hung_up(&self) -> bool {
        true
    }

    /// Not supported.
    pub fn send(&self, _tag: u64, _handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        Err(unsupported())
    }

    /// Not supported.
    pub fn receive(&self) -> io::Result<Note> {
        Err(unsupported())
    }

    /// Calls `take`, which gets the error that it is not supported.
    pub fn take<R: Send>(&self, _is_passing: impl Fn(u64) -> bool, take: impl Fn(&Wire) -> R + Sync) -> R {
        take(self)
    }

    /// Not supported.
    pub fn wait(&self, _timeout: Option<Duration>) -> io::Result<()> {
        Err(unsupported())
    }
}

crate::as_handle!(impl[] for Wire, |this| this.0.as_handle());

/// What receiving a handle says where none is left for it.
pub fn out_of_handles() -> io::Error {
    io::ErrorKind::QuotaExceeded.into()
}

/// Whether receiving failed so.
pub fn is_out_of_handles(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::QuotaExceeded
}

/// No error says so.
pub fn is_crowded(_error: &io::Error) -> bool {
    false
}
