//! Handles that check their object. No other code of a program closes a handle of this crate by its number, as Unix
//! programs do with descriptors, so these only tell objects apart where the system can: shared memory has a number.

use super::{memory, nt};
use crate::{BorrowedHandle, RawHandle};
use std::io;

pub use crate::lacking::own::{Lent, Own, above_stdio, arrived};

/// The object that a handle leads to: shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File(u128);

/// Returns whether a number is open.
pub fn is_open(number: RawHandle) -> bool {
    nt::flags(number).is_ok()
}

impl File {
    /// Returns the object; `None` if it is not shared memory.
    pub fn of(handle: BorrowedHandle<'_>) -> Option<File> {
        memory::id_and_len(handle).map(|(id, _)| File(id))
    }

    /// Returns the object and its number of bytes.
    pub fn and_len(handle: BorrowedHandle<'_>) -> io::Result<(File, usize)> {
        memory::id_and_len(handle).map(|(id, len)| (File(id), len)).ok_or_else(not_there)
    }

    /// Returns the object, its number of bytes, and that it has no names.
    pub fn with_len_and_names(handle: BorrowedHandle<'_>) -> io::Result<(File, u64, u64)> {
        File::and_len(handle).map(|(file, len)| (file, len as u64, 0))
    }

    /// Returns the object of these numbers.
    pub fn from_numbers(numbers: (u64, u64)) -> File {
        File(u128::from(numbers.0) << 64 | u128::from(numbers.1))
    }

    /// Returns its two numbers.
    pub fn numbers(self) -> (u64, u64) {
        ((self.0 >> 64) as u64, self.0 as u64)
    }

    /// Returns the object at a number; `None` if it is not shared memory.
    #[allow(unsafe_code)]
    pub fn at(number: RawHandle) -> Option<File> {
        // SAFETY: the handle is used only during the call, which returns `None` for a number that is not open.
        File::of(unsafe { BorrowedHandle::borrow_raw(number) })
    }

    /// Returns one number for both.
    pub fn mixed(self) -> u64 {
        let (one, other) = self.numbers();
        one ^ other.rotate_left(32)
    }
}

/// Returns the error for a handle that is not open, or that leads to another object.
pub fn not_there() -> io::Error {
    const INVALID_HANDLE: i32 = 6;
    io::Error::from_raw_os_error(INVALID_HANDLE)
}
