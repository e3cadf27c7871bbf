//! This package's internal threads.

use std::io;
use std::thread::{Builder, JoinHandle};

/// The system's number of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(());

impl Number {
    /// Returns the number of the calling thread.
    pub fn own() -> Number {
        Number(())
    }

    /// Returns false: the system does not count threads.
    pub fn is_there(self) -> bool {
        false
    }
}

/// Starts a thread that has a small stack.
///
/// # Errors
/// No memory, or no more threads.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(64 * 1024).spawn(run)
}
