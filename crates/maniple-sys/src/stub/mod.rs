//! A system that maniple does not run on yet. It compiles everywhere, so that the rest is type-checked for every target, and answers all that
//! could fail with [`unsupported`]. What no system can refuse (the clock, this process's number, memory of its own) works.
//!
//! A new backend begins as a copy of this, and is done when the conformance suite passes with it.

#[cfg(not(unix))]
pub mod atfork;
#[cfg(not(unix))]
pub mod epoch;
pub mod folder;
pub mod futex;
#[cfg(not(unix))]
pub(crate) mod handle;
pub mod holder;
pub mod memory;
pub mod mutex;
pub mod named;
#[cfg(not(unix))]
pub mod own;
pub mod plain;
pub mod process;
pub mod quiet;
pub mod ready;
pub mod socket;
pub mod standoff;
pub mod stream;
pub mod tap;
pub mod wire;

use crate::BorrowedHandle;
#[cfg(unix)]
pub use crate::unix::own;
use std::io;

/// What every call is answered with that could fail.
pub fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "maniple does not support this system yet")
}

/// Monotonic time.
pub mod clock {
    use std::sync::OnceLock;
    use std::time::Instant;

    /// Nanoseconds since this was first asked.
    pub fn now() -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Not supported.
pub fn aside<R: Send>(_keep: &[BorrowedHandle<'_>], _work: impl FnOnce() -> R + Send) -> io::Result<R> {
    Err(unsupported())
}

/// Nothing is known to run out.
pub fn is_shortage(_error: &io::Error) -> bool {
    false
}

/// None.
pub fn advice(_error: &io::Error) -> &'static str {
    ""
}

/// Processors, as far as the standard library knows.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// No limit is known.
pub fn most_handles() -> usize {
    usize::MAX
}

/// This process.
pub fn process_id() -> u32 {
    std::process::id()
}

/// Not known.
pub fn is_first_thread() -> bool {
    false
}
