//! A local socket between hub and worker that carries handles, and reports that the other end is gone. Neither end
//! ever blocks on it.
//!
//! The socket is a stream, and each note is 8 bytes, which the system sends and receives in one piece: there is room
//! for all of them or for none (a stream reports room for at least 2 KiB: bsd/kern/uipc_socket2.c, `soreserve`), and no
//! call reads a part.

use super::{packets, rights, stream};
use crate::atfork::HubOnly;
use crate::unix::bytes::AT_ONCE;
use crate::unix::numbers;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::io::{self, IoSlice};

pub use crate::terms::Note;
pub use crate::unix::errors::{is_crowded, is_out_of_handles, out_of_handles};

/// The greatest number of handles of a note.
pub const MOST: usize = rights::MOST;

/// One end of the line.
#[derive(Debug)]
pub struct Wire(End);

#[derive(Debug)]
enum End {
    Plain(OwnedHandle),
    /// Forked children close it.
    Hub(HubOnly),
}

impl Wire {
    /// Creates a line and returns its two ends.
    pub fn pair() -> io::Result<(Wire, Wire)> {
        let (a, b) = Wire::ends()?;
        Ok((Wire(End::Plain(a)), Wire(End::Plain(b))))
    }

    fn ends() -> io::Result<(OwnedHandle, OwnedHandle)> {
        let ends = stream::plain_pair()?;
        rustix::io::ioctl_fionbio(&ends.0, true)?;
        rustix::io::ioctl_fionbio(&ends.1, true)?;
        Ok(ends)
    }

    /// Takes over an end that came from another process.
    pub fn from_handle(handle: OwnedHandle) -> Wire {
        Wire(End::Plain(handle))
    }

    /// Creates a line and returns its two ends: the hub's, which its forked children close, and an end for a worker.
    /// Call it inside [`making`](crate::atfork::making).
    pub fn for_worker() -> io::Result<(Wire, OwnedHandle)> {
        let (hub, worker) = Wire::ends()?;
        Ok((Wire(End::Hub(HubOnly::new(hub)?)), worker))
    }

    /// Returns whether the other end is gone. Notes that it has sent may still be unread.
    pub fn is_hung_up(&self) -> bool {
        packets::is_hung_up(self.as_handle())
    }

    /// Sends a number, and up to [`MOST`] handles: all of them or nothing. `WouldBlock`: the line is full.
    pub fn send(&self, tag: u64, handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        let bytes = tag.to_ne_bytes();
        loop {
            match rights::send(self.as_handle(), &[IoSlice::new(&bytes)], handles, AT_ONCE) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives the next note, without waiting.
    pub fn receive(&self) -> io::Result<Note> {
        let mut bytes = [0u8; 8];
        let mut handles = Vec::new();
        let got = loop {
            match rights::receive_now(self.as_handle(), &mut bytes, &mut handles) {
                Ok(Some(got)) => break got,
                Ok(None) => return Ok(Note::Nothing),
                Err(error) => match error.kind() {
                    // The other end closed with unread notes.
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset => {}
                    _ => return Err(error),
                },
            }
        };
        match got.bytes {
            0 => Ok(Note::Closed),
            8 if got.is_cut => Ok(Note::Cut(u64::from_ne_bytes(bytes), handles)),
            8 => Ok(Note::Tag(u64::from_ne_bytes(bytes), handles)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "received a note that is not 8 bytes long")),
        }
    }

    /// Receives the next note by `take`. If `is_passing` is true for its number, `take` closes the note's handles
    /// before it returns. If this process has no number left, a spare one is there for the note.
    pub fn take<R: Send>(&self, _is_passing: impl Fn(u64) -> bool, take: impl Fn(&Wire) -> R + Sync) -> R {
        if !numbers::are_scarce() {
            return take(self);
        }
        let fresh = || super::memory::duplicate(self).ok();
        numbers::with_spare(fresh, || take(self))
    }

    /// Waits until a note can be received (or the other end is gone).
    pub fn wait(&self, timeout: Option<std::time::Duration>) -> io::Result<()> {
        super::ready::wait(&mut [super::ready::Interest::new(self.as_handle())], timeout).map(|_| ())
    }
}

crate::as_handle!(impl[] for Wire, |this| match &this.0 {
    End::Plain(handle) => handle.as_handle(),
    End::Hub(handle) => handle.as_handle(),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_arrives_after_its_sender_closed_with_unread_notes() {
        let (here, there) = Wire::pair().unwrap();
        there.send(7, &[there.as_handle(), there.as_handle()]).unwrap();
        here.send(8, &[]).unwrap();
        drop(there);
        assert!(matches!(here.receive().unwrap(), Note::Tag(7, handles) if handles.len() == 2));
        // The sender keeps sockets until the message is received.
        here.wait(Some(std::time::Duration::from_secs(30))).unwrap();
        assert!(matches!(here.receive().unwrap(), Note::Closed));
    }

    #[test]
    fn a_note_carries_many_handles_and_no_more() {
        let (here, there) = Wire::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        here.send(1, &[file.as_handle(); MOST]).unwrap();
        assert!(matches!(there.receive().unwrap(), Note::Tag(1, handles) if handles.len() == MOST));
        assert!(here.send(2, &[file.as_handle(); MOST + 1]).is_err());
        assert!(matches!(there.receive().unwrap(), Note::Nothing));
    }
}
