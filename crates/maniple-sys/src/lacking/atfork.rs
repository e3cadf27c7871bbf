//! A system without forks: these calls have nothing to do.

use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use std::io;

/// Calls `make`.
pub fn making<T>(make: impl FnOnce() -> T) -> T {
    make()
}

/// A value that is made at its first use.
#[derive(Debug)]
pub struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> OnceLock<T> {
    /// Creates a cell without a value.
    #[expect(clippy::new_without_default, reason = "as the standard library's, which a `static` holds")]
    pub const fn new() -> OnceLock<T> {
        OnceLock(std::sync::OnceLock::new())
    }

    /// Returns the value, which `make` makes if there is none.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(make)
    }
}

/// Functions that are never called.
#[derive(Debug)]
pub struct Handlers;

impl Handlers {
    /// Ignores the functions.
    pub const fn new(_before: extern "C" fn(), _in_parent: extern "C" fn(), _in_child: extern "C" fn()) -> Handlers {
        Handlers
    }

    /// Does nothing.
    pub fn register(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Does nothing: no fork happens.
pub fn hold_forks() -> io::Result<()> {
    Ok(())
}

/// Does nothing: no child is forked.
pub fn register(_handle: BorrowedHandle<'_>) -> io::Result<()> {
    Ok(())
}

/// Returns true, as for a registered handle.
pub fn unregister(_number: RawHandle) -> bool {
    true
}

/// An owned handle.
#[derive(Debug)]
pub struct HubOnly(OwnedHandle);

impl HubOnly {
    /// Takes over the handle.
    pub fn new(handle: OwnedHandle) -> io::Result<HubOnly> {
        Ok(HubOnly(handle))
    }

    /// Returns true.
    pub fn is_there(&self) -> bool {
        true
    }

    /// Returns the handle.
    pub fn into_handle(self) -> io::Result<OwnedHandle> {
        Ok(self.0)
    }
}

crate::as_handle!(impl[] for HubOnly, |this| this.0.as_handle());

/// Another owner's handle.
#[derive(Debug)]
pub struct NotForChildren;

impl NotForChildren {
    /// Does nothing.
    pub fn new(_handle: BorrowedHandle<'_>) -> io::Result<NotForChildren> {
        Ok(NotForChildren)
    }
}

/// Keeps a handle open.
pub fn hold_until_the_end(handle: OwnedHandle) -> io::Result<()> {
    handle.into_raw();
    Ok(())
}
