//! This package's internal threads.

use super::system::processes::{is_thread, own_thread};

pub use crate::unix::threads::spawn;

/// The system's number of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(u64);

impl Number {
    /// Returns the number of the calling thread.
    pub fn own() -> Number {
        Number(own_thread())
    }

    /// Returns whether the system still counts the thread.
    pub fn is_there(self) -> bool {
        is_thread(self.0)
    }
}
