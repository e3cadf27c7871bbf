//! Handles are the numbers of kernel objects, and sockets.
#![allow(unsafe_code)]

use super::AsHandle;
use std::marker::PhantomData;
use std::{fmt, io};
use windows_sys::Win32::Foundation::{CloseHandle, DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE};
use windows_sys::Win32::Networking::WinSock;
use windows_sys::Win32::System::Threading::GetCurrentProcess;

pub(crate) mod known;
mod types;

/// A handle's number.
pub type RawHandle = isize;

/// A [`RawHandle`] that threads share.
pub type AtomicRawHandle = std::sync::atomic::AtomicIsize;

/// A handle that is closed when dropped.
#[repr(transparent)]
pub struct OwnedHandle(RawHandle);

/// A handle that another owner keeps open for its lifetime.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct BorrowedHandle<'a>(RawHandle, PhantomData<&'a ()>);

impl OwnedHandle {
    /// Returns a second handle on the same object, which programs that this process starts do not inherit.
    ///
    /// # Errors
    /// No handle left.
    pub fn try_clone(&self) -> io::Result<OwnedHandle> {
        self.as_handle().try_clone_to_owned()
    }

    /// Returns its number.
    #[inline]
    pub fn as_raw(&self) -> RawHandle {
        self.0
    }

    /// Returns its number, which the caller closes.
    #[inline]
    pub fn into_raw(self) -> RawHandle {
        std::mem::ManuallyDrop::new(self).0
    }

    /// Takes over the handle with this number.
    ///
    /// # Safety
    /// It is open, and no other owner closes it.
    #[inline]
    pub unsafe fn from_raw(number: RawHandle) -> OwnedHandle {
        OwnedHandle(number)
    }
}

impl<'a> BorrowedHandle<'a> {
    /// Returns an owned handle on the same object, which programs that this process starts do not inherit.
    ///
    /// # Errors
    /// No handle left.
    pub fn try_clone_to_owned(&self) -> io::Result<OwnedHandle> {
        let mut copy: HANDLE = std::ptr::null_mut();
        // SAFETY: the call reads no memory, and writes a number to `copy`.
        let done = unsafe {
            let me = GetCurrentProcess();
            DuplicateHandle(me, self.0 as HANDLE, me, &mut copy, 0, 0, DUPLICATE_SAME_ACCESS)
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        let copy = copy as isize;
        known::copy(self.0, copy);
        Ok(OwnedHandle(copy))
    }

    /// Returns its number.
    #[inline]
    pub fn as_raw(&self) -> RawHandle {
        self.0
    }

    /// Borrows the handle with this number.
    ///
    /// # Safety
    /// It stays open while the result is used. (Otherwise calls fail, or reach the object that has its number by then.)
    #[inline]
    pub unsafe fn borrow_raw(number: RawHandle) -> BorrowedHandle<'a> {
        BorrowedHandle(number, PhantomData)
    }
}

impl Drop for OwnedHandle {
    fn drop(&mut self) {
        // The entry goes first: another thread may get the number as soon as it is free.
        let was = known::forget(self.0);
        // SAFETY: the number is this value's.
        unsafe {
            if was.is_some_and(|was| was.is_socket()) {
                WinSock::closesocket(self.0 as usize);
            } else {
                CloseHandle(self.0 as HANDLE);
            }
        }
    }
}

impl fmt::Debug for OwnedHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedHandle({})", self.0)
    }
}

impl fmt::Debug for BorrowedHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BorrowedHandle({})", self.0)
    }
}

impl AsHandle for OwnedHandle {
    #[inline]
    fn as_handle(&self) -> BorrowedHandle<'_> {
        BorrowedHandle(self.0, PhantomData)
    }
}
