//! Authentication of the clients of one listening socket, side by side.
//!
//! A *guest* is a client that is connected and has not completed its authentication. The thread that calls
//! [`Reception::admit`] serves all guests until one of them has completed it, so a silent or slow guest delays no
//! other. Guests that are left when `admit` returns stay with the reception. The next call continues with them, or the
//! call of another thread that already waits, which is woken for it.
//!
//! The time limit of a guest counts only *attended* time: the time in which some thread waits in `admit`. A program
//! that works for a minute between two calls does not lose the clients that connected meanwhile.
//!
//! # No descriptor left
//! A process without a free descriptor cannot accept a client, which would wait in the system's queue forever. So a
//! reception keeps a spare descriptor. The shortage may pass: [`Reception::admit`] only returns the error at first, and
//! clients wait while the caller retries. If the calls have failed for [`SHORTAGE`], the reception gives up the spare for a
//! moment, accepts the clients that wait, and closes their connections.
//!
//! # Forks
//! Guests belong to the process that accepted them. Their descriptors are registered in [`atfork`], so a forked child
//! holds none of them, and the child begins with an empty reception over the same listening socket. The state is
//! accessed only inside [`atfork::making`], so a forked child finds it unlocked.

use super::auth::{Handshake, MOST, RANDOM, Role, State, Turn};
use super::contact::Cause;
use super::frame::Interrupted;
use super::length_prefix::{self, Begin, Length};
use maniple_sys::atfork::{self, HubOnly};
use maniple_sys::epoch::{Epoch, Since, count_forks};
use maniple_sys::process::reserve_handle;
use maniple_sys::ready::{self, Interest, Kick};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle};
use maniple_sys::{socket, stream};
use std::io::{self, ErrorKind};
use std::mem;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The greatest number of clients that authenticate at a time.
pub const MOST_GUESTS: usize = 64;
/// How long a client has for its authentication, unless the listener has another setting.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a listener that has accepted a client, and has a key, may be silent. Such a listener sends its challenge at
/// once; the time is for a process that gets no processor.
pub const SILENCE: Duration = Duration::from_secs(8);
/// How long clients wait for a descriptor of the listener's process before the listener closes their connections.
pub const SHORTAGE: Duration = Duration::from_secs(1);
/// The greatest number of connections that are closed at a time because of a shortage.
const MOST_CLOSED: usize = 256;
/// How often a client checks whether the listener has accepted it.
const LOOK: Duration = Duration::from_secs(2);

/// Why no client was admitted.
#[derive(Debug)]
pub enum Refused {
    /// The listening socket is unusable.
    Os(io::Error),
    /// The caller's hook ended the wait.
    Interrupted,
    /// [`Reception::close`] was called.
    Closed,
    /// One client, by its address or process, was rejected. The listener can continue.
    Client(String, Cause),
}

/// One end's part of an authentication, with its socket.
#[derive(Debug)]
pub(super) struct Guest<S> {
    socket: S,
    handshake: Handshake,
    inbox: Vec<u8>,
    // The attended time that is left, as of `since`.
    left: Duration,
    since: Instant,
}

/// The state of a guest after the messages that it has sent so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waits,
    IsIn,
}

impl<S: AsHandle> Guest<S> {
    pub(super) fn new(socket: S, key: &[u8], role: Role, patience: Duration) -> Result<Guest<S>, Cause> {
        let mut random = [0; RANDOM];
        socket::random(&mut random).map_err(Cause::Os)?;
        let (handshake, first) = Handshake::new(key, role, random);
        let guest = Guest { socket, handshake, inbox: Vec::new(), left: patience, since: Instant::now() };
        first.map_or(Ok(()), |message| guest.say(&message))?;
        Ok(guest)
    }

    pub(super) fn into_socket(self) -> S {
        self.socket
    }

    /// When its time limit expires, if it is attended until then.
    fn end(&self) -> Option<Instant> {
        self.since.checked_add(self.left)
    }

    fn pause(&mut self) {
        self.left = self.left.saturating_sub(self.since.elapsed());
    }

    /// So few bytes are ever under way that they have room, unless the other end misbehaves.
    fn say(&self, message: &[u8]) -> Result<(), Cause> {
        let bytes = [Length::of(message).bytes(), message].concat();
        match socket::send_now(self.socket.as_handle(), &bytes) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(Cause::Os(ErrorKind::WouldBlock.into())),
            Err(e) => Err(cause(e)),
        }
    }

    /// Reads the bytes that have arrived, without waiting, and no byte beyond the authentication.
    pub(super) fn hear(&mut self) -> Result<Standing, Cause> {
        loop {
            let turn = match self.next() {
                ControlFlow::Break(turn) => turn,
                ControlFlow::Continue(missing) => {
                    let mut bytes = [0; MOST];
                    match stream::read_now(self.socket.as_handle(), &mut bytes[..missing], None) {
                        Ok(None) => return Ok(Standing::Waits),
                        // Between two frames as well: the other end has not finished.
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

    /// What follows from the bytes that have arrived, or how many bytes, at most [`MOST`], the message lacks.
    fn next(&mut self) -> ControlFlow<Turn, usize> {
        match length_prefix::begin(&self.inbox) {
            Ok(Begin::Missing(missing)) => ControlFlow::Continue(missing),
            Ok(Begin::Known { len, .. }) if len > MOST => ControlFlow::Break(self.handshake.hear_length(len as u64)),
            Ok(Begin::Known { body, len }) => match body + len - self.inbox.len() {
                0 => ControlFlow::Break(self.handshake.hear(&self.inbox[body..])),
                missing => ControlFlow::Continue(missing),
            },
            Err(_) => ControlFlow::Break(self.handshake.hear_bad_length()),
        }
    }

    /// Whether the other end has not sent a byte.
    fn has_heard_nothing(&self) -> bool {
        self.inbox.is_empty() && self.handshake.is_untouched()
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

/// Why a client was not admitted.
#[derive(Debug)]
pub enum Unwelcome {
    /// What the other end, or the operating system, did.
    Because(Cause),
    /// The deadline has passed.
    Late,
    /// The caller's hook ended the wait.
    Interrupted,
}

/// Performs the client's part of the authentication over a connected socket in blocking mode.
///
/// A busy listener may accept a client late, so the wait has no limit of its own. But a listener that has accepted the
/// client and has a key sends its challenge at once. If the system reports that the client was accepted
/// ([`socket::is_taken`]), a listener that then sends nothing for [`SILENCE`] has no key: [`Cause::Mute`].
///
/// # Errors
/// [`Unwelcome`]; the connection is then unusable.
pub fn get_in(
    socket: BorrowedHandle<'_>,
    key: &[u8],
    deadline: Option<Instant>,
    interrupted: Interrupted<'_, '_>,
) -> Result<(), Unwelcome> {
    let mut guest = Guest::new(socket, key, Role::Client, Duration::MAX).map_err(Unwelcome::Because)?;
    let mut taken: Option<Instant> = None;
    loop {
        let look = guest.has_heard_nothing();
        let pause = if look { Some(LOOK) } else { None };
        let wait = [pause, left(deadline)].into_iter().flatten().min();
        let begun = Instant::now();
        let found = ready::wait(&mut [Interest::new(socket)], wait).map_err(|e| Unwelcome::Because(Cause::Os(e)))?;
        if found > 0 {
            if guest.hear().map_err(Unwelcome::Because)? == Standing::IsIn {
                return Ok(());
            }
        } else if interrupted() {
            return Err(Unwelcome::Interrupted);
        } else if left(deadline) == Some(Duration::ZERO) {
            return Err(Unwelcome::Late);
        } else if look && begun.elapsed() >= LOOK {
            match taken {
                Some(since) if since.elapsed() >= SILENCE => return Err(Unwelcome::Because(Cause::Mute(SILENCE))),
                Some(_) => {}
                None => taken = (socket::is_taken(socket) == Some(true)).then(Instant::now),
            }
        }
    }
}

/// One client's authentication for a server that has its own loop: the server waits for the socket, and calls
/// [`hear`](Greeting::hear) when the socket can be read.
#[derive(Debug)]
pub struct Greeting(Guest<HubOnly>);

impl Greeting {
    /// Begins an authentication over a connected socket, which it duplicates. Forked children do not keep the
    /// duplicate.
    ///
    /// # Errors
    /// [`Cause`]; the client has disconnected, or no descriptor is left.
    pub fn new(socket: BorrowedHandle<'_>, key: &[u8]) -> Result<Greeting, Cause> {
        let own = atfork::making(|| HubOnly::new(socket.try_clone_to_owned()?)).map_err(Cause::Os)?;
        Guest::new(own, key, Role::Listener, PATIENCE).map(Greeting)
    }

    /// Reads the bytes that have arrived, without waiting. Returns true once the client has proved that it has the key.
    ///
    /// # Errors
    /// [`Cause`]; the connection is to be closed.
    pub fn hear(&mut self) -> Result<bool, Cause> {
        self.0.hear().map(|standing| standing == Standing::IsIn)
    }
}

/// The guests of one process.
#[derive(Debug)]
struct House {
    born: Epoch,
    guests: Vec<Guest<HubOnly>>,
    // The threads that wait in `admit` have to check `guests` or `closed`.
    kick: Arc<Kick>,
    closed: bool,
    // Given up for a moment to close the connection of a client; `None` if another thread has taken its number.
    spare: Option<HubOnly>,
    // When the shortage began: the first failure since a client was accepted, or since all that waited were closed.
    short_since: Option<Instant>,
}

impl House {
    fn new() -> io::Result<House> {
        count_forks()?;
        let kick = Arc::new(Kick::new()?);
        Ok(House { born: Epoch::now(), guests: Vec::new(), kick, closed: false, spare: None, short_since: None })
    }

    /// Takes a spare descriptor unless there is one. The caller is inside the gate.
    fn take_spare(&mut self) -> io::Result<()> {
        if self.spare.is_none() {
            self.spare = Some(HubOnly::new(reserve_handle()?)?);
        }
        Ok(())
    }
}

/// The clients of a listening socket, which has another owner.
#[derive(Debug)]
pub struct Reception {
    house: Mutex<House>,
    patience: Duration,
    keep_alive: bool,
    // Whether a call of `accept` has failed for a shortage since the last success, or there is no spare descriptor.
    is_short: AtomicBool,
}

impl Reception {
    /// An empty one.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Reception> {
        let mut house = House::new()?;
        atfork::making(|| house.take_spare())?;
        let is_short = AtomicBool::new(false);
        Ok(Reception { house: Mutex::new(house), patience: PATIENCE, keep_alive: false, is_short })
    }

    /// How long a client has for its authentication.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sets whether the system detects, after hours, that the machine of a silent client has failed.
    pub fn set_keep_alive(&mut self, keep_alive: bool) {
        self.keep_alive = keep_alive;
    }

    fn enter<T>(&self, act: impl FnOnce(&mut House) -> T) -> io::Result<T> {
        atfork::making(|| {
            let mut house = self.house.lock().unwrap_or_else(PoisonError::into_inner);
            if house.born.since() == Since::Born {
                let of_parent = mem::replace(&mut *house, House::new()?);
                house.closed = of_parent.closed;
                // Their descriptors are already closed; this closes the parent's kick.
                mem::forget((of_parent.guests, of_parent.spare));
                // Without a spare, clients wait while this process has no descriptor.
                self.is_short.store(house.take_spare().is_err(), Ordering::Relaxed);
            }
            Ok(act(&mut house))
        })
    }

    /// Returns the next client of `listening` that has proved that it knows `key`, if there is a key. Returns `None` if
    /// the time limit expired.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(
        &self,
        listening: BorrowedHandle<'_>,
        key: Option<&[u8]>,
        deadline: Option<Instant>,
        interrupted: Interrupted<'_, '_>,
    ) -> Result<Option<OwnedHandle>, Refused> {
        let mut company = Company { of: self, guests: Vec::new() };
        let mut kick = company.gather()?;
        loop {
            let until = company.guests.iter().filter_map(Guest::end).chain(deadline).min();
            let mut interests = vec![Interest::new(listening), Interest::new(kick.as_handle())];
            interests.extend(company.guests.iter().map(|guest| Interest::new(guest.socket.as_handle())));
            let found = ready::wait(&mut interests, left(until));
            let ready: Vec<bool> = interests.iter().map(Interest::ready).collect();
            drop(interests);
            let found = found.map_err(Refused::Os)?;
            for place in (0..company.guests.len()).rev().filter(|place| ready[2 + place]) {
                match company.guests[place].hear() {
                    Ok(Standing::Waits) => {}
                    Ok(Standing::IsIn) => {
                        let socket = company.guests.swap_remove(place).into_socket();
                        return socket.into_handle().map(Some).map_err(Refused::Os);
                    }
                    Err(cause) => return Err(company.turn_out(place, cause)),
                }
            }
            if let Some(place) = company.guests.iter().position(|guest| guest.since.elapsed() >= guest.left) {
                return Err(company.turn_out(place, Cause::Late(self.patience)));
            }
            if ready[1] {
                kick = company.gather()?;
            }
            if ready[0] {
                let Some(key) = key else {
                    match self.taken(listening, self.take(listening)) {
                        Ok(None) => continue,
                        other => return other.map_err(Refused::Os),
                    }
                };
                company.welcome(listening, key)?;
            }
            if found == 0 && interrupted() {
                return Err(Refused::Interrupted);
            }
            if left(deadline) == Some(Duration::ZERO) {
                return Ok(None);
            }
        }
    }

    fn take(&self, listening: BorrowedHandle<'_>) -> io::Result<Option<OwnedHandle>> {
        let Some(client) = socket::accept(listening)? else { return Ok(None) };
        tune(client.as_handle(), self.keep_alive)?;
        Ok(Some(client))
    }

    /// Returns the result of an accept, and closes the connections of clients if this process has been short of descriptors for
    /// [`SHORTAGE`]. The caller is outside of the gate.
    fn taken<T>(&self, listening: BorrowedHandle<'_>, taken: io::Result<T>) -> io::Result<T> {
        if taken.is_ok() {
            if self.is_short.load(Ordering::Relaxed) {
                let recovered = self.enter(|house| {
                    house.short_since = None;
                    house.take_spare()
                });
                self.is_short.store(!matches!(recovered, Ok(Ok(()))), Ordering::Relaxed);
            }
            return taken;
        }
        if !taken.as_ref().is_err_and(maniple_sys::is_shortage) {
            return taken;
        }
        self.is_short.store(true, Ordering::Relaxed);
        let spare = self.enter(|house| {
            let since = *house.short_since.get_or_insert_with(Instant::now);
            // If another thread has taken the spare's number, the first number that is free becomes the spare.
            let _ = house.take_spare();
            if since.elapsed() >= SHORTAGE { house.spare.take() } else { None }
        });
        if let Ok(Some(spare)) = spare {
            // Outside of the gate, because closing it enters the gate again.
            drop(spare);
            // Inside, so that no forked child keeps the connection open.
            let _ = self.enter(|house| {
                for _ in 0..MOST_CLOSED {
                    match socket::accept(listening) {
                        Ok(Some(client)) => drop(client),
                        Ok(None) => {
                            // Later clients may wait as long as these.
                            house.short_since = None;
                            break;
                        }
                        // Another thread has taken the number.
                        Err(_) => break,
                    }
                }
                house.take_spare()
            });
        }
        taken
    }

    /// Disconnects all guests, and ends the waiting calls of [`admit`](Reception::admit).
    pub fn close(&self) {
        let closed = self.enter(|house| {
            house.closed = true;
            house.kick.kick();
            mem::take(&mut house.guests)
        });
        // Outside of the gate, because closing a guest's descriptor enters the gate again.
        drop(closed);
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        let house = self.house.get_mut().unwrap_or_else(PoisonError::into_inner);
        let of_this_process = (mem::take(&mut house.guests), house.spare.take());
        if house.born.since() == Since::Born {
            mem::forget(of_this_process);
        }
    }
}

/// Makes a connection send at once and, if requested, detect that the machine of a silent peer has failed.
pub(super) fn tune(socket: BorrowedHandle<'_>, keep_alive: bool) -> io::Result<()> {
    socket::send_at_once(socket)?;
    if keep_alive { socket::keep_alive(socket) } else { Ok(()) }
}

/// The guests that one call of [`Reception::admit`] serves.
struct Company<'a> {
    of: &'a Reception,
    guests: Vec<Guest<HubOnly>>,
}

impl Company<'_> {
    /// Takes over the guests that no thread serves.
    fn gather(&mut self) -> Result<Arc<Kick>, Refused> {
        let entered = self.of.enter(|house| {
            if house.closed {
                // It stays ready for the others that wait.
                return Err(Refused::Closed);
            }
            house.kick.clear();
            Ok((mem::take(&mut house.guests), house.kick.clone()))
        });
        let (mut waiting, kick) = entered.map_err(Refused::Os)??;
        let now = Instant::now();
        waiting.iter_mut().for_each(|guest| guest.since = now);
        self.guests.append(&mut waiting);
        Ok(kick)
    }

    /// Accepts a new guest.
    fn welcome(&mut self, listening: BorrowedHandle<'_>, key: &[u8]) -> Result<(), Refused> {
        let taken = atfork::making(|| self.of.take(listening)?.map(HubOnly::new).transpose());
        let Some(client) = self.of.taken(listening, taken).map_err(Refused::Os)? else { return Ok(()) };
        let who = socket::peer(client.as_handle());
        let guest =
            Guest::new(client, key, Role::Listener, self.of.patience).map_err(|cause| Refused::Client(who, cause))?;
        self.guests.push(guest);
        if self.guests.len() > MOST_GUESTS
            && let Some((oldest, _)) = self.guests.iter().enumerate().min_by_key(|(_, guest)| guest.end())
        {
            return Err(self.turn_out(oldest, Cause::Crowded));
        }
        Ok(())
    }

    fn turn_out(&mut self, place: usize, cause: Cause) -> Refused {
        let guest = self.guests.swap_remove(place);
        Refused::Client(socket::peer(guest.socket.as_handle()), cause)
    }
}

impl Drop for Company<'_> {
    fn drop(&mut self) {
        if self.guests.is_empty() {
            return;
        }
        self.guests.iter_mut().for_each(Guest::pause);
        let guests = mem::take(&mut self.guests);
        let turned_out = self.of.enter(|house| {
            if house.closed {
                return guests;
            }
            house.guests.extend(guests);
            house.kick.kick();
            Vec::new()
        });
        drop(turned_out);
    }
}
