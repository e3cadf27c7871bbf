//! Handles are descriptors.
#![allow(unsafe_code)]

use super::{AsHandle, FromHandle, IntoHandle};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::{fmt, io};

/// A handle's number.
pub type RawHandle = RawFd;

/// A [`RawHandle`] that threads share.
pub type AtomicRawHandle = std::sync::atomic::AtomicI32;

/// A handle that is closed when dropped.
#[repr(transparent)]
pub struct OwnedHandle(OwnedFd);

/// A handle that another owner keeps open for its lifetime.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct BorrowedHandle<'a>(BorrowedFd<'a>);

impl OwnedHandle {
    /// Returns a second handle on the same object, which programs that this process starts do not inherit.
    ///
    /// # Errors
    /// No handle left.
    pub fn try_clone(&self) -> io::Result<OwnedHandle> {
        Ok(OwnedHandle(self.0.try_clone()?))
    }

    /// Returns its number.
    #[inline]
    pub fn as_raw(&self) -> RawHandle {
        self.0.as_raw_fd()
    }

    /// Returns its number, which the caller closes.
    #[inline]
    pub fn into_raw(self) -> RawHandle {
        self.0.into_raw_fd()
    }

    /// Takes over the handle with this number.
    ///
    /// # Safety
    /// It is open, and no other owner closes it.
    #[inline]
    pub unsafe fn from_raw(number: RawHandle) -> OwnedHandle {
        // SAFETY: the caller ensures the contract above.
        OwnedHandle(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

impl<'a> BorrowedHandle<'a> {
    /// Returns an owned handle on the same object, which programs that this process starts do not inherit.
    ///
    /// # Errors
    /// No handle left.
    pub fn try_clone_to_owned(&self) -> io::Result<OwnedHandle> {
        Ok(OwnedHandle(self.0.try_clone_to_owned()?))
    }

    /// Returns its number.
    #[inline]
    pub fn as_raw(&self) -> RawHandle {
        self.0.as_raw_fd()
    }

    /// Borrows the handle with this number.
    ///
    /// # Safety
    /// It stays open while the result is used. (Otherwise calls fail, or reach the file that has its number by then.)
    #[inline]
    pub unsafe fn borrow_raw(number: RawHandle) -> BorrowedHandle<'a> {
        // SAFETY: the caller ensures the contract above.
        BorrowedHandle(unsafe { BorrowedFd::borrow_raw(number) })
    }

    /// Returns the handles in the form of the system's interface.
    pub(crate) fn as_fds<'b>(handles: &'b [BorrowedHandle<'a>]) -> &'b [BorrowedFd<'a>] {
        // SAFETY: `BorrowedHandle` is `repr(transparent)` over `BorrowedFd`, so both slices have the same layout; the
        // lifetimes stay.
        unsafe { std::slice::from_raw_parts(handles.as_ptr().cast(), handles.len()) }
    }
}

impl fmt::Debug for OwnedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedHandle({})", self.as_raw())
    }
}

impl fmt::Debug for BorrowedHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BorrowedHandle({})", self.as_raw())
    }
}

impl AsFd for OwnedHandle {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for BorrowedHandle<'_> {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

impl AsRawFd for OwnedHandle {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.as_raw()
    }
}

impl AsRawFd for BorrowedHandle<'_> {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.as_raw()
    }
}

impl From<OwnedFd> for OwnedHandle {
    #[inline]
    fn from(fd: OwnedFd) -> OwnedHandle {
        OwnedHandle(fd)
    }
}

impl From<OwnedHandle> for OwnedFd {
    #[inline]
    fn from(handle: OwnedHandle) -> OwnedFd {
        handle.0
    }
}

impl<'a> From<BorrowedFd<'a>> for BorrowedHandle<'a> {
    #[inline]
    fn from(fd: BorrowedFd<'a>) -> BorrowedHandle<'a> {
        BorrowedHandle(fd)
    }
}

impl<'a> From<BorrowedHandle<'a>> for BorrowedFd<'a> {
    #[inline]
    fn from(handle: BorrowedHandle<'a>) -> BorrowedFd<'a> {
        handle.0
    }
}

impl<T: AsFd + ?Sized> AsHandle for T {
    #[inline]
    fn as_handle(&self) -> BorrowedHandle<'_> {
        BorrowedHandle(self.as_fd())
    }
}

impl<T: From<OwnedFd>> FromHandle for T {
    #[inline]
    fn from_handle(handle: OwnedHandle) -> T {
        T::from(handle.0)
    }
}

impl<T: Into<OwnedFd>> IntoHandle for T {
    #[inline]
    fn into_handle(self) -> OwnedHandle {
        OwnedHandle(self.into())
    }
}
