//! The holder of a lock.
//!
//! ```text
//!   63 ─── 32   31          30 ─── 0
//!   born        contended   pid             all zero: free
//! ```
//!
//! | step | change | by |
//! | --- | --- | --- |
//! | take | free → me | anyone |
//! | take, having slept | free → me, contended: others may still sleep, and this thread used the wake-up for one of them | a sleeper |
//! | announce | held → held, contended | a thread that is about to sleep |
//! | free | anything → free; was contended: wake one | the holder (or, for a lock without owner, anyone) |
//! | take over | that very holder → me, contended | a waiter that has found that the holder has ended |
//!
//! A sleeper sleeps while the low half is *pid, contended*. A sleeper that gives up announces once more, because it may
//! have used a wake-up, and the next holder may have acquired the lock without the mark.
//!
//! Taking over compares the whole word: if the dead holder's lock was released meanwhile (a plain lock may be, by anyone) and taken by
//! another process, or taken over by another waiter, the exchange fails.

use super::Given;
use crate::shm::atomic::{AtomicU64, Ordering};

const CONTENDED: u64 = 1 << 31;

/// A process, as the word names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(u64);

impl Holder {
    /// Process `pid` (not 0, below 2³¹), which began at `born`.
    pub fn new(pid: u32, born: u32) -> Holder {
        Holder(u64::from(born) << 32 | (u64::from(pid) & (CONTENDED - 1)))
    }

    /// Its number.
    pub fn pid(self) -> u32 {
        self.0 as u32
    }

    /// When it began.
    pub fn born(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// As one number, not 0.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The other half of [`Holder::bits`].
    pub fn from_bits(bits: u64) -> Holder {
        Holder(bits)
    }
}

/// A word that another holder held at the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held(u64);

impl Held {
    /// By whom.
    pub fn holder(self) -> Holder {
        Holder(self.0 & !CONTENDED)
    }
}

/// The word.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct LockWord(pub(super) AtomicU64);

impl LockWord {
    /// Takes the lock if it is free.
    #[inline]
    pub fn take(&self, me: Holder) -> Result<(), Held> {
        self.exchange(0, me.0)
    }

    /// As [`LockWord::take`], for a thread that has slept.
    pub fn take_after_sleep(&self, me: Holder) -> Result<(), Held> {
        self.exchange(0, me.0 | CONTENDED)
    }

    /// Takes the lock from a holder that has ended.
    pub fn take_over(&self, from: Held, me: Holder) -> Result<(), Held> {
        self.exchange(from.0, me.0 | CONTENDED)
    }

    #[inline]
    fn exchange(&self, from: u64, to: u64) -> Result<(), Held> {
        // Acquire: partner is the Release in `free`. (What a dead holder wrote is seen because its end was.)
        match self.0.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(now) => Err(Held(now)),
        }
    }

    /// Announces that a thread is about to sleep: the low half to sleep on. `None`: the word has changed, so check
    /// again.
    pub fn announce(&self, seen: Held) -> Option<u32> {
        let marked = seen.0 | CONTENDED;
        if seen.0 == 0 {
            return None;
        }
        if marked != seen.0 {
            // Relaxed: it publishes nothing; the process that frees the word reads it by the same exchange that frees
            // it.
            self.0.compare_exchange(seen.0, marked, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        }
        Some(marked as u32)
    }

    /// Announces, on giving up, that others may sleep.
    pub fn leave(&self) {
        while let Some(held) = self.held() {
            if self.announce(held).is_some() {
                return;
            }
        }
    }

    /// Frees the lock, for any holder.
    #[inline]
    pub fn free(&self) -> Given {
        // Release: partner is the Acquire in `exchange`.
        match self.0.swap(0, Ordering::Release) {
            0 => Given::Refused,
            was if was & CONTENDED == 0 => Given::Quiet,
            _ => Given::Wake,
        }
    }

    /// What is held, if it is.
    pub fn held(&self) -> Option<Held> {
        let now = self.0.load(Ordering::Relaxed);
        (now != 0).then_some(Held(now))
    }
}
