//! Detects that both ends of a connection wait for room.

use super::{line, unsupported};
use crate::BorrowedHandle;
use std::io;

pub use crate::terms::{Other, Unread};

/// Returns the unreceived bytes at both ends. `None`: one end has none. Not supported for connections of the network.
pub fn unread(socket: BorrowedHandle<'_>) -> io::Result<Option<Unread>> {
    let end = line::of(socket).ok_or_else(|| unsupported("the unread bytes of a connection of the network"))?;
    let (here, there, other_has_room) = end.unread();
    if here == 0 || there == 0 {
        return Ok(None);
    }
    let other = match (end.does_peer_wait(), other_has_room) {
        (true, _) => Other::Waits,
        (false, true) => Other::HasRoom,
        (false, false) if end.is_for_packets() => Other::Ours,
        (false, false) => Other::Unknown,
    };
    Ok(Some(Unread { here, there, other }))
}

/// Announces that this end waits for room, while this value exists.
#[derive(Debug)]
pub struct Said<'a>(BorrowedHandle<'a>);

impl<'a> Said<'a> {
    /// Announces it. Returns an error unless `socket` is a local connection.
    pub fn new(socket: BorrowedHandle<'a>) -> io::Result<Said<'a>> {
        line::of(socket).ok_or_else(|| unsupported("announcing a wait over the network"))?.say_waits(true);
        Ok(Said(socket))
    }

    /// The announcement stays until [`unsay`].
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

/// Ends the announcement.
pub fn unsay(socket: BorrowedHandle<'_>) {
    if let Some(end) = line::of(socket) {
        end.say_waits(false);
    }
}

impl Drop for Said<'_> {
    fn drop(&mut self) {
        unsay(self.0);
    }
}
