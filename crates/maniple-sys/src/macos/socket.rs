//! Listeners and connections: local sockets with a path, and TCP.

use super::system::sockets;
use super::{made, own};
use crate::unix::again::patiently;
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketType, sockopt};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use crate::terms::Place;
pub use crate::unix::net::{File, address, file, keep_alive, send_at_once, send_now};

/// The greatest length of a socket's path, in bytes (sys/un.h: `sun_path` has 104 with its end).
pub const LONGEST_PATH: usize = 103;

/// A client that finds a full queue is refused at once and not kept waiting, so a queue is not shorter.
const SHORTEST_QUEUE: u32 = 64;

fn socket(family: AddressFamily) -> io::Result<OwnedHandle> {
    let made = made(
        || own::above_stdio(rustix::net::socket(family, SocketType::STREAM, None)?),
        |made| vec![made.as_handle()],
    )?;
    sockets::silence(made.as_handle());
    Ok(made)
}

/// Creates a listener at `place` with a queue for `backlog` clients, or more. [`accept`] does not wait on it.
pub fn listen(place: Place<'_>, backlog: u32) -> io::Result<OwnedHandle> {
    let (family, address) = place.address()?;
    let listening = socket(family)?;
    rustix::io::ioctl_fionbio(&listening, true)?;
    if let Place::Tcp(_) = place {
        // This permits a port whose last connections linger.
        sockopt::set_socket_reuseaddr(&listening, true)?;
    }
    rustix::net::bind(&listening, &address)?;
    rustix::net::listen(&listening, i32::try_from(backlog.max(SHORTEST_QUEUE)).unwrap_or(i32::MAX))?;
    Ok(listening)
}

/// Returns `None`: the system has no names outside the file system.
pub fn own_name(_label: &str, _random: [u8; 8]) -> Option<PathBuf> {
    None
}

/// Returns a text about the other end for messages: a network address, or a process.
pub fn peer(socket: BorrowedHandle<'_>) -> String {
    let network = rustix::net::getpeername(socket).ok().flatten().and_then(|a| SocketAddr::try_from(a).ok());
    match (network, sockets::peer_process(socket)) {
        (Some(address), _) => address.to_string(),
        (None, Some(pid)) => format!("process {pid}"),
        (None, None) => "an unknown process".into(),
    }
}

/// Accepts a client; the reads and writes of the returned socket wait. `None`: no client waits.
///
/// The listening socket does not wait from the first call on: another thread or process may have accepted the client.
/// The mode belongs to the open socket, which all of them share, so it is not restored: then a thread that had found it
/// set would wait.
pub fn accept(listening: BorrowedHandle<'_>) -> io::Result<Option<OwnedHandle>> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(listening)?;
    if !flags.contains(OFlags::NONBLOCK) {
        fcntl_setfl(listening, flags | OFlags::NONBLOCK)?;
    }
    let taken = made(|| Ok(own::arrived(rustix::net::accept(listening)?)), |client| vec![client.as_handle()]);
    match taken {
        Ok(client) => {
            // A client inherits the listener's mode (`accept(2)`).
            rustix::io::ioctl_fionbio(&client, false)?;
            sockets::silence(client.as_handle());
            Ok(Some(client))
        }
        Err(error) => match Errno::from_io_error(&error) {
            // The client left, or another thread has accepted it.
            Some(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Returns `None`: the system does not report it.
pub fn is_taken(_client: BorrowedHandle<'_>) -> Option<bool> {
    None
}

/// A connection that is being established.
#[derive(Debug)]
pub struct Dial {
    socket: OwnedHandle,
    address: SocketAddrAny,
    is_local: bool,
}

impl Dial {
    /// Prepares a connection.
    pub fn new(place: Place<'_>) -> io::Result<Dial> {
        let (family, address) = place.address()?;
        let socket = socket(family)?;
        // A call that does not wait, and then a wait with a limit: the system has no limit for a connect.
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Dial { socket, address, is_local: family == AddressFamily::UNIX })
    }

    /// Waits until the connection is established, at most `timeout`. `Interrupted`: a signal handler ran. `TimedOut`:
    /// the timeout passed. Both permit another call.
    pub fn connect(&self, timeout: Option<Duration>) -> io::Result<()> {
        /// How often a system that keeps no clients waiting is asked again.
        const PAUSE: Duration = Duration::from_millis(5);
        /// How long a local listener may refuse: XNU refuses a client if the queue is full, as if there were no
        /// listener (bsd/kern/uipc_usrreq.c: `unp_connect`).
        const PATIENCE: Duration = Duration::from_millis(100);
        let begun = Instant::now();
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout.max(Duration::from_millis(1))));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let is_late = left.is_some_and(|left| left.is_zero());
            match patiently(|| rustix::net::connect(&self.socket, &self.address)) {
                Ok(()) | Err(Errno::ISCONN) => return Ok(rustix::io::ioctl_fionbio(&self.socket, false)?),
                Err(Errno::AGAIN | Errno::INPROGRESS | Errno::ALREADY) if is_late => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                // A local socket whose listener has a full queue.
                Err(Errno::CONNREFUSED) if self.is_local && !is_late && begun.elapsed() < PATIENCE => {
                    std::thread::sleep(PAUSE);
                }
                Err(Errno::AGAIN) => std::thread::sleep(left.map_or(PAUSE, |left| left.min(PAUSE))),
                Err(Errno::INPROGRESS | Errno::ALREADY) => {
                    let limit =
                        left.map(|left| Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos().into() });
                    let mut look = [PollFd::from_borrowed_fd(self.socket.as_handle().into(), PollFlags::OUT)];
                    if patiently(|| poll(&mut look, limit.as_ref()))? > 0 {
                        sockopt::socket_error(&self.socket)??;
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Returns the connected socket.
    pub fn into_handle(self) -> OwnedHandle {
        self.socket
    }
}

/// Fills `bytes` with unpredictable bytes.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    /// The most that one call returns (`getentropy(2)`).
    const MOST: usize = 256;
    for part in bytes.chunks_mut(MOST) {
        // SAFETY: the pointer is to as many bytes as the call receives as its size.
        #[allow(unsafe_code)]
        let done = unsafe { libc::getentropy(part.as_mut_ptr().cast(), part.len()) };
        if done != 0 {
            // The device has the same bytes.
            std::fs::File::open("/dev/urandom")?.read_exact(part)?;
        }
    }
    Ok(())
}
