//! Detects that both ends of a connection wait for room.
//!
//! The kernel stores the size of a local socket's receive buffer and reports it to all processes (`unix_diag`), but
//! does not use it: it counts bytes in transit against the sender. So an end announces by this size that it waits.

use super::diag;
use super::stream::{self, Kind};
use crate::BorrowedHandle;
use rustix::ioctl::{Getter, Opcode};
use rustix::net::sockopt;
use std::io;

pub use crate::terms::{Other, Unread};

/// Bytes that were sent and not received; the unit depends on the socket (linux/sockios.h: `SIOCOUTQ`).
const SIOCOUTQ: Opcode = 0x5411;
/// The size of the receive buffer that means "waits"; the kernel doubles the given size.
const WAITS: usize = 31_337;

/// Returns the unreceived bytes at both ends. `None`: one end has none.
#[allow(unsafe_code)]
pub fn unread(socket: BorrowedHandle<'_>) -> io::Result<Option<Unread>> {
    let here = rustix::io::ioctl_fionread(socket)?;
    // SAFETY: the request writes an `int`.
    let there = unsafe { rustix::ioctl::ioctl(socket, Getter::<SIOCOUTQ, i32>::new())? } as u64;
    if here == 0 || there == 0 {
        return Ok(None);
    }
    let memory = match stream::kind(socket) {
        Kind::Local => diag::peer_memory(socket).ok().flatten(),
        _ => None,
    };
    let other = match memory {
        Some(memory) if memory.receive_buffer as usize == 2 * WAITS => Other::Waits,
        Some(memory) if memory.sent < memory.most => Other::HasRoom,
        // Only this package uses sockets for packets.
        Some(_) if stream::is_packets(socket) => Other::Ours,
        _ => Other::Unknown,
    };
    Ok(Some(Unread { here, there, other }))
}

/// Announces that this end waits for room, while this value exists.
#[derive(Debug)]
pub struct Said<'a> {
    socket: BorrowedHandle<'a>,
    before: usize,
}

impl<'a> Said<'a> {
    /// Announces it. Returns an error unless `socket` is a local socket.
    pub fn new(socket: BorrowedHandle<'a>) -> io::Result<Said<'a>> {
        if stream::kind(socket) != Kind::Local {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let before = sockopt::socket_recv_buffer_size(socket)?;
        sockopt::set_socket_recv_buffer_size(socket, WAITS)?;
        Ok(Said { socket, before })
    }

    /// Keeps the announcement until [`unsay`].
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

/// Withdraws the announcement that [`Said::leave`] kept.
pub fn unsay(socket: BorrowedHandle<'_>) {
    // No code depends on the size, so any other size withdraws the announcement.
    let _ = sockopt::set_socket_recv_buffer_size(socket, 3 * WAITS);
}

impl Drop for Said<'_> {
    fn drop(&mut self) {
        let before = if self.before == 2 * WAITS { 3 * WAITS } else { self.before / 2 };
        let _ = sockopt::set_socket_recv_buffer_size(self.socket, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AsHandle;

    #[test]
    fn an_end_sees_that_the_other_end_waits() {
        for (a, b) in [stream::packet_pair().unwrap(), stream::pair().unwrap()] {
            let (a, b) = (a.as_handle(), b.as_handle());
            assert_eq!(unread(a).unwrap(), None);
            while stream::send_packet(a, &[1; 100], &[]).unwrap() {}
            assert_eq!(unread(a).unwrap(), None);
            assert!(stream::send_packet(b, &[1; 100], &[]).unwrap());
            let told = diag::peer_memory(a).is_ok_and(|memory| memory.is_some());
            if told {
                assert_eq!(unread(a).unwrap().unwrap().other, Other::HasRoom);
            }
            while stream::send_packet(b, &[1; 100], &[]).unwrap() {}
            let other = || unread(a).unwrap().unwrap().other;
            if told {
                let silent = other();
                assert_ne!(silent, Other::Waits);
                let said = Said::new(b).unwrap();
                assert_eq!(other(), Other::Waits);
                drop(said);
                assert_eq!(other(), silent);
                Said::new(b).unwrap().leave();
                assert_eq!(other(), Other::Waits);
                unsay(b);
                assert_eq!(other(), silent);
            }
            let mut bytes = [0; 1000];
            while stream::read_now(a, &mut bytes, None).unwrap().is_some() {}
            assert_eq!(unread(a).unwrap(), None);
        }
    }

    #[test]
    fn an_announcement_does_not_change_the_room_of_an_end() {
        for (a, b) in [stream::packet_pair().unwrap(), stream::pair().unwrap()] {
            let fill = || {
                let mut sent = 0;
                while stream::send_packet(a.as_handle(), &[1; 1000], &[]).unwrap() {
                    sent += 1;
                }
                let mut bytes = [0; 1000];
                while stream::read_now(b.as_handle(), &mut bytes, None).unwrap().is_some() {}
                sent
            };
            let before = fill();
            let said = Said::new(b.as_handle()).unwrap();
            assert_eq!(fill(), before);
            drop(said);
            assert_eq!(fill(), before);
        }
    }
}
