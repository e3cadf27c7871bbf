//! Linux in the place of macOS, for tests of what both have (`--cfg maniple_posix`). No program uses it.
#![allow(unsafe_code)]

pub mod deaths;
#[path = "../../../linux/process/image.rs"]
pub mod image;
pub mod objects;
pub mod processes;
pub mod sockets;

/// Sleeps on a word.
pub mod word {
    use crate::terms::Woken;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    /// Returns `None`: there is no such call.
    pub fn wait(_word: &AtomicU32, _expected: u32, _timeout: Option<Duration>) -> Option<Woken> {
        None
    }

    /// Returns `None`: there is no such call.
    pub fn wake(_word: &AtomicU32, _count: u32) -> Option<usize> {
        None
    }
}

/// Returns monotonic nanoseconds.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
