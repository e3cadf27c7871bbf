//! A value with a lock for many readers or one writer, which survives both.
//!
//! # What lies where
//! A lock is a [`GuardedRegion`]: its lock is the *gate*, its bytes begin with a header, and the value lies behind that.
//!
//! ```text
//! header   news · writer · poison · share 0 … share 60
//! writer   0: none, 1: a writer holds the gate and waits for readers, 2: it writes
//! poison   as beside a plain lock
//! share    as a unit of `permits`: number and birth of the reader's process, or free
//! ```
//!
//! # Steps
//! | step | change | by |
//! | --- | --- | --- |
//! | read | 1. acquire the gate; 2. a share: free → me; 3. release the gate | a reader |
//! | release a share | the share → free; tell, and wake all if a waiter asked | its reader, without the gate |
//! | write | 1. acquire the gate; 2. writer → 1; 3. wait until all shares are free; 4. writer → 2 | a writer |
//! | release | writer → 0; release the gate | the writer |
//! | clear | the share of a dead reader → free | a writer that waits, at the end of its slices; a reader that finds no free share |
//!
//! Readers acquire the gate for a moment and writers keep it, so writers exclude each other, and a writer that waits
//! for readers blocks new readers. A writer checks a share by a load that acquires, so a writer sees everything that
//! the readers did.
//!
//! # Order
//! A writer waits for the readers that had a share when it acquired the gate, and for no later reader: readers do not
//! starve writers. The gate is a plain [`Lock`], and the kernel decides which of its waiters acquires it next; a
//! process that arrives when it is free may be faster. There is no queue in the order of arrival.
//!
//! # What a death leaves
//! | killed | leaves | and then |
//! | --- | --- | --- |
//! | between a reader's steps 1 and 3 | the gate, perhaps a share | the gate is taken over, without poison; the share is cleared |
//! | reading | its share | the next writer clears it |
//! | releasing a share, before it has woken a waiter | a free share, a writer asleep | the writer's slice ends |
//! | waiting for readers | the gate and a 1 | the gate is taken over, without poison |
//! | writing | the gate and a 2 | the gate is taken over, and the lock is poisoned |
//! | having written | the gate and a 0 | the gate is taken over, without poison |
//!
//! The gate's own poison is cleared by each process that takes the gate over: the lock's is a word of its own.
#![allow(unsafe_code)]

use super::arena::{CELL, CellRef};
use super::guarded_region::{Access, GuardedRegion};
use super::lock::{Lock, Poison};
use super::word::{NewsWord, UnitWord};
use super::{Outcome, Released};
use crate::error::{Error, Result};
use crate::wait::word::{self as wait, Nap, WordWait};
use crate::wait::{Interrupt, Until};
use maniple_sys::{OwnedHandle, clock};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes before the value.
const HEADER: usize = 8 * CELL;
const WORDS: usize = HEADER / size_of::<u64>();
const NEWS: usize = 0;
const WRITER: usize = 1;
const POISON: usize = 2;
const SHARES: usize = 3;
/// How many can read at a time.
pub const MOST_READERS: u32 = (WORDS - SHARES) as u32;

const WAITS: u64 = 1;
const WRITES: u64 = 2;

/// Nanoseconds between two looks at readers by writers that do not sleep.
const LOOK_EVERY: u64 = 100_000_000;
/// How long an attempt that does not wait lets readers pass through the gate: they hold it for moments.
const GRACE: Duration = Duration::from_secs(1);
/// How long such an attempt sleeps at a time.
const MOMENT: Duration = Duration::from_millis(2);

/// How an attempt to read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The share of this number is ours.
    Share(u32),
    /// The time was up.
    TimedOut,
    /// The interrupt hook broke the wait off.
    Interrupted,
}

/// Shared bytes, and a lock for readers and writers.
#[derive(Debug)]
pub struct RwLock {
    region: GuardedRegion,
    // Where this process looks for a free share first.
    hint: AtomicU32,
    // When a writer that does not sleep looks at the readers next.
    next_look: AtomicU64,
}

impl RwLock {
    fn over(region: GuardedRegion) -> RwLock {
        RwLock { region, hint: AtomicU32::new(0), next_look: AtomicU64::new(0) }
    }

    /// A free lock, with so many zeroed bytes.
    ///
    /// # Errors
    /// No shared memory, no descriptor left.
    pub fn create(len: usize) -> Result<RwLock> {
        let too_long = Error::Lock("a shared value of so many bytes does not fit into memory");
        GuardedRegion::create(len.checked_add(HEADER).ok_or(too_long)?, Access::Shared).map(RwLock::over)
    }

    /// Opens a lock that another process made. `apart` is the handle that was sent with it, if it has separate memory.
    ///
    /// # Errors
    /// The ticket is for something else, or the memory of another size.
    pub fn open(ticket: CellRef, apart: Option<OwnedHandle>) -> Result<RwLock> {
        let region = GuardedRegion::open(ticket, apart, Access::Shared)?;
        if region.len() < HEADER {
            return Err(Error::Lock("the shared value that was sent has no room for its readers"));
        }
        Ok(RwLock::over(region))
    }

    /// Where all of it lies.
    pub fn region(&self) -> &GuardedRegion {
        &self.region
    }

    /// The value's first byte, at a multiple of [`ALIGNMENT`](super::guarded_region::ALIGNMENT). The bytes stay as long as this lock.
    #[inline]
    pub fn start(&self) -> NonNull<u8> {
        // SAFETY: the room has the header, and more behind it or its end.
        unsafe { self.region.start().add(HEADER) }
    }

    /// Bytes of the value.
    pub fn len(&self) -> usize {
        self.region.len() - HEADER
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    fn gate(&self) -> &Lock {
        self.region.lock()
    }

    #[inline]
    fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: the room begins with the header, aligned to 64 bytes, stays as long as `self`, and every process accesses the
        // header by these words only (`create` and `open` ensure that the room is of this kind).
        unsafe { self.region.start().cast().as_ref() }
    }

    fn share(&self, number: u32) -> &UnitWord {
        UnitWord::of(&self.words()[SHARES + number as usize])
    }

    fn shares(&self) -> impl Iterator<Item = &UnitWord> {
        (0..MOST_READERS).map(|number| self.share(number))
    }

    fn news(&self) -> &NewsWord {
        NewsWord::of(&self.words()[NEWS])
    }

    // Relaxed throughout: the gate, which is held by each process that writes it, orders it. A reader that does not wait reads it without
    // the gate, and only to find out whether it is worth another attempt.
    fn writer(&self) -> &AtomicU64 {
        &self.words()[WRITER]
    }

    /// How many read now.
    pub fn readers(&self) -> u32 {
        self.shares().filter(|share| share.holder().is_some()).count() as u32
    }

    /// Whether a writer has it.
    pub fn is_written(&self) -> bool {
        self.writer().load(Ordering::Relaxed) == WRITES
    }

    /// Whether this process writes.
    pub fn is_written_here(&self) -> bool {
        self.gate().is_held_here() && self.is_written()
    }

    /// Acquires the gate, and corrects the state that a dead holder has left.
    fn enter(&self, limit: Until, interrupt: Interrupt<'_>) -> Outcome {
        let outcome = self.gate().acquire(limit, interrupt);
        if outcome == Outcome::TakenOver {
            self.settle();
            return Outcome::Taken;
        }
        outcome
    }

    /// Poisons the lock if the dead holder of the gate wrote. With the gate.
    fn settle(&self) {
        if self.is_written() {
            // Before the writer's word: a process that dies between the two leaves it to the next to do this again.
            self.poison_word()
                .store(self.gate().poison().unwrap_or(Poison { pid: 0, died: true }).bits(), Ordering::Relaxed);
        }
        self.writer().store(0, Ordering::Relaxed);
        self.gate().clear_poison();
    }

    /// Acquires the gate without waiting for a writer.
    fn enter_now(&self) -> bool {
        let over = clock::now() + GRACE.as_nanos() as u64;
        loop {
            // Looks at the holder, too, at times.
            if self.enter(Until::Now, &mut || true).is_ours() {
                return true;
            }
            if self.writer().load(Ordering::Relaxed) != 0 || clock::now() >= over {
                return false;
            }
            if self.enter(Until::after(MOMENT), &mut || true).is_ours() {
                return true;
            }
        }
    }

    /// Takes a share. With the gate.
    fn take_share(&self) -> Option<u32> {
        let (me, hint) = (self.region.place().me(), self.hint.load(Ordering::Relaxed));
        let found =
            (0..MOST_READERS).map(|step| (hint + step) % MOST_READERS).find(|&number| self.share(number).take(me));
        if let Some(number) = found {
            self.hint.store(number, Ordering::Relaxed);
        }
        found
    }

    /// Whether there is no reader.
    fn is_clear(&self) -> bool {
        self.shares().all(UnitWord::is_free)
    }

    /// Frees the shares of dead readers. With the gate.
    fn clear_the_dead(&self) {
        let place = self.region.place();
        let mut living = place.me();
        for share in self.shares() {
            let Some(holder) = share.holder().filter(|&holder| holder != living) else { continue };
            if place.is_gone(holder) {
                share.give(holder);
            } else {
                living = holder;
            }
        }
    }

    /// Acquires a share, and waits while there is a writer.
    pub fn read(&self, limit: Until, interrupt: Interrupt<'_>) -> Admitted {
        loop {
            let entered = match limit {
                Until::Now if self.enter_now() => Outcome::Taken,
                Until::Now => Outcome::TimedOut,
                _ => self.enter(limit, &mut *interrupt),
            };
            match entered {
                Outcome::Taken | Outcome::TakenOver => {}
                Outcome::TimedOut => return Admitted::TimedOut,
                Outcome::Interrupted => return Admitted::Interrupted,
            }
            let mut seen = 0;
            let share = self.take_share().or_else(|| {
                self.clear_the_dead();
                seen = self.news().ask();
                self.take_share()
            });
            self.gate().release();
            if let Some(share) = share {
                return Admitted::Share(share);
            }
            if limit == Until::Now {
                return Admitted::TimedOut;
            }
            match WordWait::new(limit, &mut *interrupt).nap(self.news().raw(), seen) {
                Nap::Look | Nap::Slice => {}
                Nap::TimedOut => return Admitted::TimedOut,
                Nap::Interrupted => return Admitted::Interrupted,
            }
        }
    }

    /// Releases the share of this number, which this process holds.
    pub fn give_back(&self, share: u32) -> Released {
        if !self.share(share).give(self.region.place().me()) {
            return Released::NotOwner;
        }
        if self.news().tell() {
            wait::wake_low(self.news().raw(), u32::MAX >> 1);
        }
        Released::Done
    }

    /// Acquires the lock for writing, and waits for readers and other writers.
    pub fn write(&self, limit: Until, interrupt: Interrupt<'_>) -> Outcome {
        let entered = match limit {
            Until::Now => self.enter(Until::Now, &mut *interrupt),
            _ => self.enter(limit, &mut *interrupt),
        };
        if !entered.is_ours() {
            return entered;
        }
        self.writer().store(WAITS, Ordering::Relaxed);
        let outcome = match limit {
            Until::Now => self.is_clear_now(),
            _ => self.until_clear(WordWait::new(limit, interrupt)),
        };
        if outcome.is_ours() {
            self.writer().store(WRITES, Ordering::Relaxed);
        } else {
            self.leave();
        }
        outcome
    }

    /// Waits until there is no reader. The caller holds the gate.
    fn until_clear(&self, mut waiting: WordWait<'_>) -> Outcome {
        loop {
            if self.is_clear() {
                return Outcome::Taken;
            }
            let seen = self.news().ask();
            if self.is_clear() {
                return Outcome::Taken;
            }
            match waiting.nap(self.news().raw(), seen) {
                Nap::Look => {}
                Nap::Slice => self.clear_the_dead(),
                Nap::TimedOut => return self.is_clear_now(),
                Nap::Interrupted => return Outcome::Interrupted,
            }
        }
    }

    /// For callers that do not sleep: whether there is no reader. Checks the readers if it is time to. The caller holds the gate.
    fn is_clear_now(&self) -> Outcome {
        let clear = self.is_clear() || {
            let (now, next) = (clock::now(), self.next_look.load(Ordering::Relaxed));
            if now >= next {
                self.next_look.store(now + LOOK_EVERY, Ordering::Relaxed);
            }
            // The first of many attempts only sets the time.
            next != 0 && now >= next && {
                self.clear_the_dead();
                self.is_clear()
            }
        };
        if clear { Outcome::Taken } else { Outcome::TimedOut }
    }

    fn leave(&self) {
        self.writer().store(0, Ordering::Relaxed);
        self.gate().release();
    }

    /// Ends writing.
    pub fn release(&self) -> Released {
        if !self.is_written_here() {
            return Released::NotOwner;
        }
        self.leave();
        Released::Done
    }

    fn poison_word(&self) -> &AtomicU64 {
        &self.words()[POISON]
    }

    /// Whether it is poisoned, and by which process. For a process that reads or writes.
    #[inline]
    pub fn poison(&self) -> Option<Poison> {
        Poison::from_bits(self.poison_word().load(Ordering::Relaxed))
    }

    /// Poisons it in the name of this process, which writes.
    pub fn set_poison(&self) {
        let poison = Poison { pid: self.region.place().me().pid(), died: false };
        self.poison_word().store(poison.bits(), Ordering::Relaxed);
    }

    /// Takes the poison away.
    pub fn clear_poison(&self) {
        self.poison_word().store(0, Ordering::Relaxed);
    }
}
