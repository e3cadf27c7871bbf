//! Sleeps on a word in shared memory. It uses the shared form of the futex: the private form, which most libraries
//! hard-code, never wakes another process.
#![allow(unsafe_code)]

use rustix::thread::futex::{self, Flags, Timespec};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

pub use crate::terms::Woken;

/// Sleeps while `word` holds `expected`, at most for `timeout`.
#[inline]
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Woken {
    let limit = timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) });
    match futex::wait(word, Flags::empty(), expected, limit.as_ref()) {
        Ok(()) => Woken::Rung,
        Err(rustix::io::Errno::TIMEDOUT) => Woken::TimedOut,
        Err(rustix::io::Errno::INTR) => Woken::Signal,
        Err(_) => Woken::Rung,
    }
}

/// Wakes up to `count` sleepers of `word`, in any process, and returns their number.
#[inline]
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    futex::wake(word, Flags::empty(), count).unwrap_or(0)
}
