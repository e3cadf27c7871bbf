//! Bytes over pipes and sockets, by calls that all systems of the family have. Every call that may wait ends with
//! `Interrupted` when a signal handler has run.
#![allow(unsafe_code)]

use crate::terms::{Kind, Received};
use crate::unix::again::patiently;
use crate::whole;
use crate::{BorrowedHandle, OwnedHandle, RawHandle};
use rustix::net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags};
use std::io::{self, IoSlice};

/// Sends without the signal that a closed end causes. (rustix does not name the flag on macOS, whose kernel has it
/// since macOS 11 at the latest: xnu-7195, bsd/sys/socket.h.)
pub(crate) const QUIETLY: SendFlags = SendFlags::from_bits_retain(libc::MSG_NOSIGNAL as u32);

/// Sends without waiting, and without that signal.
#[cfg(not(target_os = "macos"))]
pub(crate) const AT_ONCE: SendFlags = QUIETLY.union(SendFlags::DONTWAIT);
/// Sends without waiting, and without that signal. A send of XNU's waits for room in spite of `MSG_DONTWAIT`
/// (bsd/kern/uipc_socket.c: `sosendcheck`); its `MSG_NBIO` (bsd/sys/socket_private.h) does what the other promises.
#[cfg(target_os = "macos")]
pub(crate) const AT_ONCE: SendFlags = QUIETLY.union(SendFlags::DONTWAIT).union(SendFlags::from_bits_retain(0x2_0000));

/// Returns the kind of file that `fd` leads to.
pub fn kind(fd: BorrowedHandle<'_>) -> Kind {
    match rustix::net::getsockname(fd).map(|address| address.address_family()) {
        Ok(AddressFamily::UNIX) => Kind::Local,
        Ok(_) => Kind::Remote,
        Err(_) => Kind::Other,
    }
}

/// Does nothing: all descriptors are closed in the same way.
#[inline]
pub fn recognize(_number: RawHandle) {}

/// Returns `None`: a descriptor is all that a process needs.
#[inline]
pub fn companion(_handle: BorrowedHandle<'_>) -> Option<OwnedHandle> {
    None
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

/// Writes the start of the parts.
pub fn write(fd: BorrowedHandle<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(match parts {
        [one] => patiently(|| rustix::io::write(fd, one))?,
        more => patiently(|| rustix::io::writev(fd, more))?,
    })
}

/// As [`write()`], to a socket, without the signal that writing to a closed end sends. Any other file is not there: the
/// program has closed the socket and opened the file under its number.
pub fn write_socket(socket: BorrowedHandle<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = QUIETLY;
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

pub(crate) fn not_a_socket(error: rustix::io::Errno) -> io::Error {
    if error == rustix::io::Errno::NOTSOCK { crate::own::not_there() } else { error.into() }
}

/// Writes all of `bytes`; signal handlers do not interrupt it.
pub fn write_all(fd: BorrowedHandle<'_>, bytes: &[u8]) -> io::Result<()> {
    whole::write_all(bytes, |bytes| write(fd, &[IoSlice::new(bytes)]))
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

/// Ends a connection for all holders of this end. A connection that has ended is not affected.
pub fn hang_up(socket: BorrowedHandle<'_>) {
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}
