//! The pickles of messages.
//!
//! This module pickles and unpickles plain values ([`walk`](crate::walk)) in exactly pickle's format, since either end
//! may be another program. It leaves all other values to `pickle`, before it has changed anything.
//!
//! `write` writes protocol 4, with a memo. `read` reads the same, and the pickles that CPython's pickler writes for
//! such values (protocols 4 and 5, frames, memo).

mod op;
mod read;
mod write;

pub use read::load;
pub use write::{dump, dump_tuple};

/// Longer pickles are left to pickle, and the bytes that were written are discarded.
const SHORT: usize = 1 << 20;
/// The bytes of an array travel apart from the pickle only if they are at least this many.
pub const LEAST_APART: usize = 16 * 1024;
