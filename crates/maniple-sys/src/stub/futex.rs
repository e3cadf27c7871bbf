//! Sleeps on a word in shared memory by reading it every millisecond.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use crate::terms::Woken;

/// Reads the word every millisecond until it no longer holds `expected`.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Woken {
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    while word.load(Ordering::SeqCst) == expected {
        if deadline.is_some_and(|d| Instant::now() >= d) {
            return Woken::TimedOut;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Woken::Rung
}

/// Returns 0: [`wait`] needs no wake.
pub fn wake(_word: &AtomicU32, _count: u32) -> usize {
    0
}
