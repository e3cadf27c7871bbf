//! Whether both ends of a connection wait for room.
//!
//! A local socket's receive buffer has a size that the kernel keeps and shows to everybody (`unix_diag`), and makes no use of: what is on
//! its way is counted against the sender. So that size is where an end says that it waits.

use super::diag;
use super::stream::{self, Kind};
use crate::BorrowedHandle;
use rustix::ioctl::{Getter, Opcode};
use rustix::net::sockopt;
use std::io;

pub use crate::terms::{Other, Unread};

/// Bytes that were sent and not received, counted in some way (linux/sockios.h: `SIOCOUTQ`).
const SIOCOUTQ: Opcode = 0x5411;
/// The size of the receive buffer that means "waits"; the kernel doubles the given size.
const WAITS: usize = 31_337;

/// What lies unreceived at both ends. `None`: nothing at one of them.
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
        // Packets go between ends of ours only.
        Some(_) if stream::is_packets(socket) => Other::Ours,
        _ => Other::Unknown,
    };
    Ok(Some(Unread { here, there, other }))
}

/// Says that this end waits for room, for as long as this is there.
#[derive(Debug)]
pub struct Said<'a> {
    socket: BorrowedHandle<'a>,
    before: usize,
}

impl<'a> Said<'a> {
    /// Says it. Fails on what is not a local socket.
    pub fn new(socket: BorrowedHandle<'a>) -> io::Result<Said<'a>> {
        if stream::kind(socket) != Kind::Local {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let before = sockopt::socket_recv_buffer_size(socket)?;
        sockopt::set_socket_recv_buffer_size(socket, WAITS)?;
        Ok(Said { socket, before })
    }

    /// Leaves it said, until [`unsay`].
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

/// Withdraws what [`Said::leave`] left.
pub fn unsay(socket: BorrowedHandle<'_>) {
    // Nothing depends on it, and any other size is as good.
    let _ = sockopt::set_socket_recv_buffer_size(socket, 3 * WAITS);
}

impl Drop for Said<'_> {
    fn drop(&mut self) {
        // Nothing depends on it.
        let before = if self.before == 2 * WAITS { 3 * WAITS } else { self.before / 2 };
        let _ = sockopt::set_socket_recv_buffer_size(self.socket, before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AsHandle;

    #[test]
    fn a_full_end_that_waits_is_seen_at_the_other_one() {
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
    fn saying_that_an_end_waits_does_not_change_what_it_can_receive() {
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
