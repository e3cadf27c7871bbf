//! How often this process has forked, and whether it is itself the child of a fork.
//!
//! Memory that is shared with another process and handed back for reuse when its last user is gone has one more user after a
//! fork: the child, which reports nothing. Code that hands memory back compares epochs first.

use super::atfork::Handlers;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::terms::Since;

/// A moment in a process's life: between which of its forks it lies.
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

/// Begins to count. Call it before the first epoch is taken.
///
/// # Errors
/// When the operating system cannot take the fork handlers (out of memory).
pub fn count_forks() -> io::Result<()> {
    static HANDLERS: Handlers = Handlers::new(before, parent, child);
    HANDLERS.register()
}

impl Epoch {
    /// The present one.
    #[inline]
    pub fn now() -> Epoch {
        Epoch(NOW.load(Ordering::SeqCst))
    }

    /// What has happened since.
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
