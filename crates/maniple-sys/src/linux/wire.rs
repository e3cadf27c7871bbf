//! A local socket between hub and worker that carries handles, and reports that the other end is gone: shared memory
//! can do neither. Neither end ever blocks on it.
#![allow(unsafe_code)]

use super::aside::is_aside;
use crate::atfork::HubOnly;
use crate::unix::numbers;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

pub use crate::terms::Note;
pub use crate::unix::errors::{is_crowded, is_out_of_handles, out_of_handles};

/// The greatest number of handles of a note (the kernel's limit).
pub const MOST: usize = 253;

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
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let (a, b) = crate::own::both_above_stdio((a, b))?;
        Ok((a, b))
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
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut look = [PollFd::from_borrowed_fd(self.as_handle().into(), PollFlags::empty())];
        matches!(poll(&mut look, Some(&Timespec::default())), Ok(1)) && look[0].revents().contains(PollFlags::HUP)
    }

    /// Sends a number, and up to [`MOST`] handles: all of them or nothing. `WouldBlock`: the line is full.
    pub fn send(&self, tag: u64, handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
        let bytes = tag.to_ne_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !handles.is_empty() && !control.push(SendAncillaryMessage::ScmRights(BorrowedHandle::as_fds(handles))) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many handles for one note"));
        }
        loop {
            match rustix::net::sendmsg(
                self.as_handle(),
                &[IoSlice::new(&bytes)],
                &mut control,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Receives the next note, without waiting.
    pub fn receive(&self) -> io::Result<Note> {
        let mut bytes = [0u8; 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            match rustix::net::recvmsg(
                self.as_handle(),
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(got) => break got,
                // The other end closed with unread notes. The kernel reports this once, before the notes that the other
                // end had sent.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(Note::Nothing),
                Err(e) => return Err(e.into()),
            }
        };
        if got.bytes == 0 {
            return Ok(Note::Closed);
        }
        let mut handles = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                handles.extend(came.map(crate::own::arrived));
            }
        }
        if got.bytes != 8 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "received a note that is not 8 bytes long"));
        }
        let tag = u64::from_ne_bytes(bytes);
        // The kernel drops a handle for which this process has no descriptor number left.
        if got.flags.contains(ReturnFlags::CTRUNC) {
            numbers::have_become_scarce();
            return Ok(Note::Cut(tag, handles));
        }
        Ok(Note::Tag(tag, handles))
    }

    /// Returns the next note's number; the note stays on the wire. `None`: there is no note, or it cannot be read.
    fn peek(&self) -> Option<u64> {
        let mut bytes = [0u8; 8];
        let (_, got) = rustix::net::recv(self.as_handle(), &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT).ok()?;
        (got == 8).then(|| u64::from_ne_bytes(bytes))
    }

    /// Receives the next note by `take`. If `is_passing` is true for its number, `take` closes the note's handles
    /// before it returns; then `take` finds numbers for them even if this process has none left.
    pub fn take<R: Send>(&self, is_passing: impl Fn(u64) -> bool, take: impl Fn(&Wire) -> R + Sync) -> R {
        if !are_numbers_scarce() {
            return take(self);
        }
        if self.peek().is_some_and(is_passing)
            && let Ok(taken) = super::aside(&[self.as_handle()], || take(self))
        {
            return taken;
        }
        with_spare(|| take(self))
    }

    /// Waits until a note can be received (or the other end is gone).
    pub fn wait(&self, timeout: Option<std::time::Duration>) -> io::Result<()> {
        super::ready::wait(&mut [super::ready::Interest::new(self.as_handle())], timeout).map(|_| ())
    }
}

/// Returns whether there may be no numbers for the next handles, which the system would then drop.
pub(super) fn are_numbers_scarce() -> bool {
    is_aside() || numbers::are_scarce()
}

/// Runs `with` with one more spare descriptor, usually, if descriptors are scarce.
fn with_spare<R>(with: impl FnOnce() -> R) -> R {
    let fresh = || rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok().map(crate::own::arrived);
    numbers::with_spare(fresh, with)
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
        assert!(matches!(here.receive().unwrap(), Note::Closed));
    }

    #[test]
    fn a_note_carries_many_handles_and_no_more() {
        let (here, there) = Wire::pair().unwrap();
        here.send(1, &[here.as_handle(); MOST]).unwrap();
        assert!(matches!(there.receive().unwrap(), Note::Tag(1, handles) if handles.len() == MOST));
        assert!(here.send(2, &[here.as_handle(); MOST + 1]).is_err());
        assert!(matches!(there.receive().unwrap(), Note::Nothing));
    }
}
