//! Wakes one of many sleepers, at no cost while none sleeps.
//!
//! Two words: `bell`, on which they sleep, and `asleep`, which holds three numbers: how many may be sleeping (*count*), how often
//! one joined (*joins*), and how often the count was given up as wrong (*era*).
//!
//! ```text
//!   sleeper                                   caller
//!   seen = bell; joins, count += 1            publish news
//!   fence(SeqCst)                             fence(SeqCst)
//!   look for news once more                   count = 0: nothing to do
//!   none: sleep while bell = seen             bell += 1; wake one
//!   same era: count -= 1                      none was woken: what was read -> next era, count 0, by compare-exchange
//! ```
//!
//! The fences make it impossible that a sleeper misses the news *and* the caller misses the sleeper (Dekker's argument). Sleepers
//! that die leave the count too high; the last step mends that. It loses no sleeper: a sleeper that was counted in what was read but did not
//! sleep has seen an older `bell`, will not sleep on it, and counts itself anew; a sleeper that came since has changed *joins*. And a sleeper
//! whose count was dropped takes no other off the count, since it leaves in another era.
//!
//! A sleeper that is woken and dies before it acts has used up a wake-up. So sleepers sleep in slices.

use super::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The two words.
#[derive(Debug, Default)]
#[repr(C)]
pub struct WaitCount {
    bell: AtomicU32,
    asleep: AtomicU64,
}

/// One sleeper's place.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Sleep while the bell has this value.
    pub seen: u32,
    era: u64,
}

// `asleep`: count in the low 16 bits, era in the next 16, joins above.
const COUNT: u64 = 0xffff;
const ERA: u64 = 0xffff_0000;
const ONE_ERA: u64 = 1 << 16;
const ONE_JOIN: u64 = 1 << 32;

impl WaitCount {
    /// Announces sleep. The caller must check for news once more before it sleeps, and call [`leave`](WaitCount::leave)
    /// afterwards.
    pub fn join(&self) -> Seat {
        let seen = self.bell.load(Ordering::Relaxed);
        let era = self.asleep.fetch_add(ONE_JOIN + 1, Ordering::Relaxed) & ERA;
        // Partner: the fence in `call`.
        fence(Ordering::SeqCst);
        Seat { seen, era }
    }

    /// Announces being awake.
    pub fn leave(&self, seat: Seat) {
        let less = |n: u64| if n & ERA == seat.era && n & COUNT > 0 { Some(n - 1) } else { None };
        let _ = self.asleep.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// After publishing news for one sleeper: wakes a sleeper, if any sleeps. `wake` wakes one sleeper of the bell and
    /// returns how many there were.
    pub fn call(&self, wake: impl FnOnce(&AtomicU32) -> usize) {
        // Partner: the fence in `join`.
        fence(Ordering::SeqCst);
        let asleep = self.asleep.load(Ordering::Relaxed);
        if asleep & COUNT > 0 {
            self.bell.fetch_add(1, Ordering::Relaxed);
            if wake(&self.bell) == 0 {
                let next = asleep & !(ERA | COUNT) | (asleep & ERA).wrapping_add(ONE_ERA) & ERA;
                let _ = self.asleep.compare_exchange(asleep, next, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// The word to sleep on.
    pub fn bell(&self) -> &AtomicU32 {
        &self.bell
    }
}
