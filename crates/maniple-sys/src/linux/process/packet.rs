//! A local socket that carries whole packets with handles; its calls wait.

use crate::own::{arrived, both_above_stdio};
use crate::unix::again::patiently;
use crate::{BorrowedHandle, OwnedHandle};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// The greatest number of handles of a packet (the kernel's limit).
pub const MOST_HANDLES: usize = 253;

/// Creates a socket and returns its two ends.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    both_above_stdio(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one packet.
pub fn send(socket: BorrowedHandle<'_>, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_HANDLES))];
    loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !handles.is_empty() && !control.push(SendAncillaryMessage::ScmRights(BorrowedHandle::as_fds(handles))) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many handles for one packet"));
        }
        match patiently(|| rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Receives one packet, and appends its handles to `handles`. Returns its length, or 0 if the other end is gone, and
/// whether all of its handles arrived: the kernel drops handles for which this process has no descriptor left.
pub fn receive(
    socket: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: &mut Vec<OwnedHandle>,
) -> io::Result<(usize, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_HANDLES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match patiently(|| rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut *bytes)], &mut control, flags)) {
            Ok(got) => break got,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok((0, true)),
            Err(e) => return Err(e.into()),
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            handles.extend(more.map(arrived));
        }
    }
    Ok((got.bytes, !got.flags.contains(ReturnFlags::CTRUNC)))
}
