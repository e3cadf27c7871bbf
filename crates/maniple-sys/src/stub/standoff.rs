//! Detects that both ends of a connection wait for room.

use super::unsupported;
use crate::BorrowedHandle;
use std::io;
use std::marker::PhantomData;

pub use crate::terms::{Other, Unread};

/// Returns the error "not supported".
pub fn unread(_socket: BorrowedHandle<'_>) -> io::Result<Option<Unread>> {
    Err(unsupported())
}

/// Announces that this end waits for room, while this value exists.
#[derive(Debug)]
pub struct Said<'a>(PhantomData<BorrowedHandle<'a>>);

impl<'a> Said<'a> {
    /// Returns the error "not supported".
    pub fn new(_socket: BorrowedHandle<'a>) -> io::Result<Said<'a>> {
        Err(unsupported())
    }

    /// Does nothing.
    pub fn leave(self) {}
}

/// Does nothing: no announcement exists.
pub fn unsay(_socket: BorrowedHandle<'_>) {}

impl Drop for Said<'_> {
    fn drop(&mut self) {}
}
