//! Handles that are ours. Without forks and daemons that close numbers, they stay so.

use super::unsupported;
use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use std::io;
use std::ops::Deref;

/// Which file a handle leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File(());

impl File {
    /// Not known.
    pub fn of(_handle: BorrowedHandle<'_>) -> Option<File> {
        None
    }

    /// Not known.
    pub fn and_len(_handle: BorrowedHandle<'_>) -> io::Result<(File, usize)> {
        Err(unsupported())
    }

    /// Not known.
    pub fn with_len_and_names(_handle: BorrowedHandle<'_>) -> io::Result<(File, u64, u64)> {
        Err(unsupported())
    }

    /// Nothing to tell files apart by.
    pub fn from_numbers(_numbers: (u64, u64)) -> File {
        File(())
    }

    /// Nothing to tell files apart by.
    pub fn numbers(self) -> (u64, u64) {
        (0, 0)
    }

    /// Not known.
    pub fn at(_number: RawHandle) -> Option<File> {
        None
    }

    /// Nothing to tell files apart by.
    pub fn mixed(self) -> u64 {
        0
    }
}

/// The error of a handle that is not open.
pub fn not_there() -> io::Error {
    unsupported()
}

/// An owned handle.
#[derive(Debug)]
pub struct Own(OwnedHandle);

impl Own {
    /// Takes it over.
    pub fn new(handle: OwnedHandle) -> Own {
        Own(handle)
    }

    /// Always.
    pub fn is_there(&self) -> bool {
        true
    }

    /// The handle, to be used.
    pub fn found(&self) -> io::Result<&OwnedHandle> {
        Ok(&self.0)
    }

    /// The handle, to be given away.
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
    /// Borrows it without a lifetime that the compiler sees.
    ///
    /// # Safety
    /// The owner keeps it open for as long as this is used.
    #[allow(unsafe_code)]
    pub unsafe fn new(handle: BorrowedHandle<'_>) -> Lent {
        // SAFETY: as the caller promises.
        Lent(unsafe { BorrowedHandle::borrow_raw(handle.as_raw()) })
    }
}

crate::as_handle!(impl[] for Lent, |this| this.0);

/// As it is.
pub fn above_stdio(handle: impl Into<OwnedHandle>) -> io::Result<OwnedHandle> {
    Ok(handle.into())
}
