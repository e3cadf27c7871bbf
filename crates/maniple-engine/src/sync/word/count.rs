//! A semaphore's value, and how many wait for it to rise.
//!
//! ```text
//!   63 ─── 32   31 ─── 0
//!   sleepers    value
//! ```
//!
//! A sleeper enters itself while the value is 0, by one exchange of both halves. It removes itself together with the
//! unit that it acquires, or when it gives up. A process that increments the value sees by its own exchange whether
//! another sleeps, and wakes one. Sleepers sleep while the value is 0. A killed sleeper stays entered: from then on
//! each release makes a system call that may be unnecessary.

use super::Given;
use crate::shm::atomic::{AtomicU64, Ordering};

const SLEEPER: u64 = 1 << 32;

/// The word.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct CountWord(pub(super) AtomicU64);

fn value(word: u64) -> u32 {
    word as u32
}

impl CountWord {
    /// Changes the word by `change` until it succeeds or `change` has nothing to do; the word as it was, and whether it was changed.
    #[inline]
    fn change(&self, order: Ordering, change: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        self.0.fetch_update(order, Ordering::Relaxed, change)
    }

    /// Sets the value, before any other process has the word.
    pub fn set(&self, value: u32) {
        self.0.store(value.into(), Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u32 {
        value(self.0.load(Ordering::Relaxed))
    }

    /// Takes a unit, if there is one.
    #[inline]
    pub fn take(&self) -> bool {
        // Acquire: partner is the Release in `give`. The same below.
        self.change(Ordering::Acquire, |now| (value(now) > 0).then(|| now - 1)).is_ok()
    }

    /// Enters a sleeper. `false`: there is a unit, so take it.
    pub fn enter(&self) -> bool {
        self.change(Ordering::Relaxed, |now| (value(now) == 0).then(|| now + SLEEPER)).is_ok()
    }

    /// Acquires a unit and removes an entered sleeper, if there is a unit.
    pub fn take_and_leave(&self) -> bool {
        let changed =
            |now: u64| (value(now) > 0).then(|| (now - 1).saturating_sub(SLEEPER).max(u64::from(value(now) - 1)));
        self.change(Ordering::Acquire, changed).is_ok()
    }

    /// Removes an entered sleeper, with a unit after all (`true`) or without.
    pub fn leave(&self) -> bool {
        let was = self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, |now| {
            let left = now.saturating_sub(SLEEPER).max(u64::from(value(now)));
            Some(if value(now) > 0 { left - 1 } else { left })
        });
        was.is_ok_and(|was| value(was) > 0)
    }

    /// Releases a unit, unless that would raise the value above `limit`.
    #[inline]
    pub fn give(&self, limit: u32) -> Given {
        // Release: partner is the Acquire in `take`.
        match self.change(Ordering::Release, |now| (value(now) < limit).then(|| now + 1)) {
            Err(_) => Given::Refused,
            Ok(was) if was < SLEEPER => Given::Quiet,
            Ok(_) => Given::Wake,
        }
    }
}
