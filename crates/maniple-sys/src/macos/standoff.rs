//! Detects that both ends of a connection wait for room.
//!
//! An end cannot announce that it waits: no property of a socket is visible at its other end but its name, which can be
//! set once. So the wait ends when nothing has moved for a long time.

use super::stream::{Kind, kind};
use super::system::sockets;
use crate::BorrowedHandle;
use std::io;

pub use crate::terms::{Other, Unread};

/// Returns the unreceived bytes at both ends. `None`: one end has none.
pub fn unread(socket: BorrowedHandle<'_>) -> io::Result<Option<Unread>> {
    if kind(socket) != Kind::Local {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let here = rustix::io::ioctl_fionread(socket)?;
    let there = sockets::unread_there(socket)?;
    if here == 0 || there == 0 {
        return Ok(None);
    }
    Ok(Some(Unread { here, there, other: Other::Unknown }))
}

/// The announcement that an end waits, which this system cannot make.
#[derive(Debug)]
pub struct Said<'a>(std::convert::Infallible, std::marker::PhantomData<BorrowedHandle<'a>>);

impl<'a> Said<'a> {
    /// Returns the error "not supported".
    pub fn new(_socket: BorrowedHandle<'a>) -> io::Result<Said<'a>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Is never called: there is no value of this type.
    pub fn leave(self) {
        match self.0 {}
    }
}

/// Does nothing: no announcement was made.
pub fn unsay(_socket: BorrowedHandle<'_>) {}
