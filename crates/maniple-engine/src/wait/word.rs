//! Sleeping on a word that another thread or process changes.
//!
//! [`sleep`] and [`wake`] are the system's own. [`WordWait`] is a wait of several sleeps: with a deadline, a hook for
//! interrupts, and periodic checks. None of its sleeps lasts longer than a *slice*: 10 ms at first, then doubling up to
//! half a second. Slices compensate for lost wake-ups of dead processes, dead holders, and signals that arrived just
//! before the sleep began. A waiter thus costs at most two wake-ups a second, some ten microseconds.
#![allow(unsafe_code)]

use super::Until;
use maniple_sys::clock;
use maniple_sys::futex;
pub use maniple_sys::futex::Woken;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

const FIRST_SLICE: Duration = Duration::from_millis(10);
const LONGEST_SLICE: Duration = Duration::from_millis(500);

/// The half of a word that sleepers sleep on.
fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let half = usize::from(cfg!(target_endian = "big"));
    // SAFETY: it lies within the word, aligned, and lives as long. Rust code does not read or write it: only its address goes to the operating
    // system, which compares it, so there are no accesses of two sizes in the program.
    unsafe { &*std::ptr::from_ref(word).cast::<AtomicU32>().add(half) }
}

/// Sleeps while `word` is `expected`, for `limit` at most.
pub fn sleep(word: &AtomicU32, expected: u32, limit: Option<Duration>) -> Woken {
    futex::wait(word, expected, limit)
}

/// Wakes up to `count` threads that sleep on `word`, and returns how many there were.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    futex::wake(word, count)
}

/// Wakes up to `count` threads that sleep on the low half of `word`.
pub fn wake_low(word: &AtomicU64, count: u32) {
    wake(low_half(word), count);
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Called from time to time during a wait, and after each signal. If it returns `false`, the wait ends.
pub type Interrupt<'a> = &'a mut dyn FnMut() -> bool;

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nap {
    /// The word may have changed.
    Look,
    /// A slice has ended: check the word, and whether the holder still lives.
    Slice,
    /// The time is up.
    TimedOut,
    /// The hook ended the wait.
    Interrupted,
}

/// One wait, which may take several sleeps.
pub struct WordWait<'a> {
    deadline: Option<u64>,
    slice: Duration,
    // The end of the current slice. An early end of a sleep, for example by a signal, does not postpone it.
    slice_end: Option<u64>,
    interrupt: Interrupt<'a>,
}

impl<'a> WordWait<'a> {
    /// Begins to wait.
    pub fn new(limit: Until, interrupt: Interrupt<'a>) -> Self {
        let deadline = match limit {
            Until::Now => Some(0),
            Until::Then(_) => limit.left().map(|left| clock::now().saturating_add(nanos(left))),
            Until::Ever => None,
        };
        WordWait { deadline, slice: FIRST_SLICE, slice_end: None, interrupt }
    }

    /// What is left of the time, but not less than `least`.
    pub fn left(&self, least: Duration) -> Until {
        let left = |deadline: u64| Duration::from_nanos(deadline.saturating_sub(clock::now()));
        self.deadline.map_or(Until::Ever, |deadline| Until::after(left(deadline).max(least)))
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
            let woken = sleep(low_half(word), expected, Some(Duration::from_nanos(until - now)));
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

impl std::fmt::Debug for WordWait<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WordWait").field("deadline", &self.deadline).field("slice", &self.slice).finish_non_exhaustive()
    }
}
