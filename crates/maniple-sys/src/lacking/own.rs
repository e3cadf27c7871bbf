//! Handles with an owner, on a system where no other code closes a handle by its number: nothing has to be checked.

use crate::{BorrowedHandle, OwnedHandle};
use std::io;
use std::ops::Deref;

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
