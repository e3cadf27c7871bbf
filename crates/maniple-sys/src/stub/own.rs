//! Handles that check their file. On a system without descriptors, no other code closes a handle, so these do not
//! check.

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use std::io;
use std::ops::Deref;

/// The file that a handle leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File(());

/// Returns true: no number is known to be free.
pub fn is_open(_number: RawHandle) -> bool {
    true
}

impl File {
    /// Returns `None`: unknown.
    pub fn of(_handle: BorrowedHandle<'_>) -> Option<File> {
        None
    }

    /// Returns `None`: unknown.
    pub fn and_len(_handle: BorrowedHandle<'_>) -> io::Result<(File, usize)> {
        Err(unsupported())
    }

    /// Returns `None`: unknown.
    pub fn with_len_and_names(_handle: BorrowedHandle<'_>) -> io::Result<(File, u64, u64)> {
        Err(unsupported())
    }

    /// Does not distinguish files.
    pub fn from_numbers(_numbers: (u64, u64)) -> File {
        File(())
    }

    /// Does not distinguish files.
    pub fn numbers(self) -> (u64, u64) {
        (0, 0)
    }

    /// Returns `None`: unknown.
    pub fn at(_number: RawHandle) -> Option<File> {
        None
    }

    /// Does not distinguish files.
    pub fn mixed(self) -> u64 {
        0
    }
}

/// Returns the error for a handle that is not open.
pub fn not_there() -> io::Error {
    unsupported()
}

/// An owned handle.
#[derive(Debug)]
pub struct Own(OwnedHandle);

impl Own {
    /// Takes over the handle.
    pub fn new(handle: OwnedHandle) -> Own {
        Own(handle)
    }

    /// Returns true.
    pub fn is_there(&self) -> bool {
        true
    }

    /// Returns the handle for use.
    pub fn found(&self) -> io::Result<&OwnedHandle> {
        Ok(&self.0)
    }

    /// Returns the handle, and gives up its ownership.
    pub fn into_handle(self) -> OwnedHandle {
        self.0
    }
}

impl Deref for Own {
    type Target = OwnedHandle;

    fn deref(&self) -> &OwnedHandle {
        &self.0
    }
}

crate::as_handle!(impl[] for Own, |this| this.0.as_handle());

/// A handle with another owner.
#[derive(Debug)]
pub struct Lent(BorrowedHandle<'static>);

impl Lent {
    /// Borrows a handle without a lifetime.
    ///
    /// # Safety
    /// The owner keeps it open while this value is used.
    #[allow(unsafe_code)]
    pub unsafe fn new(handle: BorrowedHandle<'_>) -> Lent {
        // SAFETY: the caller ensures that the handle stays open.
        Lent(unsafe { BorrowedHandle::borrow_raw(handle.as_raw()) })
    }
}

crate::as_handle!(impl[] for Lent, |this| this.0);

/// Returns the handle unchanged.
pub fn above_stdio(handle: impl Into<OwnedHandle>) -> io::Result<OwnedHandle> {
    Ok(handle.into())
}

/// Returns the handle unchanged.
pub fn arrived(handle: impl Into<OwnedHandle>) -> OwnedHandle {
    handle.into()
}
