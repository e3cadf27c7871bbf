//! Whether any process sleeps until there is news, and how often there was news.
//!
//! ```text
//!   63 ─── 33         32       31 ─── 0
//!   its owner's own   asked    number of the news
//! ```
//!
//! It serves searches in other words: for a free unit, a free place. A thread that finds none *asks*, checks those
//! words once more, and sleeps while the number is what it was at asking. A thread that has freed a unit or place
//! *tells*: if another asked, it removes the question, increments the number, and wakes all.
//!
//! No thread misses news: asking and telling are exchanges of this one word, and each acquires and releases, so one is
//! after the other. If asking is second, the check that follows finds what was freed before the telling. If telling is
//! second, it finds the question. A thread that asks between a teller's two steps, and is not woken, has already found
//! the freed unit or place.

use crate::shm::atomic::{AtomicU64, Ordering};

const ASKED: u64 = 1 << 32;
const LOW: u64 = u32::MAX as u64;

/// The word.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct NewsWord(pub(super) AtomicU64);

impl NewsWord {
    /// Asks for news. Returns the number to sleep on, after one more check.
    pub fn ask(&self) -> u32 {
        // Partner, both ways: `tell`.
        self.0.fetch_or(ASKED, Ordering::AcqRel) as u32
    }

    /// Announces that a unit or place was freed. Returns whether a thread asked: then all have to be woken.
    pub fn tell(&self) -> bool {
        // Partner, both ways: `ask`.
        let asked = self.0.fetch_and(!ASKED, Ordering::AcqRel) & ASKED != 0;
        if asked {
            self.renew(|word| word);
        }
        asked
    }

    /// Changes the owner's data in the upper part of the word, and increments the number.
    pub fn renew(&self, change: impl Fn(u64) -> u64) {
        // Release: partner is the Acquire in `look`.
        let next = |now: u64| Some(change(now) & !LOW | u64::from((now as u32).wrapping_add(1)));
        let _ = self.0.fetch_update(Ordering::Release, Ordering::Relaxed, next);
    }

    /// The number now. What was written before it was raised to that is seen from here on.
    pub fn look(&self) -> u32 {
        self.0.load(Ordering::Acquire) as u32
    }
}
