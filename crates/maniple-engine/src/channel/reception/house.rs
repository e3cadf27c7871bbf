//! The guests of one process, and those that one waiting call serves.

use super::guest::Guest;
use super::{MOST_GUESTS, Reception, Refused};
use crate::channel::auth::Role;
use crate::channel::contact::Cause;
use maniple_sys::atfork::{self, HubOnly};
use maniple_sys::epoch::{Epoch, count_forks};
use maniple_sys::process::reserve_handle;
use maniple_sys::ready::Kick;
use maniple_sys::{AsHandle, BorrowedHandle, socket};
use std::sync::Arc;
use std::time::Instant;
use std::{io, mem};

/// The guests of one process.
#[derive(Debug)]
pub(super) struct House {
    pub(super) born: Epoch,
    pub(super) guests: Vec<Guest<HubOnly>>,
    // The threads that wait in `admit` have to check `guests` or `closed`.
    pub(super) kick: Arc<Kick>,
    pub(super) closed: bool,
    // Given up for a moment to close the connection of a client; `None` if another thread has taken its number.
    pub(super) spare: Option<HubOnly>,
    // When the shortage began: the first failure since a client was accepted, or since all that waited were closed.
    pub(super) short_since: Option<Instant>,
}

impl House {
    pub(super) fn new() -> io::Result<House> {
        count_forks()?;
        let kick = Arc::new(Kick::new()?);
        Ok(House { born: Epoch::now(), guests: Vec::new(), kick, closed: false, spare: None, short_since: None })
    }

    /// Takes a spare descriptor unless there is one. The caller is inside the gate.
    pub(super) fn take_spare(&mut self) -> io::Result<()> {
        if self.spare.is_none() {
            self.spare = Some(HubOnly::new(reserve_handle()?)?);
        }
        Ok(())
    }
}

/// The guests that one call of [`Reception::admit`] serves.
pub(super) struct Company<'a> {
    of: &'a Reception,
    pub(super) guests: Vec<Guest<HubOnly>>,
}

impl<'a> Company<'a> {
    pub(super) fn of(reception: &'a Reception) -> Company<'a> {
        Company { of: reception, guests: Vec::new() }
    }

    /// Takes over the guests that no thread serves.
    pub(super) fn gather(&mut self) -> Result<Arc<Kick>, Refused> {
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
    pub(super) fn welcome(&mut self, listening: BorrowedHandle<'_>, key: &[u8]) -> Result<(), Refused> {
        let taken = atfork::making(|| self.of.take(listening)?.map(HubOnly::new).transpose());
        let Some(client) = self.of.taken(listening, taken, HubOnly::new).map_err(Refused::Os)? else { return Ok(()) };
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

    pub(super) fn turn_out(&mut self, place: usize, cause: Cause) -> Refused {
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
