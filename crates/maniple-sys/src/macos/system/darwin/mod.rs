//! macOS. Nothing here was run by the project: each file names the source of its facts. Paths of XNU are those of its
//! published source (xnu-11417, macOS 15; what is used is the same in xnu-7195, macOS 11).
#![allow(unsafe_code)]

pub mod deaths;
pub mod image;
pub mod objects;
pub mod processes;
pub mod sockets;
pub mod word;

/// Returns the nanoseconds that the machine has been awake: the clock of the standard library's `Instant`
/// (`clock_gettime(3)`).
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call fills in `time`, which outlives it; it fails only for clocks that do not exist.
    unsafe { libc::clock_gettime(libc::CLOCK_UPTIME_RAW, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
