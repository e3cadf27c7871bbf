//! Addresses and options of sockets.

use super::again::patiently;
use super::bytes::AT_ONCE;
use crate::BorrowedHandle;
use crate::terms::Place;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl Place<'_> {
    /// Returns its family and its address in the system's form.
    pub(crate) fn address(&self) -> io::Result<(AddressFamily, SocketAddrAny)> {
        match self {
            Place::Local(path) => {
                let bytes = path.as_os_str().as_bytes();
                let address = match bytes.strip_prefix(b"\0") {
                    #[cfg(target_os = "linux")]
                    Some(name) => SocketAddrUnix::new_abstract_name(name)?,
                    #[cfg(not(target_os = "linux"))]
                    Some(_) => return Err(Errno::NOENT.into()),
                    None if bytes.is_empty() => return Err(Errno::NOENT.into()),
                    None if bytes.len() > crate::socket::LONGEST_PATH => return Err(Errno::NAMETOOLONG.into()),
                    None => SocketAddrUnix::new(bytes)?,
                };
                Ok((AddressFamily::UNIX, address.into()))
            }
            Place::Tcp(address @ SocketAddr::V4(_)) => Ok((AddressFamily::INET, (*address).into())),
            Place::Tcp(address @ SocketAddr::V6(_)) => Ok((AddressFamily::INET6, (*address).into())),
        }
    }
}

/// Returns the network address of this end.
pub fn address(socket: BorrowedHandle<'_>) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(socket)?)?)
}

/// Makes a TCP socket send each message at once, instead of waiting for another message to fill the packet. Local
/// sockets always do so.
pub fn send_at_once(socket: BorrowedHandle<'_>) -> io::Result<()> {
    if is_tcp(socket)? { Ok(sockopt::set_tcp_nodelay(socket, true)?) } else { Ok(()) }
}

/// Makes a TCP socket detect, after hours, that a silent peer's machine is gone. Local sockets always detect it.
pub fn keep_alive(socket: BorrowedHandle<'_>) -> io::Result<()> {
    if is_tcp(socket)? { Ok(sockopt::set_socket_keepalive(socket, true)?) } else { Ok(()) }
}

fn is_tcp(socket: BorrowedHandle<'_>) -> io::Result<bool> {
    Ok(rustix::net::getsockname(socket)?.address_family() != AddressFamily::UNIX)
}

/// Sends the start of `bytes`, if there is room, and returns the number of sent bytes.
pub fn send_now(socket: BorrowedHandle<'_>, bytes: &[u8]) -> io::Result<usize> {
    match rustix::io::retry_on_intr(|| patiently(|| rustix::net::send(socket, bytes, AT_ONCE))) {
        Err(Errno::AGAIN) => Ok(0),
        other => Ok(other?),
    }
}

/// The file at the path of a local socket. It identifies the socket's file while the socket is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File(u64, u64);

/// Returns the file at `path`. `None` for an abstract name.
pub fn file(path: &Path) -> io::Result<Option<File>> {
    if path.as_os_str().as_bytes().starts_with(b"\0") {
        return Ok(None);
    }
    let stat = rustix::fs::lstat(path)?;
    // These numbers have other types on other systems.
    #[allow(clippy::unnecessary_cast)]
    Ok(Some(File(stat.st_dev as u64, stat.st_ino as u64)))
}
