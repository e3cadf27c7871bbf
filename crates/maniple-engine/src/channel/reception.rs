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

mod client;
mod guest;
mod house;

pub use client::{Unwelcome, get_in};
pub use guest::Greeting;

use super::contact::Cause;
use super::frame::Interrupted;
use guest::{Guest, Standing};
use house::{Company, House};
use maniple_sys::atfork;
use maniple_sys::epoch::Since;
use maniple_sys::ready::{self, Interest};
use maniple_sys::{AsHandle, BorrowedHandle, OwnedHandle, socket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem};

/// The greatest number of clients that authenticate at a time.
pub const MOST_GUESTS: usize = 64;
/// How long a client has for its authentication, unless the listener has another setting.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long a listener that has accepted a client, and has a key, may be silent. Such a listener sends its challenge at
/// once; the time is for a process that gets no processor.
pub const SILENCE: Duration = Duration::from_secs(8);
/// How long clients wait for a descriptor of the listener's process before the listener closes their connections.
pub const SHORTAGE: Duration = Duration::from_secs(1);
/// How often a thread that waits for clients calls the caller's hook at the least.
const LOOK_UP: Duration = Duration::from_secs(1);
/// The greatest number of connections that are closed at a time because of a shortage.
const MOST_CLOSED: usize = 256;

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

fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|d| d.saturating_duration_since(Instant::now()))
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
        let mut company = Company::of(self);
        let mut kick = company.gather()?;
        let mut found = 0;
        loop {
            // A signal that arrives while a guest is served does not end the next wait.
            if found > 0 && interrupted() {
                return Err(Refused::Interrupted);
            }
            // Nor does a signal that arrives just before the wait.
            let look = Instant::now() + LOOK_UP;
            let until = company.guests.iter().filter_map(Guest::end).chain(deadline).chain([look]).min();
            let mut interests = vec![Interest::new(listening), Interest::new(kick.as_handle())];
            interests.extend(company.guests.iter().map(|guest| Interest::new(guest.socket.as_handle())));
            let waited = ready::wait(&mut interests, left(until));
            let ready: Vec<bool> = interests.iter().map(Interest::ready).collect();
            drop(interests);
            found = waited.map_err(Refused::Os)?;
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
                    match self.taken(listening, self.take(listening), Ok) {
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
    /// [`SHORTAGE`]. If the shortage ends meanwhile, the next client is the result; `hold` makes it of a connection. The caller
    /// is outside of the gate.
    fn taken<T>(
        &self,
        listening: BorrowedHandle<'_>,
        taken: io::Result<Option<T>>,
        hold: impl FnOnce(OwnedHandle) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
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
            // Inside, so that no forked child keeps a connection open.
            let late = self.enter(|house| {
                for _ in 0..MOST_CLOSED {
                    match socket::accept(listening) {
                        // There is a further descriptor: the shortage has ended, perhaps before this client connected.
                        Ok(Some(client)) if house.take_spare().is_ok() => {
                            house.short_since = None;
                            tune(client.as_handle(), self.keep_alive)?;
                            return hold(client).map(Some);
                        }
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
                let _ = house.take_spare();
                Ok(None)
            });
            if let Ok(Ok(Some(client))) = late {
                self.is_short.store(false, Ordering::Relaxed);
                return Ok(Some(client));
            }
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
