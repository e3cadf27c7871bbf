//! Waits for any of several handles, and for a kick by another thread.

use super::unsupported;
use crate::own::Own;
use crate::{BorrowedHandle, OwnedHandle};
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

/// A handle to wait for.
#[derive(Debug)]
pub struct Interest<'a>(PhantomData<BorrowedHandle<'a>>);

impl<'a> Interest<'a> {
    /// Creates an interest that is ready when `handle` is readable, at its end, or closed at its other end.
    pub fn new(_handle: BorrowedHandle<'a>) -> Self {
        Interest(PhantomData)
    }

    /// Creates an interest that is ready when `handle` has room for a write, or is closed at its other end.
    pub fn room(_handle: BorrowedHandle<'a>) -> Self {
        Interest(PhantomData)
    }

    /// Returns false.
    pub fn ready(&self) -> bool {
        false
    }
}

/// Returns the error "not supported".
pub fn wait(_handles: &mut [Interest<'_>], _timeout: Option<Duration>) -> io::Result<usize> {
    Err(unsupported())
}

/// Returns the error "not supported".
pub fn wait_for(_interest: Interest<'_>) -> io::Result<bool> {
    Err(unsupported())
}

/// Wakes a thread of this process out of [`wait`].
#[derive(Debug)]
pub struct Kick(Own);

impl Kick {
    /// Returns the error "not supported".
    pub fn new() -> io::Result<Kick> {
        Err(unsupported())
    }

    /// Takes over a kick of another process.
    pub fn from_handle(handle: OwnedHandle) -> Kick {
        Kick(Own::new(handle))
    }

    /// Does nothing: no thread waits.
    pub fn kick(&self) {}

    /// Does nothing: no thread waits.
    pub fn clear(&self) {}
}

crate::as_handle!(impl[] for Kick, |this| this.0.as_handle());
