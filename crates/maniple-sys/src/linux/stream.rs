//! Bytes over a pipe or a socket, and handles with them over a local socket. Every call that may wait ends with
//! `Interrupted` when a signal handler has run.
//!
//! A local socket can be *marked*: it receives a name, which the process at its other end can read. The mark belongs to
//! the socket, whichever processes hold it, and disappears with it.
#![allow(unsafe_code)]

use super::ready::{self, Interest};
use super::wire;
use crate::own::{arrived, both_above_stdio};
use crate::unix::again::patiently;
use crate::unix::bytes::{AT_ONCE, QUIETLY, not_a_socket};
use crate::unix::numbers;
use crate::{BorrowedHandle, OwnedHandle};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::time::Duration;

pub use crate::terms::{Kind, Received};
pub use crate::unix::bytes::{
    companion, hang_up, kind, read, read_into, read_socket, read_to_end, receive, recognize, set_blocking, shut, write,
    write_all, write_socket,
};

/// The greatest number of handles of a message (the kernel's `SCM_MAX_FD`).
pub const MOST_HANDLES: usize = 253;
const MARK: &[u8] = b"maniple takes parcels ";

/// Returns whether it is an end of a pipe. The system answers this in a third of the time of a question for the file.
pub fn is_pipe(fd: BorrowedHandle<'_>) -> bool {
    rustix::pipe::fcntl_getpipe_size(fd).is_ok()
}

/// Returns whether it is a socket for packets.
pub fn is_packets(socket: BorrowedHandle<'_>) -> bool {
    rustix::net::sockopt::socket_type(socket).is_ok_and(|kind| kind == SocketType::SEQPACKET)
}

/// Creates a connection for both directions and returns its two ends.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    both_above_stdio(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Creates a pipe and returns the end to read from and the end to write to.
pub fn pipe() -> io::Result<(OwnedHandle, OwnedHandle)> {
    both_above_stdio(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Reads like [`read_into`] without waiting; `None` if nothing is available. `fd` may be any stream.
pub fn read_available(fd: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    use rustix::io::Errno;
    // The offset of a stream is -1.
    let read = patiently(|| {
        rustix::io::preadv2(fd, &mut [IoSliceMut::new(bytes)], u64::MAX, rustix::io::ReadWriteFlags::NOWAIT)
    });
    match read {
        Ok(got) => Ok(Some(got)),
        Err(Errno::AGAIN) => Ok(None),
        // The kernel, a sandbox or this kind of file has no such call.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM | Errno::SPIPE) => {
            let mut interest = [Interest::new(fd)];
            if ready::wait(&mut interest, Some(Duration::ZERO))? == 0 {
                Ok(None)
            } else {
                read_into(fd, bytes).map(Some)
            }
        }
        Err(e) => Err(e.into()),
    }
}

/// Writes as much of the parts as there is room for, the handles with the first byte. `None`: there is no room.
pub fn write_now(
    socket: BorrowedHandle<'_>,
    parts: &[IoSlice<'_>],
    handles: &[BorrowedHandle<'_>],
) -> io::Result<Option<usize>> {
    let flags = AT_ONCE;
    let sent = match (parts, handles) {
        ([one], []) => patiently(|| rustix::net::send(socket, one, flags)).map_err(io::Error::from),
        (more, []) => patiently(|| rustix::net::sendmsg(socket, more, &mut SendAncillaryBuffer::default(), flags))
            .map_err(io::Error::from),
        ([one], _) => send_with(socket, one, handles, flags),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    match sent {
        Ok(sent) => Ok(Some(sent)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Writes the start of `bytes`, the handles with its first byte.
pub fn write_with(fd: BorrowedHandle<'_>, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<usize> {
    send_with(fd, bytes, handles, QUIETLY)
}

fn send_with(
    fd: BorrowedHandle<'_>,
    bytes: &[u8],
    handles: &[BorrowedHandle<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_HANDLES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(BorrowedHandle::as_fds(handles))) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(patiently(|| rustix::net::sendmsg(fd, &[IoSlice::new(bytes)], &mut control, flags))?)
}

/// Fills the start of `bytes`, and appends the handles that came with them.
pub fn read_with(fd: BorrowedHandle<'_>, bytes: &mut [u8], handles: &mut Vec<OwnedHandle>) -> io::Result<usize> {
    receive_with(fd, bytes, handles, RecvFlags::CMSG_CLOEXEC)
}

/// Reads like [`read_with`] without waiting; `None` if nothing is available. Returns an error unless `fd` is a socket.
pub fn read_now(
    fd: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: Option<&mut Vec<OwnedHandle>>,
) -> io::Result<Option<usize>> {
    let got = match handles {
        Some(handles) => receive_with(fd, bytes, handles, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT),
        None => patiently(|| rustix::net::recv(fd, &mut *bytes, RecvFlags::DONTWAIT).map(|(_, got)| got))
            .map_err(io::Error::from),
    };
    match got {
        Ok(got) => Ok(Some(got)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

fn receive_with(
    fd: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: &mut Vec<OwnedHandle>,
    flags: RecvFlags,
) -> io::Result<usize> {
    if wire::are_numbers_scarce() {
        // The system drops handles for which there is no number. A peek leaves the message, so a later call can receive
        // it.
        let mut came = Vec::new();
        let looked_at = receive_once(fd, bytes, &mut came, flags | RecvFlags::PEEK)?;
        if looked_at.is_cut {
            return Err(wire::out_of_handles());
        }
        if !came.is_empty() {
            // The peek has brought the handles. Another thread may take the next free numbers, so the message is received
            // without its handles.
            let (got, is_same) = received_again(fd, &mut bytes[..looked_at.bytes], flags)?;
            if is_same {
                handles.append(&mut came);
            } else {
                CUT.set(true);
            }
            return Ok(got);
        }
    }
    let got = receive_once(fd, bytes, handles, flags)?;
    if got.is_cut {
        numbers::have_become_scarce();
        CUT.set(true);
    }
    Ok(got.bytes)
}

/// Receives at most as many bytes as a peek has found, without the handles. Returns their number, and whether they are the
/// same: another process may have received the message meanwhile, and `bytes` begins with the next one, or nothing is left.
fn received_again(fd: BorrowedHandle<'_>, bytes: &mut [u8], flags: RecvFlags) -> io::Result<(usize, bool)> {
    let mut again = vec![0; bytes.len()];
    let got = patiently(|| rustix::net::recv(fd, &mut *again, flags).map(|(_, got)| got))?;
    let is_same = *bytes == again[..got];
    bytes[..got].copy_from_slice(&again[..got]);
    Ok((got, is_same))
}

struct Got {
    bytes: usize,
    is_cut: bool,
}

fn receive_once(
    fd: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: &mut Vec<OwnedHandle>,
    flags: RecvFlags,
) -> io::Result<Got> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_HANDLES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = patiently(|| rustix::net::recvmsg(fd, &mut [IoSliceMut::new(&mut *bytes)], &mut control, flags))
        .map_err(not_a_socket)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            handles.extend(came.map(arrived));
        }
    }
    Ok(Got { bytes: got.bytes, is_cut: got.flags.contains(ReturnFlags::CTRUNC) })
}

thread_local! {
    static CUT: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread has lost received handles since its last call, because there was no number for them.
pub fn take_cut() -> bool {
    CUT.replace(false)
}

/// Creates a connection for *packets* and returns its two ends. A packet consists of bytes and handles, and arrives as
/// a whole or not at all.
pub fn packet_pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    both_above_stdio(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a packet if there is room for it, and returns whether it was sent. Signal handlers do not interrupt it.
pub fn send_packet(fd: BorrowedHandle<'_>, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<bool> {
    let flags = AT_ONCE;
    loop {
        let sent = match handles {
            [] => patiently(|| rustix::net::send(fd, bytes, flags)).map_err(io::Error::from),
            _ => send_with(fd, bytes, handles, flags),
        };
        match sent {
            Ok(_) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

/// Copies the start of the next packet, or of the next data of a stream, without removing it; returns the number of
/// bytes. `None`: there is no packet and no data.
pub fn peek_packet(fd: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match patiently(|| rustix::net::recv(fd, &mut *bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT)) {
            Ok((_, got)) => return Ok(Some(got)),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Sends some of `bytes`, waiting until there is room for the first, and returns their number. 0: a signal handler ran
/// before that. `more`: the next call continues the message.
pub fn send(socket: BorrowedHandle<'_>, bytes: &[u8], more: bool) -> io::Result<usize> {
    let flags = if more { QUIETLY | SendFlags::MORE } else { QUIETLY };
    match patiently(|| rustix::net::send(socket, bytes, flags)) {
        Ok(n) => Ok(n),
        Err(rustix::io::Errno::INTR) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Marks an end.
pub fn mark(fd: BorrowedHandle<'_>) -> io::Result<()> {
    // The socket's number makes the name unique.
    let name = [MARK, format!("{:x}", rustix::fs::fstat(fd)?.st_ino).as_bytes()].concat();
    Ok(rustix::net::bind(fd, &SocketAddrUnix::new_abstract_name(&name)?)?)
}

/// Returns whether this end is marked.
pub fn is_marked(fd: BorrowedHandle<'_>) -> bool {
    rustix::net::getsockname(fd).ok().and_then(|a| SocketAddrUnix::try_from(a).ok()).is_some_and(|a| has_mark(&a))
}

/// Returns whether the other end is marked.
pub fn is_peer_marked(fd: BorrowedHandle<'_>) -> bool {
    rustix::net::getpeername(fd)
        .ok()
        .flatten()
        .and_then(|a| SocketAddrUnix::try_from(a).ok())
        .is_some_and(|a| has_mark(&a))
}

fn has_mark(address: &SocketAddrUnix) -> bool {
    address.abstract_name().is_some_and(|name| name.starts_with(MARK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AsHandle;

    #[test]
    fn both_ends_see_the_mark_of_one() {
        let (a, b) = pair().unwrap();
        assert!(!is_marked(a.as_handle()) && !is_peer_marked(b.as_handle()));
        mark(a.as_handle()).unwrap();
        assert!(is_marked(a.as_handle()) && is_peer_marked(b.as_handle()));
        assert!(!is_marked(b.as_handle()) && !is_peer_marked(a.as_handle()));
    }

    #[test]
    fn read_now_does_not_wait() {
        let (a, b) = pair().unwrap();
        let mut bytes = [0; 4];
        let mut handles = Vec::new();
        assert_eq!(read_now(a.as_handle(), &mut bytes, None).unwrap(), None);
        assert_eq!(read_now(a.as_handle(), &mut bytes, Some(&mut handles)).unwrap(), None);
        write_with(b.as_handle(), b"ab", &[b.as_handle()]).unwrap();
        assert_eq!(read_now(a.as_handle(), &mut bytes, Some(&mut handles)).unwrap(), Some(2));
        assert_eq!((&bytes[..2], handles.len()), (&b"ab"[..], 1));
        handles.clear();
        drop(b);
        // A child that another test forks has a copy of `b` for a moment.
        let ended = std::iter::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(1));
            read_now(a.as_handle(), &mut bytes, None).unwrap()
        });
        assert_eq!(ended.take(10_000).find(Option::is_some), Some(Some(0)));
    }

    #[test]
    fn a_message_that_another_process_has_taken_is_not_counted_as_the_next_one() {
        let (here, there) = pair().unwrap();
        let again = |bytes: &mut [u8]| received_again(here.as_handle(), bytes, RecvFlags::DONTWAIT).unwrap();
        let mut peeked = *b"first";
        write_all(there.as_handle(), b"first").unwrap();
        assert_eq!(again(&mut peeked), (5, true));
        // The peek has found `first`, and another process has received it: the next message is shorter, or is another.
        write_all(there.as_handle(), b"fir").unwrap();
        assert_eq!(again(&mut peeked), (3, false));
        write_all(there.as_handle(), b"other and more").unwrap();
        assert_eq!((again(&mut peeked), &peeked), ((5, false), b"other"));
    }

    #[test]
    fn pipes_have_no_marks() {
        let (a, _b) = rustix::pipe::pipe().unwrap();
        assert!(mark(a.as_handle()).is_err() && !is_peer_marked(a.as_handle()));
    }
}
