//! A number of units, each of which knows who has it: a semaphore whose units do not die with their holders.
//!
//! A plain [`Semaphore`](super::semaphore::Semaphore) only counts, so what a killed process had taken is gone. Here every unit is a *slot*, a
//! word with the number and birth of its holder, as a lock's is, and taking a unit is taking any slot.
//!
//! ```text
//! slot    63 ─── 32   31 ─── 0
//!         born        pid                 all zero: free
//! state   63 ─── 33   32         31 ─── 0
//!         –           sleepers   number, which sleepers sleep on
//! ```
//!
//! | step | change | by |
//! | --- | --- | --- |
//! | take | a slot: free → me | anyone |
//! | announce | state: sleepers; then look at all slots once more | whoever is about to sleep |
//! | give back | the slot → free; if there are sleepers, state: none, number + 1, and wake all | its holder |
//! | take over | a slot: that very holder → me | a waiter, at the end of its slice, who finds that the holder has ended |
//!
//! Either the look after the announcement finds the slot that was given back, or whoever gave it back finds the announcement: the four
//! accesses are sequentially consistent. All are woken, for a wake-up that went to one who is killed would be lost; units are few.
//!
//! | killed | leaves | and then |
//! | --- | --- | --- |
//! | with a unit | its number and birth in the slot | a waiter takes it over, and is told |
//! | between giving back and waking | sleepers asleep | their slices end |
//! | asleep | at most the mark that somebody sleeps | the next to give back makes one system call in vain |

use super::Released;
use super::arena::{MORE, MOST_CELLS, Place, Ticket};
use super::patience::{self, Interrupt, Limit, Nap, Patience};
use super::word::lock::Holder;
use crate::error::{Error, Result};
use crate::sys::clock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const KIND: u32 = 8;
const PER_CELL: u32 = MORE as u32;
/// The most units.
pub const MOST: u32 = MOST_CELLS * PER_CELL;
const SLEEPERS: u64 = 1 << 32;
/// Nanoseconds between two looks at the holders by those who do not sleep.
const LOOK_EVERY: u64 = 100_000_000;

/// How an attempt to take a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The unit of this number is ours.
    Unit(u32),
    /// The unit of this number is ours, and was a process's that died.
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
pub struct Permits {
    place: Place,
    units: u32,
    // Where this process looks first.
    hint: AtomicU32,
    // When an attempt that does not sleep looks at the holders next.
    next_look: AtomicU64,
}

impl Permits {
    fn at(place: Place, units: u32) -> Permits {
        Permits { place, units, hint: AtomicU32::new(0), next_look: AtomicU64::new(0) }
    }

    /// So many units, 1 to [`MOST`], all free.
    ///
    /// # Errors
    /// No shared memory, no descriptor left; too many units, or none.
    pub fn new(units: u32) -> Result<Permits> {
        if !(1..=MOST).contains(&units) {
            return Err(Error::Lock("too many units for a semaphore that knows their holders, or none"));
        }
        let place = Place::create_span(KIND, units.div_ceil(PER_CELL))?;
        place.limit.store(units, Ordering::Relaxed);
        Ok(Permits::at(place, units))
    }

    /// One that another process made.
    ///
    /// # Errors
    /// The ticket is for something else.
    pub fn open(ticket: Ticket) -> Result<Permits> {
        let place = Place::open(ticket.arena, ticket.number, KIND)?;
        let units = place.limit.load(Ordering::Relaxed).clamp(1, MOST);
        Ok(Permits::at(place.with_span(units.div_ceil(PER_CELL))?, units))
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
        (0..self.units).filter(|&unit| self.slot(unit).load(Ordering::Relaxed) == 0).count() as u32
    }

    fn slot(&self, unit: u32) -> &AtomicU64 {
        &self.place.cell(unit / PER_CELL).more[(unit % PER_CELL) as usize]
    }

    fn state(&self) -> &AtomicU64 {
        &self.place.word
    }

    fn take(&self) -> Option<u32> {
        let (me, hint) = (self.place.me().bits(), self.hint.load(Ordering::Relaxed));
        let found = (0..self.units).map(|step| (hint + step) % self.units).find(|&unit| {
            let slot = self.slot(unit);
            // SeqCst: after an announcement, see above. It contains the Acquire whose partner is the Release in `give_back`.
            slot.load(Ordering::SeqCst) == 0
                && slot.compare_exchange(0, me, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        });
        if let Some(unit) = found {
            self.hint.store(unit, Ordering::Relaxed);
        }
        found
    }

    /// Takes a unit, waiting for one if need be.
    pub fn acquire(&self, limit: Limit, interrupt: Interrupt<'_>) -> Granted {
        if let Some(unit) = self.take() {
            return Granted::Unit(unit);
        }
        if limit == Limit::Now {
            return self.look().unwrap_or(Granted::TimedOut);
        }
        let mut patience = Patience::new(limit, interrupt);
        loop {
            let seen = self.state().fetch_or(SLEEPERS, Ordering::SeqCst) as u32;
            if let Some(unit) = self.take() {
                return Granted::Unit(unit);
            }
            let found = match patience.nap(self.state(), seen) {
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

    /// For attempts that do not sleep: looks at the holders, if it is time to.
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
            let slot = self.slot(unit);
            let holder = Holder::from_bits(slot.load(Ordering::Relaxed));
            if holder.bits() == 0 || holder == living {
                return None;
            }
            living = holder;
            let dead = self.place.is_gone(holder);
            let mine = || slot.compare_exchange(holder.bits(), me.bits(), Ordering::Acquire, Ordering::Relaxed);
            (dead && mine().is_ok()).then(|| Granted::TakenOver { unit, from: holder.pid() })
        })
    }

    /// Gives back the unit of this number, which this process holds.
    pub fn give_back(&self, unit: u32) -> Released {
        let slot = self.slot(unit);
        // SeqCst: see above. It contains the Release whose partner is the Acquire in `take`.
        if slot.compare_exchange(self.place.me().bits(), 0, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return Released::NotOwner;
        }
        if self.state().load(Ordering::SeqCst) & SLEEPERS != 0 {
            let call = |now: u64| (now & SLEEPERS != 0).then(|| u64::from((now as u32).wrapping_add(1)));
            if self.state().fetch_update(Ordering::Relaxed, Ordering::Relaxed, call).is_ok() {
                patience::wake(self.state(), u32::MAX >> 1);
            }
        }
        Released::Done
    }

    /// Gives back any unit that this process holds.
    pub fn give_back_any(&self) -> Released {
        let me = self.place.me().bits();
        let mut mine = (0..self.units).filter(|&unit| self.slot(unit).load(Ordering::Relaxed) == me);
        if mine.any(|unit| self.give_back(unit) == Released::Done) { Released::Done } else { Released::NotOwner }
    }
}
