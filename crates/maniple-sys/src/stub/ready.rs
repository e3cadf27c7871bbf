//! Waiting for any of several handles, and for a kick by another thread.

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
    /// Interest in `handle` being readable, finished, or gone at its other end.
    pub fn new(_handle: BorrowedHandle<'a>) -> Self {
        Interest(PhantomData)
    }

    /// Interest in `handle` having room for what is written to it, or gone at its other end.
    pub fn room(_handle: BorrowedHandle<'a>) -> Self {
        Interest(PhantomData)
    }

    /// Never.
    pub fn ready(&self) -> bool {
        false
    }
}

/// Not supported.
pub fn wait(_handles: &mut [Interest<'_>], _timeout: Option<Duration>) -> io::Result<usize> {
    Err(unsupported())
}

/// Not supported.
pub fn wait_for(_interest: Interest<'_>) -> io::Result<bool> {
    Err(unsupported())
}

/// Wakes a thread of this process out of [`wait`].
#[derive(Debug)]
pub struct Kick(Own);

impl Kick {
    /// Not supported.
    pub fn new() -> io::Result<Kick> {
        Err(unsupported())
    }

    /// A kick of another process.
    pub fn from_handle(handle: OwnedHandle) -> Kick {
        Kick(Own::new(handle))
    }

    /// Does nothing: no thread waits.
    pub fn kick(&self) {}

    /// Does nothing: no thread waits.
    pub fn clear(&self) {}
}

crate::as_handle!(impl[] for Kick, |this| this.0.as_handle());
