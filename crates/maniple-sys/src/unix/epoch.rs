//! Counts the forks of this process, and detects that it is itself a forked child.
//!
//! Shared memory is reused when its last user has reported that it is done. After a fork the memory has another user,
//! the child, which reports nothing. So code that returns memory for reuse compares epochs first.

use super::atfork::Handlers;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::terms::Since;

/// A moment in a process's life, between two of its forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

const GENERATION: u64 = 1 << 32;
static NOW: AtomicU64 = AtomicU64::new(0);

extern "C" fn before() {
    NOW.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn parent() {}

extern "C" fn child() {
    NOW.fetch_add(GENERATION, Ordering::SeqCst);
}

/// Begins to count. Call it before the first [`Epoch::now`].
///
/// # Errors
/// The system has no memory for the fork handlers.
pub fn count_forks() -> io::Result<()> {
    static HANDLERS: Handlers = Handlers::new(before, parent, child);
    HANDLERS.register()
}

impl Epoch {
    /// Returns the present epoch.
    #[inline]
    pub fn now() -> Epoch {
        Epoch(NOW.load(Ordering::SeqCst))
    }

    /// Returns the number of forks between the program's first process and this one, as far as they are counted.
    #[inline]
    pub fn generation(self) -> u32 {
        (self.0 / GENERATION) as u32
    }

    /// Returns the forks since this epoch.
    #[inline]
    pub fn since(self) -> Since {
        let now = NOW.load(Ordering::SeqCst);
        if now / GENERATION != self.0 / GENERATION {
            Since::Born
        } else if now != self.0 {
            Since::Forked
        } else {
            Since::Nothing
        }
    }
}
