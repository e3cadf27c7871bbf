//! Sleeping on a word: with a deadline, a hook for interrupts, and a look at the world now and then.
//!
//! No sleep lasts longer than a *slice*: 10 ms at first, then doubling up to half a second. What slices are for stands in `mod.rs`:
//! wake-ups that died with somebody, holders that died, and signals that came just before the sleep began. A waiter thus costs at most
//! two wake-ups a second, some ten microseconds.
#![allow(unsafe_code)]

use maniple_sys::clock;
use maniple_sys::futex::{self, Woken};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

const FIRST_SLICE: Duration = Duration::from_millis(10);
const LONGEST_SLICE: Duration = Duration::from_millis(500);

/// The half of a word that sleepers sleep on.
fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let half = usize::from(cfg!(target_endian = "big"));
    // SAFETY: it lies within the word, aligned, and lives as long. In Rust nobody reads or writes it: only its address goes to the operating
    // system, which compares it, so there are no accesses of two sizes in the program.
    unsafe { &*std::ptr::from_ref(word).cast::<AtomicU32>().add(half) }
}

/// Wakes up to `count` of those who sleep on `word`.
pub fn wake(word: &AtomicU64, count: u32) {
    futex::wake(low_half(word), count);
}

/// Asked now and then while a wait lasts, and after each signal: `false` breaks the wait off.
pub type Interrupt<'a> = &'a mut dyn FnMut() -> bool;

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Not at all.
    Now,
    /// At most so long.
    For(Duration),
    /// Until it is over.
    Never,
}

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nap {
    /// The word may have changed.
    Look,
    /// A slice is over: look at the word, and whether whoever is waited for still lives.
    Slice,
    /// The time is up.
    TimedOut,
    /// The hook broke the wait off.
    Interrupted,
}

/// One wait, which may take several sleeps.
pub struct Patience<'a> {
    deadline: Option<u64>,
    slice: Duration,
    // When the present slice is over. Whatever ends a sleep early, signals above all, does not put that off.
    slice_end: Option<u64>,
    interrupt: Interrupt<'a>,
}

impl<'a> Patience<'a> {
    /// Begins to wait.
    pub fn new(limit: Limit, interrupt: Interrupt<'a>) -> Self {
        let deadline = match limit {
            Limit::Now => Some(0),
            Limit::For(time) => Some(clock::now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))),
            Limit::Never => None,
        };
        Patience { deadline, slice: FIRST_SLICE, slice_end: None, interrupt }
    }

    /// What is left of the time, but not less than `least`.
    pub fn left(&self, least: Duration) -> Limit {
        let left = |deadline: u64| Duration::from_nanos(deadline.saturating_sub(clock::now()));
        self.deadline.map_or(Limit::Never, |deadline| Limit::For(left(deadline).max(least)))
    }

    /// From now on there is no deadline.
    pub fn wait_on(&mut self) {
        self.deadline = None;
    }

    /// Sleeps while the low half of `word` is `expected`, a slice at most.
    pub fn nap(&mut self, word: &AtomicU64, expected: u32) -> Nap {
        let now = clock::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Nap::TimedOut;
        }
        let slice = self.slice;
        let slice_end = *self.slice_end.get_or_insert_with(|| now + slice.as_nanos() as u64);
        let until = self.deadline.map_or(slice_end, |deadline| deadline.min(slice_end));
        if until > now {
            let woken = futex::wait(low_half(word), expected, Some(Duration::from_nanos(until - now)));
            if woken == Woken::Rung {
                return Nap::Look;
            }
            if !(self.interrupt)() {
                return Nap::Interrupted;
            }
        }
        if clock::now() < slice_end {
            return Nap::Look;
        }
        self.slice = (slice * 2).min(LONGEST_SLICE);
        self.slice_end = None;
        Nap::Slice
    }
}

impl std::fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience").field("deadline", &self.deadline).field("slice", &self.slice).finish_non_exhaustive()
    }
}
