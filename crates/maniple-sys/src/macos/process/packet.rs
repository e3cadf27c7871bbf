//! A local socket that carries whole packets with handles; its calls wait.

use super::super::{packets, rights, stream};
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::event::PollFlags;
use std::io;

/// The greatest number of handles of a packet.
pub const MOST_HANDLES: usize = rights::MOST;

/// Creates a socket and returns its two ends.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    stream::packet_pair()
}

/// Waits for room, or for a packet.
fn wait(socket: BorrowedHandle<'_>, is: PollFlags) -> io::Result<()> {
    match rights::wait_until(socket, is) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other,
    }
}

/// Sends one packet.
pub fn send(socket: BorrowedHandle<'_>, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
    while !packets::send(socket, bytes, handles)? {
        wait(socket, PollFlags::OUT)?;
    }
    Ok(())
}

/// Receives one packet, and appends its handles to `handles`. Returns its length, or 0 if the other end is gone, and
/// whether all of its handles arrived: the system drops handles for which this process has no descriptor left.
pub fn receive(
    socket: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: &mut Vec<OwnedHandle>,
) -> io::Result<(usize, bool)> {
    loop {
        match packets::receive(socket, bytes, Some(handles)) {
            Ok(Some(packet)) => return Ok((packet.len, !packet.is_cut)),
            Ok(None) => wait(socket.as_handle(), PollFlags::IN)?,
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::ConnectionReset => return Ok((0, true)),
                _ => return Err(error),
            },
        }
    }
}
