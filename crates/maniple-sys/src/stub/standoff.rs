//! Whether both ends of a connection wait for room.

use super::unsupported;
use crate::BorrowedHandle;
use std::io;
use std::marker::PhantomData;

pub use crate::terms::{Other, Unread};

/// Not supported.
pub fn unread(_socket: BorrowedHandle<'_>) -> io::Result<Option<Unread>> {
    Err(unsupported())
}

/// Says that this end waits for room, for as long as this is there.
#[derive(Debug)]
pub struct Said<'a>(PhantomData<BorrowedHandle<'a>>);

impl<'a> Said<'a> {
    /// Not supported.
    pub fn new(_socket: BorrowedHandle<'a>) -> io::Result<Said<'a>> {
        Err(unsupported())
    }

    /// There is nothing to leave.
    pub fn leave(self) {}
}

/// There is nothing to withdraw.
pub fn unsay(_socket: BorrowedHandle<'_>) {}

impl Drop for Said<'_> {
    fn drop(&mut self) {}
}
