//! Checks the positions in a log's head: a faulty process may have written them.

use crate::error::{Error, Result};

/// The greatest size of a message, or of a log: positions never come near the largest number.
const MOST: u64 = 1 << 62;

/// The positions, as the holder of a lock sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub base: u64,
    pub head: u64,
    pub tail: u64,
}

/// Checks that the content of a log of `len` bytes has room in it.
///
/// # Errors
/// They are out of order, or too large.
pub(super) fn in_order(Span { base, head, tail }: Span, len: u64) -> Result<()> {
    if base <= head && head <= tail && tail < MOST && tail - head <= len {
        Ok(())
    } else {
        Err(Error::Damaged("the positions in a queue are out of order"))
    }
}
