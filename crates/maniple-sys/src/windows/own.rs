//! Handles that check their object. No other code of a program closes a handle of this crate by its number, as Unix
//! programs do with descriptors, so these only tell objects apart where the system can: shared memory has a number.

use super::{memory, nt};
use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use std::io;
use std::ops::Deref;

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

/// Returns the handle unchanged: standard streams have no reserved numbers.
pub fn above_stdio(handle: impl Into<OwnedHandle>) -> io::Result<OwnedHandle> {
    Ok(handle.into())
}

/// Returns the handle unchanged.
pub fn arrived(handle: impl Into<OwnedHandle>) -> OwnedHandle {
    handle.into()
}
