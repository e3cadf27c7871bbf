//! There are no forks.

use std::io;

pub use crate::terms::Since;

/// The only one there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(());

/// There is nothing to count.
pub fn count_forks() -> io::Result<()> {
    Ok(())
}

impl Epoch {
    /// The present one.
    pub fn now() -> Epoch {
        Epoch(())
    }

    /// Nothing has happened since.
    pub fn since(self) -> Since {
        Since::Nothing
    }
}
