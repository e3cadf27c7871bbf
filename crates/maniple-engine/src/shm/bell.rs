//! The bell, which wakes a sleeping side and costs nothing while that side is awake.
//!
//! One word. 0: the side is awake. Any other value: it sleeps (or is about to), and the value, its *level*, says which
//! events have to wake it and where it sleeps. The users of the bell define the levels.
//!
//! ```text
//!   sleeper                               ringer
//!   arm: word = level                     publish news
//!   fence(SeqCst)                         fence(SeqCst)
//!   look for news once more               level = word; 0: nothing to do
//!   none: sleep while word == level       not wanted at this level: nothing to do
//!   disarm: word = 0                      word: level -> 0 by compare-exchange; won: wake the sleeper
//! ```
//!
//! The fences make it impossible that the sleeper misses the news *and* the ringer misses the level (Dekker's
//! argument). Only the ringer that wins the compare-exchange makes the system call, so a burst of news costs one. If a
//! ringer dies between publishing and ringing, the sleeper sleeps although there is news: a hub detects the death in
//! another way and reads the ring; a worker dies with its hub.

use super::atomic::{AtomicU32, Ordering, fence};

/// The word with the sleeper's level.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Bell(AtomicU32);

/// The level of a side that is awake.
pub const AWAKE: u32 = 0;

impl Bell {
    /// Announces sleep. The caller must check for news once more before it sleeps.
    pub fn arm(&self, level: u32) {
        self.0.store(level, Ordering::Relaxed);
        // Partner: the fence in `ring`. What was published before that fence is seen after this one, or the level is seen
        // there.
        fence(Ordering::SeqCst);
    }

    /// Announces being awake.
    pub fn disarm(&self) {
        self.0.store(AWAKE, Ordering::Relaxed);
    }

    /// The level at present.
    pub fn level(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// After publishing news: returns the level of a sleeper that the caller must now wake.
    pub fn ring(&self, wanted: impl FnOnce(u32) -> bool) -> Option<u32> {
        // Partner: the fence in `arm`.
        fence(Ordering::SeqCst);
        let level = self.0.load(Ordering::Relaxed);
        if level == AWAKE || !wanted(level) {
            return None;
        }
        self.0.compare_exchange(level, AWAKE, Ordering::Relaxed, Ordering::Relaxed).ok()
    }

    /// Sleeps while the level is `level`.
    #[cfg(not(loom))]
    pub fn sleep(&self, level: u32, timeout: Option<std::time::Duration>) -> crate::wait::word::Woken {
        crate::wait::word::sleep(&self.0, level, timeout)
    }

    /// Wakes the sleeper in [`Bell::sleep`].
    #[cfg(not(loom))]
    pub fn wake(&self) {
        crate::wait::word::wake(&self.0, 1);
    }
}
