//! Sleeping on a word in shared memory: by looking at it each millisecond.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use crate::terms::Woken;

/// Looks each millisecond until the word holds something else.
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

/// Does nothing: no thread sleeps.
pub fn wake(_word: &AtomicU32, _count: u32) -> usize {
    0
}
