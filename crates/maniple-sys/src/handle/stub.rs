//! Handles of a system on which no call opens a handle.
#![allow(unsafe_code)]

use super::AsHandle;
use std::io;
use std::marker::PhantomData;

/// A handle's number.
pub type RawHandle = isize;

/// A [`RawHandle`] that threads share.
pub type AtomicRawHandle = std::sync::atomic::AtomicIsize;

/// A handle that is closed when dropped.
#[derive(Debug)]
pub struct OwnedHandle(RawHandle);

/// A handle that another owner keeps open for its lifetime.
#[derive(Clone, Copy, Debug)]
pub struct BorrowedHandle<'a>(RawHandle, PhantomData<&'a ()>);

impl OwnedHandle {
    /// Not supported.
    pub fn try_clone(&self) -> io::Result<OwnedHandle> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns its number.
    pub fn as_raw(&self) -> RawHandle {
        self.0
    }

    /// Returns its number, which the caller closes.
    pub fn into_raw(self) -> RawHandle {
        std::mem::ManuallyDrop::new(self).0
    }

    /// Takes over the handle with this number.
    ///
    /// # Safety
    /// It is open, and no other owner closes it.
    pub unsafe fn from_raw(number: RawHandle) -> OwnedHandle {
        OwnedHandle(number)
    }
}

impl<'a> BorrowedHandle<'a> {
    /// Not supported.
    pub fn try_clone_to_owned(&self) -> io::Result<OwnedHandle> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns its number.
    pub fn as_raw(&self) -> RawHandle {
        self.0
    }

    /// Borrows the handle with this number.
    ///
    /// # Safety
    /// It stays open while the result is used.
    pub unsafe fn borrow_raw(number: RawHandle) -> BorrowedHandle<'a> {
        BorrowedHandle(number, PhantomData)
    }
}

impl Drop for OwnedHandle {
    fn drop(&mut self) {}
}

impl AsHandle for OwnedHandle {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        BorrowedHandle(self.0, PhantomData)
    }
}
