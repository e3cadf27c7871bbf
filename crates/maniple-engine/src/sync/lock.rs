//! Mutual exclusion that survives its holder.
//!
//! [`Lock`] records which process holds it, but any process may release it, as with Python's `Lock`. [`RLock`] is a
//! `Lock` with an owner: one thread, which may acquire it several times, and which alone may release it.
//!
//! # Taking over
//! A waiter checks, at the end of each slice, whether the holder has ended, and if so takes over the lock. No other
//! process does: a lock without a waiter stays with its dead holder, because another process may be about to release
//! it, which a plain `Lock` allows. If that process releases it after the take-over, it releases the new holder's lock,
//! as any release by a process that does not hold the lock does. Repeated attempts without waiting also count as
//! waiting: at most every 100 ms such an attempt checks the holder.
//!
//! The new owner gets [`Outcome::TakenOver`], the cell counts the take-over, and the lock is *poisoned*: a word beside
//! it names the process that may have left a half-made change, until a process that has repaired it clears the word. A
//! front may also poison a lock. Only the holder of the lock writes the word; a process that dies between taking a lock
//! over and writing the word is a dead holder itself, and the next owner writes it.

use super::arena::{CellRef, Place};
use super::word::lock::Held;
use super::word::{Given, LockWord};
use super::{Outcome, Released, holder};
use crate::error::Result;
use crate::wait::word::{self as wait, Nap, WordWait};
use crate::wait::{Interrupt, Until};
use maniple_sys::clock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Why the data that a lock guards may be half changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poison {
    /// The process number of the holder that left it half changed.
    pub pid: u32,
    /// The holder died. Otherwise it lives, and a panic interrupted it.
    pub died: bool,
}

const DIED: u64 = 1 << 32;
const PANICKED: u64 = 2 << 32;

impl Poison {
    /// As it lies in a word; not 0.
    pub(super) fn bits(self) -> u64 {
        u64::from(self.pid) | if self.died { DIED } else { PANICKED }
    }

    /// The other half of [`Poison::bits`]; 0 is none.
    pub(super) fn from_bits(word: u64) -> Option<Poison> {
        (word != 0).then_some(Poison { pid: word as u32, died: word & DIED != 0 })
    }
}

const PLAIN: u32 = 2;
const OWNED: u32 = 3;
/// Nanoseconds between two checks of a holder by attempts that do not sleep.
const LOOK_EVERY: u64 = 100_000_000;

/// A lock that any process or thread may release.
#[derive(Debug)]
pub struct Lock {
    place: Place,
    // The time of the next check of the holder by an attempt that does not sleep.
    next_look: AtomicU64,
}

impl Lock {
    fn create(kind: u32) -> Result<Lock> {
        Place::create(kind).map(Lock::at)
    }

    /// The lock whose word is the first of this place.
    pub(super) fn at(place: Place) -> Lock {
        Lock { place, next_look: AtomicU64::new(0) }
    }

    /// A free one.
    ///
    /// # Errors
    /// No shared memory, no descriptor left.
    pub fn new() -> Result<Lock> {
        Lock::create(PLAIN)
    }

    /// Opens a lock that another process made.
    ///
    /// # Errors
    /// The ticket is for something else.
    pub fn open(ticket: CellRef) -> Result<Lock> {
        Place::open(ticket.arena, ticket.number, PLAIN).map(Lock::at)
    }

    /// Where it lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    #[inline]
    fn word(&self) -> &LockWord {
        LockWord::of(&self.place.word)
    }

    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        self.word().held().is_some()
    }

    /// Whether this process holds it.
    pub fn is_held_here(&self) -> bool {
        self.word().held().is_some_and(|held| held.holder() == self.place.me())
    }

    /// How often it was taken over from a dead holder.
    pub fn times_abandoned(&self) -> u32 {
        self.place.abandoned.load(Ordering::Relaxed)
    }

    /// Takes it if it is free.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        self.word().take(self.place.me()).is_ok()
    }

    /// Acquires the lock, and waits until it is free.
    pub fn acquire(&self, limit: Until, interrupt: Interrupt<'_>) -> Outcome {
        let (word, me) = (self.word(), self.place.me());
        let mut seen = match word.take(me) {
            Ok(()) => return Outcome::Taken,
            Err(held) => held,
        };
        if limit == Until::Now {
            return self.look(seen).unwrap_or(Outcome::TimedOut);
        }
        if spin(|| word.held().is_none() && word.take(me).is_ok()) {
            return Outcome::Taken;
        }
        let mut waiting = WordWait::new(limit, interrupt);
        loop {
            let given_up = match word.announce(seen) {
                None => None,
                Some(expected) => match waiting.nap(word.raw(), expected) {
                    Nap::Look => None,
                    Nap::Slice if self.place.is_gone(seen.holder()) && self.take_over(seen) => {
                        return Outcome::TakenOver;
                    }
                    Nap::Slice => None,
                    Nap::TimedOut => Some(Outcome::TimedOut),
                    Nap::Interrupted => Some(Outcome::Interrupted),
                },
            };
            if given_up == Some(Outcome::Interrupted) {
                self.leave();
                return Outcome::Interrupted;
            }
            match word.take_after_sleep(me) {
                Ok(()) => return Outcome::Taken,
                Err(held) => seen = held,
            }
            if let Some(why) = given_up {
                let taken = self.look(seen);
                if taken.is_none() {
                    self.leave();
                }
                return taken.unwrap_or(why);
            }
        }
    }

    /// On giving up: a wake-up that was meant for another sleeper, and that this thread may have got, must not be lost.
    fn leave(&self) {
        self.word().leave();
        if self.word().held().is_none() {
            wait::wake_low(self.word().raw(), 1);
        }
    }

    /// For attempts that do not sleep: takes over the lock if its holder has ended and a check is due.
    fn look(&self, seen: Held) -> Option<Outcome> {
        let now = clock::now();
        let next = self.next_look.load(Ordering::Relaxed);
        if now < next {
            return None;
        }
        self.next_look.store(now + LOOK_EVERY, Ordering::Relaxed);
        // The first of many attempts only sets the time.
        let due = next != 0 && self.place.is_gone(seen.holder()) && self.take_over(seen);
        due.then_some(Outcome::TakenOver)
    }

    fn take_over(&self, from: Held) -> bool {
        // If the exchange fails, the word has changed, and the wait continues.
        let marked = self.word().held().filter(|now| now.holder() == from.holder());
        let taken = marked.is_some_and(|now| self.word().take_over(now, self.place.me()).is_ok());
        if taken {
            self.place.abandoned.fetch_add(1, Ordering::Relaxed);
            self.poison_word().store(Poison { pid: from.holder().pid(), died: true }.bits(), Ordering::Relaxed);
        }
        taken
    }

    // Relaxed throughout: the lock itself, which the writer holds, orders it.
    #[inline]
    fn poison_word(&self) -> &AtomicU64 {
        &self.place.more[0]
    }

    /// Whether it is poisoned, and by which process. For the holder; other processes may get an old value.
    #[inline]
    pub fn poison(&self) -> Option<Poison> {
        Poison::from_bits(self.poison_word().load(Ordering::Relaxed))
    }

    /// Poisons the lock with the number of this living process, which holds the lock.
    pub fn set_poison(&self) {
        self.poison_word().store(Poison { pid: self.place.me().pid(), died: false }.bits(), Ordering::Relaxed);
    }

    /// Removes the poison.
    pub fn clear_poison(&self) {
        self.poison_word().store(0, Ordering::Relaxed);
    }

    /// Frees it, for any holder.
    #[inline]
    pub fn release(&self) -> Released {
        match self.word().free() {
            Given::Refused => return Released::TooOften,
            Given::Quiet => {}
            Given::Wake => wait::wake_low(self.word().raw(), 1),
        }
        Released::Done
    }
}

/// Spins for about the time of a short critical section: a sleep and a wake-up cost more.
fn spin(mut taken: impl FnMut() -> bool) -> bool {
    for _ in 0..SPINS {
        std::hint::spin_loop();
        if taken() {
            return true;
        }
    }
    false
}

const SPINS: u32 = 100;

/// A lock that its owner, one thread of one process, may acquire again, and that no other thread may release.
#[derive(Debug)]
pub struct RLock {
    lock: Lock,
    // Only the owner writes both, while it holds the lock, so a thread that finds itself in them is certainly the
    // owner.
    owner: AtomicUsize,
    depth: AtomicU32,
}

impl RLock {
    fn at(lock: Lock) -> RLock {
        RLock { lock, owner: AtomicUsize::new(0), depth: AtomicU32::new(0) }
    }

    /// A free one.
    ///
    /// # Errors
    /// No shared memory, no descriptor left.
    pub fn new() -> Result<RLock> {
        Lock::create(OWNED).map(RLock::at)
    }

    /// Opens a lock that another process made.
    ///
    /// # Errors
    /// The ticket is for something else.
    pub fn open(ticket: CellRef) -> Result<RLock> {
        Place::open(ticket.arena, ticket.number, OWNED).map(Lock::at).map(RLock::at)
    }

    /// The lock itself, without its owner.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// How often this thread holds it.
    #[inline]
    pub fn depth(&self) -> u32 {
        // A forked child inherits owner and depth, but the lock belongs to its parent.
        let mine = self.owner.load(Ordering::Relaxed) == holder::this_thread() && self.lock.is_held_here();
        if mine { self.depth.load(Ordering::Relaxed) } else { 0 }
    }

    /// Acquires the lock if it is free, or once more if this thread holds it.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        if self.again() {
            return true;
        }
        let taken = self.lock.try_acquire();
        if taken {
            self.begin(1);
        }
        taken
    }

    #[inline]
    fn again(&self) -> bool {
        let depth = self.depth();
        if depth > 0 {
            self.depth.store(depth + 1, Ordering::Relaxed);
        }
        depth > 0
    }

    #[inline]
    fn begin(&self, depth: u32) {
        self.depth.store(depth, Ordering::Relaxed);
        self.owner.store(holder::this_thread(), Ordering::Relaxed);
    }

    /// Takes it, waiting for it if need be.
    pub fn acquire(&self, limit: Until, interrupt: Interrupt<'_>) -> Outcome {
        if self.again() {
            return Outcome::Taken;
        }
        self.acquire_deep(1, limit, interrupt)
    }

    /// Acquires the lock, which this thread does not hold, `depth` times at once.
    pub fn acquire_deep(&self, depth: u32, limit: Until, interrupt: Interrupt<'_>) -> Outcome {
        let outcome = self.lock.acquire(limit, interrupt);
        if outcome.is_ours() {
            self.begin(depth);
        }
        outcome
    }

    /// Releases it once.
    #[inline]
    pub fn release(&self) -> Released {
        match self.depth() {
            0 => Released::NotOwner,
            1 => self.release_deep(),
            depth => {
                self.depth.store(depth - 1, Ordering::Relaxed);
                Released::Done
            }
        }
    }

    /// Releases the lock completely; this thread holds it.
    pub fn release_deep(&self) -> Released {
        self.owner.store(0, Ordering::Relaxed);
        self.depth.store(0, Ordering::Relaxed);
        self.lock.release()
    }
}
