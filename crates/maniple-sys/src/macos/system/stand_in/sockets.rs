//! Local sockets.

use crate::BorrowedHandle;
use rustix::ioctl::{Getter, Opcode};
use rustix::net::sockopt;
use std::io;

/// The greatest length of a frame that is sent as a whole or not at all.
pub const LONGEST_FRAME: usize = 64 * 1024;
/// Bytes that were sent and not received (linux/sockios.h).
const SIOCOUTQ: Opcode = 0x5411;

/// Does nothing: a flag of each send does it.
pub fn silence(_socket: BorrowedHandle<'_>) {}

/// Does nothing: there is enough room.
pub fn widen(_socket: BorrowedHandle<'_>) {}

/// Does nothing: [`has_room`] decides.
pub fn prepare_frames(_socket: BorrowedHandle<'_>) -> io::Result<()> {
    Ok(())
}

/// Returns whether a frame has room as a whole. The system counts its own structures too, so this is a guess to the
/// safe side.
pub fn has_room(socket: BorrowedHandle<'_>, len: usize) -> bool {
    let most = sockopt::socket_send_buffer_size(socket).unwrap_or(0) as u64;
    unread_there(socket).is_ok_and(|used| used + 2 * len as u64 + 4096 < most)
}

/// Returns the bytes that this end has sent and the other end has not received.
pub fn unread_there(socket: BorrowedHandle<'_>) -> io::Result<u64> {
    // SAFETY: the request writes an `int`.
    Ok(unsafe { rustix::ioctl::ioctl(socket, Getter::<SIOCOUTQ, i32>::new())? } as u64)
}

/// Returns the process at the other end.
pub fn peer_process(socket: BorrowedHandle<'_>) -> Option<i32> {
    sockopt::socket_peercred(socket).ok().map(|who| who.pid.as_raw_nonzero().get())
}
