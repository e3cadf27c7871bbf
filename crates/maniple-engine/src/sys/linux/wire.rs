//! A local line between hub and worker for what shared memory cannot carry: handles, and the news that an end is gone.
//! Neither end ever blocks on it.
#![allow(unsafe_code)]

use super::Handle;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

/// One end of the line.
#[derive(Debug)]
pub struct Wire(Handle);

/// What came over a wire.
#[derive(Debug)]
pub enum Note {
    /// A number, and the handle that came with it.
    Tag(u64, Option<Handle>),
    /// The other end is gone.
    Closed,
    /// Nothing there now.
    Nothing,
}

impl Wire {
    /// A new line's two ends.
    pub fn pair() -> io::Result<(Wire, Wire)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        Ok((Wire(a), Wire(b)))
    }

    /// An end that came from another process.
    pub fn from_handle(handle: Handle) -> Wire {
        Wire(handle)
    }

    /// Gives the end up, to be passed to a child.
    pub fn into_handle(self) -> Handle {
        self.0
    }

    /// Sends a number, and a handle if one is given. `WouldBlock`: the line is full for now.
    pub fn send(&self, tag: u64, handle: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = tag.to_ne_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let handles = handle.map(|h| [h]);
        if let Some(handles) = &handles {
            control.push(SendAncillaryMessage::ScmRights(handles));
        }
        loop {
            match rustix::net::sendmsg(
                &self.0,
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

    /// Takes the next note, without waiting.
    pub fn receive(&self) -> io::Result<Note> {
        let mut bytes = [0u8; 8];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            match rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(got) => break got,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(Note::Nothing),
                Err(rustix::io::Errno::CONNRESET) => return Ok(Note::Closed),
                Err(e) => return Err(e.into()),
            }
        };
        if got.bytes == 0 {
            return Ok(Note::Closed);
        }
        let handle = control.drain().find_map(|m| match m {
            RecvAncillaryMessage::ScmRights(mut handles) => handles.next(),
            _ => None,
        });
        if got.bytes != 8 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a note that is not 8 bytes long"));
        }
        if handle.is_none() && got.flags.contains(ReturnFlags::CTRUNC) {
            // The kernel drops a handle that this process has no descriptor number left for.
            return Err(io::Error::from(rustix::io::Errno::MFILE));
        }
        Ok(Note::Tag(u64::from_ne_bytes(bytes), handle))
    }

    /// Waits until something can be taken (or the other end is gone).
    pub fn wait(&self, timeout: Option<std::time::Duration>) -> io::Result<()> {
        super::ready::wait(&mut [super::ready::Interest::new(self.0.as_fd())], timeout).map(|_| ())
    }
}

/// Whether sending failed because too many handles of this user are under way.
pub fn is_crowded(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error())
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
