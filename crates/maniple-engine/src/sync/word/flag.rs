//! A flag that is set or not, and whether any process waits for it.
//!
//! ```text
//!   63 ─── 33   32         31 ─── 1             0
//!   –           sleepers   how often it was set  set
//! ```
//!
//! Sleepers mark the word and sleep while its low half is what they saw. A process that sets the flag removes the mark
//! by the same exchange and wakes all. A flag that is set and cleared at once has another number, so sleepers detect
//! that it was set.

use super::Given;
use crate::shm::atomic::{AtomicU64, Ordering};

const SET: u64 = 1;
const ONCE: u64 = 2;
const LOW: u64 = u32::MAX as u64;
const SLEEPERS: u64 = 1 << 32;

/// The word.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct FlagWord(pub(super) AtomicU64);

impl FlagWord {
    /// Whether the flag is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        // Acquire: partner is the Release in `set`. The same below.
        self.0.load(Ordering::Acquire) & SET != 0
    }

    /// Sets the flag. `Wake` means all.
    pub fn set(&self) -> Given {
        let set = |now| (now & SET == 0).then(|| ((now + ONCE) & LOW) | SET);
        match self.0.fetch_update(Ordering::Release, Ordering::Relaxed, set) {
            Err(_) => Given::Refused,
            Ok(was) if was & SLEEPERS == 0 => Given::Quiet,
            Ok(_) => Given::Wake,
        }
    }

    /// Clears the flag.
    pub fn clear(&self) {
        self.0.fetch_and(!SET, Ordering::Relaxed);
    }

    /// What the flag is now, to compare with later; `None`: set.
    pub fn look(&self) -> Option<u32> {
        let now = self.0.load(Ordering::Acquire);
        (now & SET == 0).then_some(now as u32)
    }

    /// Marks that a thread is about to sleep on the state that it has seen. Returns `false` if the flag was set since
    /// then.
    pub fn enter(&self, seen: u32) -> bool {
        let mark = |now| (now as u32 == seen).then_some(now | SLEEPERS);
        self.0.fetch_update(Ordering::Acquire, Ordering::Acquire, mark).is_ok()
    }
}
