//! Bytes over a local socket with handles (`SCM_RIGHTS`).
//!
//! The system's calls differ from Linux's: a received handle is inherited by programs until a second call prevents
//! that, so no fork happens in between; a peek returns no handles; a receive that finds no number for a handle is an
//! error that leaves the bytes and drops the handles (bsd/kern/uipc_usrreq.c: `unp_externalize`); and a send with
//! handles that has no room returns EMSGSIZE (bsd/kern/uipc_socket.c: `sosendcheck`).

use super::in_flight;
use super::memory::close_on_exec;
use crate::atfork::making;
use crate::own::arrived;
use crate::unix::again::patiently;
use crate::unix::bytes::not_a_socket;
use crate::unix::numbers;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// The greatest number of handles of a message. (macOS has room for 254: bsd/kern/uipc_syscalls.c, `sockargs`.)
pub(super) const MOST: usize = 253;

/// Sends the start of the parts, the handles with the first byte.
pub(super) fn send(
    socket: BorrowedHandle<'_>,
    parts: &[IoSlice<'_>],
    handles: &[BorrowedHandle<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !handles.is_empty() && !control.push(SendAncillaryMessage::ScmRights(BorrowedHandle::as_fds(handles))) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many handles for one message"));
    }
    match patiently(|| rustix::net::sendmsg(socket, parts, &mut control, flags)) {
        // There are not too many, so there is no room for so many at the moment.
        Err(Errno::MSGSIZE) if !handles.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(not_a_socket(error)),
        Ok(sent) => {
            in_flight::keep(socket, handles);
            Ok(sent)
        }
    }
}

/// What a receive has found.
#[derive(Debug)]
pub(super) struct Got {
    pub bytes: usize,
    /// Handles were lost, because this process had no number left.
    pub is_cut: bool,
}

/// Fills the start of `bytes` with what is available, and appends the handles that came with it. `None`: nothing is
/// available.
pub(super) fn receive_now(
    socket: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: &mut Vec<OwnedHandle>,
) -> io::Result<Option<Got>> {
    let got = making(|| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT;
        let got = match patiently(|| {
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut *bytes)], &mut control, flags)
        }) {
            Ok(got) => Got { bytes: got.bytes, is_cut: got.flags.contains(ReturnFlags::CTRUNC) },
            // The bytes are still there, without their handles.
            Err(Errno::MSGSIZE) => {
                let (_, got) = patiently(|| rustix::net::recv(socket, &mut *bytes, flags))?;
                Got { bytes: got, is_cut: true }
            }
            Err(error) => return Err(error),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                for handle in came {
                    let handle = arrived(handle);
                    let _ = close_on_exec(handle.as_handle());
                    handles.push(handle);
                }
            }
        }
        Ok(got)
    });
    match got {
        Ok(got) => {
            if got.is_cut {
                numbers::have_become_scarce();
            }
            Ok(Some(got))
        }
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(not_a_socket(error)),
    }
}

/// Waits until something can be received, or sent. `Interrupted`: a signal handler has run.
pub(super) fn wait_until(socket: BorrowedHandle<'_>, is: rustix::event::PollFlags) -> io::Result<()> {
    use rustix::event::{PollFd, poll};
    patiently(|| poll(&mut [PollFd::from_borrowed_fd(socket.into(), is)], None))?;
    Ok(())
}
