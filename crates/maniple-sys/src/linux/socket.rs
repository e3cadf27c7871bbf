//! Listeners and connections: local sockets with a path or an abstract name, and TCP.

#![allow(unsafe_code)]

use super::diag;
use crate::own::{above_stdio, arrived};
use crate::unix::again::{is_refused, patiently};
use crate::{BorrowedHandle, OwnedHandle};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, sockopt};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use crate::terms::Place;
pub use crate::unix::net::{File, address, file, keep_alive, send_at_once, send_now};

/// The greatest length of a socket's path, in bytes.
pub const LONGEST_PATH: usize = 107;

fn socket(family: AddressFamily, flags: SocketFlags) -> io::Result<OwnedHandle> {
    above_stdio(rustix::net::socket_with(family, SocketType::STREAM, flags | SocketFlags::CLOEXEC, None)?)
}

/// Creates a listener at `place` with a queue for `backlog` clients. [`accept`] does not wait on it.
pub fn listen(place: Place<'_>, backlog: u32) -> io::Result<OwnedHandle> {
    let (family, address) = place.address()?;
    let listening = socket(family, SocketFlags::NONBLOCK)?;
    if let Place::Tcp(_) = place {
        // This permits a port whose last connections linger.
        sockopt::set_socket_reuseaddr(&listening, true)?;
    }
    rustix::net::bind(&listening, &address)?;
    rustix::net::listen(&listening, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(listening)
}

/// Returns a name outside the file system to listen at, which the system removes when its listener ends, even by a
/// crash. `None`: the system has no such names.
pub fn own_name(label: &str, random: [u8; 8]) -> Option<PathBuf> {
    Some(format!("\0{label}-{:016x}", u64::from_ne_bytes(random)).into())
}

/// Returns a text about the other end for messages: a network address, or a process.
pub fn peer(socket: BorrowedHandle<'_>) -> String {
    let network = rustix::net::getpeername(socket).ok().flatten().and_then(|a| SocketAddr::try_from(a).ok());
    match (network, process(socket)) {
        (Some(address), _) => address.to_string(),
        (None, Some(pid)) => format!("process {pid}"),
        (None, None) => "an unknown process".into(),
    }
}

/// Returns the process that connected a local socket. rustix's call assumes that it has a number, but a process of
/// another container has none here.
fn process(socket: BorrowedHandle<'_>) -> Option<i32> {
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes to `who`, and any bytes are a valid `ucred`.
    let done = unsafe {
        let room = (&raw mut who).cast();
        libc::getsockopt(socket.as_raw(), libc::SOL_SOCKET, libc::SO_PEERCRED, room, &mut size)
    };
    (done == 0 && who.pid > 0).then_some(who.pid)
}

/// Accepts a client; the reads and writes of the returned socket wait. `None`: no client waits.
///
/// The listening socket does not wait from the first call on: another thread or process may have accepted the client, and
/// accept4 would wait for the next one. The mode belongs to the open socket, which all of them share, so it is not restored: then
/// a thread that had found it set would wait.
pub fn accept(listening: BorrowedHandle<'_>) -> io::Result<Option<OwnedHandle>> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(listening)?;
    if !flags.contains(OFlags::NONBLOCK) {
        fcntl_setfl(listening, flags | OFlags::NONBLOCK)?;
    }
    let mut taken = rustix::net::accept_with(listening, SocketFlags::CLOEXEC);
    if taken.as_ref().is_err_and(|&error| is_refused(error)) {
        // A sandbox that knows only the older call.
        taken = rustix::net::accept(listening).and_then(|client| {
            rustix::io::fcntl_setfd(&client, rustix::io::FdFlags::CLOEXEC)?;
            Ok(client)
        });
    }
    match taken {
        Ok(client) => Ok(Some(arrived(client))),
        // The client left, or another thread has accepted it.
        Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Returns whether the listener has accepted this connection, which is a client's end. `None`: the system does not
/// report it, as for listeners on other machines.
pub fn is_taken(client: BorrowedHandle<'_>) -> Option<bool> {
    let here = rustix::net::getsockname(client).ok()?;
    if here.address_family() == AddressFamily::UNIX {
        return Some(diag::peer_inode(client).ok()?? != 0);
    }
    let here = SocketAddr::try_from(here).ok()?;
    let there = SocketAddr::try_from(rustix::net::getpeername(client).ok()??).ok()?;
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    let inode = |table, local, remote| diag::tcp_inode(&std::fs::read_to_string(table).ok()?, local, remote);
    let found = if here.is_ipv4() { inode("/proc/net/tcp", there, here) } else { None };
    // A listener for IPv6 accepts clients over IPv4, too.
    found.or_else(|| inode("/proc/net/tcp6", mapped(there), mapped(here))).map(|inode| inode != 0)
}

/// A connection that is being established.
#[derive(Debug)]
pub struct Dial {
    socket: OwnedHandle,
    address: SocketAddrAny,
}

impl Dial {
    /// Prepares a connection.
    pub fn new(place: Place<'_>) -> io::Result<Dial> {
        let (family, address) = place.address()?;
        Ok(Dial { socket: socket(family, SocketFlags::empty())?, address })
    }

    /// Waits until the connection is established, at most `timeout`. `Interrupted`: a signal handler ran. `TimedOut`:
    /// the timeout passed. Both permit another call.
    pub fn connect(&self, timeout: Option<Duration>) -> io::Result<()> {
        // Zero would mean "no limit". The limit applies to a TCP handshake and to the wait for a full local backlog.
        let limit = timeout.map(|t| t.max(Duration::from_millis(1)));
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Send, limit)?;
        match patiently(|| rustix::net::connect(&self.socket, &self.address)) {
            Ok(()) | Err(Errno::ISCONN) => Ok(sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Send, None)?),
            Err(Errno::AGAIN | Errno::INPROGRESS | Errno::ALREADY) => Err(io::ErrorKind::TimedOut.into()),
            Err(e) => Err(e.into()),
        }
    }

    /// Returns the connected socket.
    pub fn into_handle(self) -> OwnedHandle {
        self.socket
    }
}

/// Fills `bytes` with unpredictable bytes.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            // The device has the same bytes.
            Err(e) if is_refused(e) => {
                let device = std::fs::File::open("/dev/urandom");
                return device.and_then(|mut device| device.read_exact(&mut bytes[done..])).map_err(|_| e.into());
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AsHandle;

    #[test]
    fn listen_refuses_a_path_that_is_too_long() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(LONGEST_PATH)));
        assert_eq!(listen(Place::Local(&path), 1).unwrap_err().raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
    }

    #[test]
    fn a_connect_to_a_full_backlog_times_out() {
        let name = PathBuf::from(format!("\0maniple-test-full-{}", std::process::id()));
        let listening = listen(Place::Local(&name), 0).unwrap();
        let first = Dial::new(Place::Local(&name)).unwrap();
        first.connect(None).unwrap();
        let second = Dial::new(Place::Local(&name)).unwrap();
        let error = second.connect(Some(Duration::from_millis(5))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The time-out leaves it usable.
        accept(listening.as_handle()).unwrap().unwrap();
        second.connect(None).unwrap();
        accept(listening.as_handle()).unwrap().unwrap();
        assert!(accept(listening.as_handle()).unwrap().is_none());
    }

    #[test]
    fn random_bytes_differ() {
        let mut bytes = [[0; 32]; 2];
        bytes.iter_mut().for_each(|b| random(b).unwrap());
        assert_ne!(bytes[0], bytes[1]);
    }
}
