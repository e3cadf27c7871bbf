//! Blocks of other processes that this process has mapped, without a copy.
//!
//! The owner of a mapped block cannot use it again, and fresh memory costs the owner several times as much as a copy
//! costs here. So a process whose user drops received buffers maps blocks; a process whose user keeps many of them
//! copies the next buffers.

use maniple_sys::memory::Mapping;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The greatest number of mapped blocks, and of their bytes.
const MOST: usize = 16;
const MOST_BYTES: usize = 256 << 20;

static TALLY: Tally = Tally { blocks: AtomicUsize::new(0), bytes: AtomicUsize::new(0) };

/// The mapped blocks of this process.
#[derive(Debug)]
struct Tally {
    blocks: AtomicUsize,
    bytes: AtomicUsize,
}

impl Tally {
    fn add(&self, len: usize) {
        self.blocks.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(len, Ordering::Relaxed);
    }

    fn remove(&self, len: usize) {
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(len, Ordering::Relaxed);
    }

    fn has_room(&self, len: usize) -> bool {
        let (blocks, bytes) = (self.blocks.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        blocks == 0 || blocks < MOST && bytes.saturating_add(len) <= MOST_BYTES
    }
}

/// A mapping of another process's block.
#[derive(Debug)]
pub struct Seen(Mapping);

impl Seen {
    /// Whether another block of so many bytes may be mapped. The first always may, for any size.
    pub fn is_room(len: usize) -> bool {
        TALLY.has_room(len)
    }
}

impl From<Mapping> for Seen {
    fn from(mapping: Mapping) -> Seen {
        TALLY.add(mapping.len());
        Seen(mapping)
    }
}

impl Deref for Seen {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.0
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        TALLY.remove(self.0.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_looked_at_and_not_too_much() {
        let tally = Tally { blocks: AtomicUsize::new(0), bytes: AtomicUsize::new(0) };
        assert!(tally.has_room(10 * MOST_BYTES));
        (0..MOST).for_each(|_| tally.add(4096));
        assert!(!tally.has_room(1));
        tally.remove(4096);
        assert!(tally.has_room(4096) && !tally.has_room(MOST_BYTES));
    }
}
