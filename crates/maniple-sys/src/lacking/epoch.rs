//! A system without forks: it has one epoch.

use std::io;

pub use crate::terms::Since;

/// The only epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(());

/// Does nothing: no fork happens.
pub fn count_forks() -> io::Result<()> {
    Ok(())
}

impl Epoch {
    /// Returns the only epoch.
    pub fn now() -> Epoch {
        Epoch(())
    }

    /// Returns 0: no process was forked.
    pub fn generation(self) -> u32 {
        0
    }

    /// Returns that no fork has happened.
    pub fn since(self) -> Since {
        Since::Nothing
    }
}
