//! Bytes over a pipe or a socket, and handles with them over a local socket. Every call that may wait ends with
//! `Interrupted` when a signal handler has run.
//!
//! A local socket can be *marked*: it receives a name, which the process at its other end can read. The name is that of
//! a file that is removed at once, so the mark belongs to the socket alone, whichever processes hold it, and disappears
//! with it.

use super::packets::{self, Packet};
use super::ready::{self, Interest};
use super::rights::{self, wait_until};
use super::system::sockets;
use super::{both_made, socket};
use crate::unix::again::patiently;
use crate::unix::bytes::{AT_ONCE, QUIETLY};
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SocketAddrUnix, SocketFlags, SocketType};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

pub use crate::terms::{Kind, Received};
pub use crate::unix::bytes::{
    companion, hang_up, kind, read, read_into, read_socket, read_to_end, receive, recognize, set_blocking, shut, write,
    write_all, write_socket,
};

/// The greatest number of handles of a message.
pub const MOST_HANDLES: usize = rights::MOST;
const MARK: &str = "maniple-takes-parcels-";

/// Returns whether it is an end of a pipe.
pub fn is_pipe(fd: BorrowedHandle<'_>) -> bool {
    use rustix::fs::FileType;
    rustix::fs::fstat(fd).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo)
}

/// Returns whether it is a socket for packets.
pub fn is_packets(socket: BorrowedHandle<'_>) -> bool {
    packets::are_on(socket)
}

/// Creates a connection and returns its two ends.
pub(super) fn plain_pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let (a, b) =
        both_made(|| rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None))?;
    [&a, &b].iter().for_each(|end| sockets::silence(end.as_handle()));
    Ok((a, b))
}

/// Creates a connection for both directions and returns its two ends.
pub fn pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let (a, b) = plain_pair()?;
    [&a, &b].iter().for_each(|end| sockets::widen(end.as_handle()));
    Ok((a, b))
}

/// Creates a pipe and returns the end to read from and the end to write to.
pub fn pipe() -> io::Result<(OwnedHandle, OwnedHandle)> {
    both_made(rustix::pipe::pipe)
}

/// Reads like [`read_into`] without waiting; `None` if nothing is available. `fd` may be any stream.
pub fn read_available(fd: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    let mut interest = [Interest::new(fd)];
    if ready::wait(&mut interest, Some(Duration::ZERO))? == 0 {
        return Ok(None);
    }
    match read_into(fd, bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        other => other.map(Some),
    }
}

/// Writes as much of the parts as there is room for, the handles with the first byte. `None`: there is no room.
pub fn write_now(
    socket: BorrowedHandle<'_>,
    parts: &[IoSlice<'_>],
    handles: &[BorrowedHandle<'_>],
) -> io::Result<Option<usize>> {
    let sent = match (parts, handles) {
        ([one], []) => patiently(|| rustix::net::send(socket, one, AT_ONCE)).map_err(io::Error::from),
        (more, []) => patiently(|| rustix::net::sendmsg(socket, more, &mut SendAncillaryBuffer::default(), AT_ONCE))
            .map_err(io::Error::from),
        ([_], _) => rights::send(socket, parts, handles, AT_ONCE),
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
    loop {
        match rights::send(fd, &[IoSlice::new(bytes)], handles, QUIETLY) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_until(fd, PollFlags::OUT)?,
            other => return other,
        }
    }
}

/// Fills the start of `bytes`, and appends the handles that came with them.
pub fn read_with(fd: BorrowedHandle<'_>, bytes: &mut [u8], handles: &mut Vec<OwnedHandle>) -> io::Result<usize> {
    loop {
        wait_until(fd, PollFlags::IN)?;
        if let Some(got) = read_now(fd, bytes, Some(handles))? {
            return Ok(got);
        }
    }
}

/// Reads like [`read_with`] without waiting; `None` if nothing is available. Returns an error unless `fd` is a socket.
pub fn read_now(
    fd: BorrowedHandle<'_>,
    bytes: &mut [u8],
    handles: Option<&mut Vec<OwnedHandle>>,
) -> io::Result<Option<usize>> {
    if is_packets(fd) {
        return Ok(packets::receive(fd, bytes, handles)?.map(|Packet { len, is_cut }| {
            note_cut(is_cut);
            len
        }));
    }
    match handles {
        Some(handles) => Ok(rights::receive_now(fd, bytes, handles)?.map(|got| {
            note_cut(got.is_cut);
            got.bytes
        })),
        None => match patiently(|| rustix::net::recv(fd, &mut *bytes, RecvFlags::DONTWAIT)) {
            Ok((_, got)) => Ok(Some(got)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        },
    }
}

thread_local! {
    static CUT: Cell<bool> = const { Cell::new(false) };
}

fn note_cut(is_cut: bool) {
    if is_cut {
        CUT.set(true);
    }
}

/// Returns whether this thread has lost received handles since its last call, because there was no number for them.
pub fn take_cut() -> bool {
    CUT.replace(false)
}

/// Creates a connection for *packets* and returns its two ends. A packet consists of bytes and handles, and arrives as
/// a whole or not at all. Several processes use an end one after the other.
pub fn packet_pair() -> io::Result<(OwnedHandle, OwnedHandle)> {
    let (a, b) = plain_pair()?;
    packets::prepare(a.as_handle())?;
    packets::prepare(b.as_handle())?;
    Ok((a, b))
}

/// Sends a packet if there is room for it, and returns whether it was sent. Signal handlers do not interrupt it.
pub fn send_packet(fd: BorrowedHandle<'_>, bytes: &[u8], handles: &[BorrowedHandle<'_>]) -> io::Result<bool> {
    packets::send(fd, bytes, handles)
}

/// Copies the start of the next packet, or of the next data of a stream, without removing it; returns the number of
/// bytes. `None`: there is no packet and no data.
pub fn peek_packet(fd: BorrowedHandle<'_>, bytes: &mut [u8]) -> io::Result<Option<usize>> {
    if is_packets(fd) {
        return packets::peek(fd, bytes);
    }
    loop {
        match patiently(|| rustix::net::recv(fd, &mut *bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT)) {
            Ok((_, got)) => return Ok(Some(got)),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Sends some of `bytes`, waiting until there is room for the first, and returns their number. 0: a signal handler ran
/// before that. (The system does not use `more`: whether the next call continues the message.)
pub fn send(socket: BorrowedHandle<'_>, bytes: &[u8], _more: bool) -> io::Result<usize> {
    match patiently(|| rustix::net::send(socket, bytes, QUIETLY)) {
        Ok(n) => Ok(n),
        Err(Errno::INTR) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Marks an end.
pub fn mark(fd: BorrowedHandle<'_>) -> io::Result<()> {
    if kind(fd) != Kind::Local {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut random = [0; 8];
    socket::random(&mut random)?;
    let name = format!("{MARK}{:016x}", u64::from_ne_bytes(random));
    let mut path = std::env::temp_dir().join(&name);
    if path.as_os_str().len() > socket::LONGEST_PATH {
        path = std::path::Path::new("/tmp").join(&name);
    }
    rustix::net::bind(fd, &SocketAddrUnix::new(&path)?)?;
    Ok(rustix::fs::unlink(&path)?)
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
    let Some(path) = address.path() else { return false };
    std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes()))
        .file_name()
        .is_some_and(|name| name.as_bytes().starts_with(MARK.as_bytes()))
}
