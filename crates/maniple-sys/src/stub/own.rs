//! Handles that check their file. On a system without descriptors, no other code closes a handle, so these do not
//! check.

use super::unsupported;
use crate::{BorrowedHandle, RawHandle};
use std::io;

pub use crate::lacking::own::{Lent, Own, above_stdio, arrived};

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
