//! A number of units, each of which records its holder: a semaphore whose units are not lost with their holders.
//!
//! A plain [`Semaphore`](super::semaphore::Semaphore) only counts, so the units that a killed process had acquired are
//! lost. Here every unit is a *slot*, a word with the number and birth of its holder, as a lock's word, and acquiring a
//! unit is acquiring any slot.
//!
//! The slots are [`UnitWord`]s, and the cell's first word is a [`NewsWord`], on which a waiter sleeps if no slot is
//! free.
//!
//! | step | change | by |
//! | --- | --- | --- |
//! | take | a slot: free → me | anyone |
//! | ask | the news; then check all slots once more | a waiter that is about to sleep |
//! | release | the slot → free; tell, and wake all if a waiter asked | its holder |
//! | take over | a slot: that very holder → me | a waiter, at the end of its slice, that finds that the holder has ended |
//!
//! All waiters are woken, because a single wake-up would be lost if its receiver is killed; units are few.
//!
//! | killed | leaves | and then |
//! | --- | --- | --- |
//! | with a unit | its number and birth in the slot | a waiter takes over the unit, and its call reports that |
//! | between giving back and waking | sleepers asleep | their slices end |
//! | asleep | at most the question | the next release makes an unnecessary system call |

use super::Released;
use super::arena::{CellRef, MORE, MOST_CELLS, Place};
use super::word::{NewsWord, UnitWord};
use crate::error::{Error, Result};
use crate::wait::word::{self as wait, Nap, WordWait};
use crate::wait::{Interrupt, Until};
use maniple_sys::clock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const KIND: u32 = 8;
const PER_CELL: u32 = MORE as u32;
/// The most units.
pub const MOST: u32 = MOST_CELLS * PER_CELL;
/// Nanoseconds between two looks at the holders by those who do not sleep.
const LOOK_EVERY: u64 = 100_000_000;

/// How an attempt to take a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The unit of this number is ours.
    Unit(u32),
    /// The caller has the unit of this number, whose previous holder died.
    TakenOver {
        /// Its number.
        unit: u32,
        /// The number of that process.
        from: u32,
    },
    /// The time was up.
    TimedOut,
    /// The interrupt hook broke the wait off.
    Interrupted,
}

/// A number of units in shared memory.
#[derive(Debug)]
pub struct OwnedSemaphore {
    place: Place,
    units: u32,
    // The slot that this process checks first.
    hint: AtomicU32,
    // The time of the next check of the holders by an attempt that does not sleep.
    next_look: AtomicU64,
}

impl OwnedSemaphore {
    fn at(place: Place, units: u32) -> OwnedSemaphore {
        OwnedSemaphore { place, units, hint: AtomicU32::new(0), next_look: AtomicU64::new(0) }
    }

    /// So many units, 1 to [`MOST`], all free.
    ///
    /// # Errors
    /// No shared memory, no descriptor left; too many units, or none.
    pub fn new(units: u32) -> Result<OwnedSemaphore> {
        if !(1..=MOST).contains(&units) {
            return Err(Error::Lock("too many units for a semaphore that knows their holders, or none"));
        }
        let place = Place::create_span(KIND, units.div_ceil(PER_CELL))?;
        place.limit.store(units, Ordering::Relaxed);
        Ok(OwnedSemaphore::at(place, units))
    }

    /// Opens a semaphore that another process made.
    ///
    /// # Errors
    /// The ticket is for something else.
    pub fn open(ticket: CellRef) -> Result<OwnedSemaphore> {
        let place = Place::open(ticket.arena, ticket.number, KIND)?;
        let units = place.limit.load(Ordering::Relaxed).clamp(1, MOST);
        Ok(OwnedSemaphore::at(place.with_span(units.div_ceil(PER_CELL))?, units))
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How many units there are.
    pub fn units(&self) -> u32 {
        self.units
    }

    /// How many are free now.
    pub fn free(&self) -> u32 {
        (0..self.units).filter(|&unit| self.slot(unit).holder().is_none()).count() as u32
    }

    fn slot(&self, unit: u32) -> &UnitWord {
        UnitWord::of(&self.place.cell(unit / PER_CELL).more[(unit % PER_CELL) as usize])
    }

    fn news(&self) -> &NewsWord {
        NewsWord::of(&self.place.word)
    }

    fn take(&self) -> Option<u32> {
        let (me, hint) = (self.place.me(), self.hint.load(Ordering::Relaxed));
        let found = (0..self.units).map(|step| (hint + step) % self.units).find(|&unit| self.slot(unit).take(me));
        if let Some(unit) = found {
            self.hint.store(unit, Ordering::Relaxed);
        }
        found
    }

    /// Takes a unit, waiting for one if need be.
    pub fn acquire(&self, limit: Until, interrupt: Interrupt<'_>) -> Granted {
        if let Some(unit) = self.take() {
            return Granted::Unit(unit);
        }
        if limit == Until::Now {
            return self.look().unwrap_or(Granted::TimedOut);
        }
        let mut waiting = WordWait::new(limit, interrupt);
        loop {
            let seen = self.news().ask();
            if let Some(unit) = self.take() {
                return Granted::Unit(unit);
            }
            let found = match waiting.nap(self.news().raw(), seen) {
                Nap::Look => None,
                Nap::Slice => self.take_over(),
                Nap::TimedOut => Some(self.look().unwrap_or(Granted::TimedOut)),
                Nap::Interrupted => Some(Granted::Interrupted),
            };
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// For attempts that do not sleep: checks the holders, if a check is due.
    fn look(&self) -> Option<Granted> {
        let now = clock::now();
        let next = self.next_look.load(Ordering::Relaxed);
        if now < next {
            return None;
        }
        self.next_look.store(now + LOOK_EVERY, Ordering::Relaxed);
        // The first of many attempts only sets the time.
        if next == 0 { None } else { self.take_over() }
    }

    fn take_over(&self) -> Option<Granted> {
        let me = self.place.me();
        let mut living = me;
        (0..self.units).find_map(|unit| {
            let holder = self.slot(unit).holder().filter(|&holder| holder != living)?;
            living = holder;
            let taken = self.place.is_gone(holder) && self.slot(unit).take_over(holder, me);
            taken.then(|| Granted::TakenOver { unit, from: holder.pid() })
        })
    }

    /// Releases the unit of this number, which this process holds.
    pub fn give_back(&self, unit: u32) -> Released {
        if !self.slot(unit).give(self.place.me()) {
            return Released::NotOwner;
        }
        if self.news().tell() {
            wait::wake_low(self.news().raw(), u32::MAX >> 1);
        }
        Released::Done
    }

    /// Releases any unit that this process holds.
    pub fn give_back_any(&self) -> Released {
        let given = (0..self.units).any(|unit| self.give_back(unit) == Released::Done);
        if given { Released::Done } else { Released::NotOwner }
    }
}
