//! Listeners, to which processes of this machine or of others connect, and clients.
//!
//! With a key each end proves to the other that it knows the key (`auth`) before it reads or sends anything else. The
//! clients of a listener do so side by side (`reception`), so a silent or slow client delays no other.
//!
//! Only Rust's listeners use it. Python programs set options on the socket of a `Listener`, which is therefore a Python
//! object; the same `reception` admits its clients.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | a client dies, disconnects, has no key or another key, or sends nonsense | `accept` reports it once; the listener continues |
//! | a client has not authenticated within the listener's patience, counted while a thread accepts | it is closed and reported |
//! | more than [`MOST_GUESTS`] are under way | the oldest is closed and reported |
//! | the listener's process ends | its clients' next read or write fails; the system refuses new clients |
//! | ... without dropping the listener | a path stays; a temporary path stays until the next is made (`sys::socket_dir`) |
//! | another program has put a file at the path | the file stays when the listener is dropped |

pub use super::address::{Address, BadAddress};
use super::contact::contact;
pub use super::contact::{Cause, ContactError, Step};
use super::frame::Interrupted;
pub use super::reception::{MOST_GUESTS, PATIENCE};
use super::reception::{Reception, Refused, Unwelcome, get_in, tune};
use crate::error::{Error, Result};
use maniple_sys::socket::{self, Dial, File};
use maniple_sys::socket_dir::SocketDir;
use maniple_sys::{AsHandle, BorrowedHandle};
use maniple_sys::{OwnedHandle, process_id};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|d| d.saturating_duration_since(Instant::now()))
}

/// A place to which processes connect.
///
/// ```
/// use maniple_engine::channel::listener::{Listener, connect};
///
/// # fn main() -> maniple_engine::Result<()> {
/// let listener = Listener::temporary(1)?;
/// let address = listener.address().clone();
/// let client = std::thread::spawn(move || connect(&address, Some(b"key"), None, &mut || false));
/// assert!(listener.accept(Some(b"key"), None, &mut || false)?.is_some());
/// assert!(client.join().unwrap().is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Listener {
    // Dropped first: the file of an open socket keeps its number.
    _place: Option<OwnPlace>,
    socket: OwnedHandle,
    address: Address,
    reception: Reception,
}

/// A path that is removed with its listener.
#[derive(Debug)]
struct OwnPlace {
    path: PathBuf,
    file: File,
    folder: Option<SocketDir>,
    process: u32,
}

impl Listener {
    /// Listens at the address. Up to `backlog` clients may wait to be accepted.
    ///
    /// # Errors
    /// [`ContactError`]: the address is in use, unreachable, or not an address of this machine.
    pub fn bind(address: &Address, backlog: u32) -> Result<Listener> {
        Listener::new(address, backlog, None)
    }

    /// Listens at a path that only this user can reach, and that is removed with the listener.
    ///
    /// # Errors
    /// [`ContactError`]: no folder for temporary files is writable.
    pub fn temporary(backlog: u32) -> Result<Listener> {
        let mut random = [0; 8];
        let folder = socket::random(&mut random).and_then(|()| SocketDir::new(random)).map_err(|e| {
            let address = Address::Local(std::env::temp_dir());
            contact(Step::Listen, &address, Cause::Os(e))
        })?;
        Listener::new(&Address::Local(folder.socket()), backlog, Some(folder))
    }

    fn new(address: &Address, backlog: u32, folder: Option<SocketDir>) -> Result<Listener> {
        let make = || {
            let socket = address.each(|place| socket::listen(place, backlog));
            let socket = socket.inspect_err(|_| folder.iter().for_each(SocketDir::remove))?;
            let (address, place) = match address {
                Address::Tcp(_) => (Address::Tcp(socket::address(socket.as_handle())?.to_string()), None),
                Address::Local(path) => (address.clone(), OwnPlace::new(path, folder)?),
            };
            Ok(Listener { _place: place, socket, address, reception: Reception::new()? })
        };
        make().map_err(|e| contact(Step::Listen, address, Cause::Os(e)))
    }

    /// How long a client has for its authentication.
    pub fn set_patience(&mut self, patience: Duration) {
        self.reception.set_patience(patience);
    }

    /// Sets whether the system detects, after hours, that the machine of a silent client has failed.
    pub fn set_keep_alive(&mut self, keep_alive: bool) {
        self.reception.set_keep_alive(keep_alive);
    }

    /// Returns the address for clients, with the actual port.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the next client that has authenticated with `key`, if there is a key. Returns `None` if the time limit
    /// expired.
    ///
    /// # Errors
    /// [`ContactError`] for each client that is rejected; the listener continues. [`Error::Interrupted`].
    pub fn accept(
        &self,
        key: Option<&[u8]>,
        deadline: Option<Instant>,
        interrupted: Interrupted<'_, '_>,
    ) -> Result<Option<OwnedHandle>> {
        self.reception.admit(self.socket.as_handle(), key, deadline, interrupted).map_err(|why| match why {
            Refused::Os(e) => contact(Step::Accept, &self.address, Cause::Os(e)),
            Refused::Client(who, cause) => contact(Step::LetIn(who), &self.address, cause),
            Refused::Interrupted | Refused::Closed => Error::Interrupted,
        })
    }
}

impl AsHandle for Listener {
    /// Readable while a client waits to be accepted. (It does not show a client that was accepted and is not
    /// authenticated yet.)
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.socket.as_handle()
    }
}

impl OwnPlace {
    fn new(path: &Path, folder: Option<SocketDir>) -> io::Result<Option<OwnPlace>> {
        let Some(file) = socket::file(path)? else { return Ok(None) };
        // The working directory may have changed when it is removed.
        let path = std::path::absolute(path)?;
        Ok(Some(OwnPlace { path, file, folder, process: process_id() }))
    }
}

impl Drop for OwnPlace {
    fn drop(&mut self) {
        // A forked child's copy does not listen.
        if self.process == process_id() && matches!(socket::file(&self.path), Ok(Some(file)) if file == self.file) {
            let _ = std::fs::remove_file(&self.path);
            self.folder.iter().for_each(SocketDir::remove);
        }
    }
}

/// Connects to a listener; with a `key`, both ends prove that they have it. Returns a socket for `frame`s.
///
/// # Errors
/// [`ContactError`], also when the time is up. [`Error::Interrupted`].
pub fn connect(
    address: &Address,
    key: Option<&[u8]>,
    deadline: Option<Instant>,
    interrupted: Interrupted<'_, '_>,
) -> Result<OwnedHandle> {
    // For messages: the limit as the caller passed it, not what is left of it.
    let limit = Duration::from_millis(left(deadline).unwrap_or_default().as_micros().div_ceil(1000) as u64);
    let mut broken_off = false;
    let dialled = address.each(|place| {
        let dial = Dial::new(place)?;
        loop {
            match dial.connect(left(deadline)) {
                Err(e) if e.kind() == ErrorKind::Interrupted && !interrupted() => {}
                other => {
                    broken_off = matches!(&other, Err(e) if e.kind() == ErrorKind::Interrupted);
                    return other.map(|()| dial.into_handle());
                }
            }
        }
    });
    let socket = match dialled.and_then(|socket| tune(socket.as_handle(), false).map(|()| socket)) {
        Ok(socket) => socket,
        Err(_) if broken_off => return Err(Error::Interrupted),
        Err(e) if e.kind() == ErrorKind::TimedOut && deadline.is_some() => {
            return Err(contact(Step::Connect, address, Cause::Late(limit)));
        }
        Err(e) => return Err(contact(Step::Connect, address, Cause::Os(e))),
    };
    let Some(key) = key else { return Ok(socket) };
    match get_in(socket.as_handle(), key, deadline, interrupted) {
        Ok(()) => Ok(socket),
        Err(Unwelcome::Interrupted) => Err(Error::Interrupted),
        Err(Unwelcome::Late) => Err(contact(Step::GetIn, address, Cause::Late(limit))),
        Err(Unwelcome::Because(cause)) => Err(contact(Step::GetIn, address, cause)),
    }
}

/// Lets the system detect, after hours, that the machine of a silent peer has failed.
pub fn keep_alive(socket: BorrowedHandle<'_>) -> Result<()> {
    use crate::error::Doing;
    socket::keep_alive(socket).doing("keep a connection alive")
}
