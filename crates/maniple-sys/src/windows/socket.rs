//! Listeners and connections: local ones, and TCP.
//!
//! A local listener is a [`line`] whose name clients know: by a text of their own, or by a small file at a path, which
//! contains the name. A client makes a line and sends the listener one end of it; it is connected from then on, and
//! finds its line closed if the listener's process ends before it accepts.
#![allow(unsafe_code)]

use super::line::{self, place};
use super::network;
use super::nt;
use crate::handle::known::{self, Known};
use crate::{AsHandle, BorrowedHandle, OwnedHandle};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::windows::fs::MetadataExt;
use std::os::windows::io::{FromRawSocket, IntoRawSocket, RawSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use windows_sys::Win32::Networking::WinSock;

pub use crate::terms::Place;

/// The greatest length of a listener's path, in bytes.
pub const LONGEST_PATH: usize = 240;

/// What a listener's file begins with.
const TITLE: &str = "maniple listener ";

/// Where a local place is: its name, or a file.
enum Local<'a> {
    Name(String),
    File(&'a Path),
}

fn local(path: &Path) -> io::Result<Local<'_>> {
    let text = path.as_os_str().to_string_lossy();
    match text.strip_prefix('\0') {
        Some(name) if !name.contains(['\\', '/']) => Ok(Local::Name(format!("n-{name}"))),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a name of a listener contains a slash")),
        None if text.is_empty() => Err(io::ErrorKind::NotFound.into()),
        None if text.len() > LONGEST_PATH => {
            let text = format!("the path of a local listener has room for {LONGEST_PATH} bytes, not {}", text.len());
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
        None => Ok(Local::File(path)),
    }
}

/// Takes over a socket of the standard library.
fn taken_over(socket: impl IntoRawSocket) -> OwnedHandle {
    let number = socket.into_raw_socket() as isize;
    let handle = nt::adopt(number);
    known::note(number, Known::Socket);
    handle
}

/// Uses a socket with the standard library's calls.
fn with_stream<R>(socket: BorrowedHandle<'_>, with: impl FnOnce(&TcpStream) -> R) -> R {
    // SAFETY: the handle is open during the call, and `ManuallyDrop` leaves it open.
    let stream = std::mem::ManuallyDrop::new(unsafe { TcpStream::from_raw_socket(socket.as_raw() as RawSocket) });
    with(&stream)
}

/// Creates a listener at `place` with a queue for `backlog` clients. [`accept`] does not wait on it.
pub fn listen(place: Place<'_>, backlog: u32) -> io::Result<OwnedHandle> {
    match place {
        Place::Tcp(address) => {
            let listening = TcpListener::bind(address)?;
            listening.set_nonblocking(true)?;
            Ok(taken_over(listening))
        }
        Place::Local(path) => match local(path)? {
            Local::Name(name) => place::listen(&name, backlog),
            Local::File(path) => {
                let name = format!("f-{}", nt::random_name()?);
                let listening = place::listen(&name, backlog)?;
                let taken = |error: io::Error| match error.kind() {
                    io::ErrorKind::AlreadyExists => io::ErrorKind::AddrInUse.into(),
                    _ => error,
                };
                let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(taken)?;
                write!(file, "{TITLE}{name}")?;
                Ok(listening)
            }
        },
    }
}

/// Returns a name outside the file system to listen at, which ends with its listener, even by a crash.
pub fn own_name(label: &str, random: [u8; 8]) -> Option<PathBuf> {
    Some(format!("\0{label}-{:016x}", u64::from_ne_bytes(random)).into())
}

/// Returns the network address of this end.
pub fn address(socket: BorrowedHandle<'_>) -> io::Result<SocketAddr> {
    with_stream(socket, TcpStream::local_addr)
}

/// Returns a text about the other end for messages: a network address, or a process.
pub fn peer(socket: BorrowedHandle<'_>) -> String {
    match line::of(socket).map(|end| end.peer()) {
        Some(0) => "an unknown process".into(),
        Some(pid) => format!("process {pid}"),
        None => with_stream(socket, TcpStream::peer_addr)
            .map_or_else(|_| "an unknown process".into(), |address| address.to_string()),
    }
}

/// Accepts a client. `None`: no client waits.
pub fn accept(listening: BorrowedHandle<'_>) -> io::Result<Option<OwnedHandle>> {
    if let Some(end) = line::of(listening) {
        let mut handles = Vec::new();
        end.read(listening.as_raw(), &mut [0], Some(&mut handles), false)?;
        let client = handles.pop();
        if let Some(end) = client.as_ref().and_then(|client| line::of(client.as_handle())) {
            end.set_accepted(true);
        }
        return Ok(client);
    }
    // SAFETY: as in `with_stream`.
    let listener =
        std::mem::ManuallyDrop::new(unsafe { TcpListener::from_raw_socket(listening.as_raw() as RawSocket) });
    listener.set_nonblocking(true)?;
    match listener.accept() {
        Ok((client, _)) => {
            client.set_nonblocking(true)?;
            Ok(Some(taken_over(client)))
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether the listener has accepted this connection, which is a client's end. `None`: unknown.
pub fn is_taken(client: BorrowedHandle<'_>) -> Option<bool> {
    line::of(client)?.is_accepted()
}

/// A connection that is being established.
#[derive(Debug)]
pub struct Dial(State);

#[derive(Debug)]
enum State {
    Local { path: PathBuf, ours: OwnedHandle, theirs: Mutex<Option<OwnedHandle>> },
    Tcp { to: SocketAddr, done: Mutex<Option<OwnedHandle>> },
}

impl Dial {
    /// Prepares a connection to the listener at `place`.
    pub fn new(place: Place<'_>) -> io::Result<Dial> {
        let path = match place {
            Place::Tcp(to) => return Ok(Dial(State::Tcp { to, done: Mutex::new(None) })),
            Place::Local(path) => path,
        };
        local(path)?;
        let (theirs, ours) = line::pair(false)?;
        if let Some(end) = line::of(ours.as_handle()) {
            end.set_accepted(false);
        }
        Ok(Dial(State::Local { path: path.to_owned(), ours, theirs: Mutex::new(Some(theirs)) }))
    }

    /// Connects. `TimedOut`: call it again to continue. `Interrupted`, from time to time: call it again.
    pub fn connect(&self, timeout: Option<Duration>) -> io::Result<()> {
        const SLICE: Duration = Duration::from_millis(20);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        match &self.0 {
            State::Tcp { to, done } => {
                let stream = match timeout {
                    Some(timeout) => TcpStream::connect_timeout(to, timeout.max(Duration::from_millis(1)))?,
                    None => TcpStream::connect(to)?,
                };
                stream.set_nonblocking(true)?;
                *done.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken_over(stream));
                Ok(())
            }
            State::Local { path, theirs, .. } => {
                let mut theirs = theirs.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(handle) = theirs.as_ref() else { return Ok(()) };
                let way = way_to(path)?;
                loop {
                    if way.give(handle).map_err(|_| io::ErrorKind::ConnectionRefused)? {
                        *theirs = None;
                        return Ok(());
                    }
                    let left = deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()));
                    if left.is_zero() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    nt::wait_one(way.event(), Some(left.min(SLICE)))?;
                }
            }
        }
    }

    /// Returns the connection. If it is not established, the result leads nowhere.
    pub fn into_handle(self) -> OwnedHandle {
        match self.0 {
            State::Local { ours, .. } => ours,
            State::Tcp { done, .. } => match done.into_inner().unwrap_or_else(PoisonError::into_inner) {
                Some(handle) => handle,
                // The number of no handle: every call with it returns an error.
                None => nt::adopt(-1),
            },
        }
    }
}

/// Returns the way to the listener at a path.
fn way_to(path: &Path) -> io::Result<place::Way> {
    match local(path)? {
        Local::Name(name) => place::find(&name),
        Local::File(path) => {
            let text = std::fs::read_to_string(path)?;
            place::find(text.strip_prefix(TITLE).ok_or(io::ErrorKind::ConnectionRefused)?)
        }
    }
}

/// Makes small messages leave at once.
pub fn send_at_once(socket: BorrowedHandle<'_>) -> io::Result<()> {
    if line::of(socket).is_some() { Ok(()) } else { with_stream(socket, |stream| stream.set_nodelay(true)) }
}

/// Makes the system notice a dead machine at the other end.
pub fn keep_alive(socket: BorrowedHandle<'_>) -> io::Result<()> {
    if line::of(socket).is_some() {
        return Ok(());
    }
    let on = 1i32;
    // SAFETY: reads four bytes of `on`.
    let failed = unsafe {
        let value = (&raw const on).cast();
        WinSock::setsockopt(socket.as_raw() as usize, WinSock::SOL_SOCKET, WinSock::SO_KEEPALIVE, value, 4)
    };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends what can be sent without waiting, and returns its length.
pub fn send_now(socket: BorrowedHandle<'_>, bytes: &[u8]) -> io::Result<usize> {
    let sent = match line::of(socket) {
        None => network::transmit(socket, bytes)?,
        Some(end) => match end.write(socket.as_raw(), &[io::IoSlice::new(bytes)], &[], false)? {
            line::Done::Bytes(sent) => Some(sent),
            line::Done::Nothing => None,
        },
    };
    Ok(sent.unwrap_or(0))
}

/// The file at the path of a local listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File(u64, u64);

/// Returns the file at the path of a local listener. `None`: the name is not in the file system.
pub fn file(path: &Path) -> io::Result<Option<File>> {
    match local(path)? {
        Local::Name(_) => Ok(None),
        Local::File(path) => {
            let mut hasher = DefaultHasher::new();
            std::fs::read(path)?.hash(&mut hasher);
            Ok(Some(File(std::fs::metadata(path)?.creation_time(), hasher.finish())))
        }
    }
}

/// Fills `bytes` with unpredictable bytes.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    nt::random(bytes)
}
