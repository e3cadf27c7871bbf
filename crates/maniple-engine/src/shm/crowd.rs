//! How one of many sleepers is woken, at no cost while nobody sleeps.
//!
//! Two words: `asleep`, how many may be sleeping, and `bell`, on which they sleep.
//!
//! ```text
//!   sleeper                                   caller
//!   seen = bell; asleep += 1                  publish news
//!   fence(SeqCst)                             fence(SeqCst)
//!   look for news once more                   asleep = 0: nothing to do
//!   none: sleep while bell = seen             bell += 1; wake one
//!   asleep -= 1, unless it is 0               nobody was woken: asleep: what was read -> 0 by compare-exchange
//! ```
//!
//! The fences make it impossible that a sleeper misses the news *and* the caller misses the sleeper (Dekker's argument). Sleepers
//! that die leave `asleep` too high; the last step mends that. It forgets nobody: who was counted in what was read but did not
//! sleep has seen an older `bell`, will not sleep on it, and counts itself anew; who came since has changed `asleep`.
//!
//! A sleeper that is woken and dies before it acts has used up a call: sleep in slices.

use super::atomic::{AtomicU32, Ordering, fence};

/// The two words.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Crowd {
    bell: AtomicU32,
    asleep: AtomicU32,
}

impl Crowd {
    /// Announces sleep. The caller must look for news once more before it sleeps while the bell has the value that this gives, and
    /// [`leave`](Crowd::leave) afterwards.
    pub fn join(&self) -> u32 {
        let seen = self.bell.load(Ordering::Relaxed);
        self.asleep.fetch_add(1, Ordering::Relaxed);
        // Partner: the fence in `call`.
        fence(Ordering::SeqCst);
        seen
    }

    /// Announces being awake.
    pub fn leave(&self) {
        let _ = self.asleep.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    }

    /// After publishing news for one: wakes one, if any sleeps. `wake` wakes one sleeper of the bell and says how many there were.
    pub fn call(&self, wake: impl FnOnce(&AtomicU32) -> usize) {
        // Partner: the fence in `join`.
        fence(Ordering::SeqCst);
        let asleep = self.asleep.load(Ordering::Relaxed);
        if asleep > 0 {
            self.bell.fetch_add(1, Ordering::Relaxed);
            if wake(&self.bell) == 0 {
                let _ = self.asleep.compare_exchange(asleep, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// The word to sleep on.
    pub fn bell(&self) -> &AtomicU32 {
        &self.bell
    }
}
