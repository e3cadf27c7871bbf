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
use crate::whole;
use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::time::Duration;

pub use crate::terms::{Kind, Received};

/// The greatest number of handles of a message (the kernel's `SCM_MAX_FD`).
pub const MOST_HANDLES: usize = 253;
const MARK: &[u8] = b"maniple takes parcels ";

/// Returns the kind of file that `fd` leads to.
pub fn kind(fd: BorrowedHandle<'_>) -> Kind {
    match rustix::net::getsockname(fd).map(|address| address.address_family()) {
        Ok(AddressFamily::UNIX) => Kind::Local,
        Ok(_) => Kind::Remote,
        Err(_) => Kind::Other,
    }
}

/// Returns whether it is an end of a pipe. The system answers this in a third of the time of a question for the file.
pub fn is_pipe(fd: BorrowedHandle<'_>) -> bool {
    rustix::pipe::fcntl_getpipe_size(fd).is_ok()
}

/// Returns whether it is a socket for packets.
pub fn is_packets(socket: BorrowedHandle<'_>) -> bool {
    rustix::net::sockopt::socket_type(socket).is_ok_and(|kind| kind == SocketType::SEQPACKET)
}

/// Makes every call wait until it can complete.
pub fn set_blocking(fd: BorrowedHandle<'_>) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(fd, false)?)
}

/// Closes one direction of a socket, in all processes that hold it: the direction to it (`incoming`), or from it.
pub fn shut(fd: BorrowedHandle<'_>, incoming: bool) -> io::Result<()> {
    use rustix::net::Shutdown::{Read, Write};
    Ok(rustix::net::shutdown(fd, if incoming { Read } else { Write })?)
}

/// Creates a connection for both directions and returns its two ends.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    both_above_stdio(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Creates a pipe and returns the end to read from and the end to write to.
pub fn pipe() -> io::Result<(OwnedHandle, OwnedHandle)> {
    both_above_stdio(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Does nothing: all descriptors are closed in the same way.
#[inline]
pub fn recognize(_number: RawHandle) {}

/// Returns `None`: a descriptor is all that a process needs.
#[inline]
pub fn companion(_handle: BorrowedHandle<'_>) -> Option<OwnedHandle> {
    None
}

/// Reads until the other end is closed; signal handlers do not interrupt it.
pub fn read_to_end(fd: BorrowedHandle<'_>) -> io::Result<Vec<u8>> {
    whole::read_to_end(|bytes| read(fd, bytes, 4096))
}

/// Appends at most `len` bytes to `bytes` and returns their number; 0 at the end of the stream.
pub fn read(fd: BorrowedHandle<'_>, bytes: &mut Vec<u8>, len: usize) -> io::Result<usize> {
    bytes.reserve(len);
    let start = bytes.len();
    let read = patiently(|| rustix::io::read(fd, &mut bytes.spare_capacity_mut()[..len]).map(|(read, _)| read.len()))?;
    // SAFETY: the kernel has filled `read` bytes of the spare capacity.
    unsafe { bytes.set_len(start + read) };
    Ok(read)
}

/// Fills the start of `bytes`.
pub fn read_into(fd: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    Ok(patiently(|| rustix::io::read(fd, &mut *bytes))?)
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

/// Writes the start of the parts.
pub fn write(fd: BorrowedHandle<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(match parts {
        [one] => patiently(|| rustix::io::write(fd, one))?,
        more => patiently(|| rustix::io::writev(fd, more))?,
    })
}

/// As [`write()`], to a socket, without the signal that writing to a closed end sends. Any other file is not there: the program
/// has closed the socket and opened the file under its number.
pub fn write_socket(socket: BorrowedHandle<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL;
    let sent = match parts {
        [one] => patiently(|| rustix::net::send(socket, one, flags)),
        more => patiently(|| rustix::net::sendmsg(socket, more, &mut SendAncillaryBuffer::default(), flags)),
    };
    sent.map_err(not_a_socket)
}

/// As [`read_into`], from a socket. Any other file is not there, as for [`write_socket`].
pub fn read_socket(socket: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    patiently(|| rustix::net::recv(socket, &mut *bytes, RecvFlags::empty()).map(|(_, got)| got)).map_err(not_a_socket)
}

fn not_a_socket(error: rustix::io::Errno) -> io::Error {
    if error == rustix::io::Errno::NOTSOCK { crate::own::not_there() } else { error.into() }
}

/// Writes all of `bytes`; signal handlers do not interrupt it.
pub fn write_all(fd: BorrowedHandle<'_>, bytes: &[u8]) -> io::Result<()> {
    whole::write_all(bytes, |bytes| write(fd, &[IoSlice::new(bytes)]))
}

/// Writes as much of the parts as there is room for, the handles with the first byte. `None`: there is no room.
pub fn write_now(
    socket: BorrowedHandle<'_>,
    parts: &[IoSlice<'_>],
    handles: &[BorrowedHandle<'_>],
) -> io::Result<Option<usize>> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
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
    send_with(fd, bytes, handles, SendFlags::NOSIGNAL)
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
        wire::numbers_are_scarce();
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
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
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

/// Appends available bytes to `into`, at most its spare capacity. Does not wait.
pub fn receive(socket: BorrowedHandle<'_>, into: &mut Vec<u8>) -> io::Result<Received> {
    match patiently(|| rustix::net::recv(socket, rustix::buffer::spare_capacity(into), RecvFlags::DONTWAIT)) {
        Ok((_, 0)) => Ok(Received::Closed),
        Ok((_, n)) => Ok(Received::Bytes(n)),
        Err(rustix::io::Errno::AGAIN) => Ok(Received::Nothing),
        Err(rustix::io::Errno::INTR) => Ok(Received::Signal),
        Err(e) => Err(e.into()),
    }
}

/// Sends some of `bytes`, waiting until there is room for the first, and returns their number. 0: a signal handler ran
/// before that. `more`: the next call continues the message.
pub fn send(socket: BorrowedHandle<'_>, bytes: &[u8], more: bool) -> io::Result<usize> {
    let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
    match patiently(|| rustix::net::send(socket, bytes, flags)) {
        Ok(n) => Ok(n),
        Err(rustix::io::Errno::INTR) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Ends a connection for all holders of this end. A connection that has ended is not affected.
pub fn hang_up(socket: BorrowedHandle<'_>) {
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
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
