//! A barrier, at which a number of parties wait for each other.
//!
//! # What lies where
//! A barrier for *n* parties is a span of cells. The first has the word of a [`Lock`], the *state*, and the first of
//! *n* *slots*; the others have the rest. The last party to arrive does not wait. It uses the last slot, and only while it
//! runs an *action* before the others continue.
//!
//! ```text
//! state   63 ─── 37   36 ─ 35   34 ─ 33   32       31 ─── 0
//!         –           broken    ending    wanted   number, which sleepers sleep on
//! slot    63 ─── 32   31 ─ 30   29 ─── 0
//!         born        ending    pid                all zero: free
//! ```
//!
//! *Ending* says how a round ends: 0 not yet, 1 all arrived, 2 a party gave up, 3 a party died. *Broken* is 0, or how
//! the round ended that broke the barrier. The waiters are not counted: their number is the number of slots that have a
//! party and no ending, so it cannot be wrong.
//!
//! # Steps
//! | step | change | by |
//! | --- | --- | --- |
//! | arrive | a free slot → me | a party, with the lock |
//! | end | 1. state: ending (and broken); 2. each slot of a waiter: ending; 3. state: no ending, number + 1; 4. wake all | the holder of the lock: the last to arrive, a party that gives up, finds a waiter dead, aborts or resets |
//! | finish | 2 to 4 | a party that takes the lock and finds an ending in the state |
//! | act | the last slot → me; then, without the lock, the action; then end, with "all arrived" or "a party gave up" | the last to arrive, with the lock, if it has an action |
//! | leave | an ended slot → free; tell: if wanted, state: not wanted, number + 1, wake all | the waiter, without the lock |
//! | clear | the ended slot of a dead waiter → free | a party that finds no free slot, with the lock |
//!
//! The state is a [`NewsWord`]: *wanted* and the number are its. A waiter reads in its own slot how its round ended,
//! also if further rounds have begun meanwhile. If a party finds no slot, because slow leavers of the previous round
//! still have theirs, it asks for news, checks once more, and sleeps.
//!
//! # What a death leaves
//! | killed | leaves | and then |
//! | --- | --- | --- |
//! | before it arrives | nothing | the others wait until their time limits |
//! | waiting | its slot | the party that would complete the round, and each waiter at the end of its slices, check whether all waiters live; if not, the barrier breaks, and all parties get the reason |
//! | with the lock, before an ending is in the state | at most its slot | a party takes over the lock, and finds its slot |
//! | with the lock, after that | a round half ended | a party takes over the lock, and finishes the round's ending |
//! | woken, before it has left | an ended slot | cleared when it is needed |
//! | in the action | the last slot | a waiter finds it at the end of a slice, and the barrier breaks |
//! | before it has woken the others | sleepers asleep | their slices end |
//!
//! So only parties that lived when the last party arrived complete a round. The barrier cannot detect the death of a
//! party that had not arrived: any process may be the next to arrive. A front may choose another rule
//! ([`Barrier::count_dead`]): then a party that was killed while it waited counts as arrived, as in Python's standard
//! package, and only the death of the party that runs the action breaks the barrier.
//!
//! While the action runs, the barrier's lock is free, so `abort` and `reset` do not wait for it, also if the action
//! itself calls them. A waiter whose time limit expires waits for the end of the action, because all parties have
//! arrived.

use super::Outcome;
use super::arena::{Cell, CellRef, MORE, MOST_CELLS, Place};
use super::lock::Lock;
use super::word::NewsWord;
use super::word::lock::Holder;
use crate::error::{Error, Result};
use crate::wait::word::{self as wait, Nap, WordWait};
use crate::wait::{Interrupt, Until};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const KIND: u32 = 6;
/// Words of the first cell that are not slots: the lock's poison, and the state.
const HEAD: u32 = 2;
const PER_CELL: u32 = MORE as u32;
/// The most parties a barrier can have.
pub const MOST: u32 = MOST_CELLS * PER_CELL - HEAD;

const ENDING: u32 = 33;
const BROKEN: u32 = 35;
const PART: u64 = 3;
const SLOT_ENDING: u64 = 3 << 30;

/// How long a party with a short time limit waits for the barrier's own lock: it is held for moments, unless its holder
/// was stopped.
const GRACE: Duration = Duration::from_secs(1);

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Ending {
    AllCame = 1,
    GivenUp = 2,
    Died = 3,
}

impl Ending {
    fn from_bits(bits: u64) -> Option<Ending> {
        [None, Some(Ending::AllCame), Some(Ending::GivenUp), Some(Ending::Died)][(bits & PART) as usize]
    }
}

/// Why a barrier is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A party's time limit expired, its wait was interrupted, or the barrier was aborted or reset.
    GivenUp,
    /// A party died while it waited.
    Died,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// All arrived. The number of parties of the round that had arrived before: it differs for each party of a round.
    All(u32),
    /// The time limit expired, so the barrier is broken now.
    TimedOut,
    /// The interrupt hook ended the wait, so the barrier is broken now.
    Interrupted,
    /// The barrier is broken, or was broken while this party waited.
    Broken(Cause),
}

enum Arrival {
    Last,
    Acts,
    Waits { slot: u32, index: u32 },
    Full { seen: u32 },
    Broken(Cause),
}

/// A barrier in shared memory.
#[derive(Debug)]
pub struct Barrier {
    lock: Lock,
    parties: u32,
    dead_count: bool,
}

/// The function that the last party to arrive runs before the others continue. If it returns `false`, the barrier
/// breaks.
pub type Action<'a> = &'a mut dyn FnMut() -> bool;

fn cells(parties: u32) -> u32 {
    (HEAD + parties).div_ceil(PER_CELL)
}

fn cause(ending: Ending) -> Cause {
    if ending == Ending::Died { Cause::Died } else { Cause::GivenUp }
}

fn broken(state: u64) -> Option<Cause> {
    Ending::from_bits(state >> BROKEN).map(cause)
}

/// How the round of a slot's party ended, if it has.
fn ended(slot: u64) -> Option<Ending> {
    Ending::from_bits(slot >> 30)
}

fn waits(slot: u64) -> bool {
    slot != 0 && ended(slot).is_none()
}

fn waiter(slot: u64) -> Holder {
    Holder::from_bits(slot & !SLOT_ENDING)
}

impl Barrier {
    /// Creates a barrier for 1 to [`MOST`] parties.
    ///
    /// # Errors
    /// No shared memory, no descriptor left; too many parties, or none.
    pub fn new(parties: u32) -> Result<Barrier> {
        if !(1..=MOST).contains(&parties) {
            return Err(Error::Lock("too many parties for a barrier, or none"));
        }
        let place = Place::create_span(KIND, cells(parties))?;
        place.limit.store(parties, Ordering::Relaxed);
        Ok(Barrier { lock: Lock::at(place), parties, dead_count: false })
    }

    /// Opens a barrier that another process made.
    ///
    /// # Errors
    /// The ticket is for something else.
    pub fn open(ticket: CellRef) -> Result<Barrier> {
        let place = Place::open(ticket.arena, ticket.number, KIND)?;
        let parties = place.limit.load(Ordering::Relaxed).clamp(1, MOST);
        Ok(Barrier { lock: Lock::at(place.with_span(cells(parties))?), parties, dead_count: false })
    }

    /// Returns the same barrier with another rule: a party that is killed while it waits counts as arrived. All
    /// processes have to choose the same rule.
    #[must_use]
    pub fn count_dead(self) -> Barrier {
        Barrier { dead_count: true, ..self }
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        self.lock.place()
    }

    /// The number of parties of a round.
    pub fn parties(&self) -> u32 {
        self.parties
    }

    /// The number of waiting parties, including a party that runs an action.
    pub fn waiting(&self) -> u32 {
        self.slots().filter(|slot| waits(slot.load(Ordering::Relaxed))).count() as u32
    }

    /// Whether it is broken, and why.
    pub fn broken(&self) -> Option<Cause> {
        broken(self.state().load(Ordering::Relaxed))
    }

    /// Breaks the barrier: all waiting and all later calls report that, until it is reset.
    pub fn abort(&self) {
        self.locked(Until::Ever, || self.end(Ending::GivenUp, Some(Ending::GivenUp)));
    }

    /// Resets the barrier to its initial state. For waiting parties it breaks.
    pub fn reset(&self) {
        self.locked(Until::Ever, || self.end(Ending::GivenUp, None));
    }

    /// Waits until all parties have arrived.
    pub fn wait(&self, limit: Until, interrupt: Interrupt<'_>) -> Met {
        self.wait_and_act(limit, interrupt, None)
    }

    /// As `wait`. If the caller is the last to arrive, it runs `action` first, without any lock; if that returns
    /// `false`, the barrier breaks.
    pub fn wait_and_act(&self, limit: Until, interrupt: Interrupt<'_>, action: Option<Action<'_>>) -> Met {
        let mut wait = WordWait::new(limit, interrupt);
        let (slot, index) = loop {
            let arrived = self.locked(wait.left(GRACE), || self.arrive(action.is_some()));
            let Some(arrival) = arrived else { return Met::TimedOut };
            let seen = match arrival {
                Arrival::Last => return Met::All(self.parties - 1),
                Arrival::Acts => return action.map_or(Met::All(self.parties - 1), |action| self.act(action)),
                Arrival::Broken(cause) => return Met::Broken(cause),
                Arrival::Waits { slot, index } => break (slot, index),
                Arrival::Full { seen } => seen,
            };
            match wait.nap(self.state(), seen) {
                Nap::Look | Nap::Slice => {}
                Nap::TimedOut => return Met::TimedOut,
                Nap::Interrupted => return Met::Interrupted,
            }
        };
        let slot = self.slot(slot);
        loop {
            // `finish` changes the number after the slots, so a slot that has no ending then means that the number will
            // change.
            let seen = self.news().look();
            // Acquire: partner is the Release by which `finish` marks it; what all parties did before they arrived is
            // seen from here on.
            if let Some(ending) = ended(slot.load(Ordering::Acquire)) {
                self.leave(slot);
                return if ending == Ending::AllCame { Met::All(index) } else { Met::Broken(cause(ending)) };
            }
            let why = match wait.nap(self.state(), seen) {
                Nap::Look => continue,
                Nap::Slice => {
                    self.locked(Until::after(GRACE), || self.look_for_the_dead());
                    continue;
                }
                Nap::TimedOut if self.is_acting() => {
                    wait.wait_on();
                    continue;
                }
                Nap::TimedOut => Met::TimedOut,
                Nap::Interrupted => Met::Interrupted,
            };
            if self.give_up(slot) {
                return why;
            }
        }
    }

    /// Runs the action of a round to which all have arrived, and ends the round, unless that has happened meanwhile.
    fn act(&self, action: Action<'_>) -> Met {
        /// Ends the round also if the action panics.
        struct Acting<'b> {
            barrier: &'b Barrier,
            went_well: bool,
        }

        impl Drop for Acting<'_> {
            fn drop(&mut self) {
                let barrier = self.barrier;
                barrier.locked(Until::Ever, || match (barrier.is_acting(), self.went_well) {
                    (true, true) => barrier.end(Ending::AllCame, None),
                    (true, false) => barrier.end(Ending::GivenUp, Some(Ending::GivenUp)),
                    (false, _) => {}
                });
            }
        }

        let slot = self.slot(self.parties - 1);
        let mut acting = Acting { barrier: self, went_well: false };
        acting.went_well = action();
        drop(acting);
        let ending = ended(slot.load(Ordering::Relaxed)).unwrap_or(Ending::GivenUp);
        self.leave(slot);
        if ending == Ending::AllCame { Met::All(self.parties - 1) } else { Met::Broken(cause(ending)) }
    }

    /// Whether a party runs an action.
    fn is_acting(&self) -> bool {
        waits(self.slot(self.parties - 1).load(Ordering::Relaxed))
    }

    /// Leaves the barrier, which breaks. Returns `false` if the round has ended meanwhile.
    fn give_up(&self, slot: &AtomicU64) -> bool {
        let gave_up = self.locked(Until::after(GRACE), || {
            let waited = waits(slot.load(Ordering::Relaxed));
            // The others no longer need this party if they only wait for the action's end.
            if waited && !self.is_acting() {
                self.end(Ending::GivenUp, Some(Ending::GivenUp));
            }
            waited
        });
        match gave_up {
            Some(true) => self.leave(slot),
            Some(false) => {}
            // The lock cannot be acquired: this party at least withdraws.
            None => {
                let now = slot.load(Ordering::Relaxed);
                return waits(now) && slot.compare_exchange(now, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            }
        }
        gave_up == Some(true)
    }

    fn state(&self) -> &AtomicU64 {
        &self.place().more[1]
    }

    fn news(&self) -> &NewsWord {
        NewsWord::of(self.state())
    }

    fn slot(&self, number: u32) -> &AtomicU64 {
        let place = HEAD + number;
        let cell: &Cell = self.place().cell(place / PER_CELL);
        &cell.more[(place % PER_CELL) as usize]
    }

    fn slots(&self) -> impl Iterator<Item = &AtomicU64> {
        (0..self.parties).map(|number| self.slot(number))
    }

    /// Calls `work` with the lock, after completing what a dead holder left half done. `None`: the lock cannot be
    /// acquired in time.
    fn locked<R>(&self, limit: Until, work: impl FnOnce() -> R) -> Option<R> {
        let outcome = self.lock.acquire(limit, &mut || true);
        if !outcome.is_ours() {
            return None;
        }
        if outcome == Outcome::TakenOver {
            self.lock.clear_poison();
        }
        self.finish();
        let result = work();
        self.lock.release();
        Some(result)
    }

    fn arrive(&self, acts: bool) -> Arrival {
        if let Some(cause) = self.broken() {
            return Arrival::Broken(cause);
        }
        if self.is_acting() {
            // The party that ends the round notifies all sleepers; it cannot do so before this one releases the lock.
            return if self.look_for_the_dead() {
                Arrival::Broken(Cause::Died)
            } else {
                Arrival::Full { seen: self.news().ask() }
            };
        }
        let index = self.waiting();
        let is_last = index + 1 == self.parties;
        if is_last {
            if self.look_for_the_dead() {
                return Arrival::Broken(Cause::Died);
            }
            if !acts {
                self.end(Ending::AllCame, None);
                return Arrival::Last;
            }
        }
        let places = if is_last { self.parties - 1..self.parties } else { 0..self.parties - 1 };
        let free = || places.clone().find(|&number| self.slot(number).load(Ordering::Relaxed) == 0);
        let mut seen = 0;
        let found = free().or_else(|| {
            self.clear_the_dead();
            seen = self.news().ask();
            free()
        });
        let Some(slot) = found else { return Arrival::Full { seen } };
        self.slot(slot).store(self.place().me().bits(), Ordering::Relaxed);
        if is_last { Arrival::Acts } else { Arrival::Waits { slot, index } }
    }

    fn leave(&self, slot: &AtomicU64) {
        slot.store(0, Ordering::Relaxed);
        if self.news().tell() {
            self.wake();
        }
    }

    /// Breaks the barrier if a party has died that the others need, and returns whether one has. With the lock.
    fn look_for_the_dead(&self) -> bool {
        let mut living = self.place().me();
        let needed = if self.dead_count { self.parties as usize - 1 } else { 0 };
        let dead = self.slots().skip(needed).map(|slot| slot.load(Ordering::Relaxed)).filter(|&slot| waits(slot)).any(
            |slot| {
                // Threads of one process usually arrive together.
                if waiter(slot) == living {
                    return false;
                }
                living = waiter(slot);
                self.place().is_gone(living)
            },
        );
        if dead {
            self.end(Ending::Died, Some(Ending::Died));
        }
        dead
    }

    /// Frees the slots of parties that died before they left. With the lock.
    fn clear_the_dead(&self) {
        for slot in self.slots() {
            let now = slot.load(Ordering::Relaxed);
            if ended(now).is_some() && self.place().is_gone(waiter(now)) {
                slot.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Ends the round. With the lock.
    fn end(&self, ending: Ending, broken: Option<Ending>) {
        let broken = broken.map_or(0, |broken| (broken as u64) << BROKEN);
        let begin = |now| Some(now & !(PART << ENDING | PART << BROKEN) | (ending as u64) << ENDING | broken);
        let _ = self.state().fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin);
        self.finish();
    }

    /// Finishes a round's ending, if one was begun. With the lock.
    fn finish(&self) {
        let state = self.state().load(Ordering::Relaxed);
        let Some(ending) = Ending::from_bits(state >> ENDING) else { return };
        for slot in self.slots() {
            let now = slot.load(Ordering::Relaxed);
            if waits(now) {
                // Release: partner is the Acquire in `wait`. The exchange fails if the waiter has withdrawn.
                let marked = now | (ending as u64) << 30;
                let _ = slot.compare_exchange(now, marked, Ordering::Release, Ordering::Relaxed);
            }
        }
        self.news().renew(|state| state & !(PART << ENDING));
        self.wake();
    }

    fn wake(&self) {
        wait::wake_low(self.state(), u32::MAX >> 1);
    }
}
