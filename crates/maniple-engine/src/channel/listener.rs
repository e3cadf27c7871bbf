//! A place to which processes connect, of this machine or of others, and connecting to one.
//!
//! With a key each end proves to the other that it knows it (`auth`) before anything else is read or given away. The
//! clients of one listener do so side by side: whoever has called [`Listener::accept`] looks after all of them, so
//! one that says nothing, or says it slowly, keeps nobody waiting. Those that are not through when `accept` returns
//! stay with the listener; the next call goes on with them, or another thread's that waits in one and is kicked for
//! that.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | a client dies or goes, has no key or another, or talks nonsense | `accept` reports it once; the listener goes on |
//! | a client has not done its part within the listener's patience | it is closed and reported |
//! | more than [`MOST_GUESTS`] are under way | the oldest is closed and reported |
//! | the listener's process ends | its clients' next read or write fails; those that come are refused by the system |
//! | ... without dropping the listener | a path stays; a temporary one until the next is made (`sys::folder`) |
//! | somebody has put another file at the path | it stays when the listener goes |

pub use super::address::{Address, BadAddress};
use super::auth::{Handshake, MOST, RANDOM, Role, State};
use super::contact::contact;
pub use super::contact::{Cause, ContactError, Step};
use super::frame::Interrupted;
use crate::error::{Error, Result};
use crate::sys::folder::Folder;
use crate::sys::ready::{self, Interest, Kick};
use crate::sys::socket::{self, Dial, File};
use crate::sys::{Handle, process_id, stream};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Clients that may be in the middle of their authentication at a time.
pub const MOST_GUESTS: usize = 64;
/// How long a client has for its authentication unless the listener is told otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One end's part of an authentication, with its socket.
#[derive(Debug)]
struct Guest {
    socket: Handle,
    handshake: Handshake,
    inbox: Vec<u8>,
    since: Instant,
}

/// How it is for a guest after what it has said so far.
enum Standing {
    Waits,
    IsIn,
}

impl Guest {
    fn new(socket: Handle, key: &[u8], role: Role) -> Result<Guest, Cause> {
        let mut random = [0; RANDOM];
        socket::random(&mut random).map_err(Cause::Os)?;
        let (handshake, first) = Handshake::new(key, role, random);
        let guest = Guest { socket, handshake, inbox: Vec::new(), since: Instant::now() };
        first.map_or(Ok(()), |message| guest.say(&message))?;
        Ok(guest)
    }

    /// So little is ever under way that it has room, unless the other end does something strange.
    fn say(&self, message: &[u8]) -> Result<(), Cause> {
        let bytes = [&(message.len() as i32).to_be_bytes(), message].concat();
        match socket::send_now(self.socket.as_fd(), &bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(Cause::Os(ErrorKind::WouldBlock.into())),
            Err(e) => Err(cause(e)),
        }
    }

    /// Hears what is there, without waiting, and not a byte more than the authentication's.
    fn hear(&mut self) -> Result<Standing, Cause> {
        const HEAD: usize = 4;
        loop {
            let len = self.inbox.first_chunk::<HEAD>().map(|head| u32::from_be_bytes(*head));
            let turn = match len {
                // A negative number, which announces a longer one, is among these.
                Some(len) if len as usize > MOST => self.handshake.hear_length(len.into()),
                Some(len) if self.inbox.len() == HEAD + len as usize => self.handshake.hear(&self.inbox[HEAD..]),
                _ => {
                    let mut bytes = [0; HEAD + MOST];
                    let missing = HEAD + len.map_or(0, |len| len as usize) - self.inbox.len();
                    match stream::read_now(self.socket.as_fd(), &mut bytes[..missing], None) {
                        Ok(None) => return Ok(Standing::Waits),
                        Ok(Some(0)) => return Err(Cause::Gone),
                        Ok(Some(got)) => self.inbox.extend_from_slice(&bytes[..got]),
                        Err(e) if e.kind() == ErrorKind::Interrupted => {}
                        Err(e) => return Err(cause(e)),
                    }
                    continue;
                }
            };
            self.inbox.clear();
            let said = turn.say.map_or(Ok(()), |message| self.say(&message));
            match turn.state {
                State::Failed(why) => return Err(Cause::Refusal(why)),
                State::Done => return said.map(|()| Standing::IsIn),
                State::Open => said?,
            }
        }
    }
}

fn cause(e: io::Error) -> Cause {
    match e.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Cause::Gone,
        _ => Cause::Os(e),
    }
}

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
    // Goes first: the file of an open socket keeps its number for itself.
    _place: Option<OwnPlace>,
    socket: Handle,
    address: Address,
    patience: Duration,
    keep_alive: bool,
    guests: Mutex<Vec<Guest>>,
    // Those who wait in `accept` are to look into `guests`.
    kick: Kick,
}

/// A path that goes with its listener.
#[derive(Debug)]
struct OwnPlace {
    path: PathBuf,
    file: File,
    folder: Option<Folder>,
    process: u32,
}

impl Listener {
    /// Listens there. Up to `backlog` clients may wait to be accepted.
    ///
    /// # Errors
    /// [`Error::Contact`]: the address is taken, out of reach, or none of this machine's.
    pub fn bind(address: &Address, backlog: u32) -> Result<Listener> {
        Listener::new(address, backlog, None)
    }

    /// Listens at a path that only this user can reach, and that goes with the listener.
    ///
    /// # Errors
    /// [`Error::Contact`]: no folder for temporary things can be written to.
    pub fn temporary(backlog: u32) -> Result<Listener> {
        let mut random = [0; 8];
        let folder = socket::random(&mut random).and_then(|()| Folder::new(random)).map_err(|e| {
            let address = Address::Local(std::env::temp_dir());
            contact(Step::Listen, &address, Cause::Os(e))
        })?;
        Listener::new(&Address::Local(folder.socket()), backlog, Some(folder))
    }

    fn new(address: &Address, backlog: u32, folder: Option<Folder>) -> Result<Listener> {
        let make = || {
            let socket = address.each(|place| socket::listen(place, backlog));
            let socket = socket.inspect_err(|_| folder.iter().for_each(Folder::remove))?;
            let (address, place) = match address {
                Address::Tcp(_) => (Address::Tcp(socket::address(socket.as_fd())?.to_string()), None),
                Address::Local(path) => (address.clone(), OwnPlace::new(path, folder)?),
            };
            let kick = Kick::new()?;
            let guests = Mutex::default();
            Ok(Listener { _place: place, socket, address, patience: PATIENCE, keep_alive: false, guests, kick })
        };
        make().map_err(|e| contact(Step::Listen, address, Cause::Os(e)))
    }

    /// How long a client has for its authentication.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether the system notices, after hours, that the machine of a silent client is gone.
    pub fn set_keep_alive(&mut self, keep_alive: bool) {
        self.keep_alive = keep_alive;
    }

    /// Where to connect: with the port that was taken.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next client, who has shown that it knows `key`, if one is given. `None`: the time is up.
    ///
    /// # Errors
    /// [`Error::Contact`] for each client that is not let in; the listener goes on. [`Error::Interrupted`].
    pub fn accept(
        &self,
        key: Option<&[u8]>,
        deadline: Option<Instant>,
        interrupted: Interrupted<'_, '_>,
    ) -> Result<Option<Handle>> {
        let mut company = Company { of: self, guests: Vec::new() };
        company.gather();
        loop {
            let first_out = company.guests.iter().filter_map(|guest| guest.since.checked_add(self.patience)).min();
            let until = [deadline, first_out].into_iter().flatten().min();
            let mut interests = vec![Interest::new(self.socket.as_fd()), Interest::new(self.kick.as_fd())];
            interests.extend(company.guests.iter().map(|guest| Interest::new(guest.socket.as_fd())));
            let found = ready::wait(&mut interests, left(until));
            let ready: Vec<bool> = interests.iter().map(Interest::ready).collect();
            let found = found.map_err(|e| contact(Step::Accept, &self.address, Cause::Os(e)))?;
            for place in (0..company.guests.len()).rev().filter(|place| ready[2 + place]) {
                match company.guests[place].hear() {
                    Ok(Standing::Waits) => {}
                    Ok(Standing::IsIn) => return Ok(Some(company.guests.swap_remove(place).socket)),
                    Err(cause) => return Err(self.turn_out(company.guests.swap_remove(place), cause)),
                }
            }
            let late = |guest: &Guest| guest.since.elapsed() >= self.patience;
            if let Some(place) = company.guests.iter().position(late) {
                return Err(self.turn_out(company.guests.swap_remove(place), Cause::Late(self.patience)));
            }
            if ready[1] {
                company.gather();
            }
            if ready[0]
                && let Some(client) = self.take()?
            {
                let Some(key) = key else { return Ok(Some(client)) };
                company.welcome(client, key)?;
            }
            if found == 0 && interrupted() {
                return Err(Error::Interrupted);
            }
            if left(deadline) == Some(Duration::ZERO) {
                return Ok(None);
            }
        }
    }

    fn take(&self) -> Result<Option<Handle>> {
        let client = socket::accept(self.socket.as_fd()).and_then(|client| {
            let Some(client) = client else { return Ok(None) };
            tune(client.as_fd(), self.keep_alive)?;
            Ok(Some(client))
        });
        client.map_err(|e| contact(Step::Accept, &self.address, Cause::Os(e)))
    }

    fn turn_out(&self, guest: Guest, cause: Cause) -> Error {
        contact(Step::LetIn(socket::peer(guest.socket.as_fd())), &self.address, cause)
    }
}

/// The clients that one call of [`Listener::accept`] looks after.
struct Company<'a> {
    of: &'a Listener,
    guests: Vec<Guest>,
}

impl Company<'_> {
    /// Takes over those that nobody looks after.
    fn gather(&mut self) {
        let mut waiting = self.of.guests.lock().unwrap_or_else(PoisonError::into_inner);
        self.of.kick.clear();
        self.guests.append(&mut waiting);
    }

    /// Takes a new one in.
    fn welcome(&mut self, client: Handle, key: &[u8]) -> Result<()> {
        let who = socket::peer(client.as_fd());
        let guest = Guest::new(client, key, Role::Listener)
            .map_err(|cause| contact(Step::LetIn(who), &self.of.address, cause))?;
        self.guests.push(guest);
        if self.guests.len() > MOST_GUESTS
            && let Some((oldest, _)) = self.guests.iter().enumerate().min_by_key(|(_, guest)| guest.since)
        {
            return Err(self.of.turn_out(self.guests.swap_remove(oldest), Cause::Crowded));
        }
        Ok(())
    }
}

impl Drop for Company<'_> {
    fn drop(&mut self) {
        if !self.guests.is_empty() {
            let mut waiting = self.of.guests.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.append(&mut self.guests);
            self.of.kick.kick();
        }
    }
}

impl AsFd for Listener {
    /// Readable while a client waits to be accepted. (One that has been, but is not authenticated, is not told of
    /// here.)
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl OwnPlace {
    fn new(path: &Path, folder: Option<Folder>) -> io::Result<Option<OwnPlace>> {
        let Some(file) = socket::file(path)? else { return Ok(None) };
        // The working directory may be another one when it is removed.
        let path = std::path::absolute(path)?;
        Ok(Some(OwnPlace { path, file, folder, process: process_id() }))
    }
}

impl Drop for OwnPlace {
    fn drop(&mut self) {
        // A forked child's copy is not the one that listens.
        if self.process == process_id() && matches!(socket::file(&self.path), Ok(Some(file)) if file == self.file) {
            let _ = std::fs::remove_file(&self.path);
            self.folder.iter().for_each(Folder::remove);
        }
    }
}

/// Connects to a listener; with a `key`, both ends show that they know it. Gives a socket for `frame`s.
///
/// # Errors
/// [`Error::Contact`], also when the time is up. [`Error::Interrupted`].
pub fn connect(
    address: &Address,
    key: Option<&[u8]>,
    deadline: Option<Instant>,
    interrupted: Interrupted<'_, '_>,
) -> Result<Handle> {
    // For messages: as the caller will have said it, before some of it had passed.
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
    let socket = match dialled.and_then(|socket| tune(socket.as_fd(), false).map(|()| socket)) {
        Ok(socket) => socket,
        Err(_) if broken_off => return Err(Error::Interrupted),
        Err(e) if e.kind() == ErrorKind::TimedOut && deadline.is_some() => {
            return Err(contact(Step::Connect, address, Cause::Late(limit)));
        }
        Err(e) => return Err(contact(Step::Connect, address, Cause::Os(e))),
    };
    let Some(key) = key else { return Ok(socket) };
    let failed = |cause| contact(Step::GetIn, address, cause);
    let mut guest = Guest::new(socket, key, Role::Client).map_err(failed)?;
    loop {
        let found = ready::wait(&mut [Interest::new(guest.socket.as_fd())], left(deadline));
        match found {
            Ok(0) if interrupted() => return Err(Error::Interrupted),
            Ok(0) if left(deadline) == Some(Duration::ZERO) => return Err(failed(Cause::Late(limit))),
            Ok(_) => {}
            Err(e) => return Err(failed(Cause::Os(e))),
        }
        if let Standing::IsIn = guest.hear().map_err(failed)? {
            return Ok(guest.socket);
        }
    }
}

/// Has the system notice, after hours, that the machine of a silent peer is gone.
pub fn keep_alive(socket: BorrowedFd<'_>) -> Result<()> {
    use crate::error::Doing;
    socket::keep_alive(socket).doing("keep a connection alive")
}

fn tune(socket: BorrowedFd<'_>, keep_alive: bool) -> io::Result<()> {
    socket::send_at_once(socket)?;
    if keep_alive { socket::keep_alive(socket) } else { Ok(()) }
}
