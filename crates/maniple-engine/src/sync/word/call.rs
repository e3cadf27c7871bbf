//! A condition: how many waiters wait to be called, and how many calls are not yet answered.
//!
//! ```text
//!   63 ─── 48   47 ─── 32   31 ─── 0
//!   calls       waiting     number of the last notify
//! ```
//!
//! | step | change | by |
//! | --- | --- | --- |
//! | enter | waiting + 1; remember the number | a waiter, before it releases the lock |
//! | notify n | g = min(n, waiting): waiting − g, calls + g, number + 1; then wake g | the holder of the lock |
//! | answer | calls − 1, if there are any and the number is not the one at entering | a waiter, whenever it looks |
//! | leave | answer if possible, else waiting − 1 | a waiter whose time is up |
//!
//! Waiters sleep while the number is the one last seen. Each waiter that has entered is counted once, in *waiting* or
//! in *calls*, so exactly as many return as were called. Any of them may answer, except a waiter that entered after the
//! last notify.
//!
//! A waiter between entering and sleeping is not missed, since the number has changed by then. A waiter that was woken
//! and killed leaves its call to the next waiter that checks. A waiter that is killed while it waits stays in
//! *waiting*: a later notify of more than the living waiters may then leave a call over, and one later waiter returns
//! without a notification. That is the only trace of a death: a wake-up too many, which users of conditions have to
//! expect anyway, and never a wake-up too few. The notifier waits for no process.

use crate::shm::atomic::{AtomicU64, Ordering};

const WAITER: u64 = 1 << 32;
const CALL: u64 = 1 << 48;
/// How many can wait at a time.
pub const MOST: u64 = 0xffff;

/// The word.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct CallWord(pub(super) AtomicU64);

fn number(word: u64) -> u32 {
    word as u32
}

fn waiting(word: u64) -> u64 {
    word >> 32 & MOST
}

fn calls(word: u64) -> u64 {
    word >> 48
}

fn answered(word: u64, entered_at: u32) -> Option<u64> {
    (number(word) != entered_at && calls(word) > 0).then(|| word - CALL)
}

impl CallWord {
    // Acquire and Release on the changes would add nothing: waiters see through the lock what the notifier publishes.

    /// Enters a waiter, and returns the number of the last notify. `None`: too many wait.
    pub fn enter(&self) -> Option<u32> {
        let room = |now| (waiting(now) + calls(now) < MOST).then(|| now + WAITER);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok().map(number)
    }

    /// Answers a call, if there is one for a waiter that entered at that number; else the number to sleep on.
    pub fn answer(&self, entered_at: u32) -> Result<(), u32> {
        let answer = |now| answered(now, entered_at);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, answer).map(drop).map_err(number)
    }

    /// Removes a waiter, and returns whether it was called after all.
    pub fn leave(&self, entered_at: u32) -> bool {
        let leave = |now| Some(answered(now, entered_at).unwrap_or(if waiting(now) > 0 { now - WAITER } else { now }));
        let was = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, leave);
        was.is_ok_and(|was| answered(was, entered_at).is_some())
    }

    /// Calls at most `most` waiters. Returns how many were called and must now be woken.
    pub fn notify(&self, most: u32) -> u32 {
        let called = |now: u64| waiting(now).min(most.into());
        let call = |now: u64| {
            let called = called(now);
            let next = u64::from(number(now).wrapping_add(1));
            (called > 0).then(|| (now >> 32 << 32 | next) - called * WAITER + called * CALL)
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, call).map_or(0, |was| called(was) as u32)
    }

    /// How many wait and are not called; how many calls are not answered.
    pub fn counts(&self) -> (u32, u32) {
        let now = self.0.load(Ordering::Relaxed);
        (waiting(now) as u32, calls(now) as u32)
    }
}
